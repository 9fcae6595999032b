"""Prompted models compared with the trained one, on the rows that they were asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.errors import DataError
from hone.evaluation.judging import metrics
from hone.evaluation.judging.comparison import compare_paired
from hone.evaluation.judging.with_passages import require_prompting
from hone.store import layout
from hone.store.tables import take_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.evaluation.judging.evaluate import Trial
    from hone.objectives.prompting.prompting import Judgement

MILLION = 1_000_000
PER = 1000  # answers that a cost is given for


@dataclass(frozen=True)
class Answers:
    """The folder with the rivals' answers, and what they cost.

    `prices` are those of a million tokens of prompts and of answers, by rival; `hour` is the price of an hour of this
    machine, and `training` the time that training took, in seconds.
    """

    folder: Path
    prices: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    hour: float | None = None
    training: float = 0.0


def judge_rivals(
    answers: Answers,
    trial: Trial,
    tokens: pa.Table,
    draws: np.ndarray,
    latency: float,
    with_passages: Mapping[str, Mapping[str, str]],
) -> list[dict[str, Any]]:
    """For each rival its metrics, the model's on the same rows, and their difference.

    `tokens` are the encoded test rows, `draws` those of all test rows (`metrics.resample`), `latency` is the model's
    median time for a request, in milliseconds. `with_passages` are the model's answers with a rival's passages, by
    rival and row id (`ask_with_passages`). A rival that was asked some of the rows is compared on those.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(answers.folder / layout.ANSWERS)
    summaries = json.loads((answers.folder / layout.RIVALS).read_text("utf8"))
    judged = []
    for summary in summaries:
        mine = table.filter(pc.equal(table["rival"], summary["name"]))
        helped = with_passages.get(summary["name"])
        judged.append(_judge(summary, mine, trial, tokens, draws, helped) | _account(mine, answers, summary, latency))
    return judged


def _judge(
    summary: Mapping[str, Any],
    answers: pa.Table,
    trial: Trial,
    tokens: pa.Table,
    draws: np.ndarray,
    helped: Mapping[str, str] | None,
) -> dict[str, Any]:
    import pyarrow.compute as pc

    prompting = require_prompting(trial.objective)
    places = pc.index_in(trial.rows["id"], value_set=answers["id"]).fill_null(-1).to_numpy()
    positions = np.flatnonzero(places >= 0)
    if not len(positions):
        raise DataError(
            "answered none of the rows that the model was tested on",
            where=f"evaluation.rivals {summary['name']}",
            fix="Raise its limit or max_cost.",
        )
    answers, rows = take_rows(answers, places[positions]), take_rows(trial.rows, positions)
    encoded = tokens.filter(pc.is_in(tokens["id"], value_set=rows["id"]))
    is_written = np.isin(answers["ended"].to_pylist(), ("stop", "length"))  # neither refused nor too long to ask
    judgement = prompting.judge(answers["answer"].to_pylist(), encoded, trial.targets, rows)
    compared = _compare(trial, prompting.metric, judgement, positions, draws)
    if helped is not None:
        served = [helped[name] for name in rows["id"].to_pylist()]
        ours = prompting.judge(served, encoded, trial.targets, rows)
        both = _compare(trial, prompting.metric, ours, positions, draws)
        compared["with_passages"] = {"ours": both["theirs"], "comparison": both["comparison"]}
    return {
        **summary,
        **compared,
        "rows": len(positions),
        "invalid": int((judgement.invalid & is_written).sum()),
        "recall": _measure_recall(answers),
    }


def _compare(
    trial: Trial, metric: str, judgement: Judgement, positions: np.ndarray, draws: np.ndarray
) -> dict[str, Any]:
    """Both systems' metrics on the rows at `positions`, and the paired difference of `metric`."""
    count, drawn = len(positions), draws[positions]
    sums = [
        metrics.totals(statistics, drawn)
        for statistics in (trial.ours.statistics[positions], judgement.outcome.statistics)
    ]
    ours, theirs = (trial.figures(system_sums)[metric] for system_sums in sums)
    measure = trial.objective.metrics[metric]
    return {
        "metric": metric,
        "ours": _measure(trial, metric, sums[0], count),
        "theirs": _measure(trial, metric, sums[1], count),
        "comparison": compare_paired(
            metric, ours, theirs, trial.confidence, measure.lower, count if measure.share else 0
        ),
    }


def _measure(trial: Trial, metric: str, sums: np.ndarray, count: int) -> dict[str, Any]:
    """The metrics that are defined, with intervals: no probabilities of a prompted model are known.

    `metric`, on which the systems are compared, is among them even if it is undefined on so few rows, as R² is on one.
    """
    defined = {name for name, figure in trial.figures(sums).items() if np.isfinite(figure[0])} | {metric}
    return {name: interval for name, interval in trial.intervals(sums, count).items() if name in defined}


def _measure_recall(answers: pa.Table) -> float | None:
    """The share of rows whose passages contain the right answer; None without a corpus, or where it is undefined."""
    import pyarrow.compute as pc

    share: float | None = pc.mean(answers["supported"]).as_py()
    return share


def _account(table: pa.Table, answers: Answers, summary: Mapping[str, Any], latency: float) -> dict[str, Any]:
    """Tokens, refusals, latency in milliseconds, and what the answers cost.

    `break_even` is the number of requests from which training and serving a model on this machine cost less than the
    rival; None if it never does, or if a price is unknown.
    """
    ended = table["ended"].to_pylist()
    tokens = {kind: sum(table[f"{kind}_tokens"].to_pylist()) for kind in ("input", "output")}
    seconds = table["seconds"].drop_null().to_numpy()
    p50, p95 = np.quantile(seconds, (0.5, 0.95)) * 1000 if len(seconds) else (0.0, 0.0)
    account = {
        "refused": ended.count("refusal"),
        "cut": ended.count("length"),
        "unread": ended.count("unread"),
        "tokens": tokens,
        "latency_ms": {"p50": float(p50), "p95": float(p95)},
        "cost": None,
        "break_even": None,
    }
    price, unanswered = answers.prices.get(summary["name"]), summary["unanswered"]
    if price is None:
        return account
    charged = {kind: count + unanswered[kind] for kind, count in tokens.items()}
    cost = (charged["input"] * price[0] + charged["output"] * price[1]) / MILLION
    each = cost / len(table)
    account["cost"] = {"total": cost, f"per_{PER}": each * PER}
    if answers.hour is not None:
        account["break_even"] = _find_break_even(each, answers.hour / 3600, answers.training, latency / 1000)
    return account


def _find_break_even(each: float, second: float, training: float, request: float) -> int | None:
    """The number of requests from which the trained model costs less; None if it never does.

    `each` is the price of a rival's answer, `second` that of a second of this machine; `training` and `request` are the
    seconds that training and one request take.
    """
    saved = each - request * second
    return int(np.ceil(training * second / saved)) if saved > 0 else None
