"""The harness is started as a process of its own: what it is given, what its failures say, and a real run."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psutil
import pytest

from hone.config.file import parse_config
from hone.environment import Home
from hone.errors import ConfigError, ModelError
from hone.evaluation.benchmarks import harness
from hone.evaluation.benchmarks.harness import HarnessModel, run_benchmarks
from hone.pipeline.plan import plan_run
from hone.pipeline.run import run_stage
from hone.pipeline.stage import Job
from hone.pipeline.stages import STAGES, list_stages
from hone.store import layout
from tests.polling import until

TASKS = Path(__file__).parents[3] / "fixtures" / "lm_eval" / "tasks"
INSTALLED = importlib.util.find_spec("lm_eval") is not None


def run(out: Path, tasks: list[str]) -> None:
    run_benchmarks(HarnessModel(out), out, tasks=tasks, include=None, limit=2, device="cpu")


def write_harness(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package `lm_eval` in place of the real one, which runs `body`."""
    package = folder / "fake" / "lm_eval"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(textwrap.dedent(body))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.setattr(harness, "require_harness", lambda: None)


def test_without_the_extra_the_error_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'hone\[benchmarks\]'"):
        run(tmp_path, ["letters"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("chosen", "passed"), [(None, "1"), ("0", "0")])
def test_it_is_offline_unless_the_environment_says_otherwise(
    chosen: str | None, passed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_harness(tmp_path, "import os, sys; sys.exit(os.environ['HF_DATASETS_OFFLINE'] + ' offline')", monkeypatch)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
        if chosen is not None:
            monkeypatch.setenv(name, chosen)
    with pytest.raises(ConfigError, match=f"{passed} offline"):
        run(tmp_path, ["letters"])


def test_a_failure_shows_the_end_of_its_log_and_leaves_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_harness(tmp_path, "raise ValueError('Tasks not found: nonsense')", monkeypatch)
    with pytest.raises(ConfigError, match="Tasks not found: nonsense"):
        run(tmp_path, ["nonsense"])
    assert not list(tmp_path.glob("*.parquet")) and not (tmp_path / layout.BENCHMARKS).exists()


def test_a_killed_harness_is_no_fault_of_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_harness(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", monkeypatch)
    with pytest.raises(ModelError, match="ended by SIGKILL"):
        run(tmp_path, ["letters"])


def test_it_ends_with_the_process_that_started_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = """
        import os, pathlib, time
        pathlib.Path("pid.part").write_text(str(os.getpid()))
        pathlib.Path("pid.part").rename("pid")
        time.sleep(600)
    """
    write_harness(tmp_path, body, monkeypatch)
    code = f"""
        from pathlib import Path
        from hone.evaluation.benchmarks import harness
        harness.require_harness = lambda: None
        out = Path({str(tmp_path)!r})
        harness.run_benchmarks(harness.HarnessModel(out), out, tasks=["a"], include=None, limit=1, device="cpu")
    """
    environment = harness._build_environment()
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], env=environment)
    try:
        until((tmp_path / "pid").exists)
        child = psutil.Process(int((tmp_path / "pid").read_text()))
        parent.kill()
        parent.wait()
        psutil.wait_procs([child], timeout=60)
        assert not child.is_running()
    finally:
        parent.kill()


# A real run


def configured(model: Path, text: Path, tasks: Path, method: dict[str, Any], **benchmarks: Any) -> Any:
    return parse_config(
        {
            "name": "tales",
            # Its requests are timed: two tokens instead of 64 save half a minute.
            "objective": {"kind": "causal-lm", "max_new_tokens": 2},
            "ingest": {"source": {"kind": "files", "paths": [str(text)], "separator": "\n\n"}},
            "curation": {"steps": [], "split": {"valid": 0.2, "test": 0.3}},
            "validation": {"min_rows": 1, "min_rows_held_out": 1},
            "model": {"base": str(model), "licence": "mit"},
            "tokenization": {"max_length": 64},
            "method": method,
            "training": {"max_steps": 2, "batch_size": 8, "learning_rate": 1e-2, "device": "cpu"},
            "evaluation": {
                "resamples": 200,
                "slices": [],
                "benchmarks": {"tasks": ["letters", "tales"], "include": str(tasks)} | benchmarks,
            },
            "promotion": {"guards": {"benchmark_fall": 0.1}},
        }
    )


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="lm-evaluation-harness is not installed (pip install 'hone[benchmarks]')")
def test_a_model_and_its_base_are_asked_the_same_and_the_base_once(shared: Path, tmp_path: Path) -> None:
    """Full fine-tuning, then an adapter that is not merged: the second line finds the base's results in the store."""
    text = tmp_path / "speeches.txt"
    text.write_text("\n\n".join(f"Speech {n}: thou hast the crown, my lord, and {n} men." for n in range(40)))
    model, home = shared / "models" / "stories260K", Home(tmp_path / "home")
    judged = []
    for method in ({"kind": "full"}, {"kind": "lora", "merged": False}):
        config = configured(model, text, TASKS, method)
        made: dict[str, Any] = {}
        states = {plan.stage: plan for plan in plan_run(config, home)}
        assert (states["benchmarks-base"].artifact is not None) == bool(judged)
        for stage in list_stages(config):
            if stage != "register":
                made[stage] = run_stage(stage, Job(config, made, home))
        judged.append(made["evaluate"].read_json(layout.METRICS))
        assert not (made["benchmarks"].path / harness.OUTPUT).exists()
        assert STAGES["benchmarks"].describe(made["benchmarks"]).startswith("letters/acc ")
    assert not {"lm_eval", "evaluate"} & set(sys.modules)
    for report in judged:
        figures = {(figure["task"], figure["metric"]): figure for figure in report["benchmarks"]["figures"]}
        assert set(figures) == {
            *(("letters", "acc"), ("letters", "acc_norm"), ("tales", "word_perplexity"), ("tales", "bits_per_byte"))
        }
        assert figures["letters", "acc"]["theirs"]["value"] == 1.0
        assert figures["tales", "bits_per_byte"]["theirs"]["value"] == pytest.approx(1.02725, abs=1e-4)
        # The stories are forgotten for the speeches.
        assert figures["tales", "bits_per_byte"]["fall"]["value"] > 0
        assert (
            figures["tales", "bits_per_byte"]["ours"]["value"] != figures["tales", "bits_per_byte"]["theirs"]["value"]
        )
