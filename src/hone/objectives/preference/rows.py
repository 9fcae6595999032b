"""Preferences as data sets have them, brought into a prompt and the completions that were compared.

A text is plain, or a conversation: a list of messages, each with `role` and `content`, in a column as JSON. A
completion that was not there to be compared (one text, liked or not) is the empty conversation, `[]`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

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
# How conversations are written where they are plain text (Bai et al., arXiv 2204.05862, the HH data).
_TURN = {"user": "\n\nHuman: ", "assistant": "\n\nAssistant: ", "system": "", "tool": "\n\nTool: "}
_ASSISTANT = "\n\nAssistant:"


def normalize_preference_row(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """`prompt`, `chosen` and `rejected` of a row in any form that is known; the row itself where it is of none.

    Forms: prompt, chosen, rejected (texts, or messages as trl has them); instruction and input with chosen, rejected;
    conversations or messages with chosen, rejected (LLaMA-Factory); chosen, rejected alone as whole conversations that
    begin alike (HH); prompt, completion and label, or messages with label or kto_tag (KTO). Raises ValueError for what
    is empty, malformed or the same twice.
    """
    if "chosen_messages" in values and "rejected_messages" in values:
        values = {**values, "chosen": values["chosen_messages"], "rejected": values["rejected_messages"]}
    if "chosen" in values and "rejected" in values:
        return _pair(values)
    for liked in ("label", "kto_tag"):
        if liked in values and (values.keys() & {"completion", "messages", "conversations"}):
            return _judged(values, liked)
    return values


def parse_text(value: str) -> Text:
    """The messages that a column's value holds as JSON, or the value as it is: plain text."""
    if value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        found = json.loads(value)
    except ValueError:
        return value
    turns = [found] if isinstance(found, dict) else found
    alike = all(isinstance(turn, dict) and turn.keys() & {"role", "from"} for turn in turns)
    return normalize_messages(turns, "messages") if alike else value


def plain_text(text: Text) -> str:
    """A text as a person reads it: messages one below the other."""
    return text if isinstance(text, str) else "\n".join(turn["content"] for turn in text)


def render_plain(text: Messages, *, answered: bool) -> str:
    """Messages as plain text, as the HH data have them; `answered`, or with the assistant's turn begun."""
    whole = "".join(_TURN[turn["role"]] + turn["content"] for turn in text)
    return whole if answered else whole + _ASSISTANT


def find_fault(prompt: Text, chosen: Text, rejected: Text) -> str:
    """What keeps a row from being learned from, '' for nothing."""
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
    """Messages with `role` and `content`, from those or from `from` and `value`; raises ValueError that says `name`."""
    turns = [value] if isinstance(value, Mapping) else value
    if not isinstance(turns, list):
        raise ValueError(f"{name} is neither a text nor a list of messages")
    return [_message(turn, name) for turn in turns]


def _message(turn: Any, name: str) -> dict[str, str]:
    if not isinstance(turn, Mapping):
        raise ValueError(f"{name} holds something else than messages")
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if not isinstance(role, str) or role not in _ROLES:
        raise ValueError(f"{name} has a message of no known role: {role}")
    if isinstance(content, list):
        parts = [part.get("text", part.get("value")) for part in content if isinstance(part, Mapping)]
        whole = len(parts) == len(content) and all(isinstance(part, str) for part in parts)
        content = "".join(parts) if whole else None
    if not isinstance(content, str):
        raise ValueError(f"{name} has a message whose content is not text")
    return {"role": _ROLES[role], "content": content}


def _pair(values: Mapping[str, Any]) -> Mapping[str, Any]:
    chosen, rejected = _text(values, "chosen"), _text(values, "rejected")
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise ValueError("chosen and rejected are not both texts or both messages")
    if isinstance(chosen, list) and isinstance(rejected, list) and _whole(chosen) and _whole(rejected):
        return _row(*_parted(chosen, rejected))
    prompt = _prompt(values)
    if prompt is None and isinstance(chosen, str) and isinstance(rejected, str):
        ends = [turn.end() for turn in re.finditer(_ASSISTANT, chosen)]
        if not (alike := [end for end in ends if rejected.startswith(chosen[:end])]):
            return values
        prompt, chosen, rejected = chosen[: alike[-1]], chosen[alike[-1] :], rejected[alike[-1] :]
    return values if prompt is None else _row(prompt, chosen, rejected)


def _judged(values: Mapping[str, Any], liked: str) -> Mapping[str, Any]:
    """The one completion of a row as its chosen or its rejected, by the truth of the column `liked`."""
    verdict = str(values[liked]).strip().lower()
    if verdict not in ("true", "false", "1", "0"):
        raise ValueError(f"{liked} is neither true nor false")
    if "completion" in values:
        prompt, completion = _prompt(values), _text(values, "completion")
        if prompt is None:
            return values
    else:
        turns = normalize_messages(values.get("messages", values.get("conversations")), "messages")
        if len(turns) < 2 or turns[-1]["role"] != "assistant":
            raise ValueError("messages do not end with the assistant's")
        prompt, completion = turns[:-1], turns[-1:]
    return _row(prompt, *((completion, []) if verdict in ("true", "1") else ([], completion)))


def _prompt(values: Mapping[str, Any]) -> Text | None:
    """The prompt of a row that names it apart; None for one that does not."""
    if "prompt" in values:
        return _text(values, "prompt")
    for name in ("conversations", "messages"):
        if name in values:
            return normalize_messages(values[name], name)
    if "instruction" not in values:
        return None
    asked = "\n".join(str(values[name]) for name in ("instruction", "input") if values.get(name))
    earlier = [turn for question, answer in values.get("history") or () for turn in (_user(question), _said(answer))]
    system = [{"role": "system", "content": str(values["system"])}] if values.get("system") else []
    return [*system, *earlier, _user(asked)] if system or earlier else asked


def _row(prompt: Text, chosen: Text, rejected: Text) -> dict[str, Any]:
    """The three, all of them plain or all of them messages; raises ValueError for what cannot be learned from."""
    if any(isinstance(text, list) and text for text in (prompt, chosen, rejected)):
        prompt = [_user(prompt)] if isinstance(prompt, str) else prompt
        chosen, rejected = ([_said(text)] if isinstance(text, str) else text for text in (chosen, rejected))
    if reason := find_fault(prompt, chosen, rejected):
        raise ValueError(reason)
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _parted(chosen: Messages, rejected: Messages) -> tuple[Messages, Messages, Messages]:
    """The messages that two conversations begin with, and what the assistant says after them in each."""
    most = min(len(chosen), len(rejected)) - 1
    alike = next((i for i in range(most) if chosen[i] != rejected[i]), most)
    while alike and not chosen[alike]["role"] == rejected[alike]["role"] == "assistant":
        alike -= 1
    if not alike:
        raise ValueError("chosen and rejected do not begin with the same messages, and there is no prompt")
    return chosen[:alike], chosen[alike:], rejected[alike:]


def _whole(text: Messages) -> bool:
    """Whether messages are a conversation from its beginning, and not an answer alone."""
    return bool(text) and text[0]["role"] in ("system", "user")


def _text(values: Mapping[str, Any], name: str) -> Text:
    value = values[name]
    if value is None:
        raise ValueError(f"{name} is null")
    return parse_text(value) if isinstance(value, str) else normalize_messages(value, name)


def _user(content: Any) -> dict[str, str]:
    return {"role": "user", "content": str(content)}


def _said(content: Any) -> dict[str, str]:
    return {"role": "assistant", "content": str(content)}
