"""The wire forms of model APIs: the request for a prompt, and what a reply means. Nothing is sent here.

openai               POST {url}/chat/completions: OpenAI, Gemini's compatible endpoint, vLLM, SGLang, Ollama,
                     `transformers serve`
openai-completions   POST {url}/completions: the prompt as plain text, for models without a chat template
anthropic            POST {url}/v1/messages

A request has temperature 0 and a maximum number of output tokens. Newer models of OpenAI refuse `max_tokens` and want
`max_completion_tokens`; newer models of OpenAI and Anthropic refuse any temperature. Older servers know `max_tokens`
only, and ignore what they do not know, so that an answer would have no limit. Therefore `max_tokens` and the
temperature are sent first; `adapt_dialect` tells from a refusal what to send instead, and the engine stays with that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import httpx

Api = Literal["openai", "openai-completions", "anthropic"]
APIS: tuple[Api, ...] = ("openai", "openai-completions", "anthropic")
PATHS: Mapping[Api, str] = {
    "openai": "/chat/completions",
    "openai-completions": "/completions",
    "anthropic": "/v1/messages",
}
ANTHROPIC_VERSION = "2023-06-01"
# What a request sets itself. More than one choice, or a stream, would break the bound of the cost or the parsing.
RESERVED = frozenset(
    "model messages prompt system temperature max_tokens max_completion_tokens stream n best_of tools".split()
)

_LENGTH = frozenset(("length", "max_tokens", "model_context_window_exceeded"))
_REFUSAL = frozenset(("content_filter", "refusal"))
_FILTER_CODES = frozenset(("content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"))
# Azure and Anthropic, which have no code for it in every version of their API.
_FILTER_WORDS = re.compile(r"content (?:management|filtering) policy", re.IGNORECASE)
# Not "too large": vLLM names both parameters where a prompt does not fit into the context.
_UNSUPPORTED = re.compile(
    r"unsupported|not support|unrecogni[sz]ed|unknown|deprecated|not permitted|not allowed|only the default",
    re.IGNORECASE,
)
_MAX_TOKENS = 10**9  # a larger count in a reply is none


class MalformedReply(ValueError):
    """A reply of status 200 without an answer; `kind` is 'malformed JSON' or 'no choices'."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(detail or kind)
        self.kind = kind


@dataclass(frozen=True)
class Dialect:
    """The parameters that a server accepts: the name of the limit, and whether it takes a temperature."""

    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    temperature: bool = True


@dataclass(frozen=True)
class Call:
    """What all requests to a model have in common; `parameters` go into each body as they are."""

    api: Api
    url: str
    model: str
    max_tokens: int
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Reply:
    """The answer in a reply; `input_tokens` and `output_tokens` are None where the server counts none."""

    text: str
    ended: Literal["stop", "length", "refusal"]
    input_tokens: int | None
    output_tokens: int | None


def build_address(api: Api, url: str) -> str:
    """The address to post to; a query of `url`, such as Azure's api-version, is kept."""
    base = httpx.URL(url)
    return str(base.copy_with(path=base.path.rstrip("/") + PATHS[api]))


def build_headers(api: Api, key: str) -> dict[str, str]:
    """The headers of each request; without a key none has one."""
    headers = {"content-type": "application/json", "accept": "application/json", "accept-encoding": "identity"}
    if api == "anthropic":
        return headers | {"anthropic-version": ANTHROPIC_VERSION} | ({"x-api-key": key} if key else {})
    return headers | ({"authorization": f"Bearer {key}"} if key else {})


def build_body(call: Call, dialect: Dialect, prompt: str) -> bytes:
    """The JSON to post: one user message with the whole prompt, or the prompt as text."""
    limit = dialect.limit if call.api == "openai" else "max_tokens"
    question = {"prompt": prompt} if call.api == "openai-completions" else {"messages": _one_message(prompt)}
    body = {**call.parameters, "model": call.model, limit: call.max_tokens, **question}
    if dialect.temperature:
        body["temperature"] = 0
    return json.dumps(body).encode()  # ASCII: half a surrogate pair in a row has no UTF-8


def _one_message(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def adapt_dialect(dialect: Dialect, body: bytes) -> Dialect | None:
    """The dialect after an error of status 400 or 422 that refuses a parameter; None for any other error."""
    message = describe_error(body)
    if not _UNSUPPORTED.search(message):
        return None
    if dialect.temperature and re.search(r"\btemperature\b", message):
        return replace(dialect, temperature=False)
    if dialect.limit == "max_tokens" and re.search(r"\bmax_tokens\b", message):
        return replace(dialect, limit="max_completion_tokens")
    return None


def parse_reply(api: Api, body: bytes) -> Reply:
    """The answer in a body of status 200. Raises MalformedReply if there is none."""
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        raise MalformedReply("malformed JSON") from None
    if not isinstance(reply, dict):
        raise MalformedReply("no choices")
    return _parse_anthropic(reply, body) if api == "anthropic" else _parse_openai(api, reply, body)


def _parse_openai(api: Api, reply: Mapping[str, Any], body: bytes) -> Reply:
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice if api == "openai-completions" else choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict) or choice.get("finish_reason") == "error":
        raise MalformedReply("no choices", describe_error(body))
    reason = choice.get("finish_reason")
    refused = reason in _REFUSAL or bool(message.get("refusal"))
    text = "" if refused else _text_of(message.get("text" if api == "openai-completions" else "content"))
    usage = _mapping(reply.get("usage"))
    inputs, outputs, total = (_count(usage, f"{name}_tokens") for name in ("prompt", "completion", "total"))
    if inputs is not None and outputs is not None and total is not None:
        outputs = max(outputs, total - inputs)  # Gemini's completion_tokens are without those of its thinking
    return Reply(text, "refusal" if refused else _ended(reason), inputs, outputs)


def _parse_anthropic(reply: Mapping[str, Any], body: bytes) -> Reply:
    content, reason = reply.get("content"), reply.get("stop_reason")
    if not isinstance(content, list) or reply.get("type") == "error":
        raise MalformedReply("no choices", describe_error(body))
    refused = reason in _REFUSAL
    usage = _mapping(reply.get("usage"))
    inputs = _count(usage, "input_tokens")
    if inputs is not None:
        inputs += sum(_count(usage, f"cache_{what}_input_tokens") or 0 for what in ("creation", "read"))
    text = "" if refused else _text_of(content)
    return Reply(text, "refusal" if refused else _ended(reason), inputs, _count(usage, "output_tokens"))


def _ended(reason: object) -> Literal["stop", "length"]:
    return "length" if reason in _LENGTH else "stop"


def _text_of(content: object) -> str:
    """The text of a message: a string, the parts of type text, or '' for null (all tokens went into reasoning)."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        content = "".join(part for part in parts if isinstance(part, str))
    if content is not None and not isinstance(content, str):
        raise MalformedReply("no choices")
    return (content or "").encode("utf8", "replace").decode("utf8")  # half a surrogate pair could not be stored


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(usage: Mapping[str, Any], name: str) -> int | None:
    value = usage.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_TOKENS else None


def is_content_filter(body: bytes) -> bool:
    """Whether an error means that the provider's filter declined the prompt."""
    return bool(_FILTER_CODES & set(_iter_codes(_load_error(body))) or _FILTER_WORDS.search(describe_error(body)))


def is_out_of_quota(body: bytes) -> bool:
    """Whether an error of status 429 means that the account has no credit left: waiting does not help."""
    return "insufficient_quota" in set(_iter_codes(_load_error(body)))


def describe_error(body: bytes) -> str:
    """The server's own words on one line; '' if there are none. Not masked and not cut."""
    error = _load_error(body)
    if not error:
        return " ".join(body.decode("utf8", "replace").split())
    details = error.get("error"), error.get("message"), error.get("detail")
    nested = details[0].get("message") if isinstance(details[0], dict) else None
    words = next((text for text in (nested, *details) if isinstance(text, str) and text), None)
    return " ".join((words if words is not None else json.dumps(error)).split())


def _load_error(body: bytes) -> Mapping[str, Any]:
    """The error object of a body; empty if that has none."""
    try:
        error = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(error, list) and error:  # Gemini's compatible endpoint
        error = error[0]
    return _mapping(error)


def _iter_codes(error: Mapping[str, Any]) -> Iterator[str]:
    inner = _mapping(error.get("error"))
    for level in (error, inner, _mapping(inner.get("innererror"))):
        yield from (level[name] for name in ("code", "type") if isinstance(level.get(name), str))
