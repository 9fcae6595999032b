"""The store: what a stage made, under the key of what it was made from.

    store/<stage>/<key>/     manifest.json, config.yaml, the data, Prefect's cached result for it
    store/work/<stage>-<key> what a stage is writing now; train's also holds its checkpoints
    store/locks/             one lock for each key; the kernel frees it when its holder dies

A stage writes into its work directory, the manifest comes last, and a rename commits it: what lies under
`store/<stage>/<key>` is whole, or was damaged by hand, which is seen and made again.
"""

from __future__ import annotations

import errno
import fcntl
import fnmatch
import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hone.errors import StoreError

MANIFEST = "manifest.json"
CONFIG = "config.yaml"
PREFECT_RESULT = ".prefect-result"


@dataclass(frozen=True)
class Artifact:
    """The handle of a committed result: what travels between tasks instead of data.

    `digest` is over the bytes of its data files, whichever way they came about; `rows` counts its rows.
    """

    stage: str
    key: str
    uri: str
    digest: str
    rows: int

    @property
    def path(self) -> Path:
        """The directory that holds it."""
        return Path(self.uri)

    def manifest(self) -> dict[str, Any]:
        """Its manifest: recipe, files with sizes and digests, and `facts`, the stage's own account."""
        manifest: dict[str, Any] = json.loads((self.path / MANIFEST).read_text("utf8"))
        return manifest

    def facts(self) -> dict[str, Any]:
        """The stage's own account of what it did."""
        facts: dict[str, Any] = self.manifest()["facts"]
        return facts


@dataclass(frozen=True)
class Product:
    """What a stage function says of the files it wrote into its output directory.

    `content` are file name patterns, relative to the directory: the files whose bytes are the result and
    decide whether later stages run again. Reports, logs and timings are left out.
    """

    rows: int
    content: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """All that decides a stage's output; `key` is its digest."""

    stage: str
    config: dict[str, Any]
    inputs: dict[str, str]
    code: dict[str, str]
    versions: dict[str, str]

    @property
    def key(self) -> str:
        """20 hexadecimal digits of the SHA-256 over the canonical JSON of the recipe."""
        return digest_of(asdict(self))[:20]


def digest_of(value: object) -> str:
    """SHA-256 of a JSON-able value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf8")).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class DigestMemo:
    """Digests of files, remembered by (path, size, mtime, inode) so that unchanged files are not read again.

    A file changed within the last two seconds is read but not remembered: a second change inside
    the clock's grain would go unseen (git calls this racy).
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def digest(self, file: Path) -> str:
        """SHA-256 of `file`, from memory where size, mtime and inode are what they were."""
        stat = file.stat()
        seen = (str(file.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino)
        with self._table() as table:
            row = table.execute(
                "select digest from digests where path=? and size=? and mtime=? and inode=?", seen
            ).fetchone()
            if row:
                return str(row[0])
            digest = file_digest(file)
            if time.time_ns() - stat.st_mtime_ns > 2_000_000_000:
                table.execute("insert or replace into digests values (?,?,?,?,?)", (*seen, digest))
        return digest

    @contextmanager
    def _table(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=30)
        try:
            with connection:
                connection.execute(
                    "create table if not exists digests "
                    "(path text primary key, size int, mtime int, inode int, digest text)"
                )
                yield connection
        finally:
            connection.close()


class Store:
    """Artifacts on a local disk, under one root directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.memo = DigestMemo(root / "digests.sqlite")

    def directory(self, stage: str, key: str) -> Path:
        """Where the artifact of `key` lies, or would lie."""
        return self.root / stage / key

    def work_directory(self, stage: str, key: str) -> Path:
        """Where `key` is being made; it outlives a killed `train`, and holds its checkpoints."""
        return self.root / "work" / f"{stage}-{key}"

    def find(self, stage: str, key: str) -> Artifact | None:
        """The committed artifact of `key`; None where there is none, or where files of it are missing."""
        return None if self.damage(stage, key) else self._read(self.directory(stage, key))

    def damage(self, stage: str, key: str) -> str:
        """What is wrong with the artifact of `key`, '' if nothing is: absence, missing or resized files."""
        home = self.directory(stage, key)
        if not (home / MANIFEST).is_file():
            return f"{home} is not there"
        for name, entry in json.loads((home / MANIFEST).read_text("utf8"))["files"].items():
            file = home / name
            if not file.is_file():
                return f"{file} is gone"
            if file.stat().st_size != entry["bytes"]:
                return f"{file} has {file.stat().st_size} bytes, {entry['bytes']} were written"
        return ""

    def manifests(self, stage: str) -> list[dict[str, Any]]:
        """The manifests of a stage's artifacts, newest first."""
        files = sorted(self.root.glob(f"{stage}/*/{MANIFEST}"), key=lambda f: f.stat().st_mtime, reverse=True)
        return [json.loads(file.read_text("utf8")) for file in files]

    def verify(self, artifact: Artifact) -> list[str]:
        """What the bytes of an artifact, read again, do not agree with; empty where all is well."""
        faults = [self.damage(artifact.stage, artifact.key)]
        if not faults[0]:
            faults = [
                f"{artifact.path / name}: its bytes are not those that were written"
                for name, entry in artifact.manifest()["files"].items()
                if file_digest(artifact.path / name) != entry["sha256"]
            ]
        return [fault for fault in faults if fault]

    def obtain(
        self,
        recipe: Recipe,
        make: Callable[[Path], Product],
        *,
        name: str = "",
        config: str = "",
        resumable: bool = False,
        still_true: Callable[[Artifact], bool] = lambda _: True,
        on_wait: Callable[[], None] = lambda: None,
    ) -> tuple[Artifact, bool]:
        """The artifact of `recipe`, and whether it was there; else `make(directory)` makes it.

        Of two callers with one recipe the second waits for the first (`on_wait` is called) and takes its result.
        With `resumable` a work directory left by an interrupted `make` is handed to the next. What is found and not
        `still_true`, for it tells of something elsewhere, is made again.
        Raises StoreError where the disk is full or cannot be written.
        """
        with self._disk_faults(recipe.stage), self.lock(recipe.stage, recipe.key, on_wait):
            found = self.find(recipe.stage, recipe.key)
            if found and still_true(found):
                return found, True
            work = self.work_directory(recipe.stage, recipe.key)
            if work.exists() and not resumable:
                shutil.rmtree(work)
            work.mkdir(parents=True, exist_ok=True)
            began = time.monotonic()
            try:
                product = make(work)
                about = {"name": name, "seconds": round(time.monotonic() - began, 3)}
                return self._commit(recipe, work, product, about, config), False
            finally:
                if not resumable:  # what was committed is no longer there
                    shutil.rmtree(work, ignore_errors=True)

    @contextmanager
    def lock(self, stage: str, key: str, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold `key` for this process alone; `on_wait` is called if another has it."""
        path = self.root / "locks" / f"{stage}-{key}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _commit(self, recipe: Recipe, work: Path, product: Product, about: dict[str, Any], config: str) -> Artifact:
        (work / CONFIG).write_text(config, "utf8")
        files = {
            str(file.relative_to(work)): {"bytes": file.stat().st_size, "sha256": file_digest(file)}
            for file in sorted(work.rglob("*"))
            if file.is_file()
        }
        content = {
            name: entry["sha256"]
            for name, entry in files.items()
            if any(fnmatch.fnmatch(name, pattern) for pattern in product.content)
        }
        if not content:
            raise StoreError(f"{recipe.stage} wrote nothing that matches {product.content}", where=str(work))
        manifest = {
            "stage": recipe.stage,
            "key": recipe.key,
            **about,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "digest": digest_of(content),
            "rows": product.rows,
            "recipe": asdict(recipe),
            "facts": product.facts,
            "files": files,
        }
        _write_synced(work / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))
        home = self.directory(recipe.stage, recipe.key)
        home.parent.mkdir(parents=True, exist_ok=True)
        if home.exists():
            shutil.rmtree(home)
        work.rename(home)
        _sync(home.parent)
        return self._read(home)

    @staticmethod
    def _read(home: Path) -> Artifact:
        manifest = json.loads((home / MANIFEST).read_text("utf8"))
        return Artifact(manifest["stage"], manifest["key"], str(home), manifest["digest"], manifest["rows"])

    @contextmanager
    def _disk_faults(self, stage: str) -> Iterator[None]:
        try:
            yield
        except OSError as fault:
            if fault.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
                raise
            raise StoreError(
                f"{stage} could not be written: {fault.strerror}",
                where=str(fault.filename or self.root),
                fix="Free or extend the disk, or point HONE_HOME at another one, and run again: "
                "what was finished is kept, nothing half-written was.",
            ) from fault


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
