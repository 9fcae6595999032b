"""Monitoring and retraining, on a real Prefect server, with a real MLflow store and a model registered by the line."""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import preloaded
from tests.polling import until
from tests.small_line import FILLING, WORDS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
OTHER = "stocks bonds market price trade bank profit loss shares interest".split()


def line_of(draw: random.Random, words: list[str]) -> str:
    said = draw.choices(FILLING, k=9) + draw.choices(words, k=3)
    draw.shuffle(said)
    return " ".join(said)


def rows(folder: Path, name: str, count: int, seed: int, words: list[str] | None = None) -> Path:
    """Texts without labels: of the two topics that the model knows, or of `words`."""
    draw = random.Random(seed)
    lines = [line_of(draw, words or WORDS[draw.choice(list(WORDS))]) for _ in range(count)]
    path = folder / name
    path.write_text("\n".join(["text", *lines]) + "\n")
    return path


@dataclass
class House:
    """A data folder with one registered version, and the Prefect server that flows are run with."""

    folder: Path
    conf: Path
    data: Path
    url: str

    def change(self, **sections: dict[str, Any]) -> Path:
        """Another file of the configuration, with fields of sections changed."""
        tree = yaml.safe_load(self.conf.read_text())
        for section, fields in sections.items():
            tree[section] = tree.get(section, {}) | fields
        path = self.folder / "changed.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path

    def tags(self, version: str = "1", model: str = "small") -> dict[str, str]:
        from hone.environment import home
        from hone.tracking.client import connect

        return dict(connect(home().tracking_uri).get_model_version(model, version).tags)


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, small: dict[str, Any], rows_csv: Path, prefect_url: str
) -> Iterator[House]:
    """The small line, run once; the process's environment is that of its flows until the module's last test."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    folder = tmp_path_factory.mktemp("house")
    data = folder / "rows.csv"
    data.write_text(rows_csv.read_text())
    tree = small | {
        "ingest": small["ingest"] | {"source": {"kind": "files", "paths": [str(data)]}},
        "training": small["training"] | {"epochs": 4},
        "monitoring": {"min_rows": 30, "permutations": 199, "inputs": files(folder / "recent.csv")},
    }
    conf = folder / "conf" / "small.yaml"
    conf.parent.mkdir()
    conf.write_text(yaml.safe_dump(tree))
    left = [name for name in os.environ if name.startswith(("PREFECT_", "MLFLOW_", "HONE_"))]
    own = {"HONE_HOME": str(folder / "home"), "PREFECT_API_URL": prefect_url, "HF_HUB_OFFLINE": "1"}
    own |= {"PREFECT_HOME": str(folder / "prefect"), "MLFLOW_DISABLE_TELEMETRY": "true"}
    with pytest.MonkeyPatch.context() as patch:
        for name in left:
            patch.delenv(name)
        for name, value in own.items():
            patch.setenv(name, value)
        patch.chdir(folder)  # a form's names are those of the files in conf/
        done = subprocess.run([preloaded.hone(), "run", str(conf)], capture_output=True, text=True, cwd=folder)
        assert done.returncode == 0, done.stderr
        with temporary_settings({PREFECT_API_URL: prefect_url, PREFECT_HOME: folder / "prefect"}):
            yield House(folder, conf, data, prefect_url)


def files(path: Path) -> dict[str, Any]:
    return {"kind": "files", "paths": [str(path)]}


def asked(call: Callable[[Any], Any]) -> Any:
    """What `call(client)` gives, with a client of the Prefect server."""
    from prefect import get_client

    async def ask() -> Any:
        async with get_client() as client:
            return await call(client)

    return asyncio.run(ask())


def runs_of(deployment_id: Any) -> list[Any]:
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId

    wanted = DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id]))
    found: list[Any] = asked(lambda client: client.read_flow_runs(deployment_filter=wanted))
    return found


@pytest.fixture(scope="module")
def deployment(house: House) -> Any:
    """`retrain-weekly`, and both shipped automations, the deployment's name in them replaced by its id."""
    from prefect.events.schemas.automations import AutomationCore

    from flows.retrain import retrain

    made = retrain.to_deployment(name="retrain-weekly", parameters={"config": "small"})
    assert not asyncio.iscoroutine(made)
    made.entrypoint = "flows.retrain.retrain"
    found = made.apply()
    for name in ("retrain-on-drift", "retrain-on-new-data"):
        tree = yaml.safe_load((ROOT / f"deployments/automations/{name}.yaml").read_text())
        for action in tree["actions"]:
            assert action.pop("deployment") == "retrain-weekly"
            action["deployment_id"] = str(found)
        asked(lambda client, tree=tree: client.create_automation(AutomationCore(**tree)))
    return found


def check(house: House, path: Path) -> Any:
    from flows.monitor import monitor

    return monitor(config="small", inputs=files(path), return_state=True)


def test_recent_inputs_of_the_same_kind_have_not_drifted(house: House) -> None:
    state = check(house, rows(house.folder, "same.csv", 200, 11))
    assert state.name == "No drift", state.message
    assert "small version 1: no drift" in state.message
    assert "hone.drift.state" not in house.tags()

    # MLflow has the check, with the figures of every test and the page.
    from hone.environment import home
    from hone.tracking.client import connect

    client = connect(home().tracking_uri)
    [run] = client.search_runs([client.get_experiment_by_name("small monitoring").experiment_id])
    assert run.data.tags["hone.decision"] == "no drift"
    for test in ("length", "vocabulary", "language", "missing_text", "predicted_label", "domain_classifier"):
        assert 0 <= run.data.metrics[f"drift/{test}_p_corrected"] <= 1
    page = Path(client.download_artifacts(run.info.run_id, "drift.md")).read_text()
    assert "the frozen base model" in page
    assert "| predicted label |" in page


def test_too_few_rows_and_rows_that_repeat_decide_nothing(house: House) -> None:
    few = rows(house.folder, "few.csv", 10, 12, OTHER)
    assert check(house, few).name == "Too few rows"
    again = few.with_name("again.csv")
    again.write_text("text\n" + "\n".join(few.read_text().splitlines()[1:] * 40) + "\n")
    assert check(house, again).name == "Too few rows"


def test_three_checks_that_say_drift_start_one_retraining_and_a_new_episode_another(
    house: House, deployment: Any
) -> None:
    """The automations are those that are shipped; a marker event after the checks says that all before it was heard."""
    from prefect.events import emit_event

    from hone.drift.episodes import Episode
    from hone.tracking.reader import Version
    from tasks.runtime.events import emit_model_event

    drifted, same = rows(house.folder, "drifted.csv", 200, 13, OTHER), rows(house.folder, "good.csv", 200, 14)

    def started(by: str) -> list[Any]:
        return [run for run in runs_of(deployment) if run.parameters["started_by"] == by]

    def heard(count: int) -> None:
        emit_event("hone.new-data", resource={"prefect.resource.id": "hone.model.small"}, payload={"config": "small"})
        until(lambda: len(started("new rows")) == count, 120)

    for _ in range(3):
        assert check(house, drifted).name == "Drift"
    assert house.tags()["hone.drift.episode"] == "1"
    [run] = until(lambda: started("drift"), 120)
    # A check at the same time announces the same episode: an event with the same id, which is taken once.
    version = Version("small", "1", "", "", {})
    emit_model_event(
        "hone.drift.detected", "small", what="again", why="again", key=Episode(1).key(version), config="small"
    )
    heard(1)
    assert len(started("drift")) == 1
    # It is told which configuration is meant, and says in its name what started it, once it runs.
    assert run.parameters["config"] == "small"

    assert check(house, same).name == "No drift"
    assert house.tags()["hone.drift.state"] == "no drift"
    assert check(house, drifted).name == "Drift"
    assert check(house, drifted).name == "Drift"
    until(lambda: len(started("drift")) == 2, 120)
    heard(2)
    assert len(started("drift")) == 2
    assert house.tags()["hone.drift.episode"] == "2"

    # One of them, run as a worker would: nothing has changed in the source.
    done = subprocess.run(
        [preloaded.python(), "-m", "prefect", "flow-run", "execute", str(run.id)],
        capture_output=True,
        text=True,
        cwd=house.folder,
    )
    ended = asked(lambda client: client.read_flow_run(run.id))
    assert (ended.name, ended.state.name) == ("retrain small: drift", "Nothing new"), done.stderr


def test_the_command_checks_and_says_what_it_found(house: House) -> None:
    command = [preloaded.hone(), "monitor", str(house.conf)]
    path = rows(house.folder, "same-again.csv", 150, 15)
    done = subprocess.run([*command, "--inputs", str(path)], capture_output=True, text=True, cwd=house.folder)
    assert done.returncode == 0, done.stderr
    assert "small version 1: no drift" in done.stdout
    missing = subprocess.run([*command, "monitoring.inputs=null"], capture_output=True, text=True, cwd=house.folder)
    assert missing.returncode == 2
    assert "monitoring.inputs" in missing.stderr


def test_on_its_schedule_it_checks_the_champions_that_say_where_their_inputs_are(house: House) -> None:
    from flows.monitor import monitor
    from hone.environment import home
    from hone.tracking.client import connect

    nothing = monitor(return_state=True)
    assert (nothing.name, "monitoring.inputs" in nothing.message) == ("Nothing to monitor", True)
    client = connect(home().tracking_uri)
    client.set_registered_model_alias("small", "champion", "1")
    try:
        rows(house.folder, "recent.csv", 150, 16)
        state = monitor(return_state=True)
    finally:
        client.delete_registered_model_alias("small", "champion")
    assert state.name == "No drift", state.message
    assert state.message.startswith("small version 1: no drift")
    assert asked(lambda client: client.read_flow_run(state.state_details.flow_run_id)).name == "monitor champions"


@pytest.fixture
def champions(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., None]]:
    """`champions(NAME, INPUTS)` makes one of the small version's files, which is asked what lies there."""
    from hone.environment import home
    from hone.tracking.client import connect

    client = connect(home().tracking_uri)
    small, made = client.get_model_version("small", "1"), []
    source = client.get_model_version_download_uri("small", "1")

    def make(name: str, inputs: Path, *without: str, **sections: dict[str, Any]) -> None:
        run = client.create_run(client.get_run(small.run_id).info.experiment_id)
        kept = Path(client.download_artifacts(small.run_id, "", str(tmp_path_factory.mktemp(name))))
        for word in without:
            (kept / word).unlink()
        tree = yaml.safe_load((kept / "config.yaml").read_text()) | {"name": name} | sections
        tree["monitoring"]["inputs"] = files(inputs)
        (kept / "config.yaml").write_text(yaml.safe_dump(tree))
        client.log_artifacts(run.info.run_id, str(kept))
        client.create_registered_model(name)
        made.append(name)
        client.create_model_version(name, source, run.info.run_id, tags=small.tags)
        client.set_registered_model_alias(name, "champion", "1")

    yield make
    for name in made:
        client.delete_registered_model(name)


def test_of_several_champions_each_is_checked_and_the_gravest_decision_stands(
    house: House, champions: Callable[..., None]
) -> None:
    from flows.monitor import monitor
    from hone.registry.reference import STATISTICS

    champions("asked-the-same", rows(house.folder, "the-same.csv", 150, 17))
    champions("asked-others", rows(house.folder, "others.csv", 150, 18, OTHER))
    state = monitor(return_state=True)
    assert state.name == "Drift"
    assert "asked-the-same version 1: no drift" in state.message
    assert "asked-others version 1: drift" in state.message

    # One whose check fails fails the run; the others are checked, and what was found is remembered.
    champions("broken", house.folder / "the-same.csv", STATISTICS)
    rows(house.folder, "others.csv", 150, 19)
    state = monitor(return_state=True)
    assert state.is_failed()
    assert STATISTICS in state.message
    assert house.tags(model="asked-others")["hone.drift.state"] == "no drift"


def test_only_rows_that_are_new_are_trained_on(house: House) -> None:
    from flows.retrain import retrain

    def again(**options: Any) -> Any:
        return retrain(config="small", return_state=True, **options)

    assert again(started_by="schedule").name == "Nothing new"

    # The same rows in another order, and rows that stand there already, are nothing new.
    head, *lines = house.data.read_text().splitlines()
    house.data.write_text("\n".join([head, *reversed(lines), lines[0]]) + "\n")
    waits = again()
    assert (waits.name, waits.message) == (
        "Waiting for rows",
        "small: 0 new rows since version 1, 0 gone; waiting for 1",
    )

    draw = random.Random(5)
    new = [f"{line_of(draw, WORDS['sport'])},sport" for _ in range(5)]
    house.data.write_text("\n".join([head, *lines, *new]) + "\n")
    waits = again(min_new_rows=10)
    assert (waits.name, waits.message) == (
        "Waiting for rows",
        "small: 5 new rows since version 1, 0 gone; waiting for 10",
    )

    done = again(min_new_rows=5, started_by="drift")
    assert done.name == "Completed"
    line = r"small version 2, \d+\.\d% \(\+\d+\.\d over TF-IDF and linear SVM\): 5 new rows since version 1, 0 gone"
    assert re.fullmatch(line, done.message), done.message
    assert house.tags("2")["hone.rows_count"] == "305"
    assert again().name == "Nothing new"

    run = asked(lambda client: client.read_flow_run(done.state_details.flow_run_id))
    assert run.name == "retrain small: drift"
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=["retrain-small"]))
    told = asked(lambda client: client.read_artifacts(artifact_filter=wanted))
    assert any("Started by: **drift**" in artifact.data and "| 2 |" in artifact.data for artifact in told)


def test_on_its_schedule_it_retrains_the_champions_whose_configuration_says_so(
    house: House, champions: Callable[..., None]
) -> None:
    from flows.retrain import retrain

    nothing = retrain(started_by="schedule", return_state=True)
    assert nothing.name == "Nothing to retrain"
    assert "retraining.scheduled" in nothing.message
    head, *lines = house.data.read_text().splitlines()
    draw = random.Random(6)
    new = [f"{line_of(draw, WORDS['sport'])},sport,2026-03-02" for _ in range(5)]
    dated = house.folder / "scheduled.csv"
    dated.write_text("\n".join([f"{head},came", *(f"{line},2026-03-01" for line in lines[:300]), *new]) + "\n")
    # A version that was trained on the rows as of a date is trained again on today's.
    ingest = yaml.safe_load(house.conf.read_text())["ingest"]
    ingest |= {"source": files(dated), "time": "came", "as_of": "2026-03-01"}
    champions("scheduled", dated, ingest=ingest, retraining={"scheduled": True, "min_new_rows": 10})
    champions("by-hand", dated, ingest=ingest)
    state = retrain(started_by="schedule", return_state=True)
    waits = "scheduled: 5 new rows since version 1, 0 gone; waiting for 10"
    assert (state.name, state.message) == ("Waiting for rows", waits)
    assert (
        asked(lambda client: client.read_flow_run(state.state_details.flow_run_id)).name
        == "retrain champions: schedule"
    )

    # One that fails does not keep the others from their run.
    broken = ingest | {"source": files(house.folder / "nowhere.csv")}
    champions("broken", dated, ingest=broken, retraining={"scheduled": True})
    state = retrain(started_by="schedule", return_state=True)
    assert (state.type, state.name) == ("FAILED", "Retraining failed")
    assert "nowhere.csv" in state.message
    assert waits in state.message


def test_a_range_of_dates_is_trained_in_order_on_the_rows_as_of_each(house: House) -> None:
    from flows.retrain import retrain

    _, *lines = house.data.read_text().splitlines()
    days = ["2026-03-01", "2026-03-02", "2026-03-04"]
    dated = [f"{line},{days[min(at // 120, 2)]}T12:00:00" for at, line in enumerate(lines)]
    source = house.folder / "dated.csv"
    source.write_text("\n".join(["text,topic,came", *dated]) + "\n")
    tree = yaml.safe_load(house.conf.read_text()) | {"name": "dated", "training": {"epochs": 1, "batch_size": 16}}
    tree["ingest"] |= {"source": files(source), "time": "came"}
    (house.folder / "conf" / "dated.yaml").write_text(yaml.safe_dump(tree))

    span = {"as_of": "2026-03-01", "until": "2026-03-04"}
    done = retrain(config="dated", return_state=True, **span)
    # On the third of March nothing had come since the second.
    assert re.findall(r"dated version (\d), \d+\.\d% ", done.message) == ["1", "2", "3"]
    counts = [house.tags(version, "dated")["hone.rows_count"] for version in "123"]
    assert counts == ["120", "240", str(len(lines))]
    assert retrain(config="dated", return_state=True, **span).name == "Nothing new"
    run = asked(lambda client: client.read_flow_run(done.state_details.flow_run_id))
    assert run.name == "retrain dated: person, as of 2026-03-01 until 2026-03-04"
