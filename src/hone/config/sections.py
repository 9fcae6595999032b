"""RunConfig: the complete configuration of a run, one section per stage."""

from __future__ import annotations

import math
from datetime import date, datetime
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hone.config.benchmarks import Benchmarks
from hone.config.judge import Judge
from hone.config.parts import MethodPart, ObjectivePart, Section, SourcePart, StepPart, TrainingSection
from hone.config.rivals import Rival
from hone.config.secrets import iter_strings
from hone.config.sweep import Sweep
from hone.errors import ConfigError
from hone.objectives import OBJECTIVES
from hone.parts.moments import AS_OF
from hone.tracking.names import find_alias_fault, find_model_fault
from hone.training.selection import Selection, choose_selection
from hone.training.settings import Settings

VALID_PREFIX = "valid_"
CHAT = "chat"
GENERATION = "text-generation"  # the pipeline of the models that benchmarks can be run on


class Ingest(Section):
    """Where the rows come from, and how their columns map to the objective's."""

    source: SourcePart = Field(description="The source of the rows.")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Maps the objective's columns to the source's, where the names differ: {text: body, label: topic}.",
    )
    keep: list[str] = Field(
        default_factory=list, description="Additional source columns to keep, for slices and reports."
    )
    max_refused: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Maximum share of input rows that may be refused as malformed; above it the run stops.",
    )
    time: str = Field(
        "",
        description="The source column with a row's time: ISO 8601 or seconds (or milliseconds, ...) since 1970."
        " Enables point-in-time runs.",
    )
    as_of: date | datetime | None = Field(
        None,
        description="Only use rows with a time up to this date (inclusive) or datetime, in UTC unless it has a zone."
        " Also replaces {as_of} in the source's paths and query; without it that is today's date.",
    )

    @field_validator("columns", mode="before")
    @classmethod
    def _read_numbers_as_names(cls, columns: Any) -> Any:
        """CoNLL columns are named by their numbers, which YAML reads as such."""
        if not isinstance(columns, dict):
            return columns
        return {ours: str(theirs) if type(theirs) is int else theirs for ours, theirs in columns.items()}

    @model_validator(mode="after")
    def _check_as_of_is_used(self) -> Ingest:
        dated = any(AS_OF in text for text in iter_strings(self.source.options()))
        if self.as_of is not None and not self.time and not dated:
            raise ValueError(
                f"as_of requires time, the column with the rows' time, or {AS_OF} in the source's paths or query"
            )
        return self


class Split(Section):
    """How curated rows are split, unless the data comes with its own splits."""

    valid: float = Field(0.1, ge=0, lt=1, description="Share of rows for the validation split.")
    test: float = Field(0.1, gt=0, lt=1, description="Share of rows for the test split.")
    seed: int = Field(17, ge=0, description="Seed of the split.")
    near_duplicate: float = Field(
        0.8, gt=0, le=1, description="Minimum Jaccard similarity at which two rows must be in the same split."
    )


class Curation(Section):
    """Cleaning, filtering and splitting of the rows before training."""

    steps: list[StepPart] = Field(
        default=[{"kind": kind} for kind in ("normalize", "filters", "label-conflicts", "duplicates")],
        validate_default=True,
        description="Curation steps, in order of execution.",
    )
    split: Split = Field(default_factory=Split, description="How rows are split.")
    held_out: Literal["keep", "curate"] = Field(
        "keep",
        description="Validation and test rows that came with the data: keep counts their flaws and drops none; curate"
        " lets the steps drop them.",
    )
    max_dropped: float = Field(0.2, ge=0, le=1, description="Maximum share of rows that a step may drop.")
    on_excess: Literal["warn", "stop"] = Field(
        "warn", description="Action if a step drops more: only warn, or stop the run."
    )


class Validation(Section):
    """Expectations that the rows must meet before training."""

    on_failure: Literal["stop", "quarantine", "warn"] = Field(
        "stop", description="Action on a failed expectation: stop the run, set the failing rows aside, or only warn."
    )
    unseen_labels: Literal["report", "stop"] = Field(
        "report",
        description="Validation and test rows with a label that no training row has: report counts them as errors; stop"
        " fails the validation.",
    )
    suite: str = Field("", description="Path of a YAML file with additional Great Expectations expectations.")
    min_rows: int = Field(20, ge=1, description="Minimum number of rows in the training split.")
    min_rows_held_out: int = Field(
        5, ge=1, description="Minimum number of rows in the validation split and in the test split."
    )
    max_class_share: float = Field(0.95, gt=0, le=1, description="Maximum share of rows with the same label.")
    min_rows_per_class: int = Field(2, ge=1, description="Minimum number of training rows per label.")
    max_median_tokens: int = Field(512, ge=1, description="Maximum median length of a row, in tokens.")
    min_median_tokens: int = Field(1, ge=1, description="Minimum median length of a row, in tokens.")


class Scratch(Section):
    """A base model with random weights and a tokenizer trained on the curated text."""

    architecture: Literal["llama", "gpt2", "qwen2", "mistral", "bert", "roberta", "t5"] = Field(
        description="Model architecture: a decoder, an encoder (bert, roberta) or an encoder-decoder (t5)."
    )
    hidden_size: int = Field(256, ge=8, le=65536, description="Size of a token's hidden vector.")
    layers: int = Field(
        4, ge=1, le=1024, description="Number of layers; for t5, in the encoder and in the decoder each."
    )
    heads: int = Field(4, ge=1, le=1024, description="Number of attention heads; hidden_size must be a multiple of it.")
    positions: int = Field(512, ge=8, le=1048576, description="Maximum input length, in tokens.")
    vocabulary: int = Field(8192, ge=300, le=1048576, description="Maximum size of the tokenizer's vocabulary.")
    seed: int = Field(17, ge=0, description="Seed of the random weights.")


class Model(Section):
    """The base model to fine-tune, or to create from scratch."""

    base: str = Field(
        "",
        description="A hub id, a local directory, package:NAME/PATH for files in an installed package, or a model"
        " version in MLflow: models:/NAME@ALIAS or models:/NAME/NUMBER. ${VAR} and ${VAR:-default} are replaced."
        " Empty if scratch is set.",
    )
    scratch: Scratch | None = Field(None, description=Scratch.__doc__)
    revision: str = Field(
        "", description="The hub revision (a commit). If empty, the latest commit of main is used and recorded."
    )
    licence: str = Field("", description="The base model's licence, if its files do not state it.")
    ignore_code: bool = Field(
        False,
        description="Accept a base model that includes custom code, but load it with the class built into transformers."
        " The custom code is never run.",
    )
    trust_code: str = Field(
        "",
        description="NAME@REVISION of a base model whose custom code may run in training, evaluation and serving. NAME"
        " is base; REVISION is the commit or, if base is not a hub id, the digest of the code shown in the error.",
    )

    @model_validator(mode="after")
    def _check_base_or_scratch(self) -> Model:
        if bool(self.base) == bool(self.scratch):
            raise ValueError("set either base or scratch")
        if self.trust_code and (self.ignore_code or self.scratch):
            raise ValueError("trust_code cannot be combined with scratch or ignore_code")
        return self


class Tokenization(Section):
    """How text is converted to tokens."""

    max_length: int = Field(
        128, ge=4, le=131072, description="Maximum length of a row, in tokens; longer rows are truncated."
    )
    max_truncated: float = Field(
        0.1, ge=0, le=1, description="Maximum share of rows that may be truncated; above it the run stops."
    )
    max_dropped: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Maximum share of rows dropped because truncation leaves nothing to learn; above it the run stops.",
    )
    special_tokens: list[str] = Field(
        default=[],
        description="Special tokens, such as <|im_end|>, that act as such when a text has their names; all others are"
        " text.",
    )


class Evaluation(Section):
    """How the model is evaluated on the test rows."""

    slices: list[str] = Field(
        default=["length", "source"],
        description="Columns to group metrics by; length means quartiles of text length.",
    )
    groups: list[str] = Field(
        default_factory=list,
        description="Columns whose values are groups of people or sources that the model must not treat unequally, such"
        " as gender or region; columns of ingest.keep or source.",
    )
    flips: str = Field(
        "",
        description="Lexicon of words that are swapped in test rows, to count the answers that change: gender-en, or"
        " the path of a YAML file with pairs; empty for none.",
    )
    neighbours: int = Field(10, ge=1, description="Number of neighbours in the k-nearest-neighbours baseline.")
    resamples: int = Field(1000, ge=100, le=100000, description="Number of bootstrap resamples.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Confidence level of the intervals.")
    worst: int = Field(20, ge=0, le=1000, description="Number of worst errors to show in the report.")
    seed: int = Field(17, ge=0, description="Seed of the bootstrap.")
    rivals: list[Rival] = Field(
        default_factory=list, description="Models that are prompted instead of trained, compared on the same test rows."
    )
    benchmarks: Benchmarks | None = Field(None, description=Benchmarks.__doc__)
    judge: Judge | None = Field(None, description=Judge.__doc__)
    hour_price: float | None = Field(
        None,
        gt=0,
        description="Price of an hour of this machine, for the number of requests from which training pays off.",
    )

    @field_validator("rivals")
    @classmethod
    def _check_names(cls, rivals: list[Rival]) -> list[Rival]:
        names = [rival.name for rival in rivals]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two rivals are named {', '.join(sorted(repeated))}")
        return rivals


class Registration(Section):
    """How the model version is registered in MLflow."""

    model: str = Field("", description="Name of the registered model; the run's name if empty.")
    experiment: str = Field("hone", min_length=1, description="Name of the MLflow experiment.")
    alias: str = Field("candidate", pattern=r"^[a-z][a-z0-9_-]{0,254}$", description="Alias assigned to a new version.")
    example_row: bool = Field(
        False,
        description="Whether a new version's model card and input example show the first test row. Default: a"
        " placeholder text, since both are copied with the model.",
    )

    @field_validator("model")
    @classmethod
    def _check_model(cls, model: str) -> str:
        if model and (fault := find_model_fault(model)):
            raise ValueError(f"{fault}: use letters, digits, dashes and underscores")
        return model

    @field_validator("alias")
    @classmethod
    def _check_alias(cls, alias: str) -> str:
        if fault := find_alias_fault(alias):
            raise ValueError(fault)
        return alias


class Guards(Section):
    """What must not get worse when the champion changes; null disables a guard.

    A fall beyond a limit refuses if it is significant; else the guard is inconclusive (promotion.inconclusive).
    group_gap and flip_rate limit the candidate's own figures instead, whatever the champion's are.
    """

    slice_fall: float | None = Field(
        0.05, ge=0, description="Maximum drop of the main metric in a slice of evaluation.slices."
    )
    class_fall: float | None = Field(0.1, ge=0, description="Maximum drop of a class's F1.")
    calibration: float | None = Field(
        0.05, ge=0, description="Maximum increase of the expected calibration error (ece)."
    )
    benchmark_fall: float | None = Field(
        None,
        ge=0,
        description="Maximum drop of a metric of evaluation.benchmarks from the base model's, such as 0.02 of accuracy."
        " Judges metrics from 0 to 1.",
    )
    latency: float | None = Field(
        2.0, gt=0, description="Maximum p95 latency of a single request, as a ratio to the champion's."
    )
    group_gap: float | None = Field(
        None,
        ge=0,
        description="Maximum gap of the main metric between the groups of a column of evaluation.groups, in the"
        " metric's unit. An absolute limit, of a first champion too.",
    )
    flip_rate: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Maximum share of answers that change when the words of evaluation.flips are swapped. An absolute"
        " limit, of a first champion too.",
    )
    size: float | None = Field(2.0, gt=0, description="Maximum size of the weights, as a ratio to the champion's.")


class Promotion(Section):
    """When a candidate may become the champion, and who decides."""

    policy: Literal["manual", "auto", "shadow"] = Field(
        "manual",
        description="manual: a person decides once the gates have passed; auto: the gates decide; shadow: the decision"
        " is recorded, but the champion is not changed.",
    )
    inconclusive: Literal["pass", "refuse", "ask"] = Field(
        "pass",
        description="What a guard does if a slice or class fell beyond its limit on too few rows to be significant: it"
        " passes, it refuses, or the policy auto asks a person.",
    )
    golden: str = Field(
        "",
        description="A fixed file of rows (csv, jsonl, parquet) with the objective's columns, on which candidate and"
        " champion are also compared. ${VAR} and ${VAR:-default} are replaced.",
    )
    test: Literal["bootstrap", "mcnemar"] = Field(
        "bootstrap",
        description="Paired test on the main metric; mcnemar (exact) needs a metric that is the share of correct rows.",
    )
    level: float = Field(
        0.05, gt=0, lt=0.5, description="Significance level: a candidate with a larger p-value is not better."
    )
    level_over: int = Field(
        1,
        ge=1,
        description="Number of comparisons of the main metric that share the level, as 52 weekly ones: each is made"
        " at level / level_over (Bonferroni).",
    )
    margin: float | None = Field(
        None,
        gt=0,
        description="null: the candidate must be better. A number: it must not be worse by more than this, in the"
        " metric's unit (0.01 is one percentage point of accuracy).",
    )
    resamples: int = Field(2000, ge=100, le=100000, description="Number of bootstrap resamples.")
    seed: int = Field(17, ge=0, description="Seed of the bootstrap.")
    near_duplicate: float = Field(
        0.8, gt=0, le=1, description="Minimum Jaccard similarity at which a row counts as seen in training."
    )
    guards: Guards = Field(default_factory=Guards, description=Guards.__doc__)
    expires_hours: float = Field(72.0, gt=0, description="How long to wait for a person's decision, in hours.")
    enforce: bool = Field(
        False, description="Restore a champion that was moved by hand; otherwise the move is only recorded and judged."
    )

    @property
    def comparison_level(self) -> float:
        """The significance level of one comparison of the main metric."""
        return self.level / self.level_over

    @model_validator(mode="after")
    def _check_resamples_reach_level(self) -> Promotion:
        if self.test == "bootstrap" and (1 + self.resamples) * self.comparison_level < 1:
            raise ValueError(
                f"{self.resamples} resamples cannot give a p-value of {self.comparison_level:g} (level / level_over):"
                f" set resamples to {math.ceil(1 / self.comparison_level)} or more"
            )
        return self

    @model_validator(mode="after")
    def _check_test_supports_margin(self) -> Promotion:
        if self.test == "mcnemar" and self.margin is not None:
            raise ValueError("mcnemar does not support a margin: set margin to null, or test to bootstrap")
        return self


class Monitoring(Section):
    """How recent inputs are compared with the training rows. Not part of any stage's cache key."""

    inputs: SourcePart | None = Field(
        None, description="Source of recent inputs: files or a query; labels are not needed."
    )
    level: float = Field(
        0.05,
        gt=0,
        lt=0.5,
        description="Probability that a check reports drift where there is none, over all its tests.",
    )
    least_effect: float = Field(
        0.02, ge=0, lt=1, description="Share of the recent rows; smaller changes are not drift, however significant."
    )
    min_rows: int = Field(100, ge=20, description="Minimum number of distinct rows; with fewer there is no verdict.")
    sample: int = Field(
        1000, ge=20, le=10000, description="Maximum number of recent rows to compare; more are sampled at random."
    )
    permutations: int = Field(
        500,
        ge=199,
        le=100000,
        description="Number of permutations N of a test; the smallest possible p-value is 1/(N + 1).",
    )
    seed: int = Field(17, ge=0, description="Seed of the sample and of the permutations.")


class Retraining(Section):
    """When the model is trained again. Not part of any stage's cache key."""

    scheduled: bool = Field(
        False, description="Whether scheduled retraining includes this model, from its champion's configuration."
    )
    min_new_rows: int = Field(1, ge=0, description="Minimum number of new rows, by content; with fewer it waits.")


class RunConfig(Section):
    """The complete configuration of a run. Each stage's cache key depends only on its own section."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="Name of the run: a-z, 0-9 and dashes.")
    objective: ObjectivePart = Field(
        default={"kind": "text-classification"}, validate_default=True, description="What the model learns."
    )
    ingest: Ingest = Field(description=Ingest.__doc__)
    curation: Curation = Field(default_factory=Curation, description=Curation.__doc__)
    validation: Validation = Field(default_factory=Validation, description=Validation.__doc__)
    model: Model = Field(description=Model.__doc__)
    tokenization: Tokenization = Field(default_factory=Tokenization, description=Tokenization.__doc__)
    method: MethodPart = Field(
        default={"kind": "full"}, validate_default=True, description="Which weights are trained."
    )
    training: TrainingSection = Field(default={}, validate_default=True, description=Settings.__doc__)
    evaluation: Evaluation = Field(default_factory=Evaluation, description=Evaluation.__doc__)
    registration: Registration = Field(default_factory=Registration, description=Registration.__doc__)
    promotion: Promotion = Field(default_factory=Promotion, description=Promotion.__doc__)
    monitoring: Monitoring = Field(default_factory=Monitoring, description=Monitoring.__doc__)
    retraining: Retraining = Field(default_factory=Retraining, description=Retraining.__doc__)
    sweep: Sweep = Field(default_factory=Sweep, description=Sweep.__doc__)

    @model_validator(mode="after")
    def _check_metric(self) -> RunConfig:
        try:
            choose_selection(
                OBJECTIVES[self.objective.kind](**self.objective.options()), self.training.model_dump()["metric"]
            )
        except ConfigError as fault:
            raise ValueError(f"training.metric: {fault.what}. {fault.fix}") from None
        return self

    @model_validator(mode="after")
    def _check_judge(self) -> RunConfig:
        objective = OBJECTIVES[self.objective.kind](**self.objective.options())
        if self.evaluation.judge and (self.objective.kind != CHAT or objective.prompting is None):
            raise ValueError("evaluation.judge: compares generated answers of a chat (objective.generate) alone")
        return self

    @model_validator(mode="after")
    def _check_rivals(self) -> RunConfig:
        rivals, kind = self.evaluation.rivals, self.objective.kind
        prompting = OBJECTIVES[kind](**self.objective.options()).prompting if rivals else None
        if rivals and prompting is None:
            raise ValueError(f"evaluation.rivals: no prompt can ask for what {kind} learns")
        for rival in rivals:
            if rival.corpus and prompting and not prompting.takes_passages:
                raise ValueError(f"evaluation.rivals {rival.name}: the answers of {kind} are in no corpus")
        return self

    @model_validator(mode="after")
    def _check_benchmarks(self) -> RunConfig:
        if self.evaluation.benchmarks and OBJECTIVES[self.objective.kind].pipeline != GENERATION:
            raise ValueError(f"evaluation.benchmarks: {self.objective.kind} trains no decoder that writes text")
        if self.promotion.guards.benchmark_fall is not None and not self.evaluation.benchmarks:
            raise ValueError("promotion.guards.benchmark_fall needs evaluation.benchmarks, the tasks that it judges")
        return self

    @model_validator(mode="after")
    def _check_flips(self) -> RunConfig:
        if self.evaluation.flips and not OBJECTIVES[self.objective.kind](**self.objective.options()).compares_answers:
            raise ValueError(
                f"evaluation.flips: the answers of {self.objective.kind} are numbers, vectors or filled gaps, which"
                " change with every word. Leave it empty"
            )
        return self

    @model_validator(mode="after")
    def _check_bias_guards(self) -> RunConfig:
        for guard, source in (("group_gap", "groups"), ("flip_rate", "flips")):
            if getattr(self.promotion.guards, guard) is not None and not getattr(self.evaluation, source):
                raise ValueError(f"promotion.guards.{guard} needs evaluation.{source}: set it, or the guard to null")
        return self

    @model_validator(mode="after")
    def _check_sweep_metric(self) -> RunConfig:
        self.choose_sweep_metric()
        return self

    def choose_sweep_metric(self) -> Selection:
        """The validation metric by which the trials of a sweep are compared; raises ValueError for any other."""
        metric = self.sweep.metric
        if metric and not metric.startswith(VALID_PREFIX):
            raise ValueError(
                f"sweep.metric: {metric} is not a figure of the validation rows, such as valid_loss; the test rows are"
                " for the best trial alone"
            )
        objective = OBJECTIVES[self.objective.kind](**self.objective.options())
        try:
            return choose_selection(
                objective, metric.removeprefix(VALID_PREFIX) or self.training.model_dump()["metric"]
            )
        except ConfigError as fault:
            raise ValueError(f"sweep.metric: {fault.what}. {fault.fix}") from None
