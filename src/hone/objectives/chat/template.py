"""Chat templates: conversations as the text that a model reads, and the extents of the assistant's turns in it.

A template is a program that comes with a model: it runs only through transformers, in jinja2's
ImmutableSandboxedEnvironment.
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

# ChatML with the tokenizer's own end token as end-of-turn mark: every tokenizer has one, and generation stops at it.
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

# The date that Llama 3's templates write if none is passed: the same rows give the same tokens on any day.
DATE = "26 Jul 2024"
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
# transformers' jinja2 environment is shared by all threads, and the extents of generation blocks are part of its state.
_GENERATION_LOCK = Lock()
_MARK_TURNS = "Set objective.template to a template with {% generation %} around the assistant's turns."


def template_file(name: str) -> Path | None:
    """The file that `objective.template` names; None if it does not name a file."""
    return Path(name) if name.endswith(".jinja") else None


def resolve_template(tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    """The template named `name`: a .jinja file, `chatml`, one of the tokenizer's by name, or '' for its default.

    Raises ConfigError if there is none, ModelError if it writes the current date into every conversation.
    """
    default = tokenizer.chat_template  # a dictionary if the tokenizer has several, by name
    templates: dict[str, str] = default if isinstance(default, dict) else {"default": default} if default else {}
    file = template_file(name)
    if file is not None:
        template = _read_template(file)
    elif name == CHATML_NAME:
        template = CHATML
    elif (name or "default") in templates:
        template = templates[name or "default"]
    else:
        names = ", ".join([*templates, CHATML_NAME])
        raise ConfigError(
            f"its tokenizer has no chat template {name or 'of its own'}; there are {names}, and files (PATH.jinja)",
            where=f"objective.template {name!r} of {tokenizer.name_or_path}",
            fix="Set objective.template to chatml, or to the .jinja file of the template it was tuned with.",
        )
    if "strftime_now" in template and "date_string" not in template:
        raise ModelError(
            "its chat template writes today's date into every conversation: tokens would differ from day to day",
            where=str(tokenizer.name_or_path),
            fix="Copy it into a .jinja file, write a fixed date there, and name the file in objective.template.",
        )
    return template.replace("\r\n", "\n").replace("\r", "\n")


def _read_template(file: Path) -> str:
    try:
        return file.read_text("utf8")
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigError(
            f"the chat template cannot be read: {fault}",
            where=f"objective.template {file}",
            fix="Name a file with a Jinja template, or chatml.",
        ) from None


def template_digest(template: str) -> str:
    """The template's SHA-256, by which a served model checks it."""
    return hashlib.sha256(template.encode()).hexdigest()


def check_template(tokenizer: PreTrainedTokenizerBase, digest: str) -> None:
    """Raise ModelError if the tokenizer's chat template does not have the SHA-256 `digest`."""
    template = tokenizer.chat_template
    actual = template_digest(template) if isinstance(template, str) else "none"
    if actual != digest:
        raise ModelError(
            f"the chat template beside the weights is not the one it was trained with: its SHA-256 is {actual[:12]}…"
            f" and should be {digest[:12]}…",
            where=str(tokenizer.name_or_path),
            fix="Put back the chat_template.jinja that was registered with the model, or train with the new one.",
        )


def render_conversation(tokenizer: PreTrainedTokenizerBase, conversation: Conversation, *, prompt: bool = False) -> str:
    """The conversation as text; with `prompt` also the beginning of the assistant's next turn.

    Raises ValueError if the template refuses it.
    """
    return str(_apply_template(tokenizer, conversation, tokenize=False, add_generation_prompt=prompt))


def render_turns(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> tuple[str, list[tuple[int, int]]]:
    """The conversation as text, and the extents in characters of the assistant's turns that are learned.

    A turn begins where the prompt for it ends. The turns are the template's generation blocks; if it has none, what
    each turn adds to the rendered turns before it. Raises ValueError if the template refuses the conversation,
    ModelError if it renders turns differently when others follow.
    """
    if _GENERATION.search(tokenizer.chat_template):
        text, spans = _find_marked_turns(tokenizer, conversation)
    else:
        text, spans = _find_added_turns(tokenizer, conversation)
    answers = [message for message in conversation.messages if message["role"] == "assistant"]
    _check_tools_rendered(tokenizer, conversation, text, [text[start:end] for start, end in spans])
    return text, [span for span, message in zip(spans, answers, strict=True) if message.get("weight", 1)]


def _find_added_turns(
    tokenizer: PreTrainedTokenizerBase, conversation: Conversation
) -> tuple[str, list[tuple[int, int]]]:
    """Text and turns from the differences between the conversation's rendered beginnings."""
    messages, tools = conversation.messages, conversation.tools
    text, spans = render_conversation(tokenizer, conversation), []
    for n, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        with_turn = render_conversation(tokenizer, Conversation(messages[: n + 1], tools))
        if n:
            before_turn = render_conversation(tokenizer, Conversation(messages[:n], tools), prompt=True)
        else:  # transformers renders no empty conversation
            before_turn = with_turn.partition(message["content"])[0]
        if not (with_turn.startswith(before_turn) and text.startswith(with_turn)):
            longer, beginning = (text, with_turn) if with_turn.startswith(before_turn) else (with_turn, before_turn)
            raise ModelError(
                f"its chat template renders the turns up to messages[{n}] differently when more follows: "
                f"{_describe_difference(beginning, longer)}",
                where=_describe_template(tokenizer),
                fix=_MARK_TURNS,
            )
        spans.append((len(before_turn), len(with_turn)))
    return text, spans


def _find_marked_turns(
    tokenizer: PreTrainedTokenizerBase, conversation: Conversation
) -> tuple[str, list[tuple[int, int]]]:
    """Text and turns from the template's generation blocks."""
    from transformers.utils.chat_template_utils import render_jinja_template

    count = sum(message["role"] == "assistant" for message in conversation.messages)
    with _GENERATION_LOCK, _convert_template_errors():
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
            where=_describe_template(tokenizer),
            fix=_MARK_TURNS,
        )
    return text, list(spans)


def _check_tools_rendered(
    tokenizer: PreTrainedTokenizerBase, conversation: Conversation, text: str, turns: list[str]
) -> None:
    """Raise ModelError if the template leaves out tools or calls of them: they would not be learned."""
    answers = [message for message in conversation.messages if message["role"] == "assistant"]
    misses_call = any(
        call["function"]["name"] not in turn
        for turn, message in zip(turns, answers, strict=True)
        for call in message.get("tool_calls", ())
    )
    if misses_call or any(tool["function"]["name"] not in text for tool in conversation.tools):
        raise ModelError(
            f"its chat template leaves out {'the calls of tools' if misses_call else 'the tools'}",
            where=_describe_template(tokenizer),
            fix="Set objective.template to a template that supports tools, such as chatml.",
        )


def _apply_template(tokenizer: PreTrainedTokenizerBase, conversation: Conversation, **options: Any) -> Any:
    with _convert_template_errors():
        return tokenizer.apply_chat_template(
            list(conversation.messages), tools=list(conversation.tools) or None, date_string=DATE, **options
        )


@contextmanager
def _convert_template_errors() -> Iterator[None]:
    """Raise ValueError for an error of the template within the block."""
    from jinja2.exceptions import TemplateError

    try:
        yield
    except (TemplateError, TypeError) as fault:
        raise ValueError(f"the chat template refuses it: {fault}") from fault


def _describe_difference(first: str, second: str) -> str:
    """Both texts around the first character in which they differ."""
    pairs = enumerate(zip(first, second, strict=False))
    position = next((n for n, (a, b) in pairs if a != b), min(len(first), len(second)))
    excerpt = slice(max(0, position - 20), position + 30)
    return f"{first[excerpt]!r} and {second[excerpt]!r}"


def _describe_template(tokenizer: PreTrainedTokenizerBase) -> str:
    return f"the chat template of {tokenizer.name_or_path}, SHA-256 {template_digest(tokenizer.chat_template)[:12]}…"
