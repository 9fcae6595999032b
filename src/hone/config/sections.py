"""RunConfig: all that a run may be told, one section for each stage."""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal

from pydantic import Field, field_validator, model_validator

from hone.config.parts import MethodPart, ObjectivePart, Section, SourcePart, StepPart, TrainingSection
from hone.config.secrets import strings
from hone.parts.moments import AS_OF
from hone.training.settings import Settings


class Ingest(Section):
    """Where the rows come from, and which of their columns mean what."""

    source: SourcePart = Field(description="Where the rows come from.")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="The source's names for the objective's columns, where they differ: {text: body, label: topic}.",
    )
    keep: list[str] = Field(
        default_factory=list, description="Further columns of the source to carry along, for slices and reports."
    )
    max_refused: float = Field(
        0.0, ge=0, le=1, description="The share of input rows that may be refused (malformed) before the run stops."
    )
    time: str = Field(
        "",
        description="The source's column that says when a row came: ISO 8601, or seconds since 1970. With it a run can"
        " be made as of an earlier moment.",
    )
    as_of: date | datetime | None = Field(
        None,
        description="Take the rows whose time is at or before this moment (a date: to its end; UTC where it says no"
        " zone), and read {as_of} in the source's paths and query as this date; else as today's.",
    )

    @model_validator(mode="after")
    def _as_of_what(self) -> Ingest:
        dated = any(AS_OF in text for text in strings(self.source.options()))
        if self.as_of is not None and not self.time and not dated:
            raise ValueError(
                f"as_of needs time, the column of the rows' time, or {AS_OF} in the source's paths or query"
            )
        return self


class Split(Section):
    """How curated rows are parted, unless they came with their own splits."""

    valid: float = Field(0.1, ge=0, lt=1, description="Share of rows for validation.")
    test: float = Field(0.1, gt=0, lt=1, description="Share of rows for the final test.")
    seed: int = Field(17, ge=0, description="Seed of the split.")
    near_duplicate: float = Field(
        0.8, gt=0, le=1, description="Jaccard similarity from which two rows must be on the same side."
    )


class Curation(Section):
    """What happens to rows before anything is learned from them."""

    steps: list[StepPart] = Field(
        default=[{"kind": kind} for kind in ("normalize", "filters", "duplicates", "label-conflicts")],
        validate_default=True,
        description="The steps, in the order they are done.",
    )
    split: Split = Field(default_factory=Split, description="How rows are parted.")


class Validation(Section):
    """What must hold for the rows before a model may learn from them."""

    on_failure: Literal["stop", "quarantine", "warn"] = Field(
        "stop", description="What a failed expectation does: stop the run, set the failing rows aside, or only warn."
    )
    suite: str = Field("", description="A YAML file with further Great Expectations expectations.")
    min_rows: int = Field(20, ge=1, description="The least rows in the training split.")
    min_rows_held_out: int = Field(5, ge=1, description="The least rows in the validation and in the test split.")
    max_class_share: float = Field(0.95, gt=0, le=1, description="The largest share of rows that one label may have.")
    min_rows_per_class: int = Field(2, ge=1, description="The least training rows of a label.")
    max_median_tokens: int = Field(
        512, ge=1, description="The median length of a row may not be above this, in tokens."
    )
    min_median_tokens: int = Field(1, ge=1, description="The median length of a row may not be below this, in tokens.")


class Scratch(Section):
    """A base model of random weights, whose tokenizer is trained on the curated text."""

    architecture: Literal["llama", "gpt2", "qwen2", "mistral", "bert", "roberta", "t5"] = Field(
        description="Whose layers it has: a decoder, an encoder (bert, roberta), or both (t5)."
    )
    hidden_size: int = Field(256, ge=8, le=65536, description="Width of a token's vector.")
    layers: int = Field(4, ge=1, le=1024, description="Layers; of t5 in the encoder, and as many in the decoder.")
    heads: int = Field(4, ge=1, le=1024, description="Attention heads; they part hidden_size.")
    positions: int = Field(512, ge=8, le=1048576, description="The most tokens of a row that it can take.")
    vocabulary: int = Field(8192, ge=300, le=1048576, description="The most tokens that its tokenizer may have.")
    seed: int = Field(17, ge=0, description="Seed of the weights.")


class Model(Section):
    """The base model that is fine-tuned, or the one that is made from scratch."""

    base: str = Field(
        "",
        description="A hub id, a local directory, package:NAME/PATH for files that lie in an installed package, or a"
        " model of our own in MLflow: models:/NAME@ALIAS or models:/NAME/NUMBER. ${VAR} and ${VAR:-default} are"
        " replaced. Empty where the model is made from scratch.",
    )
    scratch: Scratch | None = Field(None, description=Scratch.__doc__)
    revision: str = Field("", description="The hub revision (a commit); main's newest where empty, and then recorded.")
    licence: str = Field("", description="The base model's licence, where its own files do not say.")
    ignore_code: bool = Field(
        False,
        description="Take a base model that brings code of its own, and load it with transformers' own class for it."
        " Its code is never run.",
    )
    trust_code: str = Field(
        "",
        description="NAME@REVISION of a base model whose own code is run, in training, evaluation and serving: base"
        " itself, and the commit in revision, or of what is no hub id the digest of its code, which the refusal tells.",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Model:
        if bool(self.base) == bool(self.scratch):
            raise ValueError("give either base or scratch")
        if self.trust_code and (self.ignore_code or self.scratch):
            raise ValueError("trust_code is for a base whose code is run: leave out scratch, or ignore_code")
        return self


class Tokenization(Section):
    """How text becomes tokens."""

    max_length: int = Field(128, ge=4, le=131072, description="The most tokens of a row; the rest is cut off.")
    max_truncated: float = Field(0.1, ge=0, le=1, description="The share of rows that may be cut before the run stops.")
    max_dropped: float = Field(
        0.01, ge=0, le=1, description="The share of rows that may have nothing left to learn from before the run stops."
    )


class Evaluation(Section):
    """How the model is judged on the test rows."""

    slices: list[str] = Field(
        default=["length", "source"],
        description="Columns by which metrics are told apart; length stands for quartiles of the text's length.",
    )
    neighbours: int = Field(10, ge=1, description="Neighbours of the k-nearest-neighbours baseline.")
    resamples: int = Field(1000, ge=100, le=100000, description="Bootstrap resamples.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Coverage of the intervals.")
    worst: int = Field(20, ge=0, le=1000, description="How many of the worst errors are shown.")
    seed: int = Field(17, ge=0, description="Seed of the bootstrap.")


class Registration(Section):
    """What the model is called in MLflow."""

    model: str = Field("", description="The registered model's name; the run's name where empty.")
    experiment: str = Field("hone", min_length=1, description="The MLflow experiment.")
    alias: str = Field("candidate", pattern=r"^[a-z][a-z0-9_-]*$", description="The alias a new version gets.")

    @field_validator("alias")
    @classmethod
    def _not_reserved(cls, alias: str) -> str:
        if alias == "latest" or (alias[1:].isdigit() and alias[0] == "v"):
            raise ValueError("is an alias that MLflow keeps for itself")
        return alias


class Guards(Section):
    """What may not become worse when the champion changes; a guard that is null is not looked at.

    Each goes by an interval: a guard refuses what is worse for certain, not what a noisy point shows.
    """

    slice_fall: float | None = Field(
        0.05, ge=0, description="The most that the main metric may fall in a slice of evaluation.slices."
    )
    class_fall: float | None = Field(0.1, ge=0, description="The most that the F1 of a class may fall.")
    calibration: float | None = Field(
        0.05, ge=0, description="The most that the expected calibration error (ece) may grow."
    )
    latency: float | None = Field(
        2.0, gt=0, description="The most that a single request may take (p95), as a ratio to the champion's."
    )
    size: float | None = Field(
        2.0, gt=0, description="The most that the weights may take, as a ratio to the champion's."
    )


class Promotion(Section):
    """When a candidate may become the champion, and who decides it."""

    policy: Literal["manual", "auto", "shadow"] = Field(
        "manual",
        description="manual: a person is asked once the gates have passed; auto: the gates decide; shadow: the decision"
        " is recorded and nothing moves.",
    )
    golden: str = Field(
        "",
        description="A frozen file of rows (csv, jsonl, parquet) with the objective's columns, on which both are judged"
        " too. ${VAR} and ${VAR:-default} are replaced.",
    )
    test: Literal["bootstrap", "mcnemar"] = Field(
        "bootstrap",
        description="The paired test on the main metric; mcnemar, exact, where that is the share of right rows.",
    )
    level: float = Field(0.05, gt=0, lt=0.5, description="The p-value from which on a candidate is no longer better.")
    margin: float | None = Field(
        None,
        gt=0,
        description="null: the candidate must be better. A number: it must not be worse by more than that, in the"
        " metric's own unit (0.01 is one point of accuracy).",
    )
    resamples: int = Field(2000, ge=100, le=100000, description="Bootstrap resamples.")
    seed: int = Field(17, ge=0, description="Seed of the bootstrap.")
    near_duplicate: float = Field(
        0.8, gt=0, le=1, description="Jaccard similarity from which on a row counts as one that was trained on."
    )
    guards: Guards = Field(default_factory=Guards, description=Guards.__doc__)
    expires_hours: float = Field(72.0, gt=0, description="How long a person's answer is waited for, in hours.")
    enforce: bool = Field(
        False, description="Put a champion that was moved by hand back; else that is only journalled and judged."
    )

    @model_validator(mode="after")
    def _test_has_a_margin(self) -> Promotion:
        if self.test == "mcnemar" and self.margin is not None:
            raise ValueError("mcnemar knows no margin: leave margin null, or take the bootstrap")
        return self


class Monitoring(Section):
    """How recent inputs are compared with the rows that the model was made from. No stage's key depends on it."""

    inputs: SourcePart | None = Field(None, description="Where recent inputs are: files, or a query; no labels needed.")
    level: float = Field(
        0.05, gt=0, lt=0.5, description="The chance that a check says drift where there is none, of all tests together."
    )
    min_rows: int = Field(100, ge=20, description="With fewer distinct rows than this nothing is decided.")
    sample: int = Field(1000, ge=20, le=10000, description="The most recent rows that are compared, drawn at random.")
    permutations: int = Field(
        500, ge=199, le=100000, description="Permutations of a test; the least p-value is 1 in so many, and one."
    )
    seed: int = Field(17, ge=0, description="Seed of the sample and of the permutations.")


class RunConfig(Section):
    """All that a run may be told. Each stage's cache key depends on its own section alone."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="The run's name: a-z, 0-9 and dashes.")
    objective: ObjectivePart = Field(
        default={"kind": "text-classification"}, validate_default=True, description="What the model learns."
    )
    ingest: Ingest = Field(description=Ingest.__doc__)
    curation: Curation = Field(default_factory=Curation, description=Curation.__doc__)
    validation: Validation = Field(default_factory=Validation, description=Validation.__doc__)
    model: Model = Field(description=Model.__doc__)
    tokenization: Tokenization = Field(default_factory=Tokenization, description=Tokenization.__doc__)
    method: MethodPart = Field(default={"kind": "full"}, validate_default=True, description="Which weights move.")
    training: TrainingSection = Field(default={}, validate_default=True, description=Settings.__doc__)
    evaluation: Evaluation = Field(default_factory=Evaluation, description=Evaluation.__doc__)
    registration: Registration = Field(default_factory=Registration, description=Registration.__doc__)
    promotion: Promotion = Field(default_factory=Promotion, description=Promotion.__doc__)
    monitoring: Monitoring = Field(default_factory=Monitoring, description=Monitoring.__doc__)
