"""Completion, the answer of a prompted model, and Engine, what gives such answers: a local model or an API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Completion:
    """The answer of a model to one prompt.

    text           what the model wrote, or the choice that it finds most likely; '' for a refusal
    ended          stop: complete; length: cut off at the maximum number of tokens; refusal: the model or its provider
                   declined to answer
    input_tokens   tokens of the prompt, as the model or its provider counts them
    output_tokens  tokens of the answer
    seconds        from sending the request that was answered to its answer, without earlier attempts
    attempts       number of requests, with those that were repeated
    """

    text: str
    ended: Literal["stop", "length", "refusal"]
    input_tokens: int
    output_tokens: int
    seconds: float
    attempts: int = 1


class Engine(Protocol):
    """A model that answers prompts one at a time. `ask` may be called by several threads if `parallel` is above 1."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """JSON-able, all that decides an answer but the prompt: endpoint, model, parameters, library versions."""

    @property
    def parallel(self) -> int:
        """The number of prompts that it answers at a time."""

    def fits(self, prompt: str) -> bool:
        """Whether the model has room for the prompt and an answer; true where only the provider knows."""

    def close(self) -> None:
        """Give back what it holds: connections, or the weights in memory. No `ask` may be running."""

    def ask(self, prompt: str) -> Completion:
        """The answer to one prompt.

        Raises ConfigError for what no repetition changes (a wrong key, an unknown model), ServiceError if there is no
        answer after the last attempt.
        """
