"""Conversations: messages in order, and what keeps a list from being that.

The form is OpenAI's: a list of messages, each with a `role` (system, user, assistant, tool) and `content`, an
assistant's perhaps with `tool_calls`, whose arguments are an object here. A conversation with tools is an object,
`{"messages": [...], "tools": [...]}`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "function_response"), "tool"),
}
FOLLOW = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}
_READ = ("role", "from", "content", "value", "loss_weight", "weight", "function_call", "tool_calls")


@dataclass(frozen=True)
class Conversation:
    """Messages in order, and the tools (JSON schemas in OpenAI's form) that the assistant may call."""

    messages: Sequence[Message]
    tools: Sequence[dict[str, Any]] = ()

    @property
    def value(self) -> Any:
        """What stands for it in the column `messages`: the list alone, where there are no tools."""
        messages = list(self.messages)
        return {"messages": messages, "tools": list(self.tools)} if self.tools else messages

    @property
    def question(self) -> Conversation:
        """Without the assistant's turns at its end: what there is to answer. Raises ValueError where that is nothing.

        The last message is then the user's or a tool's.
        """
        count = len(self.messages)
        while count and self.messages[count - 1]["role"] == "assistant":
            count -= 1
        if not count or self.messages[count - 1]["role"] == "system":
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
        return "\n\n".join("\n".join([f"{one['role']}: {one['content']}", *_calls_shown(one)]) for one in self.messages)


def parse_conversation(text: str) -> Conversation:
    """The conversation that a value of the column `messages` holds; raises ValueError where it holds none."""
    conversation = normalize_conversation(parse_json(text, "messages"), "messages")
    return Conversation(check_order(list(conversation.messages), "messages"), conversation.tools)


def rewrite_texts(value: str, change: Callable[[str], str]) -> str:
    """A value of the column `messages` with each text changed: contents, reasoning, and arguments of tool calls."""
    parsed = json.loads(value)
    messages = parsed["messages"] if isinstance(parsed, dict) else parsed
    new = [_rewritten(message, change) for message in messages]
    return json.dumps({**parsed, "messages": new} if isinstance(parsed, dict) else new, ensure_ascii=False)


def _rewritten(message: Message, change: Callable[[str], str]) -> Message:
    message = dict(message)
    for name in ("reasoning_content", "content"):
        if message.get(name):
            message[name] = change(message[name])
    if "tool_calls" in message:
        message["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": _leaves(call["function"]["arguments"], change)}}
            for call in message["tool_calls"]
        ]
    return message


def _leaves(value: Any, change: Callable[[str], str]) -> Any:
    """`value` with every string in it changed, keys apart."""
    if isinstance(value, str):
        return change(value) if value else value
    if isinstance(value, dict):
        return {name: _leaves(inner, change) for name, inner in value.items()}
    return [_leaves(inner, change) for inner in value] if isinstance(value, list) else value


def _calls_shown(message: Message) -> list[str]:
    return [json.dumps(call["function"], ensure_ascii=False) for call in message.get("tool_calls", ())]


def normalize_conversation(value: Any, at: str) -> Conversation:
    """A list of messages, or an object with `messages` and perhaps `tools`; or the JSON text of either."""
    value = parse_json(value, at)
    if isinstance(value, Mapping):
        if value.get("messages") is None:
            raise ValueError(f"not a conversation: {at} is an object without messages")
        return Conversation(
            normalize_messages(parse_json(value["messages"], at), at), normalize_tools(value.get("tools"))
        )
    return Conversation(normalize_messages(value, at))


def normalize_messages(value: Any, at: str) -> list[Message]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"not a list of messages: {at} is {describe_type(value)}")
    return [_message(given, f"{at}[{n}]") for n, given in enumerate(value)]


def check_order(messages: list[Message], at: str) -> list[Message]:
    """The messages; raises ValueError where one does not follow the one before it."""
    last = ""
    for n, message in enumerate(messages):
        if message["role"] not in FOLLOW[last]:
            after = f"after {last}" if last else "at the beginning"
            raise ValueError(f"wrong order: {at}[{n}] is of {message['role']} {after}")
        last = message["role"]
    return messages


def _message(given: Any, at: str) -> Message:
    if not isinstance(given, Mapping):
        raise ValueError(f"not a message: {at} is {describe_type(given)}")
    name = "role" if "role" in given else "from"
    speaker = given.get(name)
    if not isinstance(speaker, str) or speaker not in ROLES:
        raise ValueError(f"unknown role: {at}.{name} is {speaker!r}, and not one of {', '.join(ROLES)}")
    field = "content" if "content" in given else "value"
    message: Message = {"role": ROLES[speaker], "content": ""}
    message |= {key: value for key, value in given.items() if key not in _READ and value is not None}
    message |= _content(given.get(field), f"{at}.{field}")
    calls = [*_listed_calls(given, at), *message.pop("tool_calls", ())]
    if speaker == "function_call":
        calls, message["content"] = _named_calls(message["content"], f"{at}.{field}"), ""
    if calls and message["role"] != "assistant":
        raise ValueError(f"a tool call that is not the assistant's: {at}.tool_calls")
    if calls:
        message["tool_calls"] = calls
    if not message["content"].strip() and not calls and message["role"] != "tool":
        raise ValueError(f"empty content: {at}.{field} says nothing")
    if message["role"] == "assistant":
        message |= _weight(given, at)
    return message


def _content(value: Any, at: str) -> dict[str, Any]:
    """A message's content, and what else its parts hold: reasoning and tool calls."""
    if value is None or isinstance(value, str):
        return {"content": check_text(value or "", at, empty=True)}
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"not text: {at} is {describe_type(value)}")
    texts, reasons, calls = [], [], []
    for n, part in enumerate(value):
        kind = part.get("type") if isinstance(part, Mapping) else None
        part_value = part.get("text", part.get("value")) if isinstance(part, Mapping) else None
        if kind == "text":
            texts.append(check_text(part_value, f"{at}[{n}]", empty=True))
        elif kind == "reasoning":
            reasons.append(check_text(part_value, f"{at}[{n}]"))
        elif kind == "tool_call":
            calls += _named_calls(part_value, f"{at}[{n}]")
        else:
            raise ValueError(f"not text: {at}[{n}] is of the type {kind!r}")
    more = {"reasoning_content": "\n".join(reasons)} if reasons else {}
    return {"content": "\n".join(texts), **more, **({"tool_calls": calls} if calls else {})}


def _listed_calls(message: Mapping[str, Any], at: str) -> list[Any]:
    """`tool_calls`, or the one `function_call` of OpenAI's older form."""
    calls = message.get("tool_calls") or []
    if not isinstance(calls, (list, tuple)):
        raise ValueError(f"not a list of tool calls: {at}.tool_calls is {describe_type(calls)}")
    parsed_calls = [_call(call, f"{at}.tool_calls[{n}]") for n, call in enumerate(calls)]
    older = message.get("function_call")
    return [*parsed_calls, _call(older, f"{at}.function_call")] if older else parsed_calls


def _named_calls(value: Any, at: str) -> list[Any]:
    """Calls written as `{"name": ..., "arguments": ...}`, one or a list of them, or the JSON text of that."""
    parsed = parse_json(value, at)
    return [_call(call, at) for call in (parsed if isinstance(parsed, list) else [parsed])]


def _call(call: Any, at: str) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise ValueError(f"not a tool call: {at} names no function")
    arguments = parse_json(function.get("arguments") or {}, f"{at}.arguments")
    if not isinstance(arguments, Mapping):
        raise ValueError(f"not an object: {at}.arguments is {describe_type(arguments)}")
    identifier = {"id": call["id"]} if call.get("id") else {}
    return {**identifier, "type": "function", "function": {"name": function["name"], "arguments": dict(arguments)}}


def _weight(message: Mapping[str, Any], at: str) -> dict[str, int]:
    """OpenAI's `weight`: 0 for a turn of the assistant's that is not learned from."""
    for name in ("weight", "loss_weight"):
        if (weight := message.get(name)) is not None:
            if weight not in (0, 1):
                raise ValueError(f"a weight that is neither 0 nor 1: {at}.{name} is {weight!r}")
            return {} if weight else {"weight": 0}
    return {}


def normalize_tools(value: Any) -> list[dict[str, Any]]:
    tools = parse_json(value or [], "tools")
    if not isinstance(tools, (list, tuple)):
        raise ValueError(f"not a list of tools: tools is {describe_type(tools)}")
    return list(_tool_schemas(tools))


def _tool_schemas(tools: Sequence[Any]) -> Iterator[dict[str, Any]]:
    for n, tool in enumerate(tools):
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise ValueError(f"not a tool: tools[{n}] has no name")
        yield {"type": "function", "function": dict(function)}


def check_text(value: Any, at: str, *, empty: bool = False) -> str:
    if not isinstance(value, str):
        raise ValueError(f"not text: {at} is {describe_type(value)}")
    if not empty and not value.strip():
        raise ValueError(f"empty content: {at} says nothing")
    return value


def parse_json(value: Any, at: str) -> Any:
    """The value that a JSON text stands for; itself, where it is no text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as fault:
        raise ValueError(f"not JSON: {at}: {fault}") from None


def describe_type(value: Any) -> str:
    names = {str: "text", type(None): "null", dict: "an object", list: "a list", bool: "true or false"}
    return names.get(type(value), f"a {type(value).__name__}")
