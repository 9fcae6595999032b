"""The report's comparison with the champion: figures beside each other, and the answers that changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.evaluation.report import figures
from hone.evaluation.report.figures import View
from hone.evaluation.report.report_answers import CLIP, read_texts, split_text
from hone.evaluation.report.report_results import select_figures
from hone.store.tables import take_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.objectives.base import Objective

SHOWN = 10  # examples of each kind of changed answer


@dataclass(frozen=True)
class Champion:
    """The results of a registered model's champion, at the time when another version is registered.

    url        the page of the version in MLflow; '' if MLflow is no server
    metrics    the content of its metrics.json; empty if its run has none
    same_rows  whether it was tested on the same rows
    answers    its predictions.parquet; None if its run has none
    damage     which of its run's files is damaged and therefore not compared with; '' if none is known to be
    """

    version: str
    url: str = ""
    metrics: Mapping[str, Any] | None = None
    same_rows: bool = False
    answers: Path | None = None
    damage: str = ""


@dataclass(frozen=True)
class Registered:
    """The model version that a report belongs to: `alias` is '' if it is not its own, `url` if MLflow is no server."""

    model: str
    version: str
    alias: str = ""
    url: str = ""
    champion: Champion | None = None


def explain_missing(registered: Registered, metrics: View) -> str:
    """A sentence on why there is no comparison with the champion; '' if there is one. `metrics` are the version's."""
    champion = registered.champion
    if champion is None:
        return f"{registered.model} has no champion yet to compare with."
    if champion.version == registered.version:
        return "This version is the champion: there is no other to compare with."
    name = f"The champion, version {champion.version},"
    if not champion.metrics:
        return f"{name} has no test results in MLflow to compare with."
    if not champion.same_rows:
        return f"{name} was tested on other rows: its figures cannot be compared with these."
    if not select_figures(metrics, champion.metrics).get(metrics["main_metric"]):
        return f"{name} was measured with other metrics: it cannot be compared with this version."
    return ""


def compare_with_champion(
    registered: Registered, metrics: View, predictions: Path, rows: Path, objective: Objective | None
) -> View:
    """The champion's figures beside the version's, the main metric first, and the answers that changed.

    `metrics` are those of the version (`report_results.measured`), `predictions` and `rows` its predictions.parquet
    and the test rows. `changes` is None if answers are not stored, or not right or wrong (a loss, a number).
    """
    champion = registered.champion
    assert champion is not None and champion.metrics is not None
    theirs, ours = select_figures(metrics, champion.metrics), metrics["systems"]["model"]
    names = sorted((name for name in ours if theirs.get(name)), key=lambda name: name != metrics["main_metric"])
    lines = [{**metrics["measures"][name], **_compare(ours[name], theirs[name])} for name in names]
    return {
        "version": champion.version,
        "url": champion.url,
        "lines": lines,
        "main": lines[0],
        "better": (lines[0]["difference"] > 0) != lines[0]["lower"],
        "changes": _list_changes(champion.answers, predictions, rows, objective),
    }


def _compare(ours: View, theirs: View) -> View:
    return {"ours": ours, "theirs": theirs, "difference": ours["value"] - theirs["value"]}


def _list_changes(before: Path | None, now: Path, rows: Path, objective: Objective | None) -> list[View] | None:
    """The answers that became wrong, then those that became right: `title`, `count`, and up to ten `examples`.

    An answer is right if its error is 0. None without the files, or if neither version has a right answer.
    """
    if before is None or not (before.is_file() and now.is_file() and rows.is_file()):
        return None
    ours, theirs = _pair(_read_columns(now), _read_columns(before))
    errors_now, errors_before = ours["error"].to_numpy(), theirs["error"].to_numpy()
    right_now, right_before = errors_now == 0, errors_before == 0
    if not (right_now.any() or right_before.any()):
        return None
    changed = (
        ("Right before, wrong now", False, right_before & ~right_now, errors_now),
        ("Wrong before, right now", True, ~right_before & right_now, errors_before),
    )
    return [
        {
            "title": title,
            "became_right": became_right,
            "count": int(mask.sum()),
            "examples": _build_examples(ours, theirs, _choose_worst(mask, errors), rows, objective),
        }
        for title, became_right, mask, errors in changed
    ]


def _read_columns(predictions: Path) -> pa.Table:
    import pyarrow.parquet as pq

    return pq.read_table(predictions, columns=["id", "reference", "prediction", "error"])


def _pair(ours: pa.Table, theirs: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The rows that both tables have, in the order of `ours`."""
    import pyarrow.compute as pc

    places = pc.index_in(ours["id"], value_set=theirs["id"])
    return ours.filter(pc.is_valid(places)), take_rows(theirs, places.drop_null().to_numpy())


def _choose_worst(mask: np.ndarray, errors: np.ndarray) -> list[int]:
    """The positions in `mask` with the largest errors, at most SHOWN."""
    positions = np.flatnonzero(mask)
    chosen: list[int] = positions[np.argsort(-errors[positions], kind="stable")][:SHOWN].tolist()
    return chosen


def _build_examples(
    ours: pa.Table, theirs: pa.Table, positions: list[int], rows: Path, objective: Objective | None
) -> list[View]:
    """The rows with text, right answer, and the answers before and now; none without an objective to give the texts."""
    if objective is None or not positions:
        return []
    worst = take_rows(ours, positions).to_pylist()
    texts = read_texts(rows, [row["id"] for row in worst], objective)
    pairs = zip(worst, take_rows(theirs.select(["prediction"]), positions)["prediction"].to_pylist(), strict=True)
    return [
        {
            "id": row["id"],
            "label": figures.clip(row["reference"], CLIP),
            "before": figures.clip(before, CLIP),
            "now": figures.clip(row["prediction"], CLIP),
            "source": texts[row["id"]][1],
            **split_text(texts[row["id"]][0]),
        }
        for row, before in pairs
        if row["id"] in texts
    ]
