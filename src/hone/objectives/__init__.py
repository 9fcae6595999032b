"""What a model can learn: one file for each objective, one line for it in the table."""

from __future__ import annotations

from hone.objectives.multi_label import MultiLabelClassification
from hone.objectives.objective import Objective
from hone.objectives.regression import Regression
from hone.objectives.text_classification import TextClassification
from hone.plugins import installed

OBJECTIVES: dict[str, type[Objective]] = {
    "text-classification": TextClassification,
    "multi-label-classification": MultiLabelClassification,
    "regression": Regression,
}
OBJECTIVES.update(installed("hone.objectives"))
