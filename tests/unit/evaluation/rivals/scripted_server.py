"""A model API on this machine, which answers by a script and records what it is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal


@dataclass(frozen=True)
class Reply:
    """What the server sends for one request.

    fault   stall: nothing at all; drip: the body, then spaces without an end; drip_headers: headers without an end;
            cut: the connection ends before the body's length is reached; close: before any byte
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    fault: Literal["", "stall", "drip", "drip_headers", "cut", "close"] = ""


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def prompt(self) -> str:
        """The prompt in it."""
        prompt = self.body.get("prompt") or self.body["messages"][0]["content"]
        return str(prompt)


def json_reply(content: Any, status: int = 200, **headers: str) -> Reply:
    """JSON; the underscores in names of headers are dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(json.dumps(content).encode(), status, named)


def chat(text: str | None, reason: str = "stop", usage: tuple[int, int] | None = (10, 2), **message: Any) -> Reply:
    """An answer of the form openai."""
    content: dict[str, Any] = {
        "choices": [{"message": {"role": "assistant", "content": text, **message}, "finish_reason": reason}]
    }
    if usage:
        content["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return json_reply(content)


def message(text: str, reason: str = "end_turn", usage: tuple[int, int] = (10, 2)) -> Reply:
    """An answer of the form anthropic."""
    counts = {"input_tokens": usage[0], "output_tokens": usage[1]}
    return json_reply({"content": [{"type": "text", "text": text}], "stop_reason": reason, "usage": counts})


def error(words: str, status: int, code: str = "", **headers: str) -> Reply:
    """An error as OpenAI writes it."""
    return json_reply({"error": {"message": words, "code": code}}, status, **headers)


def echo(request: Request) -> Reply:
    """An answer that depends on the prompt alone."""
    return chat(f"answer to {request.prompt}")


@dataclass
class ScriptedServer:
    """Sends its `replies` in order, then what `answer` makes of each request."""

    url: str
    replies: list[Reply] = field(default_factory=list)
    answer: Callable[[Request], Reply] = echo
    requests: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)

    def reply_to(self, request: Request) -> Reply:
        """Record a request and choose its reply."""
        with self.lock:
            self.requests.append(request)
            if self.replies:
                return self.replies.pop(0)
        return self.answer(request)

    @property
    def prompts(self) -> list[str]:
        """The prompts of all requests, in the order in which they came."""
        return [request.prompt for request in self.requests]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: ScriptedServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.script.reply_to(Request(self.path, headers, body))
        with suppress(OSError):  # the client has gone
            self._send(reply)

    def do_GET(self) -> None:
        self.script.requests.append(Request(self.path, {}, {"prompt": "GET"}))
        self._send(Reply())

    def _send(self, reply: Reply) -> None:
        if reply.fault == "stall":
            self.script.closing.wait()
        self.close_connection = bool(reply.fault)
        if reply.fault in ("stall", "close"):
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.fault == "drip_headers":
            self.flush_headers()
            self._drip(b"x-more: 1\r\n")
        endless = {"drip": 1 << 20, "cut": 1}.get(reply.fault, 0)
        self.send_header("content-length", str(len(reply.body) + endless))
        self.end_headers()
        self.wfile.write(reply.body)
        if reply.fault == "drip":
            self._drip(b" ")

    def _drip(self, piece: bytes) -> None:
        while not self.script.closing.wait(0.02):
            self.wfile.write(piece)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serve_script(*replies: Reply, answer: Callable[[Request], Reply] = echo) -> Iterator[ScriptedServer]:
    """A server on a free port of the loopback interface, within the block."""
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    script = ScriptedServer(f"http://127.0.0.1:{server.server_port}/v1", list(replies), answer)
    handler.script = script  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield script
    finally:
        script.closing.set()
        server.shutdown()
        thread.join()
        server.socket.close()  # server_close would wait for connections that clients keep open
