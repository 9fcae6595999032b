"""Kills commands at random instants, whole process trees at once, and compares what is left once each is repeated.

    python tests/storm.py --kills 200 --seed 1     prints a table; the exit status is 1 if anything differed
    python tests/storm.py --interrupt              Ctrl-C, SIGTERM and SIGHUP instead of kills

Each kill has a data folder of its own: a copy of one with a champion, and for some commands a candidate or a champion
that was moved by hand. A command starts there, is killed with all its processes at a random instant of the time that it
takes undisturbed, and is repeated until it ends. The folder then has to hold what an undisturbed command leaves: the
same versions with weights of the same bytes, tags and intact files, aliases, journal, predictions, artifacts, MLflow
runs, experiments and logged models, no folder that belongs to none of them, and no process.

The processes are forks of one that has imported the libraries (tests/preloaded), so that a kill hits Hone's own work
and seldom an import; with --plain they are those of the installed command.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
sys.path.insert(0, str(Path(__file__).parents[1]))
from hone.environment import DEFAULTS, Home
from hone.pipeline.stages import STAGES
from hone.promotion.promote import open_journal
from hone.registry.integrity import check_files
from hone.store.digests import file_digest
from hone.store.layout import WORK
from hone.tracking.aliases import list_aliases
from hone.tracking.client import connect
from hone.tracking.links import check_run_files
from hone.tracking.reader import get_version
from hone_app.service.servers import prefect_server, use
from tests import preloaded
from tests.small_line import topic_base, topic_rows

MODEL = "small"
Words = tuple[str, ...]

FIRST: Words = ("hone", "run", "small.yaml")
SECOND: Words = (*FIRST, "training.seed=2")
PROMOTE: Words = ("hone", "promote", MODEL, "--yes", "--why", "better")
BY_HAND: Words = (
    *("python", "-c"),
    "from mlflow import MlflowClient; "
    "MlflowClient().set_registered_model_alias('small', 'champion', "
    "MlflowClient().get_model_version_by_alias('small', 'candidate').version)",
)
# A second version whose stages before `register` are done.
EVALUATED: Words = (
    *("python", "-c"),
    """
from pathlib import Path

from hone.config.file import load_config
from hone.environment import home
from hone.pipeline.run import run_stage
from hone.pipeline.stage import Job
from hone.pipeline.stages import list_stages

config, artifacts = load_config(Path("small.yaml"), ["training.seed=2"]), {}
for stage in list_stages(config)[:-1]:
    artifacts[stage] = run_stage(stage, Job(config, artifacts, home()))
""",
)
TRIALS = "sweep={trials: 3, sampler: grid, space: {training.seed: [2, 3, 4]}}"
# Of each command: what is done before it in its folder, after the first version was made and promoted.
COMMANDS: dict[str, tuple[Words, tuple[Words, ...]]] = {
    "run": (SECOND, ()),
    "register": (SECOND, (EVALUATED,)),
    "sweep": (("hone", "sweep", "small.yaml", TRIALS), ()),
    "promote": (PROMOTE, (SECOND,)),
    "rollback": (("hone", "rollback", MODEL, "--why", "worse"), (SECOND, PROMOTE)),
    "predict": (("hone", "predict", MODEL, "--input", "new.csv", "--output", "out.csv"), ()),
    "reconcile": (("python", "-c", "from flows.reconcile import reconcile; reconcile()"), (SECOND, BY_HAND)),
}
END_SECONDS = 20.0  # that processes of an ended command may take to end
REPEATS = 3
COMPARED_TAGS = ("hone.verdict", "hone.accuracy", "hone.rows_digest", "hone.promotion.decision")
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130  # the exit status
INTERRUPT_SECONDS = 15.0  # that an interrupted command may take to end


@dataclass
class Command:
    """A command of the storm: its words, the folder that it starts from, and how it goes undisturbed."""

    words: Words
    template: Path
    seconds: float
    expected: Mapping[str, Any]


@dataclass
class Kill:
    """A kill: whether it hit the command before its end, and what differed once the command was repeated."""

    hit: bool
    faults: Sequence[str]


@dataclass
class Storm:
    """The place of the folders, the programs, and the Prefect server that all commands use."""

    place: Path
    programs: Mapping[str, str]
    prefect: str = ""
    interrupt: bool = False
    commands: dict[str, Command] = field(default_factory=dict)

    def prepare(self, name: str) -> None:
        """Make the folder that the command `name` starts from, and do the command once undisturbed."""
        words, before = COMMANDS[name]
        template = self._template(before)
        folder = shutil.copytree(template, self.place / f"undisturbed-{name}")
        start = time.monotonic()
        self._finish(folder, words)
        self.commands[name] = Command(words, template, time.monotonic() - start, describe(folder))

    def disturb(self, name: str, draw: random.Random, label: str) -> Kill:
        """Kill the command `name` in a folder of its own, repeat it, and say what differs then."""
        command = self.commands[name]
        folder = shutil.copytree(command.template, self.place / label)
        process = self._start(folder, command.words)
        with suppress(subprocess.TimeoutExpired):
            process.wait(draw.uniform(0, command.seconds))
        hit = process.poll() is None
        faults = interrupt(process, draw.choice(INTERRUPTS)) if self.interrupt and hit else []
        kill_all(folder / "home")
        process.communicate()
        faults += self._repeat(folder, command.words)
        faults += [f"left running: {left}" for left in wait_for_end(folder / "home")]
        kill_all(folder / "home")
        faults += compare(command.expected, describe(folder))
        if not faults:
            shutil.rmtree(folder)
        return Kill(hit, faults)

    def _repeat(self, folder: Path, words: Words) -> list[str]:
        output = ""
        for _ in range(REPEATS):
            process = self._start(folder, words)
            output, _ = process.communicate()
            if "Traceback" in output:
                return [f"a traceback: {output.splitlines()[-1]}"]
            if process.returncode == 0:
                return []
        return [f"does not end well: {output[-500:]}"]

    def _finish(self, folder: Path, words: Words) -> None:
        process = self._start(folder, words)
        output, _ = process.communicate()
        assert process.returncode == 0, output

    def _start(self, folder: Path, words: Words) -> subprocess.Popen[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HONE_", "MLFLOW_"))}
        own = {
            "HONE_HOME": str(folder / "home"),
            "MLFLOW_TRACKING_URI": tracking_uri(folder),
            "PREFECT_API_URL": self.prefect,
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        return subprocess.Popen(
            [self.programs[words[0]], *words[1:]],
            cwd=folder,
            env=kept | DEFAULTS | own,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def _template(self, before: Sequence[Words]) -> Path:
        """The folder with version 1 as the champion, in which the commands `before` were done."""
        folder = self.place / "-".join(["template", *(str(len(words)) + words[1] for words in before)])
        if folder.exists():
            return folder
        if not before:
            folder.mkdir()
            write_project(folder)
            self._finish(folder, FIRST)
            self._finish(folder, PROMOTE)
            return folder
        shutil.copytree(self._template(before[:-1]), folder)
        self._finish(folder, before[-1])
        return folder


def interrupt(process: subprocess.Popen[str], number: signal.Signals) -> list[str]:
    """Send a signal to a command as a terminal does; what is wrong with its end."""
    process.send_signal(number)
    try:
        output, _ = process.communicate(timeout=INTERRUPT_SECONDS)
    except subprocess.TimeoutExpired:
        return [f"runs on: {INTERRUPT_SECONDS:.0f} s after {number.name}"]
    last = output.strip().splitlines()[-1:]
    if "Traceback" in output or process.returncode not in (0, INTERRUPTED, -number):
        return [f"ends badly: {process.returncode} after {number.name}: {last}"]
    return []


def write_project(folder: Path) -> None:
    """A configuration of a tiny model, whose gates let every candidate pass, its data, and rows to predict."""
    topic_base(folder / "base")
    topic_rows(folder / "rows.csv")
    topic_rows(folder / "new.csv", rows=60, seed=2)
    config = {
        "name": MODEL,
        "ingest": {"source": {"kind": "files", "paths": ["rows.csv"]}, "columns": {"label": "topic"}},
        "model": {"base": "./base"},
        "tokenization": {"max_length": 32},
        "training": {
            "epochs": 3,
            "batch_size": 16,
            "learning_rate": 5.0e-3,
            "precision": "fp32",
            "checkpoint_seconds": 0,
        },
        "evaluation": {"resamples": 100},
        "promotion": {"enforce": False, "resamples": 100, "margin": 0.9},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(config), "utf8")


def tracking_uri(folder: Path) -> str:
    """The MLflow store of a folder."""
    return f"sqlite:///{folder}/home/mlflow/mlflow.db"


def describe(folder: Path) -> dict[str, Any]:
    """What a command leaves in a folder: all that has to be the same however often it was killed before its end."""
    home, uri = Home(folder / "home"), tracking_uri(folder)
    client = connect(uri)
    versions = {str(number): describe_version(uri, client, number) for number in list_numbers(client)}
    entries = [record.entry for record in open_journal(uri, MODEL).records()]
    keys = {stage: sorted(path.name for path in home.store.root.glob(f"{stage}/*")) for stage in STAGES}
    found = [home.store.find(stage, key) for stage in keys for key in keys[stage]]
    experiments = {experiment.experiment_id: experiment.name for experiment in client.search_experiments()}
    runs = client.search_runs(list(experiments), max_results=1_000)
    models = client.search_logged_models(list(experiments))
    owners = {*(run.info.run_id for run in runs), *(logged.model_id for logged in models)}
    folders = [path.parent.name for path in (folder / "home" / "mlflow").rglob("artifacts") if path.is_dir()]
    output = folder / "out.csv"
    return {
        "versions": versions,
        "aliases": list_aliases(client, MODEL),
        "journal": [(entry.action, entry.from_version, entry.to_version) for entry in entries],
        "predictions": file_digest(output) if output.exists() else "",
        "artifacts": {stage: len(keys[stage]) for stage in keys},
        "damaged artifacts": sum(artifact is None or bool(home.store.verify(artifact)) for artifact in found),
        "unfinished work": [path.name for path in home.store.root.glob(f"{WORK}/*")],
        "runs": Counter((experiments[run.info.experiment_id], run.info.status) for run in runs),
        "experiments": sorted(experiments.values()),
        "logged models": sorted((logged.status, logged.tags.get(MLFLOW_MODEL_VERSIONS, "")) for logged in models),
        "folders without a run or a model": [name for name in folders if name not in {*owners, "mlflow"}],
    }


def list_numbers(client: MlflowClient) -> list[int]:
    """The numbers of the model's versions."""
    return sorted(int(version.version) for version in client.search_model_versions(f"name='{MODEL}'"))


def describe_version(uri: str, client: MlflowClient, number: int) -> dict[str, Any]:
    """A version with its files, and the files of its run; of its tags those with values that no run has for itself."""
    version, source = client.get_model_version(MODEL, str(number)), get_version(uri, f"models:/{MODEL}/{number}")
    place = Path(source.location.removeprefix("file://"))
    check_files(uri, source)
    check_run_files(uri, source)
    return {
        "status": version.status,
        "outcomes": [line.split("**")[1] for line in version.description.splitlines() if line.startswith("**")],
        "tags": {name: version.tags[name] if name in COMPARED_TAGS else "" for name in sorted(version.tags)},
        "weights": {file.name: file_digest(file) for file in place.rglob("*.safetensors")},
        "files of the run": sorted(entry.path for entry in client.list_artifacts(version.run_id)),
    }


def compare(expected: Any, actual: Any, part: str = "") -> list[str]:
    """The parts that differ, down to the single value."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        names = {**expected, **actual}
        return [
            line for name in names for line in compare(expected.get(name), actual.get(name), f"{part} {name}".strip())
        ]
    return [] if actual == expected else [f"{part}: {actual}, not {expected}"]


def list_processes(home: Path) -> Iterator[tuple[int, str]]:
    """The processes that use the data folder `home`: their numbers and commands."""
    own = f"HONE_HOME={home}\0".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if own in folder.joinpath("environ").read_bytes() + b"\0":
                command = folder.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                yield int(folder.name), command


def kill_all(home: Path) -> None:
    """Kill the processes of a data folder, and those that they start meanwhile."""
    while processes := list(list_processes(home)):
        for number, _ in processes:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.01)


def wait_for_end(home: Path) -> list[str]:
    """The commands of the processes of a data folder that have not ended in time."""
    deadline = time.monotonic() + END_SECONDS
    while (left := [command for _, command in list_processes(home)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def run_storm(storm: Storm, names: Sequence[str], kills: int, seed: int, jobs: int) -> dict[str, list[Kill]]:
    """Kill the commands `names` by turns, `jobs` at a time; the kills of each command."""
    for name in names:
        storm.prepare(name)
    order = [names[number % len(names)] for number in range(kills)]

    def disturb(number: int) -> Kill:
        label = f"{number}-{order[number]}"
        kill = storm.disturb(order[number], random.Random(f"{seed}:{number}"), label)
        for fault in kill.faults:
            print(f"{label}: {fault}", flush=True)  # noqa: T201
        return kill

    with ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(disturb, range(kills)))
    return {name: [kill for other, kill in zip(order, results, strict=True) if other == name] for name in names}


def describe_storm(storm: Storm, results: Mapping[str, Sequence[Kill]]) -> str:
    """A table of the kills, in Markdown."""
    lines = ["| command | undisturbed | kills | of them before its end | what differed |", "|---|---|---|---|---|"]
    for name, kills in results.items():
        differing = Counter(fault.partition(":")[0] for kill in kills for fault in kill.faults)
        kinds = ", ".join(f"{kind} ({count})" for kind, count in differing.items()) or "nothing"
        hits = sum(kill.hit for kill in kills)
        lines.append(f"| `{name}` | {storm.commands[name].seconds:.1f} s | {len(kills)} | {hits} | {kinds} |")
    return "\n".join(lines)


def main() -> int:
    """Run the storm that the options describe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="commands at a time (default: one a core)")
    parser.add_argument("--interrupt", action="store_true", help="interrupt commands instead of killing them")
    parser.add_argument("--plain", action="store_true", help="processes of the installed command, imports and all")
    parser.add_argument("--keep", action="store_true", help="leave the folders of kills after which something differed")
    options = parser.parse_args()
    names = options.commands or [name for name in COMMANDS if not options.interrupt or COMMANDS[name][0][0] == "hone"]
    place = Path(tempfile.mkdtemp(prefix="hone-storm-"))
    plain = {"hone": preloaded.plain_hone(), "python": sys.executable}
    programs = plain if options.plain else {"hone": preloaded.hone(), "python": preloaded.python()}
    try:
        storm = Storm(place, programs, use(prefect_server(Home(place / "server"))) + "/api", options.interrupt)
        results = run_storm(storm, names, options.kills, options.seed, options.jobs)
        print(describe_storm(storm, results), flush=True)  # noqa: T201
    finally:
        if options.keep:
            print(f"kept: {place}")  # noqa: T201
        else:
            shutil.rmtree(place, ignore_errors=True)
    return int(any(kill.faults for kills in results.values() for kill in kills))


if __name__ == "__main__":
    sys.exit(main())
