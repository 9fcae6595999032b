"""The stages in order: one file and one line in the table for each."""

from __future__ import annotations

from hone.config.sections import RunConfig
from hone.pipeline.stage import Stage
from hone.pipeline.stages.base import BASE
from hone.pipeline.stages.benchmarks import BENCHMARKS, BENCHMARKS_BASE
from hone.pipeline.stages.curate import CURATE
from hone.pipeline.stages.evaluate import EVALUATE
from hone.pipeline.stages.ingest import INGEST
from hone.pipeline.stages.judge import JUDGE
from hone.pipeline.stages.register import REGISTER
from hone.pipeline.stages.rivals import RIVALS
from hone.pipeline.stages.sweep import SWEEP
from hone.pipeline.stages.tokenize import TOKENIZE
from hone.pipeline.stages.train import TRAIN
from hone.pipeline.stages.validate import VALIDATE

STAGES: dict[str, Stage] = {
    "ingest": INGEST,
    "curate": CURATE,
    "base": BASE,
    "validate": VALIDATE,
    "tokenize": TOKENIZE,
    # Before training, so that what is missing for them shows early.
    "rivals": RIVALS,
    "benchmarks-base": BENCHMARKS_BASE,
    "train": TRAIN,
    "sweep": SWEEP,
    "benchmarks": BENCHMARKS,
    "evaluate": EVALUATE,
    "judge": JUDGE,
    "register": REGISTER,
}


def list_stages(config: RunConfig) -> list[str]:
    """The stages of a run with `config`, in order."""
    return [name for name, stage in STAGES.items() if stage.applies(config)]


def list_inputs(name: str, config: RunConfig) -> list[str]:
    """The stages whose artifacts the stage `name` uses in a run with `config`."""
    stage = STAGES[name]
    optional = [upstream for upstream in stage.optional_inputs if STAGES[upstream].applies(config)]
    return [*stage.inputs, *optional, *(["base"] if stage.needs_base and config.model.scratch else [])]
