from __future__ import annotations

import json
import logging
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from hone.errors import ConfigError, HoneError, ServiceError
from hone.evaluation.rivals.client import MAX_BYTES, ApiEngine, Clock, Patience
from hone.evaluation.rivals.wire import Api
from tests.unit.evaluation.rivals.scripted_server import (
    Reply,
    Request,
    ScriptedServer,
    chat,
    error,
    json_reply,
    message,
    serve_script,
)

KEY = "sk-secret/0123+456789"
NOW = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT


@dataclass
class Waits:
    """A clock that does not wait."""

    seconds: list[float] = field(default_factory=list)

    @property
    def clock(self) -> Clock:
        """Jitter is at its maximum."""
        return Clock(now=lambda: NOW, wait=lambda _, seconds: self.seconds.append(seconds), random=lambda: 1.0)


@dataclass
class Charges:
    """Counts what the engine reports."""

    admitted: int = 0
    charged: int = 0

    def admit(self) -> None:
        self.admitted += 1

    def charge(self) -> None:
        self.charged += 1


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with serve_script() as script:
        yield script


@pytest.fixture
def waits() -> Waits:
    return Waits()


def engine(server: ScriptedServer, waits: Waits, api: Api = "openai", **options: Any) -> ApiEngine:
    options = {"max_tokens": 50, "key_variable": "KEY", "environment": {"KEY": KEY}} | options
    return ApiEngine(api, server.url, "small", clock=waits.clock, **options)


def test_the_form_of_openai(server: ScriptedServer, waits: Waits) -> None:
    with engine(server, waits, parameters={"seed": 1}) as api:
        answer = api.ask("Say \ud83d \u2028 hi")
    request = server.requests[0]
    assert (request.path, request.headers["authorization"]) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert request.body == {
        "model": "small",
        "messages": [{"role": "user", "content": "Say \ud83d \u2028 hi"}],
        "max_tokens": 50,
        "temperature": 0,
        "seed": 1,
    }
    assert (answer.ended, answer.input_tokens, answer.output_tokens, answer.attempts) == ("stop", 10, 2, 1)


def test_the_form_of_anthropic(server: ScriptedServer, waits: Waits) -> None:
    server.replies = [message("hello"), message("cut", "max_tokens"), message("no", "refusal")]
    with engine(server, waits, "anthropic") as api:
        answers = [api.ask(prompt) for prompt in "abc"]
    assert [(answer.text, answer.ended) for answer in answers] == [
        ("hello", "stop"),
        ("cut", "length"),
        ("", "refusal"),
    ]
    request = server.requests[0]
    assert request.path == "/v1/v1/messages"
    assert request.headers["x-api-key"] == KEY
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in request.headers
    assert request.body["max_tokens"] == 50


def test_the_plain_form_sends_the_prompt_as_text(server: ScriptedServer, waits: Waits) -> None:
    server.replies = [json_reply({"choices": [{"text": " yes", "finish_reason": "length"}]})]
    with engine(server, waits, "openai-completions") as api:
        answer = api.ask("Is it?")
    assert server.requests[0].path == "/v1/completions"
    assert server.requests[0].body["prompt"] == "Is it?"
    assert (answer.text, answer.ended) == (" yes", "length")
    assert (answer.input_tokens, answer.output_tokens) == api.bound_tokens("Is it?")  # the server has counted none


def test_tokens_are_those_that_are_charged(server: ScriptedServer, waits: Waits) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 112}  # Gemini: 100 of thinking
    server.replies = [json_reply({"choices": [{"message": {"content": "a"}}], "usage": usage})]
    cached = {"input_tokens": 3, "cache_creation_input_tokens": 4, "cache_read_input_tokens": 5, "output_tokens": 1}
    server.replies += [json_reply({"content": [], "stop_reason": "end_turn", "usage": cached})]
    with engine(server, waits) as api, engine(server, waits, "anthropic") as other:
        assert api.ask("a").output_tokens == 102
        assert other.ask("a").input_tokens == 12


def test_no_key_sends_no_header(server: ScriptedServer, waits: Waits) -> None:
    with engine(server, waits, key_variable="") as api:
        api.ask("a")
    assert "authorization" not in server.requests[0].headers


def test_a_server_that_wants_max_completion_tokens_gets_it_from_then_on(server: ScriptedServer, waits: Waits) -> None:
    server.replies = [
        error("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.", 400),
        error("Unsupported value: 'temperature' does not support 0 with this model.", 400),
    ]
    with engine(server, waits, patience=Patience(attempts=1)) as api:
        assert api.ask("a").attempts == 3
        assert api.ask("b").attempts == 1
        assert api.temperature is None
    first, second, third, fourth = (request.body for request in server.requests)
    assert "max_tokens" in first
    assert "max_tokens" not in second
    assert second["max_completion_tokens"] == 50
    assert second["temperature"] == 0
    assert "temperature" not in third
    assert fourth.keys() == third.keys()
    assert not api.retries


def test_a_model_of_anthropic_that_refuses_a_temperature_is_given_none(server: ScriptedServer, waits: Waits) -> None:
    server.replies = [error("`temperature` is deprecated for this model.", 400), message("a")]
    with engine(server, waits, "anthropic") as api:
        assert api.ask("a").text == "a"
    assert "temperature" not in server.requests[1].body


@pytest.mark.parametrize("status", [400, 422])
def test_a_limit_that_is_too_large_does_not_change_the_parameter(
    server: ScriptedServer, waits: Waits, status: int
) -> None:
    server.replies = [error("'max_tokens' or 'max_completion_tokens' is too large: 50. Its context has 32.", status)]
    with engine(server, waits) as api, pytest.raises(ConfigError, match="Its context has 32"):
        api.ask("a")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "Sun, 06 Nov 1994 08:50:07 GMT"}, 30.0),
        ({"retry_after": "Sun Nov  6 08:50:07 1994"}, 30.0),
        ({"retry_after_ms": "250", "retry_after": "1"}, 0.25),
        ({"retry_after": "soon"}, 1.0),
        ({"retry_after": "nan"}, 1.0),
        ({"retry_after": "-5"}, 1.0),
        ({"retry_after": "Sun, 06 Nov 1994 08:00:00 GMT"}, 1.0),
        ({}, 1.0),
    ],
)
def test_too_many_requests_waits_as_long_as_the_server_asks(
    server: ScriptedServer, waits: Waits, headers: dict[str, str], seconds: float
) -> None:
    server.replies = [error("slow down", 429, **headers)]
    with engine(server, waits) as api:
        assert api.ask("a").attempts == 2
    assert waits.seconds == [seconds]
    assert api.retries == {"429": 1}


def test_a_wait_beyond_the_ceiling_is_an_error_that_names_it(server: ScriptedServer, waits: Waits) -> None:
    server.replies = [error("daily limit", 429, retry_after="3600")]
    with engine(server, waits) as api, pytest.raises(ServiceError, match=r"3,600 s.*daily limit\n  Run again later"):
        api.ask("a")
    assert not waits.seconds


def test_an_account_without_credit_is_not_asked_again(server: ScriptedServer, waits: Waits) -> None:
    server.replies = [error("You exceeded your current quota", 429, "insufficient_quota")]
    with engine(server, waits) as api, pytest.raises(ConfigError, match="exceeded your current quota"):
        api.ask("a")


@pytest.mark.parametrize("status", [408, 409, 500, 502, 503, 504, 524, 529])
def test_a_fault_of_the_server_is_asked_again(server: ScriptedServer, waits: Waits, status: int) -> None:
    server.replies = [Reply(b"<html>busy</html>", status)] * 2
    charges = Charges()
    with engine(server, waits) as api:
        assert api.ask("a", charges).text == "answer to a"
    assert api.retries == {str(status): 2}
    assert waits.seconds == [1.0, 2.0]
    assert charges.admitted == 3
    assert charges.charged == (2 if status in (408, 504, 524) else 0)


def test_attempts_are_bounded(server: ScriptedServer, waits: Waits) -> None:
    server.replies = [error("down", 503)] * 9
    words = "no answer after 3 attempts, the last with 503: down"
    with engine(server, waits, patience=Patience(attempts=3)) as api, pytest.raises(ServiceError, match=words):
        api.ask("a")
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(b'{"choices": [{"mess'), "malformed JSON"),
        (Reply(b"[" * 100_000), "malformed JSON"),
        (Reply(b"\xff"), "malformed JSON"),
        (Reply(b"{}", headers={"content-encoding": "gzip"}), "malformed JSON"),
        (json_reply([]), "no choices"),
        (json_reply({"error": {"message": "upstream"}}), "no choices"),
        (json_reply({"choices": []}), "no choices"),
        (json_reply({"choices": [{"message": {"content": 5}}]}), "no choices"),
        (json_reply({"choices": [{"message": {"content": "half"}, "finish_reason": "error"}]}), "no choices"),
        (Reply(b'{"choices": [', fault="cut"), "connection"),
        (Reply(fault="close"), "connection"),
    ],
)
def test_a_success_without_an_answer_is_charged_and_asked_again(
    server: ScriptedServer, waits: Waits, reply: Reply, kind: str
) -> None:
    server.replies = [reply]
    charges = Charges()
    with engine(server, waits) as api:
        assert api.ask("a", charges).text == "answer to a"
    assert api.retries == {kind: 1}
    assert charges.charged == 1


def test_a_server_that_stalls_is_given_up(server: ScriptedServer, waits: Waits) -> None:
    server.replies = [Reply(fault="stall")] * 2
    charges = Charges()
    words = "no answer after 2 attempts, the last with timeout"
    patience = Patience(attempts=2, stall_seconds=0.2)
    with engine(server, waits, patience=patience) as api, pytest.raises(ServiceError, match=words):
        api.ask("a", charges)
    assert charges.charged == 2


@pytest.mark.parametrize("fault", ["drip", "drip_headers"])
def test_a_reply_that_drips_has_a_deadline(server: ScriptedServer, waits: Waits, fault: Any) -> None:
    server.replies = [Reply(b"{", fault=fault)] * 2
    charges = Charges()
    patience = Patience(attempts=2, deadline_seconds=0.3)
    words = "the last with deadline"
    with engine(server, waits, patience=patience) as api, pytest.raises(ServiceError, match=words):
        api.ask("a", charges)
    assert charges.charged == 2


def test_a_refused_connection_is_tried_again(waits: Waits, free_port: int) -> None:
    charges = Charges()
    url = f"http://127.0.0.1:{free_port}"
    words = "no answer after 3 attempts, the last with connection"
    api = ApiEngine("openai", url, "m", max_tokens=1, patience=Patience(attempts=3), clock=waits.clock)
    with api, pytest.raises(ServiceError, match=words):
        api.ask("a", charges)
    assert waits.seconds == [1.0, 2.0]
    assert charges.charged == 0


@pytest.mark.parametrize(
    "reply",
    [
        chat(None, refusal="I cannot help with that."),
        chat("partial", "content_filter"),
        error("The response was filtered", 400, "content_filter"),
        json_reply({"error": {"message": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}, 400),
        json_reply({"type": "error", "error": {"message": "Output blocked by content filtering policy"}}, 400),
    ],
)
def test_a_refusal_is_an_answer(server: ScriptedServer, waits: Waits, reply: Reply) -> None:
    server.replies = [reply]
    with engine(server, waits) as api:
        answer = api.ask("a")
    assert (answer.text, answer.ended, answer.attempts) == ("", "refusal", 1)


def test_reasoning_that_takes_all_tokens_leaves_an_empty_answer(server: ScriptedServer, waits: Waits) -> None:
    server.replies = [chat(None, "length"), chat("\ud83d", "stop")]
    with engine(server, waits) as api:
        answer = api.ask("a")
        assert (answer.text, answer.ended) == ("", "length")
        assert api.ask("b").text == "?"  # half a surrogate pair


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_rows_do_not_follow_a_redirect(server: ScriptedServer, waits: Waits, status: int) -> None:
    with serve_script() as other:
        server.replies = [Reply(status=status, headers={"location": f"{other.url}/chat/completions?token={KEY}"})]
        with (
            engine(server, waits) as api,
            pytest.raises(ConfigError, match="rows are sent to no other address") as raised,
        ):
            api.ask("a")
        assert not other.requests
    assert KEY not in str(raised.value)


@pytest.mark.parametrize("form", [KEY, KEY.replace("/", "%2F").replace("+", "%2B"), KEY.replace("/", "\\/")])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 500])
def test_the_key_is_nowhere(
    server: ScriptedServer, waits: Waits, status: int, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    body = f"{'x' * 490} bad key {form} in https://user:{form}@host {'y' * 2000}".encode()
    server.replies = [
        Reply(body, status),
        Reply(json.dumps({"error": {"message": f"No {KEY} {'y' * 2000}"}}).encode(), status),
    ] * 3
    with engine(server, waits, patience=Patience(attempts=2)) as api, pytest.raises(HoneError) as raised:
        api.ask("a")
    report = "".join(traceback.format_exception(raised.value))
    shown = f"{raised.value!r} {report} {api!r} {api.identity} {caplog.text}"
    assert not [part for part in (KEY, form, "sk-secret", "0123") if part in shown]
    assert raised.value.__context__ is None
    assert len(str(raised.value)) < 900
    if status == 401:
        assert "Check the key and its rights: KEY." in str(raised.value)


def test_a_key_is_named_and_not_shown() -> None:
    def read(environment: dict[str, str]) -> ApiEngine:
        return ApiEngine("openai", "http://h", "m", max_tokens=1, key_variable="OUR_KEY", environment=environment)

    with pytest.raises(ConfigError, match="OUR_KEY is not set"):
        read({})
    for value in ("sk-first\nsk-second", "sk-\u00e9"):
        with pytest.raises(ConfigError, match="OUR_KEY has characters") as raised:
            read({"OUR_KEY": value})
        assert "sk-" not in str(raised.value)
    read({"OUR_KEY": "sk-1\n"}).close()  # as of $(cat file)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"url": "http://user:word@host/v1"}, "password or token"),
        ({"url": "https://host/v1?api_key=abc"}, "password or token"),
        ({"url": "host/v1"}, "not an http or https URL"),
        ({"url": "file:///etc/passwd"}, "not an http or https URL"),
        ({"api": "grpc"}, "unknown api"),
        ({"parameters": {"n": 5, "stream": True}}, "n, stream are set by Hone"),
        ({"max_tokens": 0}, "max_tokens is 0"),
    ],
)
def test_what_cannot_be_sent_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        ApiEngine(**{"api": "openai", "url": "http://h", "model": "m", "max_tokens": 1} | changes)
    assert "abc" not in str(raised.value)


def test_a_huge_reply_is_not_read_to_its_end(server: ScriptedServer, waits: Waits) -> None:
    server.replies = [Reply(b" " * (MAX_BYTES + 1), fault="drip")]  # never ends
    charges = Charges()
    with engine(server, waits) as api, pytest.raises(ConfigError, match="more than 8,388,608 bytes"):
        api.ask("a", charges)
    assert charges.charged == 1


def test_a_query_of_the_address_is_kept(server: ScriptedServer, waits: Waits) -> None:
    server.url += "/?api-version=1"
    with engine(server, waits) as api:
        api.ask("a")
    assert server.requests[0].path == "/v1/chat/completions?api-version=1"


def test_the_identity_is_json_without_the_key(server: ScriptedServer, waits: Waits) -> None:
    with engine(server, waits, parameters={"seed": 1}) as api:
        assert json.loads(json.dumps(api.identity)) == {
            "kind": "api",
            "api": "openai",
            "url": server.url,
            "model": "small",
            "max_tokens": 50,
            "temperature": 0,
            "parameters": {"seed": 1},
        }


def test_a_local_server_is_not_asked_by_a_proxy(
    server: ScriptedServer, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_script() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        with engine(server, waits) as api:
            api.ask("a")
        assert not proxy.requests


def test_stop_ends_a_request_that_waits(server: ScriptedServer, waits: Waits) -> None:
    asked = threading.Event()

    def stall(_: Request) -> Reply:
        asked.set()
        return Reply(fault="stall")

    server.answer = stall
    faults: list[ServiceError] = []
    charges = Charges()

    def ask() -> None:
        with pytest.raises(ServiceError, match="stopped") as raised:
            api.ask("a", charges)
        faults.append(raised.value)

    with engine(server, waits) as api:
        thread = threading.Thread(target=ask)
        thread.start()
        assert asked.wait(60)
        api.stop()
        thread.join(60)
        assert faults
        assert charges.charged == 1
        with pytest.raises(ServiceError, match="stopped"):
            api.ask("b")
    assert server.prompts == ["a"]
