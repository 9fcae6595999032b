"""Chat templates: conversations as the text that a model reads, and where in it the assistant speaks.

A template is a program that comes with a model: transformers runs it in jinja2's ImmutableSandboxedEnvironment, and
nothing here runs it in another way.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from hone.errors import ConfigError, ModelError
from hone.objectives.chat.conversations import Conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# ChatML, whose end-of-turn mark is the tokenizer's own end token: every tokenizer has one, and generation stops at it.
CHATML = """\
{{- bos_token }}
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- 'There are these tools. To call one answer <tool_call>{"name": NAME, "arguments": {...}}</tool_call>.\\n' }}
    {%- for tool in tools %}
        {{- tool | tojson + '\\n' }}
    {%- endfor %}
    {{- eos_token + '\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if not (tools and loop.first and message.role == 'system') %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- if message.reasoning_content %}
            {{- '<think>' + message.reasoning_content + '</think>\\n' }}
        {%- endif %}
        {{- message.content }}
        {%- for call in message.tool_calls or [] %}
            {{- '<tool_call>' + call.function | tojson + '</tool_call>' }}
        {%- endfor %}
        {{- eos_token + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
CHATML_NAME = "chatml"

# What Llama 3's templates say where they are told no date: the same rows are the same tokens on any day.
DATE = "26 Jul 2024"
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
# jinja2's environment is one for all threads, and marks generation blocks in its own state.
_MARKING = Lock()
_MARK_TURNS = "Name a template with {% generation %} around what the assistant says in objective.template."


def template_file(name: str) -> Path | None:
    """The file that `objective.template` names, None where it names no file."""
    return Path(name) if name.endswith(".jinja") else None


def resolve_template(tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    """The template that `name` stands for: a .jinja file, `chatml`, one of the tokenizer's by name, or '' its own.

    Raises ConfigError where there is none, ModelError where it writes the day's date into every conversation.
    """
    own = tokenizer.chat_template
    named: dict[str, str] = own if isinstance(own, dict) else {"default": own} if own else {}
    file = template_file(name)
    if file is not None:
        template = _read(file)
    elif name == CHATML_NAME:
        template = CHATML
    elif (name or "default") in named:
        template = named[name or "default"]
    else:
        there = ", ".join([*named, CHATML_NAME])
        raise ConfigError(
            f"its tokenizer has no chat template {name or 'of its own'}; there are {there}, and files (PATH.jinja)",
            where=f"objective.template {name!r} of {tokenizer.name_or_path}",
            fix="Set objective.template to chatml, or to the .jinja file of the template it was tuned with.",
        )
    if "strftime_now" in template and "date_string" not in template:
        raise ModelError(
            "its chat template writes today's date into every conversation: tomorrow the same rows are other tokens",
            where=str(tokenizer.name_or_path),
            fix="Copy it into a .jinja file, write a fixed date there, and name the file in objective.template.",
        )
    return template.replace("\r\n", "\n").replace("\r", "\n")


def _read(file: Path) -> str:
    try:
        return file.read_text("utf8")
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigError(
            f"the chat template cannot be read: {fault}",
            where=f"objective.template {file}",
            fix="Name a file with a Jinja template, or chatml.",
        ) from None


def template_digest(template: str) -> str:
    """The template's digest, by which a served model knows it again."""
    return hashlib.sha256(template.encode()).hexdigest()


def check_template(tokenizer: PreTrainedTokenizerBase, digest: str) -> None:
    """Raise ModelError where the tokenizer's chat template is not the one with this SHA-256."""
    own = tokenizer.chat_template
    found = template_digest(own) if isinstance(own, str) else "none"
    if found != digest:
        raise ModelError(
            f"the chat template beside the weights is not the one it was trained with: its SHA-256 is {found[:12]}…"
            f" and should be {digest[:12]}…",
            where=str(tokenizer.name_or_path),
            fix="Put back the chat_template.jinja that was registered with the model, or train with the new one.",
        )


def render_conversation(tokenizer: PreTrainedTokenizerBase, conversation: Conversation, *, prompt: bool = False) -> str:
    """The conversation as text; with `prompt` up to where the assistant begins to speak.

    Raises ValueError where the template refuses it.
    """
    return str(_apply(tokenizer, conversation, tokenize=False, add_generation_prompt=prompt))


def render_turns(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> tuple[str, list[tuple[int, int]]]:
    """The conversation as text, and where the assistant's turns that are learned from stand in it, in characters.

    A turn goes from where the prompt for it ends to its own end. These are the template's generation blocks, where it
    has such, else what a rendered turn adds to the turns before it. Raises ValueError where the template refuses the
    conversation, ModelError where it has turns before another turn read otherwise than by themselves.
    """
    if _GENERATION.search(tokenizer.chat_template):
        text, spans = _marked(tokenizer, conversation)
    else:
        text, spans = _added(tokenizer, conversation)
    spoken = [message for message in conversation.messages if message["role"] == "assistant"]
    _check_said(tokenizer, conversation, text, [text[start:end] for start, end in spans])
    return text, [span for span, message in zip(spans, spoken, strict=True) if message.get("weight", 1)]


def _added(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> tuple[str, list[tuple[int, int]]]:
    """By the difference of rendered beginnings."""
    messages, tools = conversation.messages, conversation.tools
    text, spans = render_conversation(tokenizer, conversation), []
    for n, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render_conversation(tokenizer, Conversation(messages[:n], tools), prompt=True)
        until = render_conversation(tokenizer, Conversation(messages[: n + 1], tools))
        if not (until.startswith(before) and text.startswith(until)):
            whole, part = (text, until) if until.startswith(before) else (until, before)
            raise ModelError(
                f"its chat template renders the turns up to messages[{n}] otherwise when more follows: "
                f"{_where_they_part(part, whole)}",
                where=_named(tokenizer),
                fix=_MARK_TURNS,
            )
        spans.append((len(before), len(until)))
    return text, spans


def _marked(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> tuple[str, list[tuple[int, int]]]:
    """By the template's generation blocks."""
    from transformers.utils.chat_template_utils import render_jinja_template

    count = sum(message["role"] == "assistant" for message in conversation.messages)
    with _MARKING, _refusals():
        [text], [spans] = render_jinja_template(
            [list(conversation.messages)],
            tools=list(conversation.tools) or None,
            chat_template=tokenizer.chat_template,
            return_assistant_tokens_mask=True,
            date_string=DATE,
            **tokenizer.special_tokens_map,
        )
    if len(spans) != count:
        raise ModelError(
            f"its chat template has {len(spans)} generation blocks for {count} turns of the assistant",
            where=_named(tokenizer),
            fix=_MARK_TURNS,
        )
    return text, list(spans)


def _check_said(tokenizer: PreTrainedTokenizerBase, conversation: Conversation, text: str, said: list[str]) -> None:
    """Raise ModelError where the template leaves out tools, or their calls: nothing of them would be learned."""
    spoken = [message for message in conversation.messages if message["role"] == "assistant"]
    calls = [
        call["function"]["name"] not in part
        for part, message in zip(said, spoken, strict=True)
        for call in message.get("tool_calls", ())
    ]
    if any(calls) or any(tool["function"]["name"] not in text for tool in conversation.tools):
        raise ModelError(
            f"its chat template leaves out {'the calls of tools' if any(calls) else 'the tools'}",
            where=_named(tokenizer),
            fix="Name a template that knows tools in objective.template: chatml does.",
        )


def _apply(tokenizer: PreTrainedTokenizerBase, conversation: Conversation, **options: Any) -> Any:
    with _refusals():
        return tokenizer.apply_chat_template(
            list(conversation.messages), tools=list(conversation.tools) or None, date_string=DATE, **options
        )


@contextmanager
def _refusals() -> Iterator[None]:
    """Within the block what a template raises is a ValueError."""
    from jinja2.exceptions import TemplateError

    try:
        yield
    except (TemplateError, TypeError) as fault:
        raise ValueError(f"the chat template refuses it: {fault}") from fault


def _where_they_part(one: str, other: str) -> str:
    at = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return f"{one[max(0, at - 20) : at + 30]!r} and {other[max(0, at - 20) : at + 30]!r}"


def _named(tokenizer: PreTrainedTokenizerBase) -> str:
    return f"the chat template of {tokenizer.name_or_path}, SHA-256 {template_digest(tokenizer.chat_template)[:12]}…"
