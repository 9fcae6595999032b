"""A local receiver of notifications, as apprise writes to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.polling import until

TOKEN = "token-that-opens-the-channel"


@dataclass
class Receiver:
    """An HTTP server that keeps what it is sent."""

    url: str
    messages: list[dict[str, str]] = field(default_factory=list)

    def about(self, words: str) -> dict[str, str]:
        """The message that has `words` in its title, once it has come."""
        found: dict[str, str] = until(lambda: next((m for m in self.messages if words in m["title"]), None))
        return found


@contextmanager
def receive() -> Iterator[Receiver]:
    """A receiver of notifications, within the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path == f"/hook/{TOKEN}":
                found.messages.append(json.loads(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Receiver(f"json://127.0.0.1:{server.server_port}/hook/{TOKEN}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()
