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
            conversation, tools = read(values), values.get("tools")
            return _learnable(Conversation(conversation.messages, conversation.tools or normalize_tools(tools)))
    columns = ", ".join(values)
    raise ValueError(f"no conversation: there is neither messages nor conversations, but {columns}")


def _openai(values: Mapping[str, Any]) -> Conversation:
    conversation = normalize_conversation(values["messages"], "messages")
    return Conversation(check_order(list(conversation.messages), "messages"), conversation.tools)


def _sharegpt(values: Mapping[str, Any]) -> Conversation:
    conversation = normalize_conversation(values["conversations"], "conversations")
    return Conversation(check_order([*_system(values), *conversation.messages], "conversations"), conversation.tools)


def _completed(values: Mapping[str, Any]) -> Conversation:
    """TRL's prompt and completion: two texts, or two lists of messages."""
    prompt, completion = (_maybe_json(values[name]) for name in ("prompt", "completion"))
    prompt_messages = (
        normalize_messages(prompt, "prompt") if isinstance(prompt, list) else [_message("user", prompt, "prompt")]
    )
    completion_messages = normalize_messages(completion, "completion") if isinstance(completion, list) else None
    completion_messages = completion_messages or [_message("assistant", completion, "completion")]
    return Conversation(
        check_order([*_system(values), *prompt_messages, *completion_messages], "prompt and completion")
    )


def _alpaca(values: Mapping[str, Any]) -> Conversation:
    """Instruction and input become one user turn, the one below the other; `history` holds pairs before them."""
    history: list[Message] = []
    for n, pair in enumerate(parse_json(values.get("history") or [], "history")):
        at = f"history[{n}]"
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise ValueError(f"not a pair: {at} is not [question, answer]")
        history += [_message("user", pair[0], f"{at}[0]"), _message("assistant", pair[1], f"{at}[1]")]
    instruction = _message("user", values["instruction"], "instruction")
    if extra_input := values.get("input"):
        instruction["content"] += "\n" + _message("user", extra_input, "input")["content"]
    return Conversation([*_system(values), *history, instruction, _message("assistant", values["output"], "output")])


def _self_instruct(values: Mapping[str, Any]) -> Conversation:
    instances = parse_json(values["instances"], "instances")
    if not isinstance(instances, list) or len(instances) != 1 or not isinstance(instances[0], Mapping):
        raise ValueError("not one example: instances is to hold one input and output; give each a row of its own")
    return _alpaca({"output": None, **instances[0], "instruction": values["instruction"]})


_FORMS: dict[tuple[str, ...], Callable[[Mapping[str, Any]], Conversation]] = {
    ("messages",): _openai,
    ("conversations",): _sharegpt,
    ("prompt", "completion"): _completed,
    ("instruction", "output"): _alpaca,
    ("instruction", "instances"): _self_instruct,
}


def _system(values: Mapping[str, Any]) -> list[Message]:
    return [_message("system", values["system"], "system")] if values.get("system") else []


def _message(role: str, content: Any, at: str) -> Message:
    return {"role": role, "content": check_text(content, at)}


def _learnable(conversation: Conversation) -> Conversation:
    """Up to the assistant's last turn; raises ValueError where there is none to learn from."""
    roles = [message["role"] for message in conversation.messages]
    if "assistant" not in roles:
        raise ValueError(f"no assistant turn: there is {', '.join(roles) or 'no message'}")
    if not any(message["role"] == "assistant" and message.get("weight", 1) for message in conversation.messages):
        raise ValueError("no assistant turn to learn from: all have the weight 0")
    last = len(roles) - roles[::-1].index("assistant")
    return Conversation(conversation.messages[:last], conversation.tools)


def _maybe_json(value: Any) -> Any:
    """A list of messages where the text is the JSON of one, else itself."""
    if not isinstance(value, str) or not value.lstrip().startswith("[{"):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value
