"""Preference rows in the forms of public data sets, converted to a prompt and the completions that were compared.

A text is plain, or a conversation: a list of messages, each with `role` and `content`, stored as JSON. A missing
completion (of a single text that was liked or not) is the empty conversation, `[]`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hone.objectives.shared.json_cells import load_json

Messages = list[dict[str, str]]
Text = str | Messages

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
}
# The form of conversations in plain text (Bai et al., arXiv 2204.05862, the HH data).
_TURN = {"user": "\n\nHuman: ", "assistant": "\n\nAssistant: ", "system": "", "tool": "\n\nTool: "}
_ASSISTANT = "\n\nAssistant:"


def normalize_preference_row(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """`prompt`, `chosen` and `rejected` of a row in any supported form; the row itself if its form is not supported.

    Forms: prompt, chosen, rejected (texts, or messages as in trl); instruction and input with chosen, rejected;
    conversations or messages with chosen, rejected (LLaMA-Factory); chosen, rejected alone as whole conversations with
    the same beginning (HH); prompt, completion and label, or messages with label or kto_tag (KTO). Raises ValueError
    for texts that are empty, malformed or equal.
    """
    if "chosen_messages" in values and "rejected_messages" in values:
        values = {**values, "chosen": values["chosen_messages"], "rejected": values["rejected_messages"]}
    if "chosen" in values and "rejected" in values:
        return _normalize_pair(values)
    for name in ("label", "kto_tag"):
        if name in values and (values.keys() & {"completion", "messages", "conversations"}):
            return _normalize_single(values, name)
    return values


def parse_text(value: str) -> Text:
    """The messages in a column's value, if it is JSON of messages; otherwise the value itself, plain text."""
    if value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        parsed = load_json(value)
    except ValueError:
        return value
    messages = [parsed] if isinstance(parsed, dict) else parsed
    are_messages = all(isinstance(message, dict) and message.keys() & {"role", "from"} for message in messages)
    return normalize_messages(messages, "messages") if are_messages else value


def plain_text(text: Text) -> str:
    """A text for people: the contents of messages, each on a line of its own."""
    return text if isinstance(text, str) else "\n".join(message["content"] for message in text)


def render_plain(messages: Messages, *, answered: bool) -> str:
    """Messages as plain text in the form of the HH data; unless `answered`, the beginning of the answer is added."""
    text = "".join(_TURN[message["role"]] + message["content"] for message in messages)
    return text if answered else text + _ASSISTANT


def find_fault(prompt: Text, chosen: Text, rejected: Text) -> str:
    """The reason a row cannot be used for training, '' for none."""
    for name, text in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected)):
        if text != [] and not plain_text(text).strip():
            return f"{name} is empty"
    if prompt == []:
        return "prompt is empty"
    if chosen == [] and rejected == []:
        return "there is no completion"
    if plain_text(chosen).strip() == plain_text(rejected).strip():
        return "chosen and rejected are the same"
    return ""


def normalize_messages(value: Any, name: str) -> Messages:
    """Messages with `role` and `content` from one or several with these keys or `from` and `value`.

    Raises ValueError, about the column `name`, for anything else.
    """
    messages = [value] if isinstance(value, Mapping) else value
    if not isinstance(messages, list):
        raise ValueError(f"{name} is neither a text nor a list of messages")
    return [_normalize_message(message, name) for message in messages]


def _normalize_message(message: Any, name: str) -> dict[str, str]:
    if not isinstance(message, Mapping):
        raise ValueError(f"{name} has an item that is not a message")
    role, content = message.get("role", message.get("from")), message.get("content", message.get("value"))
    if not isinstance(role, str) or role not in _ROLES:
        raise ValueError(f"{name} has a message with an unknown role: {role}")
    if isinstance(content, list):
        parts = [part.get("text", part.get("value")) for part in content if isinstance(part, Mapping)]
        all_text = len(parts) == len(content) and all(isinstance(part, str) for part in parts)
        content = "".join(parts) if all_text else None
    if not isinstance(content, str):
        raise ValueError(f"{name} has a message whose content is not text")
    return {"role": _ROLES[role], "content": content}


def _normalize_pair(values: Mapping[str, Any]) -> Mapping[str, Any]:
    chosen, rejected = _parse_column(values, "chosen"), _parse_column(values, "rejected")
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise ValueError("chosen and rejected are not both texts or both messages")
    if isinstance(chosen, list) and isinstance(rejected, list) and _has_prompt(chosen) and _has_prompt(rejected):
        return _build_row(*_split_shared_messages(chosen, rejected))
    prompt = _find_prompt(values)
    if prompt is None and isinstance(chosen, str) and isinstance(rejected, str):
        # HH: the prompt ends with the last "Assistant:" up to which both texts are equal.
        starts = [match.end() for match in re.finditer(_ASSISTANT, chosen)]
        if not (shared_starts := [start for start in starts if rejected.startswith(chosen[:start])]):
            return values
        split = shared_starts[-1]
        prompt, chosen, rejected = chosen[:split], chosen[split:], rejected[split:]
    return values if prompt is None else _build_row(prompt, chosen, rejected)


def _normalize_single(values: Mapping[str, Any], column: str) -> Mapping[str, Any]:
    """A row whose only completion is its chosen if `column` is true, and its rejected if it is false."""
    label = str(values[column]).strip().lower()
    if label not in ("true", "false", "1", "0"):
        raise ValueError(f"{column} is neither true nor false")
    if "completion" in values:
        prompt, completion = _find_prompt(values), _parse_column(values, "completion")
        if prompt is None:
            return values
    else:
        messages = normalize_messages(values.get("messages", values.get("conversations")), "messages")
        if len(messages) < 2 or messages[-1]["role"] != "assistant":
            raise ValueError("messages do not end with the assistant's turn")
        prompt, completion = messages[:-1], messages[-1:]
    return _build_row(prompt, *((completion, []) if label in ("true", "1") else ([], completion)))


def _find_prompt(values: Mapping[str, Any]) -> Text | None:
    """The prompt in a row's columns other than the completions; None if there is none."""
    if "prompt" in values:
        return _parse_column(values, "prompt")
    for name in ("conversations", "messages"):
        if name in values:
            return normalize_messages(values[name], name)
    if "instruction" not in values:
        return None
    instruction = "\n".join(str(values[name]) for name in ("instruction", "input") if values.get(name))
    history = [
        message
        for question, answer in values.get("history") or ()
        for message in (_user_message(question), _assistant_message(answer))
    ]
    system = [{"role": "system", "content": str(values["system"])}] if values.get("system") else []
    return [*system, *history, _user_message(instruction)] if system or history else instruction


def _build_row(prompt: Text, chosen: Text, rejected: Text) -> dict[str, Any]:
    """The three texts, all plain or all messages; raises ValueError with the reason if the row cannot be used."""
    if any(isinstance(text, list) and text for text in (prompt, chosen, rejected)):
        prompt = [_user_message(prompt)] if isinstance(prompt, str) else prompt
        chosen, rejected = (
            [_assistant_message(text)] if isinstance(text, str) else text for text in (chosen, rejected)
        )
    if reason := find_fault(prompt, chosen, rejected):
        raise ValueError(reason)
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _split_shared_messages(chosen: Messages, rejected: Messages) -> tuple[Messages, Messages, Messages]:
    """The messages that two conversations have in common, and the rest of each, which begins with the assistant's."""
    limit = min(len(chosen), len(rejected)) - 1  # at least one message of each is left as its completion
    shared = next((i for i in range(limit) if chosen[i] != rejected[i]), limit)
    while shared and not chosen[shared]["role"] == rejected[shared]["role"] == "assistant":
        shared -= 1
    if not shared:
        raise ValueError("chosen and rejected do not begin with the same messages, and there is no prompt")
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _has_prompt(messages: Messages) -> bool:
    """Whether messages are a conversation from its beginning, not an answer alone."""
    return bool(messages) and messages[0]["role"] in ("system", "user")


def _parse_column(values: Mapping[str, Any], name: str) -> Text:
    value = values[name]
    if value is None:
        raise ValueError(f"{name} is null")
    return parse_text(value) if isinstance(value, str) else normalize_messages(value, name)


def _user_message(content: Any) -> dict[str, str]:
    return {"role": "user", "content": str(content)}


def _assistant_message(content: Any) -> dict[str, str]:
    return {"role": "assistant", "content": str(content)}
