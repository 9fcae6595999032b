"""The report's data on answers: test rows that the model gets right, or comes closest to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hone.evaluation.report import figures
from hone.evaluation.report.figures import View
from hone.store.tables import take_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.objectives.base import Objective

SHOWN = 5
CANDIDATES = 10_000  # rows among which different references are looked for: a text may be long
CLIP = 500  # characters of a reference or a prediction, as in the worst errors


def split_text(text: str, limit: int = 320) -> View:
    """`text`: its beginning, up to a space before `limit`; `rest`: what follows, cut to 4000 characters."""
    end = len(text) if len(text) <= limit else text.rfind(" ", limit // 2, limit)
    end = end if end > 0 else limit
    return {"text": text[:end], "rest": figures.clip(text[end:], 4000)}


def list_best_answers(predictions: Path, rows: Path, objective: Objective | None) -> View | None:
    """`answers`: up to five test rows with the smallest error of the model, `right`: the number of rows without one.

    The surest ones come first, the references by turns. None without the files or texts.
    """
    if objective is None or not (predictions.is_file() and rows.is_file()):
        return None
    import pyarrow.parquet as pq

    names = [name for name in pq.read_schema(predictions).names if name != "scores"]
    table = pq.read_table(predictions, columns=names)
    errors = table["error"].to_numpy()
    if not len(errors) or not np.isfinite(errors).any():
        return None
    chosen = take_rows(table, _choose(table, errors)).to_pylist()
    texts = _read_texts(rows, [answer["id"] for answer in chosen], objective)
    answers = [
        {
            "id": answer["id"],
            "label": figures.clip(answer["reference"], CLIP),
            "predicted": figures.clip(answer["prediction"], CLIP),
            "confidence": answer.get("confidence"),
            "source": texts[answer["id"]][1],
            **split_text(texts[answer["id"]][0]),
        }
        for answer in chosen
        if answer["id"] in texts
    ]
    return {"answers": answers, "right": int((errors == 0).sum()), "rows": len(errors)} if answers else None


def _choose(table: pa.Table, errors: np.ndarray) -> list[int]:
    """The positions of the rows to show: those of the smallest error, the references by turns, the surest first."""
    sure = table["confidence"].to_numpy() if "confidence" in table.column_names else np.zeros(len(errors))
    best = np.lexsort((-sure, errors))[:CANDIDATES]
    if errors[best[0]] == 0:
        best = best[errors[best] == 0]
    rows_by_reference: Counter[str] = Counter()
    turns = []
    for place, reference in enumerate(take_rows(table.select(["reference"]), best)["reference"].to_pylist()):
        turns.append((rows_by_reference[reference], place))
        rows_by_reference[reference] += 1
    return [int(best[place]) for place in sorted(place for _, place in sorted(turns)[:SHOWN])]


def _read_texts(rows: Path, ids: Sequence[str], objective: Objective) -> dict[str, tuple[str, str]]:
    """The text and the source of each of the rows, by id."""
    import pyarrow.parquet as pq

    table = pq.read_table(rows, filters=[("id", "in", list(ids))])
    sources = table["source"].to_pylist() if "source" in table.column_names else [""] * len(table)
    texts = zip(objective.row_texts(table), sources, strict=True)
    return dict(zip(table["id"].to_pylist(), texts, strict=True))
