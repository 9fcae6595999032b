"""What a registered model says that it takes and gives."""

from __future__ import annotations

import json

from hone.objectives.multi_label import MultiLabelClassification
from hone.objectives.regression import Regression
from hone.registry.package import build_signature


def test_outputs_may_be_lists() -> None:
    told = json.loads(build_signature(MultiLabelClassification()).to_dict()["outputs"])
    assert [(column["name"], column["type"], column.get("items", {}).get("type")) for column in told] == [
        ("labels", "array", "string"),
        ("scores", "array", "double"),
        ("truncated", "boolean", None),
    ]
    told = json.loads(build_signature(Regression()).to_dict()["outputs"])
    assert [(column["name"], column["type"]) for column in told] == [("value", "double"), ("truncated", "boolean")]
