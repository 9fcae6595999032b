"""Curation: the steps that clean and filter rows before training; one file and one line in the table per kind."""

from __future__ import annotations

from hone.curation.balance import Balance
from hone.curation.conflicts import LabelConflicts
from hone.curation.duplicates import Duplicates
from hone.curation.filters import Filters
from hone.curation.normalize import Normalize
from hone.curation.redact import Redact
from hone.curation.step import Step
from hone.parts.plugins import load_plugins

STEPS: dict[str, type[Step]] = {
    "normalize": Normalize,
    "filters": Filters,
    "redact": Redact,
    "duplicates": Duplicates,
    "label_conflicts": LabelConflicts,
    "balance": Balance,
}
STEPS.update(load_plugins("hone.curation"))
