"""The artifact store: each stage's result under the key of its recipe.

    store/<stage>/<key>/     manifest.json, config.yaml, the data
    store/work/<stage>-<key> the output of a running stage; for train also its checkpoints
    store/locks/             one lock per key; the kernel releases it when its holder dies

A stage writes into its work directory; all of it is flushed to disk, the manifest last, and a rename commits it. A
directory `store/<stage>/<key>` is therefore complete unless it was damaged since. `find` sees missing and resized files
and a changed manifest; `verify` reads every byte.
"""

from __future__ import annotations

import fcntl
import fnmatch
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hone.disk import describe_disk_fault
from hone.errors import StoreError
from hone.store.artifact import Artifact, Product
from hone.store.digests import DigestMemo, digest_of, file_digest
from hone.store.files import discard, remove, sync, sync_tree
from hone.store.layout import CONFIG, LOCKS, MANIFEST, WORK
from hone.store.manifest import read_manifest, write_manifest
from hone.store.recipe import Recipe


class Store:
    """Artifacts on a local disk, under one root directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.memo = DigestMemo(root / "digests.sqlite")

    def directory(self, stage: str, key: str) -> Path:
        """The directory of the artifact with this key, whether it exists or not."""
        return self.root / stage / key

    def work_directory(self, stage: str, key: str) -> Path:
        """The directory that the stage writes into; it outlives a killed `train` and contains its checkpoints."""
        return self.root / WORK / f"{stage}-{key}"

    def find(self, stage: str, key: str) -> Artifact | None:
        """The committed artifact with this key; None if there is none or if it is damaged (see `describe_damage`)."""
        return None if self.describe_damage(stage, key) else self.read(stage, key)

    def read(self, stage: str, key: str) -> Artifact:
        """The artifact by its manifest alone, whatever its files are; StoreError if that is absent or damaged."""
        home = self.directory(stage, key)
        manifest = read_manifest(home)
        return Artifact(stage, key, str(home), manifest["digest"], manifest["rows"])

    def describe_damage(self, stage: str, key: str) -> str:
        """What is wrong with the artifact (absent, a damaged manifest, a missing or resized file); '' if nothing is."""
        home = self.directory(stage, key)
        try:
            manifest = read_manifest(home)
        except StoreError as fault:
            return str(fault)
        if (manifest["stage"], manifest["key"]) != (stage, key):
            return f"{home / MANIFEST} belongs to {manifest['stage']}/{manifest['key']}"
        for name, entry in manifest["files"].items():
            file = home / name
            if not file.is_file():
                return f"{file} is missing"
            if file.stat().st_size != entry["bytes"]:
                return f"{file} has {file.stat().st_size} bytes, {entry['bytes']} were written"
        return ""

    def list_manifests(self, stage: str) -> list[dict[str, Any]]:
        """The manifests of a stage's artifacts, newest first, without damaged ones."""
        manifests = []
        for file in self.root.glob(f"{stage}/*/{MANIFEST}"):
            with suppress(StoreError, FileNotFoundError):  # one may be removed in the meantime
                manifests.append((file.stat().st_mtime, read_manifest(file.parent)))
        return [manifest for _, manifest in sorted(manifests, key=lambda pair: pair[0], reverse=True)]

    def verify(self, artifact: Artifact) -> list[str]:
        """Read an artifact's files again and compare their digests; a line for each fault, empty if there is none.

        Speed: about 1 GB/s.
        """
        return self._list_faults(artifact.stage, artifact.key)

    def remove_damaged(self, stage: str, key: str) -> list[str]:
        """Read the artifact with this key, if there is one, and remove it if it is damaged; returns what is wrong."""
        if not self.directory(stage, key).exists():
            return []
        faults = self._list_faults(stage, key)
        if faults:
            with self.lock(stage, key):
                discard(self.directory(stage, key), self.root)
        return faults

    def _list_faults(self, stage: str, key: str) -> list[str]:
        if damage := self.describe_damage(stage, key):
            return [damage]
        directory = self.directory(stage, key)
        return [
            f"{directory / name}: its bytes differ from those that were written"
            for name, entry in read_manifest(directory)["files"].items()
            if file_digest(directory / name) != entry["sha256"]
        ]

    def discard(self, artifact: Artifact) -> None:
        """Remove a damaged artifact, so that it is made again."""
        with self.lock(artifact.stage, artifact.key):
            discard(artifact.path, self.root)

    def discard_work(self, stage: str, key: str) -> None:
        """Remove what an ended `make` left for the next one."""
        with self.lock(stage, key):
            discard(self.work_directory(stage, key), self.root)

    def obtain(
        self,
        recipe: Recipe,
        make: Callable[[Path], Product],
        *,
        name: str = "",
        config: str = "",
        resumable: bool = False,
        is_current: Callable[[Artifact], bool] = lambda _: True,
        on_wait: Callable[[], None] = lambda: None,
    ) -> tuple[Artifact, bool]:
        """Return the artifact of `recipe` and whether it existed; if not, make it with `make(directory)`.

        If two callers have the same recipe, the second waits for the first (`on_wait` is called) and uses its result.
        With `resumable`, the work directory of an interrupted `make` is passed to the next one. An artifact that
        refers to something outside the store and is no longer current (`is_current`) is made again.
        Raises StoreError if the disk is full or not writable.
        """
        with self._disk_faults(recipe.stage), self.lock(recipe.stage, recipe.key, on_wait):
            artifact = self.find(recipe.stage, recipe.key)
            if artifact and is_current(artifact):
                self._remove_temporary(artifact)
                return artifact, True
            work = self.work_directory(recipe.stage, recipe.key)
            if work.exists() and not resumable:
                shutil.rmtree(work)
            work.mkdir(parents=True, exist_ok=True)
            started_at = time.monotonic()
            try:
                product = make(work)
                timing = {"name": name, "seconds": round(time.monotonic() - started_at, 3)}
                return self._commit(recipe, work, product, timing, config), False
            finally:
                if not resumable:  # a committed directory has been renamed and is not here any more
                    shutil.rmtree(work, ignore_errors=True)

    @contextmanager
    def lock(self, stage: str, key: str, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the lock of `key` within the block; `on_wait` is called if another process has it."""
        path = self.root / LOCKS / f"{stage}-{key}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _commit(self, recipe: Recipe, work: Path, product: Product, timing: dict[str, Any], config: str) -> Artifact:
        (work / CONFIG).write_text(config, "utf8")
        files = {
            str(file.relative_to(work)): {"bytes": file.stat().st_size, "sha256": file_digest(file)}
            for file in sorted(work.rglob("*"))
            if file.is_file() and file.relative_to(work).parts[0] not in product.temporary
        }
        content = {
            name: entry["sha256"]
            for name, entry in files.items()
            if any(fnmatch.fnmatch(name, pattern) for pattern in product.content)
        }
        if not content:
            raise StoreError(f"{recipe.stage} wrote no file that matches {product.content}", where=str(work))
        manifest = {
            "stage": recipe.stage,
            "key": recipe.key,
            **timing,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "digest": digest_of(content),
            "rows": product.rows,
            "recipe": asdict(recipe),
            "facts": product.facts,
            "files": files,
            "temporary": product.temporary,
        }
        sync_tree(work)
        write_manifest(work, manifest)
        home = self.directory(recipe.stage, recipe.key)
        home.parent.mkdir(parents=True, exist_ok=True)
        discard(home, self.root)
        sync(work)
        work.rename(home)
        sync(home.parent)
        artifact = self.read(recipe.stage, recipe.key)
        self._remove_temporary(artifact)
        return artifact

    @staticmethod
    def _remove_temporary(artifact: Artifact) -> None:
        """Remove what the stage needed until the commit; again, if it was killed before this."""
        for name in artifact.manifest().get("temporary", ()):
            remove(artifact.path / name)

    @contextmanager
    def _disk_faults(self, stage: str) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as fault:
            described = describe_disk_fault(fault)
            if described is None:
                raise
            reason, file = described
            raise StoreError(
                f"{stage} could not be written: {reason}",
                where=file or str(self.root),
                fix="Free disk space or set HONE_HOME to another disk, and run again: "
                "finished stages are kept, the unfinished one starts over.",
            ) from fault
