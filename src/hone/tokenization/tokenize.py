"""The tokenize stage: splits to Arrow files of token ids, with an account of truncated and dropped rows."""

from __future__ import annotations

import heapq
import json
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.display import escape_controls
from hone.errors import ConfigError, DataError, ModelError
from hone.models.own_code import may_run
from hone.models.positions import get_max_tokens
from hone.objectives.base import Objective, Targets
from hone.objectives.shared.label_account import count_unseen_labels, name_labels
from hone.objectives.shared.special_tokens import list_special_tokens
from hone.objectives.shared.tokenizer import CONTROL, load_tokenizer
from hone.process_environment import ALL_CORES, environment
from hone.progress import OnProgress, Progress, ignore
from hone.splits import SPLITS, TEST, TRAIN
from hone.store import layout
from hone.store.artifact import Product

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

DROPPED = "dropped.arrow"

# Rows in memory at once: 2,048, or fewer if their text exceeds 4 MiB, but at least one.
BATCH_ROWS = 2048
BATCH_BYTES = 4 << 20


@dataclass
class Account:
    """Counts of a split's rows and tokens.

    `lengths` are in tokens before truncation; `longest` has (length, id) of the five longest truncated rows. `needed`
    is the `max_length` at which a row is not truncated: less than its length if a row consists of several sequences
    (the column `longest` of encoded rows). `target_lost` has the tokens cut off each row's target, for objectives with
    the column `target_lost`. A row encoded in several pieces counts once; `sequences` counts the model's inputs.
    """

    sequences: int = 0
    lengths: list[np.ndarray] = field(default_factory=list)
    needed: list[np.ndarray] = field(default_factory=list)
    lost_tokens: int = 0
    truncated_rows: int = 0
    longest: list[tuple[int, str]] = field(default_factory=list)
    target_lost: list[np.ndarray] = field(default_factory=list)

    def add(self, encoded: pa.Table) -> int:
        """Count a batch from `Objective.encode`, where the pieces of a row are adjacent; returns the number of rows."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        if not len(encoded):
            return 0
        ids = encoded["id"].combine_chunks()
        firsts = np.flatnonzero(np.r_[True, pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)])
        lost = np.add.reduceat(encoded["lost"].to_numpy(), firsts)
        lengths = np.add.reduceat(pc.list_value_length(encoded["input_ids"]).to_numpy(), firsts) + lost
        needed = encoded["longest"].to_numpy() if "longest" in encoded.column_names else lengths
        truncated = lost.nonzero()[0]
        self.sequences += len(encoded)
        self.lengths.append(lengths)
        self.needed.append(needed)
        self.lost_tokens += int(lost.sum())
        self.truncated_rows += len(truncated)
        truncated_ids = ids.take(pa.array(firsts[truncated])).to_pylist()
        self.longest = heapq.nlargest(5, [*self.longest, *zip(needed[truncated].tolist(), truncated_ids, strict=True)])
        if "target_lost" in encoded.column_names:
            self.target_lost.append(encoded["target_lost"].to_numpy())
        return len(lengths)

    def facts(self) -> dict[str, int]:
        """Counts for the manifest; `tokens` counts the tokens kept, other lengths are those of whole rows."""
        import numpy as np

        lengths = np.concatenate([np.zeros(0, np.int64), *self.lengths])
        median, p95 = np.quantile(lengths, (0.5, 0.95), method="higher") if len(lengths) else (0, 0)
        return {
            "rows": len(lengths),
            "sequences": self.sequences,
            "tokens": int(lengths.sum()) - self.lost_tokens,
            "truncated_rows": self.truncated_rows,
            "lost_tokens": self.lost_tokens,
            "longest": int(lengths.max(initial=0)),
            "median": int(median),
            "p95": int(p95),
            **self._target_facts(),
        }

    def _target_facts(self) -> dict[str, int]:
        import numpy as np

        if not self.target_lost:
            return {}
        lost = np.concatenate(self.target_lost)
        return {"truncated_targets": int((lost > 0).sum()), "lost_target_tokens": int(lost.sum())}

    def find_max_length(self, max_truncated: float) -> int:
        """The smallest `max_length` that truncates at most the share `max_truncated` of the rows."""
        import numpy as np

        lengths = np.sort(np.concatenate(self.needed))
        return int(lengths[len(lengths) - 1 - int(max_truncated * len(lengths))])


def tokenize(
    splits: Path,
    out: Path,
    *,
    base: Path,
    objective: Objective,
    max_length: int,
    max_truncated: float,
    max_dropped: float = 0.0,
    special_tokens: Sequence[str] = (),
    emptied: Sequence[str] = (),
    on_progress: OnProgress = ignore,
) -> Product:
    """Write the token ids of the three splits in the directory `splits` to Arrow files in `out`, batch by batch.

    `base` is the base model's directory; `special_tokens` act as such where a text has their names; `emptied` has
    curation's sentences on labels of which it dropped all training rows, for messages on missing labels. Training rows
    are packed if the objective packs. The same rows give the same bytes. Rows that the objective leaves out are listed
    in dropped.arrow, with split and reason. Raises DataError if more than the share `max_truncated` of a split's rows
    is truncated, or more than `max_dropped` left out; ConfigError if the base model has fewer than `max_length`
    positions, or not these special tokens.
    """
    import pyarrow.parquet as pq

    tokenizer = load_tokenizer(base)
    positions, vocabulary = _limits(base, tokenizer)
    if max_length > positions:
        raise ConfigError(
            f"{max_length} exceeds the base model's maximum of {positions} tokens",
            where="tokenization.max_length",
            fix=f"Set it to {positions} or less, or choose a base model with more positions than {base.name}.",
        )
    files = {split: pq.ParquetFile(splits / layout.rows_file(split)) for split in SPLITS}
    targets = _build_targets(files[TRAIN], objective, tokenizer, special_tokens)
    (out / layout.TARGETS).write_text(json.dumps(targets, ensure_ascii=False, indent=1), "utf8")
    total = sum(file.metadata.num_rows for file in files.values())
    accounts: dict[str, Account] = {}
    dropped: dict[str, list[str]] = {split: [] for split in SPLITS}
    done, start = 0, time.perf_counter()
    with environment(ALL_CORES):
        for split, file in files.items():
            account = accounts[split] = Account()
            encode = partial(objective.encode, tokenizer=tokenizer, max_length=max_length, targets=targets)
            if objective.drop_reason:
                encode = partial(_encode_and_note_dropped, encode, dropped[split])
            encoded = _encode_ahead(encode, _batches(file, objective))
            for batch in _write_batches(encoded, out / layout.tokens_file(split)):
                _check_ids(batch, vocabulary, base)
                done += account.add(batch)
                on_progress(Progress(done, total, note=split))
            _check_dropped(split, dropped[split], file.metadata.num_rows, max_dropped, objective.drop_reason)
            _check_truncation(split, account, max_length, max_truncated, positions)
        accounts[TRAIN].sequences = _pack(out / layout.tokens_file(TRAIN), objective, max_length)
    seconds = time.perf_counter() - start
    facts: dict[str, Any] = {"splits": {split: account.facts() for split, account in accounts.items()}}
    if unseen := _report_unseen_labels(files, objective, targets, emptied):
        facts |= {"unseen_labels": unseen, "emptied": list(emptied)}
    if any(dropped.values()):
        _write_dropped(out / DROPPED, dropped, objective.drop_reason)
        facts["dropped"] = {split: {objective.drop_reason: len(ids)} for split, ids in dropped.items() if ids}
    return Product(done, ("*.arrow", layout.TARGETS), {**facts, "rows_per_second": round(done / seconds, 1)})


def _build_targets(
    train: pq.ParquetFile, objective: Objective, tokenizer: PreTrainedTokenizerBase, special_tokens: Sequence[str]
) -> Targets:
    """The targets of the training rows, after which the tokenizer is prepared."""
    targets = objective.build_targets(train.read([name for name in objective.columns if name not in objective.inputs]))
    if special_tokens:
        _check_special_tokens(tokenizer, special_tokens)
        targets[CONTROL] = list(special_tokens)
    return objective.prepare_tokenizer(tokenizer, targets)


def _check_special_tokens(tokenizer: PreTrainedTokenizerBase, names: Sequence[str]) -> None:
    """Raise ConfigError for a name that is not that of a special token."""
    special = list_special_tokens(tokenizer)
    if unknown := sorted(set(names) - special):
        raise ConfigError(
            f"the base model's tokenizer has no special token {', '.join(unknown)}",
            where="tokenization.special_tokens",
            fix=f"Name some of {', '.join(sorted(special)[:20])}.",
        )


def _report_unseen_labels(
    files: Mapping[str, pq.ParquetFile], objective: Objective, targets: Targets, emptied: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Log and return the numbers of rows with labels that no training row has, by split and label."""
    columns = [name for name in objective.columns if name not in objective.inputs]
    counts_by_split = count_unseen_labels(objective, lambda split: files[split].read(columns), targets)
    for warning in describe_unseen_labels(counts_by_split, emptied):
        log.warning("%s", escape_controls(warning))
    return {split: dict(counts.most_common()) for split, counts in counts_by_split.items()}


def describe_unseen_labels(counts_by_split: Mapping[str, Mapping[str, int]], emptied: Sequence[str]) -> list[str]:
    """A warning for each split that has rows with labels that no training row has, from the fact `unseen_labels`.

    It ends with the sentences `emptied` on labels of which curation dropped all training rows.
    """
    warnings = []
    for split, counts in counts_by_split.items():
        effect = "count as errors" if split == TEST else "have no loss"
        names = name_labels(Counter(counts), 5)
        warning = f"{split}: {sum(counts.values())} rows {effect}; no training row has their labels: {names}"
        warnings.append("; ".join([warning, *emptied]))
    return warnings


def read_tokens(path: Path) -> pa.Table:
    """Load an Arrow file written by `tokenize`, memory-mapped without a copy."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def dropped_ids(tokens: Path, split: str) -> set[str]:
    """The ids of the split's rows that tokenization left out; `tokens` is the artifact's directory."""
    import pyarrow.compute as pc

    if not (tokens / DROPPED).is_file():
        return set()
    table = read_tokens(tokens / DROPPED)
    return set(table["id"].filter(pc.equal(table["split"], split)).to_pylist())


def _encode_and_note_dropped(encode: Callable[[pa.Table], pa.Table], dropped: list[str], rows: pa.Table) -> pa.Table:
    """Encode the rows; ids of rows that are left out are appended to `dropped`."""
    import pyarrow.compute as pc

    encoded = encode(rows)
    left_out = pc.invert(pc.is_in(rows["id"], value_set=encoded["id"]))
    dropped.extend(rows["id"].filter(left_out).to_pylist())
    return encoded


def _write_dropped(path: Path, dropped: Mapping[str, list[str]], reason: str) -> None:
    import pyarrow as pa

    rows = [(split, name, reason) for split, names in dropped.items() for name in sorted(names)]
    columns = zip(*rows, strict=True)
    table = pa.table([pa.array(column, pa.string()) for column in columns], names=["split", "id", "reason"])
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def _batches(file: Any, objective: Objective) -> Iterator[pa.Table]:
    """Yield a Parquet file's rows in batches limited by BATCH_ROWS and BATCH_BYTES, after an empty one (the schema)."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = ["id", *objective.columns]
    yield file.schema_arrow.empty_table().select(columns)
    for batch in file.iter_batches(BATCH_ROWS, columns=columns):
        rows = pa.Table.from_batches([batch])
        size = sum(pc.fill_null(pc.binary_length(rows[name]), 0).to_numpy() for name in objective.columns)
        starts = np.flatnonzero(np.diff(np.cumsum(size, dtype=np.int64) // BATCH_BYTES, prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
            yield rows.slice(start, end - start)


def _encode_ahead(encode: Callable[[pa.Table], pa.Table], batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield the encoded batches in order, encoding two at once: Python work on one overlaps Rust work on the other.

    The first is encoded alone, because it sets the tokenizer's truncation state.
    """
    yield encode(next(batches))
    with ThreadPoolExecutor(2) as pool:
        ahead: deque[Future[pa.Table]] = deque()
        for batch in batches:
            ahead.append(pool.submit(encode, batch))
            if len(ahead) > 2:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _write_batches(batches: Iterator[pa.Table], path: Path) -> Iterator[pa.Table]:
    """Write the batches to the Arrow IPC file at `path`, yielding each after it is written."""
    import pyarrow as pa

    first = next(batches)
    with pa.ipc.new_file(path, first.schema) as writer:
        for batch in batches:
            writer.write_table(batch)
            yield batch


def _pack(path: Path, objective: Objective, max_length: int) -> int:
    """Pack several training rows into one, if the objective packs; returns the number of rows in the file."""
    import pyarrow as pa

    tokens = read_tokens(path)
    batches = objective.pack_rows(tokens, max_length) if len(tokens) else None
    if batches is None:
        return len(tokens)
    packed_path, rows = path.with_suffix(".packed"), 0
    first = next(batches)
    with pa.ipc.new_file(packed_path, first.schema) as writer:
        for batch in chain([first], batches):
            writer.write_table(batch)
            rows += batch.num_rows
    packed_path.replace(path)
    return rows


def _limits(base: Path, tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """The base model's maximum number of tokens per row, and the size of its vocabulary."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=may_run(base)).get_text_config()
    # transformers reports no limit as model_max_length 1e30.
    return int(min(tokenizer.model_max_length, get_max_tokens(config))), int(config.vocab_size)


def _check_ids(encoded: pa.Table, vocabulary: int, base: Path) -> None:
    import pyarrow.compute as pc

    highest = pc.max(pc.list_flatten(encoded["input_ids"])).as_py()
    if highest is not None and highest >= vocabulary:
        raise ModelError(
            f"its tokenizer produces the id {highest}, but its model has only {vocabulary} embeddings",
            where=str(base),
            fix="Use the tokenizer that the model was trained with, or resize the model's embeddings.",
        )


def _check_dropped(split: str, dropped: list[str], rows: int, max_dropped: float, reason: str) -> None:
    if len(dropped) <= max_dropped * rows:
        return
    raise DataError(
        f"{len(dropped)} of {rows} rows ({len(dropped) / rows:.1%}) are left out ({reason});"
        f" tokenization.max_dropped is {max_dropped:.1%}."
        f" Examples: {', '.join(sorted(dropped)[:5])}",
        where=f"the {split} split",
        fix="Raise tokenization.max_length, drop long rows with curation's filters, or raise tokenization.max_dropped.",
    )


def _check_truncation(split: str, account: Account, max_length: int, max_truncated: float, positions: int) -> None:
    rows = sum(map(len, account.lengths))
    targets = account.facts().get("truncated_targets", 0)
    if targets > max_truncated * rows:
        raise DataError(
            f"{targets} of {rows} targets ({targets / rows:.1%}) are truncated; "
            f"tokenization.max_truncated is {max_truncated:.1%}",
            where=f"the {split} split",
            fix="Raise objective.max_target_length, or raise tokenization.max_truncated.",
        )
    if account.truncated_rows <= max_truncated * rows:
        return
    needed = account.find_max_length(max_truncated)
    hint = (
        f"Set tokenization.max_length to {needed}"
        if needed <= positions
        else f"The base model is limited to {positions} tokens"
    )
    examples = ", ".join(f"{name} ({length} tokens)" for length, name in account.longest)
    raise DataError(
        f"{account.truncated_rows} of {rows} rows ({account.truncated_rows / rows:.1%}) are longer than {max_length} "
        f"tokens; tokenization.max_truncated is {max_truncated:.1%}. {account.lost_tokens} "
        f"tokens would be lost. The longest: {examples}",
        where=f"the {split} split",
        fix=f"{hint}; or raise tokenization.max_truncated, or drop long rows with curation's filters.",
    )
