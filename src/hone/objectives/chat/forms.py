"""Conversion of the common forms of chat data to a conversation.

OpenAI's messages, ShareGPT's conversations, TRL's prompt and completion, alpaca's instruction, input and output, and
self-instruct's instances.
"""

from __future__ import annotations

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
from hone.objectives.shared.json_cells import load_json


def conversation_from_row(values: Mapping[str, Any], *, strict: bool = True) -> Conversation:
    """The conversation in a source's row; raises ValueError with the fault and the field.

    `strict`: a role may only follow those of `FOLLOW`; else in any order, if there is something to answer.

    Forms: `messages` (OpenAI), `conversations` (ShareGPT), `prompt` and `completion`, `instruction` and `output` with
    `input`, `system` and `history` (alpaca), `instruction` and `instances` (self-instruct); any may have `tools`.
    Turns after the assistant's last one are cut off: they are not learned.
    """
    for names, parse_form in _FORMS.items():
        if all(values.get(name) is not None for name in names):
            conversation = parse_form(values)
            if strict:
                check_order(list(conversation.messages), " and ".join(names))
            tools = conversation.tools or normalize_tools(values.get("tools"))
            learned = _cut_after_last_answer(Conversation(conversation.messages, tools))
            _ = learned.question  # raises ValueError if the assistant answers nothing
            return learned
    columns = ", ".join(values)
    raise ValueError(f"no conversation: no supported form has the columns {columns}")


def _parse_openai(values: Mapping[str, Any]) -> Conversation:
    return normalize_conversation(values["messages"], "messages")


def _parse_sharegpt(values: Mapping[str, Any]) -> Conversation:
    conversation = normalize_conversation(values["conversations"], "conversations")
    messages = [*_build_system_messages(values), *conversation.messages]
    return Conversation(messages, conversation.tools)


def _parse_completion(values: Mapping[str, Any]) -> Conversation:
    """TRL's prompt and completion: two texts, or two lists of messages."""
    prompt, completion = (_parse_json_messages(values[name]) for name in ("prompt", "completion"))
    prompt_messages = (
        normalize_messages(prompt, "prompt") if isinstance(prompt, list) else [_build_message("user", prompt, "prompt")]
    )
    completion_messages = normalize_messages(completion, "completion") if isinstance(completion, list) else None
    completion_messages = completion_messages or [_build_message("assistant", completion, "completion")]
    return Conversation([*_build_system_messages(values), *prompt_messages, *completion_messages])


def _parse_alpaca(values: Mapping[str, Any]) -> Conversation:
    """Instruction and input become one user turn, on separate lines; `history` has earlier questions and answers."""
    history: list[Message] = []
    for n, pair in enumerate(parse_json(values.get("history") or [], "history")):
        where = f"history[{n}]"
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise ValueError(f"not a pair: {where} is not [question, answer]")
        history += [_build_message("user", pair[0], f"{where}[0]"), _build_message("assistant", pair[1], f"{where}[1]")]
    instruction = _build_message("user", values["instruction"], "instruction")
    if extra_input := values.get("input"):
        instruction["content"] += "\n" + _build_message("user", extra_input, "input")["content"]
    answer = _build_message("assistant", values["output"], "output")
    return Conversation([*_build_system_messages(values), *history, instruction, answer])


def _parse_self_instruct(values: Mapping[str, Any]) -> Conversation:
    instances = parse_json(values["instances"], "instances")
    if not isinstance(instances, list) or len(instances) != 1 or not isinstance(instances[0], Mapping):
        raise ValueError("not one example: instances must hold one input and output; give each its own row")
    return _parse_alpaca({"output": None, **instances[0], "instruction": values["instruction"]})


_FORMS: dict[tuple[str, ...], Callable[[Mapping[str, Any]], Conversation]] = {
    ("messages",): _parse_openai,
    ("conversations",): _parse_sharegpt,
    ("prompt", "completion"): _parse_completion,
    ("instruction", "output"): _parse_alpaca,
    ("instruction", "instances"): _parse_self_instruct,
}


def _build_system_messages(values: Mapping[str, Any]) -> list[Message]:
    return [_build_message("system", values["system"], "system")] if values.get("system") else []


def _build_message(role: str, content: Any, where: str) -> Message:
    return {"role": role, "content": check_text(content, where)}


def _cut_after_last_answer(conversation: Conversation) -> Conversation:
    """The conversation up to the assistant's last turn; raises ValueError if there is no turn to learn from."""
    roles = [message["role"] for message in conversation.messages]
    if "assistant" not in roles:
        raise ValueError(f"no assistant turn: the roles are {', '.join(roles) or 'none'}")
    if not any(message["role"] == "assistant" and message.get("weight", 1) for message in conversation.messages):
        raise ValueError("no assistant turn to learn from: all have the weight 0")
    last = len(roles) - roles[::-1].index("assistant")
    return Conversation(conversation.messages[:last], conversation.tools)


def _parse_json_messages(value: Any) -> Any:
    """The list of messages in a JSON text; any other value is returned as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("[{"):
        return value
    try:
        return load_json(value)
    except ValueError:
        return value
