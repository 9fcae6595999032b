"""Asks a model behind an API: repeats what may succeed later, and ends at once with what will not."""

from __future__ import annotations

import html
import json
import math
import os
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import quote

import httpx

from hone.config.secrets import contains_secret
from hone.display import has_secret, mask_secrets
from hone.errors import ConfigError, ServiceError
from hone.evaluation.rivals.completion import Completion
from hone.evaluation.rivals.wire import (
    APIS,
    RESERVED,
    Api,
    Call,
    Dialect,
    MalformedReply,
    adapt_dialect,
    build_address,
    build_body,
    build_headers,
    describe_error,
    is_content_filter,
    is_out_of_quota,
    parse_reply,
)

LONGEST_WAIT = 120.0  # seconds before one repetition; limits per minute are over by then
MAX_BYTES = 8 << 20  # of one reply; 128k tokens of English are 0.5 MiB
MAX_WORDS = 500  # characters of a server's own words
# Input tokens beyond the prompt's: the chat template, and a system message that a template or a server adds.
OVERHEAD_TOKENS = 256
_CONNECT_SECONDS = 20.0
_RETRIED = frozenset((408, 409, 429))
# The request may have been processed, and charged, by the time that these are sent.
_CHARGED_STATUS = frozenset((408, 504, 524))
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.WriteError)
_LOCAL = ("localhost", "127.0.0.1", "[::1]")


class Meter(Protocol):
    """Accounts for the requests of one prompt."""

    def admit(self) -> None:
        """Called before each request; raises to prevent it."""

    def charge(self) -> None:
        """Called after a request that may have been charged, but has no usable answer."""


@dataclass(frozen=True)
class Clock:
    """Time, replaced in tests: `now` is Unix time, `wait` returns early once its event is set."""

    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    wait: Callable[[threading.Event, float], object] = threading.Event.wait
    random: Callable[[], float] = random.random


@dataclass(frozen=True)
class Patience:
    """How long an engine tries: requests per prompt, and seconds without a byte and in all for one request."""

    attempts: int = 6
    stall_seconds: float = 180.0
    deadline_seconds: float = 600.0


@dataclass(frozen=True)
class _Fault:
    """A request without an answer that is worth a repetition."""

    kind: str
    detail: str = ""
    charged: bool = False
    wait: float | None = None  # seconds, as the server asks for


class ApiEngine:
    """A model behind an API; an Engine.

    The key is the value of the environment variable `key_variable`, '' for a server without keys. It is in the headers
    of requests and nowhere else. `parameters` are added to each request's body. `retries` counts the repeated requests
    by kind: a status, 'timeout', 'deadline', 'connection', 'malformed JSON', 'no choices'. Call `close` at the end, or
    use it in a `with` block.

    Raises ConfigError for a missing or unusable key and for values that cannot be sent.
    """

    def __init__(
        self,
        api: Api,
        url: str,
        model: str,
        *,
        max_tokens: int,
        key_variable: str = "",
        parallel: int = 4,
        parameters: Mapping[str, Any] | None = None,
        patience: Patience | None = None,
        environment: Mapping[str, str] = os.environ,
        clock: Clock | None = None,
    ) -> None:
        self._call = Call(api, url.rstrip("/"), model, max_tokens, dict(parameters or {}))
        _check_call(self._call)
        self._parallel = parallel
        self._key = _read_key(key_variable, environment)
        self._key_variable = key_variable
        self._patience, self._clock = patience or Patience(), clock or Clock()
        self._dialect = Dialect()
        self._address, self._headers = build_address(api, self._call.url), build_headers(api, self._key)
        self._certificates = httpx.create_ssl_context()
        self._lock = threading.Lock()
        self._lines: list[_Line] = []
        self._idle: list[_Line] = []
        self._stopped = threading.Event()
        self.retries: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"ApiEngine({self._call.api!r}, {self._call.url!r}, {self._call.model!r})"

    def __enter__(self) -> ApiEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides an answer but the prompt; never the key.

        The temperature is the one that is asked for, also where a model refuses to be given one.
        """
        call = self._call
        return {
            "kind": "api",
            "api": call.api,
            "url": call.url,
            "model": call.model,
            "max_tokens": call.max_tokens,
            "temperature": 0,
            "parameters": dict(call.parameters),
        }

    @property
    def parallel(self) -> int:
        """The number of prompts that may be asked at a time."""
        return self._parallel

    @property
    def temperature(self) -> int | None:
        """The temperature that requests have; None once the model has refused to be given one."""
        return 0 if self._dialect.temperature else None

    def fits(self, prompt: str) -> bool:
        """True: a prompt that is too long is for the provider to refuse."""
        return True

    def bound_tokens(self, prompt: str) -> tuple[int, int]:
        """Upper bounds of the input and output tokens of one request: no token has less than one byte."""
        return len(prompt.encode("utf8", "surrogatepass")) + OVERHEAD_TOKENS, self._call.max_tokens

    def ask(self, prompt: str, meter: Meter | None = None) -> Completion:
        """The answer to one prompt. Tokens that the server does not count are those of `bound_tokens`.

        Raises ConfigError for what no repetition changes, ServiceError if there is no answer after the last attempt,
        if the server asks to wait too long or after `stop`; and what `meter.admit` raises.
        """
        failures = requests = 0
        while True:
            if meter:
                meter.admit()
            dialect = self._dialect
            requests += 1
            outcome = self._request(prompt, dialect, meter)
            if isinstance(outcome, Completion):
                return replace(outcome, attempts=requests)
            if isinstance(outcome, Dialect):
                self._change_dialect(dialect, outcome)
                continue
            failures += 1
            if meter and outcome.charged:
                meter.charge()
            self._pause(outcome, failures)

    def stop(self) -> None:
        """End the requests in flight and refuse further ones, from any thread: each `ask` raises ServiceError."""
        self._stopped.set()
        with self._lock:
            lines = list(self._lines)
        for line in lines:
            line.cut()

    def close(self) -> None:
        """Close the connections. No `ask` may be running."""
        with self._lock:
            lines, self._lines, self._idle = self._lines, [], []
        for line in lines:
            line.client.close()

    def _request(self, prompt: str, dialect: Dialect, meter: Meter | None) -> Completion | Dialect | _Fault:
        """The outcome of one request. Raises ConfigError for what no repetition changes."""
        began = self._clock.monotonic()
        status, headers, body = 0, httpx.Headers(), b""
        with self._line() as line:
            fault: _Fault | None = None
            try:
                status, headers, body = line.post(self._address, build_body(self._call, dialect, prompt))
            except httpx.RequestError as error:
                fault = _describe_fault(error, self._mask(str(error)))
            if line.expired:  # whatever the cut connection looked like
                seconds = self._patience.deadline_seconds
                fault = _Fault("deadline", f"no whole answer within {seconds:,.0f} s", charged=True)
        if self._stopped.is_set() and fault:
            if meter and fault.charged:
                meter.charge()
            raise self._service_error("was stopped before the answer came")
        if fault:
            return fault
        if len(body) > MAX_BYTES:
            if meter:
                meter.charge()
            raise self._config_error(
                f"the reply has more than {MAX_BYTES:,} bytes", "Is this the URL of a model's API?"
            )
        if status == 200:
            return self._read_answer(prompt, body, self._clock.monotonic() - began)
        return self._read_error(prompt, dialect, status, headers, body, self._clock.monotonic() - began)

    def _read_answer(self, prompt: str, body: bytes, seconds: float) -> Completion | _Fault:
        try:
            reply = parse_reply(self._call.api, body)
        except MalformedReply as error:
            return _Fault(error.kind, self._mask(str(error)), charged=True)
        bounds = self.bound_tokens(prompt)
        inputs = bounds[0] if reply.input_tokens is None else reply.input_tokens
        outputs = bounds[1] if reply.output_tokens is None else reply.output_tokens
        return Completion(reply.text, reply.ended, inputs, outputs, seconds)

    def _read_error(
        self, prompt: str, dialect: Dialect, status: int, headers: httpx.Headers, body: bytes, seconds: float
    ) -> Completion | Dialect | _Fault:
        words = self._mask(describe_error(body))
        if 300 <= status < 400:
            target = self._mask(headers.get("location", "")) or "an unknown address"
            raise self._config_error(
                f"is redirected (status {status}) to {target}; rows are sent to no other address",
                "Set url to the address of the API itself.",
            )
        if status == 400 and is_content_filter(body):  # Azure charges for the prompt
            return Completion("", "refusal", self.bound_tokens(prompt)[0], 0, seconds)
        if status in (400, 422) and (adapted := adapt_dialect(dialect, body)):
            return adapted
        if (status in _RETRIED or status >= 500) and not (status == 429 and is_out_of_quota(body)):
            return _Fault(str(status), words, status in _CHARGED_STATUS, self._read_wait(headers))
        raise self._config_error(f"refuses the request (status {status}): {words or 'without a reason'}", _fix(status))

    def _change_dialect(self, used: Dialect, adapted: Dialect) -> None:
        """Use `adapted` from now on, unless another thread's request has changed the dialect meanwhile."""
        with self._lock:
            if self._dialect == used:
                self._dialect = adapted

    def _pause(self, fault: _Fault, failures: int) -> None:
        """Wait before the next attempt. Raises ServiceError if there is none."""
        detail = f": {fault.detail}" if fault.detail else ""
        if failures >= self._patience.attempts:
            raise self._service_error(f"no answer after {failures} attempts, the last with {fault.kind}{detail}")
        if fault.wait is not None and fault.wait > LONGEST_WAIT:
            raise self._service_error(
                f"asks to wait {fault.wait:,.0f} s (status {fault.kind}), more than {LONGEST_WAIT:,.0f} s{detail}"
            )
        with self._lock:
            self.retries[fault.kind] += 1
        backoff = min(LONGEST_WAIT, 2.0 ** (failures - 1)) * (0.5 + self._clock.random() / 2)
        self._clock.wait(self._stopped, fault.wait or backoff)
        if self._stopped.is_set():
            raise self._service_error("was stopped before the answer came")

    def _read_wait(self, headers: httpx.Headers) -> float | None:
        """The seconds that the server asks to wait; None if it does not, or not in a readable form."""
        for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
            with suppress(ValueError):
                seconds = float(headers.get(name, "")) * unit
                if math.isfinite(seconds):
                    return max(0.0, seconds)
        date = headers.get("retry-after", "")
        with suppress(ValueError, TypeError, OverflowError):
            moment = parsedate_to_datetime(date)  # HTTP dates are in GMT, whether or not they name it
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return max(0.0, moment.timestamp() - self._clock.now())
        return None

    @contextmanager
    def _line(self) -> Iterator[_Line]:
        """A connection that no other thread uses within the block."""
        with self._lock:
            line = self._idle.pop() if self._idle else None
            if line is None:
                line = _Line(self._headers, self._certificates, self._patience, self._stopped)
                self._lines.append(line)
        if self._stopped.is_set():
            raise self._service_error("was stopped before the answer came")
        try:
            yield line
        finally:
            with self._lock:
                self._idle.append(line)

    def _mask(self, text: str) -> str:
        """The text without the key and other secrets, and cut; in this order, or half a key would be left."""
        if self._key:
            for form in _list_forms(self._key):
                text = text.replace(form, "***")
        text = mask_secrets(text)
        return text if len(text) <= MAX_WORDS else f"{text[:MAX_WORDS]} ..."

    def _config_error(self, what: str, fix: str) -> ConfigError:
        return ConfigError(what, where=self._where, fix=fix.format(key=self._key_variable or "no key was sent"))

    def _service_error(self, what: str) -> ServiceError:
        return ServiceError(what, where=self._where, fix="Run again later.")

    @property
    def _where(self) -> str:
        return f"{self._call.model} at {self._call.url}"


class _Line:
    """A client with one connection, which another thread can cut."""

    def __init__(
        self, headers: Mapping[str, str], certificates: Any, patience: Patience, stopped: threading.Event
    ) -> None:
        timeout = httpx.Timeout(patience.stall_seconds, connect=min(_CONNECT_SECONDS, patience.stall_seconds))
        self.client = httpx.Client(
            headers=headers,
            timeout=timeout,
            verify=certificates,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=1),
            mounts={f"all://{host}": None for host in _LOCAL},  # never by a proxy
        )
        self.expired = False
        self._stopped = stopped
        self._deadline = patience.deadline_seconds
        self._socket: socket.socket | None = None

    def post(self, address: str, content: bytes) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and body, of which no more than MAX_BYTES and a chunk are read. Raises httpx.RequestError."""
        self.expired = False
        # Timeouts of httpx are those of single reads: a reply that drips would never end.
        timer = threading.Timer(self._deadline, self._expire)
        timer.start()
        try:
            extensions = {"trace": self._remember_socket}
            with self.client.stream("POST", address, content=content, extensions=extensions) as response:
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > MAX_BYTES:
                        break
                return response.status_code, response.headers, bytes(body)
        finally:
            timer.cancel()
            timer.join()

    def cut(self) -> None:
        """Shut the connection down: a thread that waits for it gets an error at once, which `close` would not do."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _expire(self) -> None:
        self.expired = True
        self.cut()

    def _remember_socket(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._socket = info["return_value"].get_extra_info("socket")
            if self.expired or self._stopped.is_set():  # there was nothing to cut yet
                self.cut()


def _list_forms(key: str) -> set[str]:
    """The key as it may be quoted: plain, in a URL, in JSON and in HTML."""
    in_json = json.dumps(key)[1:-1]
    return {key, quote(key, safe=""), quote(key), in_json, in_json.replace("/", "\\/"), html.escape(key)}


def _describe_fault(error: httpx.RequestError, detail: str) -> _Fault:
    kind = "malformed JSON" if isinstance(error, httpx.DecodingError) else "connection"
    kind = "timeout" if isinstance(error, httpx.TimeoutException) else kind
    detail = detail or type(error).__name__
    return _Fault(kind, detail, charged=not isinstance(error, (*_UNSENT, httpx.WriteTimeout)))


def _check_call(call: Call) -> None:
    """Raise ConfigError for values that cannot be sent."""
    if call.api not in APIS:
        raise ConfigError(f"unknown api {call.api!r}", fix=f"Use one of {', '.join(APIS)}.")
    if has_secret(call.url) or contains_secret(call.parameters):
        raise ConfigError(
            "the URL or a parameter contains a password or token",
            where=mask_secrets(call.url),
            fix="Put it into an environment variable and name that as the key's variable.",
        )
    if not re.match(r"https?://[^/\s]", call.url):
        raise ConfigError("is not an http or https URL", where=call.url, fix="Set url, such as https://HOST/v1.")
    if reserved := sorted(RESERVED & call.parameters.keys()):
        raise ConfigError(f"the parameters {', '.join(reserved)} are set by Hone", fix="Remove them.")
    if call.max_tokens < 1:
        raise ConfigError(f"max_tokens is {call.max_tokens}", fix="Set it to 1 or more.")


def _read_key(variable: str, environment: Mapping[str, str]) -> str:
    """The key; '' without a variable. Raises ConfigError, without the key, for one that is missing or unusable."""
    if not variable:
        return ""
    key = environment.get(variable, "").strip()
    if not key:
        raise ConfigError(f"the environment variable {variable} is not set", fix="Set it to the key of the API.")
    if not re.fullmatch(r"[\x21-\x7e]+", key):  # a header with it would fail with a message that quotes the key
        raise ConfigError(
            f"the value of the environment variable {variable} has characters that no key has",
            fix="Set it to the key alone, without quotes, spaces or line breaks.",
        )
    return key


def _fix(status: int) -> str:
    if status in (401, 403):
        return "Check the key and its rights: {key}."
    if status == 404:
        return "Check the names of the model and of the API, and its URL."
    return "Check the model, its limits and the parameters."
