"""The report's data on rows, tokens and training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from hone.evaluation.report import charts, figures
from hone.evaluation.report.figures import View
from hone.evaluation.report.report_checks import describe_unmet
from hone.splits import SPLITS, TEST, TRAIN, VALID

MODULES = 8  # names of trained modules that are shown
SPLIT_NAMES = {TRAIN: "training", VALID: "validation", TEST: "test"}


def funnel(ingest: View, curate: View, validate: View, refused: Path) -> View:
    """The rows from the source to the splits: for each step what it dropped and why, with examples."""
    read = ingest["read"]
    skipped = {f"left out before: {reason}": rows for reason, rows in ingest.get("skipped", {}).items()}
    notes, refused_rows = {**skipped, **ingest.get("notes", {})}, _refused_examples(refused, ingest)
    steps = [_funnel_step("ingest", read, ingest["rows"], ingest["reasons"], refused_rows, notes)]
    steps += [
        _funnel_step(step["step"], step["before"], step["after"], step["dropped"], step["examples"], step["notes"])
        for step in curate["funnel"]
    ]
    for view, step in zip(steps[1:], curate["funnel"], strict=True):
        view["flagged"] = [{"reason": reason, "rows": rows} for reason, rows in (step.get("flagged") or {}).items()]
        view["remarks"] = [remark for remark in (step.get("summary"), step.get("warning")) if remark]
    last = steps[-1]["after"]
    if validate["quarantined"]:
        rows_by_expectation = validate.get("quarantined_by") or {
            "an expectation does not hold": validate["quarantined"]
        }
        reasons = {describe_unmet(expectation): rows for expectation, rows in rows_by_expectation.items()}
        steps.append(_funnel_step("quarantine", last, last - validate["quarantined"], reasons, [], {}))
    for step in steps:
        step["share"] = round(100 * step["after"] / max(read, 1), 3)
        step["gone"] = round(100 * (step["before"] - step["after"]) / max(read, 1), 3)
    rows_left = steps[-1]["after"]
    sources = sorted(ingest["sources"].items(), key=lambda item: -item[1])
    heaviest = max(steps, key=lambda step: step["before"] - step["after"])
    return {"read": read, "kept": rows_left, "steps": steps, "sources": sources, "heaviest": heaviest}


def _funnel_step(
    name: str, before: int, after: int, dropped: Mapping[str, int], examples: list[View], notes: Mapping[str, int]
) -> View:
    reasons = [
        {
            "reason": reason,
            "rows": rows,
            "examples": [
                {"id": e["id"], "detail": e.get("detail", ""), "text": figures.clip(e["text"], 400)}
                for e in examples
                if e["reason"] == reason
            ],
        }
        for reason, rows in sorted(dropped.items(), key=lambda item: -item[1])
        if rows
    ]
    changed = [(note, rows) for note, rows in sorted(notes.items(), key=lambda item: -item[1]) if rows]
    counts = {"name": figures.words(name), "before": before, "after": after}
    return {**counts, "reasons": reasons, "notes": changed, "flagged": [], "remarks": []}


def _refused_examples(refused: Path, ingest: View) -> list[View]:
    """Up to three refused rows for each reason."""
    if not ingest["refused"] or not refused.is_file():
        return []
    import pyarrow.parquet as pq

    examples: list[View] = []
    counts: dict[str, int] = {}
    for row in pq.read_table(refused, columns=["where", "reason", "raw"]).slice(0, 20_000).to_pylist():
        counts[row["reason"]] = counts.get(row["reason"], 0) + 1
        if counts[row["reason"]] <= 3:
            examples.append({"id": row["where"], "reason": row["reason"], "text": row["raw"]})
    return examples


def splits(tokenize: View, curate: View) -> list[View]:
    """The splits with their number of rows and share of all rows, in the order train, valid, test."""
    rows = {name: split["rows"] for name, split in tokenize["splits"].items()} or curate["splits"]
    total = max(sum(rows.values()), 1)
    return [
        {
            "name": name,
            "title": SPLIT_NAMES.get(name, name),
            "rows": rows[name],
            "share": round(100 * rows[name] / total, 3),
        }
        for name in sorted(rows, key=lambda name: (*SPLITS, name).index(name))
    ]


def tokens(facts: View, limit: int | None) -> View:
    """Tokens and truncation of each split, and the row lengths on one scale that ends near `limit`."""
    dropped = facts.get("dropped") or {}
    by_split = [
        {"name": name, "left_out": dropped.get(name, {}), **facts["splits"][name]}
        for name in SPLITS
        if name in facts["splits"]
    ]
    lengths = [length for split in by_split for length in (split["median"], split["p95"])]
    longest = max((split["longest"] for split in by_split), default=0)
    top = max([*lengths, limit or 0, min(longest, 1.6 * max([*lengths, limit or 0]))])
    total = {key: sum(split[key] for split in by_split) for key in ("rows", "tokens", "truncated_rows", "lost_tokens")}
    scale = charts.scale([top], label=figures.count, whole=True)
    return {"splits": by_split, "total": total, "scale": scale, "limit": limit, "speed": facts.get("rows_per_second")}


def training(facts: View, history: list[View], files: Mapping[str, View]) -> View:
    """The loss chart, the small charts, sentences on validation and on a loss that did not fall, and figures of the
    training as (name, value, note).

    `best_step` of the facts is the step whose weights were kept, `selected_by` the metric by which it is the best one,
    None if the last weights were kept.
    """
    losses = {int(step): loss for step, loss in charts.series(history, "valid_loss")}
    lowest = min(losses, key=lambda step: (losses[step], step), default=None)
    small = [
        charts.small_chart(history, "learning_rate", "Learning rate"),
        charts.small_chart(history, "grad_norm", "Gradient norm"),
        charts.small_chart(history, "tokens_per_second", "Throughput", "tokens/s"),
    ]
    return {
        "loss": charts.loss_chart(history, lowest),
        "validation": _describe_validation(losses, lowest, facts),
        "course": facts.get("course", ""),
        "moved": _describe_trained(facts.get("trained") or []),
        "small": [chart for chart in small if chart],
        "figures": [figure for figure in _training_figures(facts, files) if figure[1] not in ("", figures.NONE)],
        **facts,
    }


def _training_figures(facts: View, files: Mapping[str, View]) -> list[tuple[str, str, str]]:
    trainable, parameters = facts.get("trainable"), facts.get("parameters") or 0
    share = "all" if trainable == parameters else figures.percent((trainable or 0) / max(parameters, 1))
    micro, steps = facts.get("micro_batch_size"), facts.get("accumulation") or 1
    resumed = facts.get("resumed_from") or []
    selected = (facts.get("selected_by") or {}).get("title", "the validation loss")
    stopped = (
        f"early: {figures.within_sentence(selected)} no longer improved" if facts.get("stopped") == "early" else ""
    )
    return [
        ("Time", figures.duration(facts.get("seconds")), ""),
        ("Steps", figures.count(facts.get("steps")), stopped or f"{figures.number(facts.get('epochs'))} epochs"),
        ("Batch", figures.count(micro and micro * steps), f"{micro} × {steps} accumulated" if steps > 1 else "rows"),
        ("Rate", figures.number(facts.get("samples_per_second")), "rows/s"),
        ("Throughput", figures.quantity(facts.get("tokens_per_second")), "tokens/s"),
        ("FLOPs used", figures.percent(_used_share(facts)), "of the device's peak"),
        ("Peak memory", figures.size(facts.get("memory_bytes")), ""),
        ("Device", figures.device(facts.get("device")), str(facts.get("precision") or "")),
        ("Parameters", figures.quantity(parameters), f"{share} trained"),
        ("Validation loss", figures.number(facts.get("valid_loss")), _describe_kept(facts)),
        *_validation_figure(facts),
        ("Adapter", _size_of(files, "adapter/"), f"model {_size_of(files, 'model/')}"),
        ("Resumed", f"{len(resumed)} ×" if resumed else "", f"from step {figures.plain(resumed)}"),
    ]


def _describe_validation(losses: Mapping[int, float], lowest: int | None, facts: View) -> str:
    """A sentence on where the validation loss was lowest, and which weights were kept; '' without validation rows."""
    if lowest is None:
        return ""
    sentence = f"The validation loss was lowest, {figures.number(losses[lowest])}, at step {figures.count(lowest)}"
    if facts.get("best_step") in (lowest, None):
        return f"{sentence}{_describe_best(facts)}."
    loss = f" (loss {figures.number(facts['valid_loss'])})" if facts.get("valid_loss") else ""
    return (
        f"{sentence}; the weights are those of step {figures.count(facts['best_step'])}{loss}{_describe_best(facts)}."
    )


def _describe_best(facts: View) -> str:
    """`, where validation accuracy was best: 71.7%`; empty if the last weights were kept, or the loss decided."""
    selected = facts.get("selected_by")
    if not selected or selected["metric"] == "loss":
        return ""
    return f", where validation {figures.within_sentence(selected['title'])} was best: {figures.shown(selected)}"


def _validation_figure(facts: View) -> list[tuple[str, str, str]]:
    """The metric that chose the weights, on the validation rows; [] if the loss or nothing did."""
    selected = facts.get("selected_by")
    if not selected or selected["metric"] == "loss":
        return []
    title = f"Validation {figures.within_sentence(selected['title'])}"
    return [(title, figures.shown(selected), figures.counted(facts.get("valid_rows"), "row"))]


def _used_share(facts: View) -> float | None:
    """The share of the device's peak FLOPs; None if it is unknown, or above 1: then the peak was measured too low."""
    share = facts.get("mfu") or None
    return share if share and share <= 1 else None


def _describe_kept(facts: View) -> str:
    return f"step {figures.count(facts.get('best_step'))}, whose weights were kept"


def _describe_trained(modules: Sequence[str]) -> str:
    """`bert.pooler, classifier`, at most MODULES of them; '' if the whole model was trained, or it is not known."""
    rest = f" and {len(modules) - MODULES} more" if len(modules) > MODULES else ""
    return ", ".join(modules[:MODULES]) + rest


def _size_of(files: Mapping[str, View], folder: str) -> str:
    """The total size of a folder's files; '' if there are none."""
    sizes = [entry["bytes"] for name, entry in files.items() if name.startswith(folder)]
    return figures.size(sum(sizes)) if sizes else ""


def read_history(path: Path) -> list[View]:
    """The lines of history.jsonl; empty if there is no such file."""
    return [json.loads(line) for line in path.read_text("utf8").splitlines()] if path.is_file() else []
