"""Conversations: parsing, normalizing and checking of messages.

The form is OpenAI's: a list of messages, each with a `role` (system, user, assistant, tool) and `content`; an
assistant's may have `tool_calls`, whose arguments are an object here. A conversation with tools is an object,
`{"messages": [...], "tools": [...]}`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hone.objectives.shared.json_cells import load_json

Message = dict[str, Any]

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "function_response"), "tool"),
}
# The roles that may follow a role; '' is the beginning of a conversation.
FOLLOW = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}
# Fields of a message that are normalized; others are copied.
_NORMALIZED_FIELDS = ("role", "from", "content", "value", "loss_weight", "weight", "function_call", "tool_calls")


@dataclass(frozen=True)
class Conversation:
    """Messages in order, and the tools (JSON schemas in OpenAI's form) that the assistant may call."""

    messages: Sequence[Message]
    tools: Sequence[dict[str, Any]] = ()

    @property
    def value(self) -> Any:
        """Its value in the column `messages`: the list of messages, or an object if there are tools."""
        messages = list(self.messages)
        return {"messages": messages, "tools": list(self.tools)} if self.tools else messages

    @property
    def question(self) -> Conversation:
        """The conversation without the assistant's turns at its end: what is to be answered.

        Raises ValueError if it has no message of the user or of a tool.
        """
        count = len(self.messages)
        while count and self.messages[count - 1]["role"] == "assistant":
            count -= 1
        if all(message["role"] == "system" for message in self.messages[:count]):
            raise ValueError("nothing to answer: messages has no user turn")
        return Conversation(self.messages[:count], self.tools)

    @property
    def system(self) -> str:
        """The system's messages, and the tools as JSON, one per line; '' if there are none."""
        contents = [message["content"] for message in self.messages if message["role"] == "system"]
        return "\n".join([*contents, *(json.dumps(tool, sort_keys=True) for tool in self.tools)])

    @property
    def without_system(self) -> Conversation:
        """The messages of the user, the assistant and the tools."""
        return Conversation([message for message in self.messages if message["role"] != "system"])

    def __str__(self) -> str:
        paragraphs = (
            [f"{message['role']}: {message['content']}", *_render_calls(message)] for message in self.messages
        )
        return "\n\n".join("\n".join(lines) for lines in paragraphs)


def parse_conversation(text: str, *, strict: bool = False) -> Conversation:
    """The conversation in a value of the column `messages`; raises ValueError if it is not one.

    `strict`: also if its roles are in the wrong order.
    """
    conversation = normalize_conversation(parse_json(text, "messages"), "messages")
    if strict:
        check_order(conversation.messages, "messages")
    return conversation


def rewrite_texts(value: str, change: Callable[[str], str]) -> str:
    """A value of the column `messages` with `change` applied to contents, reasoning, and arguments of tool calls."""
    parsed = json.loads(value)
    messages = parsed["messages"] if isinstance(parsed, dict) else parsed
    rewritten = [_rewrite_message(message, change) for message in messages]
    return json.dumps({**parsed, "messages": rewritten} if isinstance(parsed, dict) else rewritten, ensure_ascii=False)


def _rewrite_message(message: Message, change: Callable[[str], str]) -> Message:
    message = dict(message)
    for name in ("reasoning_content", "content"):
        if message.get(name):
            message[name] = change(message[name])
    if "tool_calls" in message:
        message["tool_calls"] = [
            {
                **call,
                "function": {**call["function"], "arguments": _rewrite_strings(call["function"]["arguments"], change)},
            }
            for call in message["tool_calls"]
        ]
    return message


def _rewrite_strings(value: Any, change: Callable[[str], str]) -> Any:
    """`value` with `change` applied to every string in it that is not a key."""
    if isinstance(value, str):
        return change(value) if value else value
    if isinstance(value, dict):
        return {name: _rewrite_strings(inner, change) for name, inner in value.items()}
    return [_rewrite_strings(inner, change) for inner in value] if isinstance(value, list) else value


def _render_calls(message: Message) -> list[str]:
    return [json.dumps(call["function"], ensure_ascii=False) for call in message.get("tool_calls", ())]


def normalize_conversation(value: Any, where: str) -> Conversation:
    """The conversation in a list of messages, an object with `messages` and perhaps `tools`, or JSON of either."""
    value = parse_json(value, where)
    if isinstance(value, Mapping):
        if value.get("messages") is None:
            raise ValueError(f"not a conversation: {where} is an object without messages")
        return Conversation(
            normalize_messages(parse_json(value["messages"], where), where), normalize_tools(value.get("tools"))
        )
    return Conversation(normalize_messages(value, where))


def normalize_messages(value: Any, where: str) -> list[Message]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"not a list of messages: {where} is {describe_type(value)}")
    return [_normalize_message(message, f"{where}[{n}]") for n, message in enumerate(value)]


def check_order(messages: Sequence[Message], where: str) -> None:
    """Raise ValueError if a role may not follow the one before it (`FOLLOW`)."""
    last = ""
    for n, message in enumerate(messages):
        if message["role"] not in FOLLOW[last]:
            after = f"after {last}" if last else "at the beginning"
            raise ValueError(f"wrong order: {where}[{n}] has the role {message['role']} {after}")
        last = message["role"]


def _normalize_message(raw: Any, where: str) -> Message:
    if not isinstance(raw, Mapping):
        raise ValueError(f"not a message: {where} is {describe_type(raw)}")
    name = "role" if "role" in raw else "from"
    speaker = raw.get(name)
    if not isinstance(speaker, str) or speaker not in ROLES:
        raise ValueError(f"unknown role: {where}.{name} is {speaker!r}, and not one of {', '.join(ROLES)}")
    field = "content" if "content" in raw else "value"
    message: Message = {"role": ROLES[speaker], "content": ""}
    message |= {key: value for key, value in raw.items() if key not in _NORMALIZED_FIELDS and value is not None}
    message |= _parse_content(raw.get(field), f"{where}.{field}")
    calls = [*_parse_tool_calls(raw, where), *message.pop("tool_calls", ())]
    if speaker == "function_call":
        calls, message["content"] = _parse_named_calls(message["content"], f"{where}.{field}"), ""
    if calls and message["role"] != "assistant":
        raise ValueError(f"a tool call that is not the assistant's: {where}.tool_calls")
    if calls:
        message["tool_calls"] = calls
    if not message["content"].strip() and not calls and message["role"] != "tool":
        raise ValueError(f"empty content: {where}.{field}")
    if message["role"] == "assistant":
        message |= _parse_weight(raw, where)
    return message


def _parse_content(value: Any, where: str) -> dict[str, Any]:
    """A message's content, and the reasoning and tool calls in its parts."""
    if value is None or isinstance(value, str):
        return {"content": check_text(value or "", where, empty=True)}
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"not text: {where} is {describe_type(value)}")
    texts, reasons, calls = [], [], []
    for n, part in enumerate(value):
        kind = part.get("type") if isinstance(part, Mapping) else None
        part_value = part.get("text", part.get("value")) if isinstance(part, Mapping) else None
        if kind == "text":
            texts.append(check_text(part_value, f"{where}[{n}]", empty=True))
        elif kind == "reasoning":
            reasons.append(check_text(part_value, f"{where}[{n}]"))
        elif kind == "tool_call":
            calls += _parse_named_calls(part_value, f"{where}[{n}]")
        else:
            raise ValueError(f"not text: {where}[{n}] is of the type {kind!r}")
    reasoning = {"reasoning_content": "\n".join(reasons)} if reasons else {}
    return {"content": "\n".join(texts), **reasoning, **({"tool_calls": calls} if calls else {})}


def _parse_tool_calls(message: Mapping[str, Any], where: str) -> list[Any]:
    """The calls in `tool_calls`, and in `function_call`, OpenAI's older form for a single one."""
    calls = message.get("tool_calls") or []
    if not isinstance(calls, (list, tuple)):
        raise ValueError(f"not a list of tool calls: {where}.tool_calls is {describe_type(calls)}")
    parsed_calls = [_normalize_call(call, f"{where}.tool_calls[{n}]") for n, call in enumerate(calls)]
    older = message.get("function_call")
    return [*parsed_calls, _normalize_call(older, f"{where}.function_call")] if older else parsed_calls


def _parse_named_calls(value: Any, where: str) -> list[Any]:
    """Calls in the form `{"name": ..., "arguments": ...}`: one, a list of them, or JSON of either."""
    parsed = parse_json(value, where)
    return [_normalize_call(call, where) for call in (parsed if isinstance(parsed, list) else [parsed])]


def _normalize_call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise ValueError(f"not a tool call: {where} names no function")
    arguments = parse_json(function.get("arguments") or {}, f"{where}.arguments")
    if not isinstance(arguments, Mapping):
        raise ValueError(f"not an object: {where}.arguments is {describe_type(arguments)}")
    identifier = {"id": call["id"]} if call.get("id") else {}
    return {**identifier, "type": "function", "function": {"name": function["name"], "arguments": dict(arguments)}}


def _parse_weight(message: Mapping[str, Any], where: str) -> dict[str, int]:
    """OpenAI's `weight`: 0 for an assistant's turn that is not learned; left out if it is 1."""
    for name in ("weight", "loss_weight"):
        if (weight := message.get(name)) is not None:
            if weight not in (0, 1):
                raise ValueError(f"a weight that is neither 0 nor 1: {where}.{name} is {weight!r}")
            return {} if weight else {"weight": 0}
    return {}


def normalize_tools(value: Any) -> list[dict[str, Any]]:
    tools = parse_json(value or [], "tools")
    if not isinstance(tools, (list, tuple)):
        raise ValueError(f"not a list of tools: tools is {describe_type(tools)}")
    return list(_normalize_tool_schemas(tools))


def _normalize_tool_schemas(tools: Sequence[Any]) -> Iterator[dict[str, Any]]:
    for n, tool in enumerate(tools):
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise ValueError(f"not a tool: tools[{n}] has no name")
        yield {"type": "function", "function": dict(function)}


def check_text(value: Any, where: str, *, empty: bool = False) -> str:
    if not isinstance(value, str):
        raise ValueError(f"not text: {where} is {describe_type(value)}")
    if not empty and not value.strip():
        raise ValueError(f"empty content: {where}")
    return value


def parse_json(value: Any, where: str) -> Any:
    """The value of a JSON text; a value that is not text is returned as it is. Raises ValueError if it is not JSON."""
    if not isinstance(value, str):
        return value
    try:
        return load_json(value)
    except ValueError as fault:
        raise ValueError(f"not JSON: {where}: {fault}") from None


def describe_type(value: Any) -> str:
    names = {str: "text", type(None): "null", dict: "an object", list: "a list", bool: "true or false"}
    return names.get(type(value), f"a {type(value).__name__}")
