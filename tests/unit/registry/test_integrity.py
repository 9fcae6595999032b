"""A registered model whose files are not those that were registered is used by nobody."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hone.errors import ModelError
from hone.models.locate import BaseModel
from hone.registry.integrity import TAG, check_files
from hone.registry.served import sums
from hone.store.artifact import Artifact
from hone.tracking import reader
from hone.tracking.client import connect
from hone.tracking.reader import Version, get_version
from tests import preloaded
from tests.registering import do_register, place_of

Registered = tuple[str, Version, Path]


@pytest.fixture(scope="module")
def registered(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path, artifacts: Mapping[str, Artifact], base: BaseModel
) -> Registered:
    """The tracking URI, the version, and the directory where MLflow keeps it."""
    home = tmp_path_factory.mktemp("integrity")
    shutil.copyfile(empty_database, home / "mlflow.db")
    uri = f"sqlite:///{home}/mlflow.db"
    made = do_register(home / "out", artifacts, base, uri)
    return uri, get_version(uri, "models:/tiny/1"), place_of(made)


def flip(file: Path) -> None:
    """Change the last byte, or give an empty file one."""
    content = bytearray(file.read_bytes() or b"\1")
    content[-1] ^= 1
    replace_bytes(file, bytes(content))


def replace_bytes(file: Path, content: bytes) -> None:
    """Give the file other content: it is read-only, and may be a link to that of an artifact."""
    file.unlink(missing_ok=True)
    file.write_bytes(content)


@contextmanager
def kept(place: Path) -> Iterator[None]:
    """What the block does to the directory is undone."""
    before = {file: file.read_bytes() for file in place.rglob("*") if file.is_file()}
    try:
        yield
    finally:
        for file in sorted(place.rglob("*"), reverse=True):
            if file.is_symlink() or (file not in before and not file.is_dir()):
                file.unlink()
        for file, content in before.items():
            if not file.is_file() or file.read_bytes() != content:
                replace_bytes(file, content)


def test_one_byte_of_any_file_is_seen_and_the_file_named(registered: Registered) -> None:
    uri, version, place = registered
    assert check_files(uri, version) == place
    every = sums.list_files(place)
    assert {"MLmodel", "served.py", "artifacts/model/model.safetensors", "artifacts/model/objective.json"} <= set(every)
    assert any(name.endswith("objectives/text_classification.py") for name in every)
    for name in every:
        with kept(place):
            flip(place / name)
            with pytest.raises(ModelError, match=f"  {name} was changed"):
                check_files(uri, version)
    check_files(uri, version)


def test_what_is_missing_or_added_is_named(registered: Registered) -> None:
    uri, version, place = registered
    with kept(place):
        (place / "artifacts/model/tokenizer.json").unlink()
        (place / "code" / "sitecustomize.py").write_text("print('here')")
        with pytest.raises(ModelError, match=r"tokenizer\.json is gone\n  code/sitecustomize\.py was added"):
            check_files(uri, version)


def test_links_and_pipes_are_refused(registered: Registered, tmp_path: Path) -> None:
    """A folder behind a link is not listed, and what is behind a link can change; a pipe would never end."""
    uri, version, place = registered
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("")
    with kept(place):
        (place / "code" / "torch").symlink_to(tmp_path / "torch")
        os.mkfifo(place / "pipe")
        with pytest.raises(ModelError, match=r"(?s)code/torch is a link.*code/torch was added.*pipe is a link or not"):
            check_files(uri, version)
    with kept(place):
        copy = shutil.copy(place / "MLmodel", tmp_path)
        (place / "MLmodel").unlink()
        (place / "MLmodel").symlink_to(copy)
        with pytest.raises(ModelError, match="MLmodel is a link"):
            check_files(uri, version)
    check_files(uri, version)


def test_sums_that_were_rewritten_to_fit_are_seen(registered: Registered) -> None:
    uri, version, place = registered
    with kept(place):
        flip(place / "artifacts/model/model.safetensors")
        (place / sums.SUMS).unlink()
        assert sums.write_sums(place, {}) != version.tags[TAG]
        assert sums.find_faults(place) == []
        with pytest.raises(ModelError, match=f"SHA256SUMS was changed: its digest is not the version's tag {TAG}"):
            check_files(uri, version)
    with kept(place):
        (place / sums.SUMS).unlink()
        with pytest.raises(ModelError, match="SHA256SUMS is gone"):
            check_files(uri, version)


def test_a_version_without_sums_is_refused_and_told_how_to_get_them(registered: Registered) -> None:
    uri, version, _ = registered
    old = replace(version, tags={name: value for name, value in version.tags.items() if name != TAG})
    with pytest.raises(ModelError, match=r"registered by an early version[^\n]*\n.*hone run CONF"):
        check_files(uri, old)


LOAD = """
import sys
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
print(mlflow.pyfunc.load_model(sys.argv[2]).predict(["card lost"])["label"][0])
"""


def loaded(uri: str, model: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | more
    return subprocess.run(
        [preloaded.python(), "-c", LOAD, uri, model], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_use_leaves_nothing_that_spoils_the_proof(registered: Registered) -> None:
    uri, version, place = registered
    first = loaded(uri, version.uri)
    assert first.returncode == 0, first.stderr
    assert (place / "registered_model_meta").is_file()  # MLflow's own
    assert not list((place / "code").rglob(sums.BYTECODE))
    assert list(place.rglob(sums.BYTECODE))  # of served.py, which MLflow imports
    check_files(uri, version)
    assert not list(place.rglob(sums.BYTECODE))


@pytest.mark.parametrize(
    "name", ["artifacts/model/model.safetensors", "artifacts/model/objective.json", "requirements.txt"]
)
def test_serving_refuses_a_changed_byte(registered: Registered, name: str) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc import load_model

    _, _, place = registered
    with kept(place):
        flip(place / name)
        with pytest.raises((ValueError, MlflowException), match=f"{name} was changed"):
            load_model(str(place))


PLANT = "import os; open(os.environ['PLANTED'], 'a').write(__name__ + ' ')"


@pytest.mark.slow
def test_no_file_beside_the_model_is_run_before_the_sums_are_checked(registered: Registered, tmp_path: Path) -> None:
    """MLflow puts code/ before all installed packages."""
    uri, version, place = registered
    package = next((place / "code").glob("served_*"))
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "__init__.py").write_text(PLANT)
    with kept(place):
        (place / "code" / "torch").symlink_to(linked)
        for file in (
            "code/transformers.py",
            f"code/{package.name}/__init__.py",
            f"code/{package.name}/hone/__init__.py",
        ):
            (place / file).write_text(PLANT)
        done = loaded(uri, version.uri, PLANTED=str(tmp_path / "run"))
        (place / "code" / "torch").unlink()
    assert done.returncode != 0 and "is not the model that was registered: code/" in done.stderr
    assert not (tmp_path / "run").exists()


def test_files_elsewhere_are_fetched_anew_unless_a_whole_copy_will_do(
    registered: Registered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A place that is not this machine's disk: fsspec's memory stands for a bucket."""
    import mlflow.artifacts

    uri, version, place = registered
    monkeypatch.setenv("HONE_HOME", str(tmp_path / "home"))
    bucket = shutil.copytree(place, tmp_path / "bucket")
    fetched: list[Any] = []

    def download(location: str, dst_path: str, tracking_uri: str) -> str:
        fetched.append(location)
        return str(shutil.copytree(bucket, Path(dst_path) / "artifacts"))

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", download)
    far = replace(version, location="s3://bucket/model")
    copy = check_files(uri, far)
    assert copy.is_relative_to(tmp_path / "home" / "downloads")
    assert check_files(uri, far, reuse=True) == copy
    assert len(fetched) == 1
    flip(copy / "served.py")  # a damaged copy is no damaged model
    assert check_files(uri, far, reuse=True) == copy
    assert len(fetched) == 2
    flip(bucket / "served.py")
    assert check_files(uri, far, reuse=True) == copy
    with pytest.raises(ModelError, match=r"served\.py was changed"):
        check_files(uri, far)
    assert len(fetched) == 3


def test_files_that_cannot_be_fetched_are_said(registered: Registered, tmp_path: Path) -> None:
    uri, version, _ = registered
    with pytest.raises(ModelError, match=r"(?s)s3://bucket/model.*cannot be fetched"):
        reader.version_directory(uri, replace(version, location="s3://bucket/model"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_tag_is_the_digest_of_the_sums(registered: Registered) -> None:
    uri, _, place = registered
    tags = connect(uri).get_model_version("tiny", "1").tags
    assert tags[TAG] == sums.file_digest(place / sums.SUMS)
