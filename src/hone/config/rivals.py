"""The section `evaluation.rivals`: models that are not trained, asked the test rows in a prompt."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from hone.config.api import ASKING, ApiSection
from hone.config.parts import Section, SourcePart

BASE = "base"  # the name in `model` of the run's own base model
# Fields that only a model behind an API has; none of them may be set for a local one.
API_FIELDS = ("url", "key", "send_rows", "price", "max_cost", "parallel", "attempts", "timeout")


class Corpus(Section):
    """Texts in which passages for each question are looked up (retrieval-augmented generation)."""

    source: SourcePart = Field(description="The source of the texts.")
    text: str = Field("text", min_length=1, description="The source's column with the text.")
    words: int = Field(150, ge=10, le=5000, description="Maximum number of words of a passage.")
    overlap: int = Field(30, ge=0, le=2500, description="Number of words that neighbouring passages share.")
    passages: int = Field(4, ge=1, le=100, description="Number of passages in each prompt.")
    choose: Literal["bm25", "nearest"] = Field(
        "bm25", description="bm25: the passages with the question's rarest words; nearest: by the base's embeddings."
    )

    @model_validator(mode="after")
    def _check_overlap(self) -> Corpus:
        if self.overlap >= self.words:
            raise ValueError("overlap must be below words")
        return self


class Rival(ApiSection):
    """A model that is prompted instead of trained: a local one, or one behind an API."""

    kind: Literal["prompt"] = Field("prompt", description="The kind of rival.")
    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="Name in the report: a-z, 0-9, dots, dashes, underscores."
    )
    api: Literal["", "openai", "openai-completions", "anthropic"] = Field(
        "",
        description="The API's form: openai (chat), openai-completions (plain text) or anthropic; empty for a local"
        " model.",
    )
    model: str = Field(
        BASE,
        min_length=1,
        description="The provider's name of the model; of a local one as in model.base, or base for the run's own.",
    )
    shots: int = Field(0, ge=0, le=100, description="Number of training rows shown as examples in each prompt.")
    choose: Literal["random", "nearest", "bm25"] = Field(
        "random",
        description="How the examples are chosen: random, the same for all rows; nearest, by the base model's"
        " embeddings; bm25, by words.",
    )
    template: str = Field("", description="Path of a Jinja file with the prompt; empty for the default.")
    corpus: Corpus | None = Field(None, description=Corpus.__doc__)
    limit: int | None = Field(None, ge=1, description="Maximum number of test rows to ask, chosen at random.")
    max_tokens: int = Field(256, ge=1, le=100000, description="Maximum number of tokens of an answer.")
    seed: int = Field(17, ge=0, description="Seed of the choice of rows and examples.")

    @property
    def uses_base(self) -> bool:
        """Whether the run's base model answers, or embeds texts."""
        is_nearest = self.choose == "nearest" and self.shots > 0
        return is_nearest or (not self.api and self.model == BASE) or bool(self.corpus and self.corpus.choose != "bm25")

    def list_deciding(self) -> dict[str, Any]:
        """The fields that decide its answers."""
        fields = self.model_dump(exclude=set(ASKING) | {"corpus"})
        if self.max_cost is not None:
            fields["price"] = self.price.model_dump() if self.price else None
        return fields

    @model_validator(mode="after")
    def _check_fields(self) -> Rival:
        if not self.api:
            extra = [name for name in API_FIELDS if name in self.model_fields_set]
            if extra:
                raise ValueError(f"{', '.join(extra)} need an api; a local model has none")
            return self
        if self.model == BASE:
            raise ValueError("model: write the provider's name of the model")
        self.check_address()
        return self
