"""The store: what is committed is whole, what is whole is found again, and two never make the same thing."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hone.errors import StoreError
from hone.store.artifact import Product
from hone.store.digests import DigestMemo, file_digest
from hone.store.recipe import Recipe
from hone.store.store import Store

RECIPE = Recipe("curate", {"curation": {"min": 1}}, {"rows": "abc"}, {"src/hone/x.py": "1"}, {"python": "3.11"})
PRODUCT = Product(rows=2, content=("rows.txt",), facts={"kept": 2})


def write_rows(out: Path) -> Product:
    (out / "rows.txt").write_text("one\ntwo\n")
    (out / "log.txt").write_text(str(os.getpid()))
    return PRODUCT


def never(out: Path) -> Product:
    raise AssertionError(f"made again in {out}")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_what_was_made_is_found_and_not_made_again(store: Store) -> None:
    made, hit = store.obtain(RECIPE, write_rows, name="mine", config="name: mine\n")
    assert not hit
    assert store.obtain(RECIPE, never) == (made, True)
    assert made.facts() == {"kept": 2}
    assert (made.path / "config.yaml").read_text() == "name: mine\n"
    assert made.manifest()["name"] == "mine"


def test_the_digest_is_of_the_content_and_not_of_how_it_came_about(store: Store) -> None:
    one, _ = store.obtain(RECIPE, write_rows)
    other, _ = store.obtain(Recipe("curate", {"curation": {"min": 2}}, {}, {}, {}), write_rows)
    assert one.key != other.key
    assert one.digest == other.digest


def test_a_failed_stage_leaves_nothing_that_looks_finished(store: Store) -> None:
    def fail(out: Path) -> Product:
        write_rows(out)
        raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        store.obtain(RECIPE, fail)
    assert store.find("curate", RECIPE.key) is None
    assert not store.work_directory("curate", RECIPE.key).exists()


def test_a_resumable_stage_gets_its_work_directory_back(store: Store) -> None:
    def fail(out: Path) -> Product:
        (out / "checkpoint").write_text("step 5")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.obtain(RECIPE, fail, resumable=True)

    def resume(out: Path) -> Product:
        assert (out / "checkpoint").read_text() == "step 5"
        return write_rows(out)

    assert store.obtain(RECIPE, resume, resumable=True)[1] is False


@pytest.mark.parametrize("harm", ["delete the directory", "delete a file", "cut a file"])
def test_an_artifact_damaged_by_hand_is_made_again(store: Store, harm: str) -> None:
    made, _ = store.obtain(RECIPE, write_rows)
    rows = made.path / "rows.txt"
    if harm == "delete the directory":
        subprocess.run(["rm", "-r", str(made.path)], check=True)
    elif harm == "delete a file":
        rows.unlink()
    else:
        rows.write_text("one\n")
    again, hit = store.obtain(RECIPE, write_rows)
    assert not hit
    assert again.digest == made.digest
    assert rows.read_text() == "one\ntwo\n"


def test_verify_reads_the_bytes(store: Store) -> None:
    made, _ = store.obtain(RECIPE, write_rows)
    assert store.verify(made) == []
    (made.path / "rows.txt").write_text("one\nTWO\n")
    assert store.find("curate", made.key) == made
    assert [fault for fault in store.verify(made) if "rows.txt" in fault]


def test_a_product_without_content_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="wrote no file"):
        store.obtain(RECIPE, lambda out: Product(0, ("rows.parquet",)))


def test_a_full_disk_is_one_clear_error_and_loses_nothing(store: Store) -> None:
    made, _ = store.obtain(RECIPE, write_rows)

    def fill(out: Path) -> Product:
        write_rows(out)
        with open("/dev/full", "w") as full:  # noqa: PTH123
            full.write("x" * 100_000)
        return PRODUCT

    other = Recipe("curate", {}, {}, {}, {})
    with pytest.raises(StoreError, match="No space left") as fault:
        store.obtain(other, fill)
    assert "HONE_HOME" in str(fault.value)
    assert store.find("curate", other.key) is None
    assert store.find("curate", RECIPE.key) == made


def test_other_faults_of_the_system_pass_through(store: Store) -> None:
    def fail(_: Path) -> Product:
        raise OSError(errno.ENOTDIR, "not a directory")

    with pytest.raises(OSError, match="not a directory"):
        store.obtain(RECIPE, fail)


def _race(root: Path, made: multiprocessing.Queue[bool]) -> None:
    _, hit = Store(root).obtain(RECIPE, write_rows)
    made.put(not hit)


def test_of_two_processes_one_makes_it_and_the_other_takes_it(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    made: multiprocessing.Queue[bool] = spawn.Queue()
    racers = [spawn.Process(target=_race, args=(tmp_path, made)) for _ in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert sorted(made.get() for _ in racers) == [False, False, False, True]


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from hone.store.store import Store\n"
        f"with Store(Path({str(tmp_path)!r})).lock('curate', 'k'):\n"
        "    print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    waited: list[bool] = []

    def kill() -> None:
        waited.append(True)
        holder.send_signal(signal.SIGKILL)

    with Store(tmp_path).lock("curate", "k", on_wait=kill):
        assert waited == [True]
    holder.wait()
    holder.stdout.close()


def test_a_memo_reads_a_changed_file_again(tmp_path: Path) -> None:
    memo, file = DigestMemo(tmp_path / "memo.sqlite"), tmp_path / "data.csv"
    file.write_text("one")
    os.utime(file, (1_000_000_000, 1_000_000_000))
    assert memo.digest(file) == memo.digest(file) == file_digest(file)
    file.write_text("two")
    assert memo.digest(file) == file_digest(file)


def test_a_memo_does_not_read_an_unchanged_file_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memo, file = DigestMemo(tmp_path / "memo.sqlite"), tmp_path / "data.csv"
    file.write_text("one")
    _let_a_minute_pass(monkeypatch)
    digest = memo.digest(file)
    monkeypatch.setattr("hone.store.digests.file_digest", lambda path: pytest.fail(f"read {path} again"))
    assert memo.digest(file) == digest


def test_a_memo_reads_a_file_of_same_size_and_time_that_was_copied_over_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memo, file, other = DigestMemo(tmp_path / "memo.sqlite"), tmp_path / "data.csv", tmp_path / "other.csv"
    for path, text in ((file, "one"), (other, "two")):
        path.write_text(text)
        os.utime(path, (1_000_000_000, 1_000_000_000))
    _let_a_minute_pass(monkeypatch)
    before, inode = memo.digest(file), file.stat().st_ino
    shutil.copy2(other, file)  # as cp -p: the inode, the size and the mtime stay
    assert (file.stat().st_ino, file.stat().st_mtime) == (inode, 1_000_000_000)
    assert memo.digest(file) == file_digest(other) != before


def test_a_memo_of_an_earlier_version_is_left_alone_and_not_believed(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text("one")
    stat = file.stat()
    with sqlite3.connect(tmp_path / "memo.sqlite") as connection:
        connection.execute("create table digests (path text primary key, size int, mtime int, inode int, digest text)")
        row = (str(file.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino, "stale")
        connection.execute("insert into digests values (?,?,?,?,?)", row)
    connection.close()
    assert DigestMemo(tmp_path / "memo.sqlite").digest(file) == file_digest(file)


def _let_a_minute_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that have just been written count as a minute old: the memo does not remember younger ones."""
    later = time.time_ns() + 60_000_000_000
    monkeypatch.setattr("hone.store.digests.time.time_ns", lambda: later)


@pytest.mark.parametrize("offset", [0, 9, 40, 90, 200, 300, 420])
def test_a_changed_manifest_is_a_miss_with_its_name(store: Store, offset: int) -> None:
    made, _ = store.obtain(RECIPE, write_rows)
    manifest = made.path / "manifest.json"
    content = bytearray(manifest.read_bytes())
    content[offset] ^= 1
    manifest.write_bytes(content)
    assert store.find("curate", made.key) is None
    assert str(manifest) in store.describe_damage("curate", made.key)
    assert store.list_manifests("curate") == []
    with pytest.raises(StoreError, match=r"manifest\.json"):
        made.facts()
    again, hit = store.obtain(RECIPE, write_rows)
    assert (again, hit) == (made, False)


def test_no_changed_byte_of_a_manifest_is_believed(store: Store) -> None:
    """Nor one of the key of its digest, without which it would be one of an earlier release."""
    made, _ = store.obtain(RECIPE, write_rows)
    written, file = made.manifest(), made.path / "manifest.json"
    content = file.read_bytes()
    for offset in range(len(content)):
        for bit in range(8):
            file.write_bytes(content[:offset] + bytes([content[offset] ^ 1 << bit]) + content[offset + 1 :])
            assert store.describe_damage("curate", made.key) or made.manifest() == written, content[offset : offset + 9]


def test_a_manifest_of_another_artifact_is_not_believed(store: Store) -> None:
    made, _ = store.obtain(RECIPE, write_rows)
    shutil.copytree(made.path, store.directory("curate", "other"))
    assert store.find("curate", "other") is None
    assert made.key in store.describe_damage("curate", "other")


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"files": {"a": {}}}', "\udcff", "[" * 100_000])
def test_what_is_no_manifest_is_one_error(store: Store, text: str) -> None:
    made, _ = store.obtain(RECIPE, write_rows)
    (made.path / "manifest.json").write_text(text, "utf8", errors="surrogateescape")
    assert "manifest.json: is not what was written" in store.describe_damage("curate", made.key)


def test_a_manifest_without_a_digest_of_its_own_is_read(store: Store) -> None:
    made, _ = store.obtain(RECIPE, write_rows)
    manifest = made.path / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["format"], content["manifest_sha256"], content["temporary"]  # as an earlier release wrote it
    manifest.write_text(json.dumps(content))
    assert store.obtain(RECIPE, never) == (made, True)


def test_a_discarded_artifact_is_gone_and_made_again(store: Store) -> None:
    made, _ = store.obtain(RECIPE, write_rows)
    store.discard(made)
    assert store.find("curate", made.key) is None
    assert list((store.root / ".trash").iterdir()) == []
    store.discard(made)
    assert store.obtain(RECIPE, write_rows) == (made, False)


def test_everything_is_on_disk_before_the_manifest_and_temporary_files_go_after_the_commit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    remaining: list[str] = []
    sync, rename = os.fsync, Path.rename

    def record(handle: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        sync(handle)

    def commit(self: Path, target: Path) -> Path:
        remaining.extend(sorted(file.name for file in self.iterdir()))
        return rename(self, target)

    def write(out: Path) -> Product:
        (out / "checkpoints").mkdir()
        (out / "checkpoints" / "step").write_text("5")
        (out / "model").mkdir()
        (out / "model" / "weights").write_text("w")
        (out / "spec.json").write_text("{}")
        return Product(1, ("model/*",), temporary=("checkpoints", "spec.json"))

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr(Path, "rename", commit)
    made, _ = store.obtain(RECIPE, write, resumable=True)
    assert flushed.index("weights") < flushed.index("model") < flushed.index("manifest.json")
    assert flushed[-1] == "curate"
    assert "checkpoints" in remaining
    assert sorted(file.name for file in made.path.iterdir()) == ["config.yaml", "manifest.json", "model"]
    assert set(made.manifest()["files"]) == {"config.yaml", "model/weights"}


def test_temporary_files_of_a_killed_commit_are_removed_by_the_next_caller(store: Store) -> None:
    def write(out: Path) -> Product:
        (out / "checkpoints").mkdir()
        return replace(write_rows(out), temporary=("checkpoints",))

    made, _ = store.obtain(RECIPE, write)
    (made.path / "checkpoints").mkdir()
    assert store.obtain(RECIPE, never) == (made, True)
    assert not (made.path / "checkpoints").exists()


@pytest.mark.parametrize("harm", ["no database", "a changed digest", "a text that is none", "another table", "a cut"])
def test_a_damaged_memo_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str) -> None:
    path, file = tmp_path / "memo.sqlite", tmp_path / "data.csv"
    file.write_text("one")
    _let_a_minute_pass(monkeypatch)
    digest = DigestMemo(path).digest(file)
    if harm == "no database":
        path.write_bytes(b"x" * 5000)
    elif harm == "a cut":
        os.truncate(path, 5000)
    else:
        statement = {
            "a changed digest": "update proved_digests set digest = 'f' || substr(digest, 2)",
            "a text that is none": "update proved_digests set digest = cast(x'ff' as text)",
            "another table": "alter table proved_digests drop column proof",
        }[harm]
        with sqlite3.connect(path) as connection:
            connection.execute(statement)
        connection.close()
    assert DigestMemo(path).digest(file) == digest
    DigestMemo(path).digest(file)
    monkeypatch.setattr("hone.store.digests.file_digest", lambda path: pytest.fail(f"read {path} again"))
    assert DigestMemo(path).digest(file) == digest


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EROFS])
def test_a_memo_that_cannot_be_written_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int) -> None:
    file = tmp_path / "data.csv"
    file.write_text("one")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert DigestMemo(tmp_path / "no" / "memo.sqlite").digest(file) == file_digest(file)
    (tmp_path / "taken").write_text("no folder")
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
    assert DigestMemo(tmp_path / "taken" / "memo.sqlite").digest(file) == file_digest(file)
