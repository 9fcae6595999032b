"""The curation steps, which prepare rows for training: one file and one line in the table for each."""

from __future__ import annotations

from hone.curation.balance import Balance
from hone.curation.conflicts import LabelConflicts
from hone.curation.duplicates import Duplicates
from hone.curation.filters import Filters
from hone.curation.normalize import Normalize
from hone.curation.redact import Redact
from hone.curation.step import Step
from hone.parts.plugins import PartTable

STEPS: PartTable[Step] = PartTable(
    "hone.steps",
    {
        "normalize": Normalize,
        "filters": Filters,
        "redact": Redact,
        "duplicates": Duplicates,
        "label-conflicts": LabelConflicts,
        "balance": Balance,
    },
)
