"""The section `evaluation.benchmarks`: tasks that show what fine-tuning made the model forget."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from hone.config.parts import Section

_NAME = re.compile(r"[^\s,]+")


class Benchmarks(Section):
    """Tasks of lm-evaluation-harness, for the fine-tuned model and for its base model."""

    tasks: list[str] = Field(min_length=1, description="Names of tasks or groups, as `lm-eval ls tasks` lists them.")
    include: str = Field(
        "",
        description="Directory with tasks of one's own: YAML files, and their data beside them. ${VAR} and"
        " ${VAR:-default} are replaced. Python functions that a task names are run.",
    )
    limit: int | None = Field(
        200, ge=1, description="Number of documents of each task, from its beginning; null for all."
    )

    @field_validator("tasks")
    @classmethod
    def _check_tasks(cls, tasks: list[str]) -> list[str]:
        for name in tasks:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a task: write one in each item, without spaces and commas")
        if len(set(tasks)) < len(tasks):
            raise ValueError("a task is named twice")
        return tasks
