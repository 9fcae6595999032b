"""The prompt of a row: the task, examples and the question in a template."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hone.errors import ConfigError

DEFAULT = Path(__file__).with_name("prompt.jinja")
NAMES = ("task", "shots", "passages", "question")
# What a template's own expressions raise: {{ 1 / 0 }}, {{ question + 1 }}, {% include %}, {{ range(10**9) }}.
_TEMPLATE_FAULTS = (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Parts:
    """What a prompt consists of: the instruction, examples (`question`, `answer`), passages, and the question."""

    task: str
    shots: Sequence[Mapping[str, str]]
    passages: Sequence[str]
    question: str


class Template:
    """A Jinja template of a prompt, from a file. It sees the `names`, and must show the texts of those `required`.

    Raises ConfigError for a file that is missing or no template.
    """

    def __init__(
        self, path: Path = DEFAULT, names: Sequence[str] = NAMES, required: Sequence[str] = ("question",)
    ) -> None:
        self._path, self._names, self._required = path, names, required
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
        try:
            self._template = environment.from_string(path.read_text("utf8"))
        except (OSError, UnicodeDecodeError, TemplateError) as fault:
            raise self._error(str(fault)) from None

    def render(self, parts: Parts) -> str:
        """As `fill`, from the parts of a prompt."""
        return self.fill({name: getattr(parts, name) for name in NAMES})

    def fill(self, values: Mapping[str, Any]) -> str:
        """The prompt, without spaces at its ends. Raises ConfigError if the template fails or leaves out what it needs.

        The values are inserted as they are, never read as a template.
        """
        try:
            prompt = self._template.render(values).strip()
        except _TEMPLATE_FAULTS as fault:
            raise self._error(str(fault)) from None
        if missing := [name for name in self._required if str(values[name]).strip() not in prompt]:
            raise self._error(f"leaves the {missing[0]} out")
        return prompt

    def _error(self, fault: str) -> ConfigError:
        names = ", ".join(f"{{{{ {name} }}}}" for name in self._names)
        return ConfigError(fault, where=str(self._path), fix=f"Write a Jinja template with {names}.")


def fit_prompt(parts: Parts, render: Callable[[Parts], str], fits: Callable[[str], bool]) -> tuple[str, int]:
    """The prompt with as many of the examples as fit, and their number; the first, least similar ones go first.

    ('', 0) if it does not even fit without examples: nothing is cut off.
    """
    for count in range(len(parts.shots), -1, -1):
        prompt = render(Parts(parts.task, parts.shots[len(parts.shots) - count :], parts.passages, parts.question))
        if fits(prompt):
            return prompt, count
    return "", 0
