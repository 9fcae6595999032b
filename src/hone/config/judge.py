"""The section `evaluation.judge`: a model behind an API that compares answers two by two."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from hone.config.api import ASKING, ApiSection

Opponent = Literal["untuned", "reference"]


class Judge(ApiSection):
    """A model behind an API that compares the trained model's answers with others, two by two. Chat alone."""

    api: Literal["openai", "openai-completions", "anthropic"] = Field(
        description="The API's form: openai (chat), openai-completions (plain text) or anthropic."
    )
    model: str = Field(min_length=1, description="The provider's name of the model.")
    against: list[Opponent] = Field(
        default=["untuned"],
        min_length=1,
        description="Whose answers the trained model's are compared with: the base model's (untuned), the rows' own.",
    )
    limit: int | None = Field(100, ge=1, description="Maximum number of test rows to judge, chosen at random.")
    labelled: str = Field(
        "",
        description="A file of pairs that people judged (conversation, answer_a, answer_b, winner: a, b or tie), on"
        " which the judge's agreement is measured.",
    )
    template: str = Field("", description="Path of a Jinja file with the prompt; empty for the default.")
    max_tokens: int = Field(16, ge=1, le=100000, description="Maximum number of tokens of a verdict.")
    seed: int = Field(17, ge=0, description="Seed of the choice of rows, and of the intervals.")

    def list_deciding(self) -> dict[str, Any]:
        """The fields that decide its verdicts."""
        fields = self.model_dump(exclude=set(ASKING))
        return fields | ({"price": self.price.model_dump()} if self.price and self.max_cost is not None else {})

    @model_validator(mode="after")
    def _check_fields(self) -> Judge:
        self.check_address()
        if len(set(self.against)) < len(self.against):
            raise ValueError("against: name each opponent once")
        return self
