"""The forms in which chat data comes, brought into one conversation.

OpenAI's messages, ShareGPT's conversations, TRL's prompt and completion, alpaca's instruction, input and output, and
self-instruct's instances.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hone.objectives.chat.conversations import (
    Conversation,
    Message,
    check_order,
    check_text,
    normalize_conversation,
    normalize_messages,
    normalize_tools,
    parse_json,
)


def conversation_from_row(values: Mapping[str, Any]) -> Conversation:
    """The conversation in a source's row, whatever its form; raises ValueError with what is wrong, and the field.

    Forms: `messages` (OpenAI), `conversations` (ShareGPT), `prompt` and `completion`, `instruction` and `output` with
    `input`, `system` and `history` (alpaca), `instruction` and `instances` (self-instruct); `tools` beside any.
    Turns after the assistant's last one are cut off: nothing can be learned from them.
    """
    for names, read in _FORMS.items():
        if all(values.get(name) is not None for name in names):
            found, tools = read(values), values.get("tools")
            return _learnable(Conversation(found.messages, found.tools or normalize_tools(tools)))
    there = ", ".join(values)
    raise ValueError(f"no conversation: there is neither messages nor conversations, but {there}")


def _openai(values: Mapping[str, Any]) -> Conversation:
    found = normalize_conversation(values["messages"], "messages")
    return Conversation(check_order(list(found.messages), "messages"), found.tools)


def _sharegpt(values: Mapping[str, Any]) -> Conversation:
    found = normalize_conversation(values["conversations"], "conversations")
    return Conversation(check_order([*_system(values), *found.messages], "conversations"), found.tools)


def _completed(values: Mapping[str, Any]) -> Conversation:
    """TRL's prompt and completion: two texts, or two lists of messages."""
    prompt, completion = (_maybe_json(values[name]) for name in ("prompt", "completion"))
    asked = normalize_messages(prompt, "prompt") if isinstance(prompt, list) else [_said("user", prompt, "prompt")]
    told = normalize_messages(completion, "completion") if isinstance(completion, list) else None
    told = told or [_said("assistant", completion, "completion")]
    return Conversation(check_order([*_system(values), *asked, *told], "prompt and completion"))


def _alpaca(values: Mapping[str, Any]) -> Conversation:
    """Instruction and input become one user turn, the one below the other; `history` holds pairs before them."""
    past: list[Message] = []
    for n, pair in enumerate(parse_json(values.get("history") or [], "history")):
        at = f"history[{n}]"
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise ValueError(f"not a pair: {at} is not [question, answer]")
        past += [_said("user", pair[0], f"{at}[0]"), _said("assistant", pair[1], f"{at}[1]")]
    asked = _said("user", values["instruction"], "instruction")
    if given := values.get("input"):
        asked["content"] += "\n" + _said("user", given, "input")["content"]
    return Conversation([*_system(values), *past, asked, _said("assistant", values["output"], "output")])


def _self_instruct(values: Mapping[str, Any]) -> Conversation:
    found = parse_json(values["instances"], "instances")
    if not isinstance(found, list) or len(found) != 1 or not isinstance(found[0], Mapping):
        raise ValueError("not one example: instances is to hold one input and output; give each a row of its own")
    return _alpaca({"output": None, **found[0], "instruction": values["instruction"]})


_FORMS: dict[tuple[str, ...], Callable[[Mapping[str, Any]], Conversation]] = {
    ("messages",): _openai,
    ("conversations",): _sharegpt,
    ("prompt", "completion"): _completed,
    ("instruction", "output"): _alpaca,
    ("instruction", "instances"): _self_instruct,
}


def _system(values: Mapping[str, Any]) -> list[Message]:
    return [_said("system", values["system"], "system")] if values.get("system") else []


def _said(role: str, content: Any, at: str) -> Message:
    return {"role": role, "content": check_text(content, at)}


def _learnable(found: Conversation) -> Conversation:
    """Up to the assistant's last turn; raises ValueError where there is none to learn from."""
    roles = [message["role"] for message in found.messages]
    if "assistant" not in roles:
        raise ValueError(f"no assistant turn: there is {', '.join(roles) or 'no message'}")
    if not any(message["role"] == "assistant" and message.get("weight", 1) for message in found.messages):
        raise ValueError("no assistant turn to learn from: all have the weight 0")
    last = len(roles) - roles[::-1].index("assistant")
    return Conversation(found.messages[:last], found.tools)


def _maybe_json(value: Any) -> Any:
    """A list of messages where the text is the JSON of one, else itself."""
    if not isinstance(value, str) or not value.lstrip().startswith("[{"):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value
