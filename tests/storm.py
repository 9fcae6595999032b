"""Kills commands at random instants, whole process trees at once, and compares what is left once each is repeated.

    python tests/storm.py --kills 200 --seed 1     prints a table; the exit status is 1 if anything differed

Each kill has a data folder of its own: a copy of one with a champion, and for some commands a candidate. A command
starts there, is killed with all its processes after a random share of the time that it takes undisturbed, and is
repeated until it ends. The folder then has to hold what an undisturbed command leaves: the same versions with
weights of the same bytes, aliases, journal and predictions, no damaged artifact, and no process.
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
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))
from hone.environment import DEFAULTS, Home
from hone.pipeline.stages import STAGES
from hone.promotion.promote import open_journal
from hone.store.digests import file_digest
from hone.tracking.aliases import list_aliases
from hone.tracking.client import connect
from hone.tracking.reader import get_version
from hone_app.service.servers import prefect_server, use
from tests.preloaded import hone
from tests.small_line import topic_base, topic_rows

MODEL = "small"
SECOND = ("run", "small.yaml", "training.seed=2")
PROMOTE = ("promote", MODEL, "--yes", "--why", "better")
# Of each command: what is done before it in its folder.
COMMANDS: dict[str, tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]] = {
    "run": (SECOND, ()),
    "register": (("run", "small.yaml", "registration.alias=next"), ()),
    "promote": (PROMOTE, (SECOND,)),
    "rollback": (("rollback", MODEL, "--why", "worse"), (SECOND, PROMOTE)),
    "predict": (("predict", MODEL, "--input", "new.csv", "--output", "out.csv"), ()),
}
END_SECONDS = 20.0  # that processes of an ended command may take to end
REPEATS = 3


@dataclass
class Storm:
    """The place of the folders, and the Prefect server that all commands use."""

    place: Path
    prefect: str
    templates: dict[str, Path] = field(default_factory=dict)
    expected: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def prepare(self, name: str) -> None:
        """Make the folder that the command `name` starts from, and do it once undisturbed."""
        words, before = COMMANDS[name]
        self.templates[name] = self._template(before)
        folder = self.copy(name, f"undisturbed-{name}")
        start = time.monotonic()
        process = self.start(folder, words)
        output, _ = process.communicate()
        self.seconds[name] = time.monotonic() - start
        assert process.returncode == 0, output
        self.expected[name] = describe(folder)

    def copy(self, name: str, to: str) -> Path:
        """A copy of the folder that the command `name` starts from."""
        return shutil.copytree(self.templates[name], self.place / to)

    def start(self, folder: Path, words: tuple[str, ...]) -> subprocess.Popen[str]:
        """Start `hone WORDS` in `folder`."""
        command = [hone(), *words]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HONE_", "MLFLOW_"))}
        own = {"HONE_HOME": str(folder / "home"), "PREFECT_API_URL": self.prefect, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            command,
            cwd=folder,
            env=kept | DEFAULTS | own,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def disturb(self, name: str, number: int, draw: random.Random) -> list[str]:
        """Kill the command `name` in a folder of its own, repeat it, and return what differs then."""
        words, _ = COMMANDS[name]
        folder = self.copy(name, f"{number}-{name}")
        process = self.start(folder, words)
        with suppress(subprocess.TimeoutExpired):
            process.wait(draw.uniform(0, self.seconds[name]))
        kill_all(folder / "home")
        process.communicate()
        for _ in range(REPEATS):
            again = self.start(folder, words)
            output, _ = again.communicate()
            if "Traceback" in output:
                return [f"a traceback: {output.splitlines()[-1]}"]
            if again.returncode == 0:
                break
        left = wait_for_end(folder / "home")
        kill_all(folder / "home")
        faults = compare(self.expected[name], describe(folder)) + [f"left running: {command}" for command in left]
        if not faults:
            shutil.rmtree(folder)
        return faults

    def _template(self, before: tuple[tuple[str, ...], ...]) -> Path:
        """The folder with version 1 as the champion, in which the commands `before` were done."""
        folder = self.place / f"template-{len(before)}"
        if folder.exists():
            return folder
        if before:
            shutil.copytree(self._template(before[:-1]), folder)
        else:
            folder.mkdir()
            write_project(folder)
        for words in before[-1:] or (("run", "small.yaml"), PROMOTE):
            process = self.start(folder, words)
            output, _ = process.communicate()
            assert process.returncode == 0, output
        return folder


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
            "epochs": 10,
            "batch_size": 16,
            "learning_rate": 5.0e-3,
            "precision": "fp32",
            "checkpoint_seconds": 0,
        },
        "evaluation": {"resamples": 100},
        "promotion": {"enforce": False, "resamples": 100, "margin": 0.9},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(config), "utf8")


def describe(folder: Path) -> dict[str, Any]:
    """What a command leaves: versions with the digests of their files, aliases, journal, predictions, and damage."""
    home = Home(folder / "home")
    uri = f"sqlite:///{home.root}/mlflow/mlflow.db"
    client = connect(uri)
    versions = {}
    for version in client.search_model_versions(f"name='{MODEL}'"):
        location = Path(get_version(uri, f"models:/{MODEL}/{version.version}").location.removeprefix("file://"))
        weights = {file.name: file_digest(file) for file in location.rglob("*.safetensors")}
        versions[str(version.version)] = (version.status, bool(version.description), weights)
    entries = [record.entry for record in open_journal(uri, MODEL).records()]
    artifacts = [home.store.find(stage, path.name) for stage in STAGES for path in home.store.root.glob(f"{stage}/*")]
    output = folder / "out.csv"
    return {
        "versions": versions,
        "aliases": list_aliases(client, MODEL),
        "journal": [(entry.action, entry.from_version, entry.to_version) for entry in entries],
        "predictions": file_digest(output) if output.exists() else "",
        "damaged artifacts": sum(artifact is None or bool(home.store.verify(artifact)) for artifact in artifacts),
    }


def compare(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """The parts that differ."""
    return [f"{name}: {found[name]}, not {part}" for name, part in expected.items() if found[name] != part]


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


def run_storm(place: Path, names: list[str], kills: int, seed: int) -> dict[str, list[list[str]]]:
    """Kill the commands `names` by turns; for each command, what differed after each kill."""
    storm = Storm(place, use(prefect_server(Home(place / "server"))) + "/api")
    for name in names:
        storm.prepare(name)
    draw = random.Random(seed)
    results: dict[str, list[list[str]]] = {name: [] for name in names}
    for number in range(kills):
        name = names[number % len(names)]
        results[name].append(storm.disturb(name, number, draw))
        for fault in results[name][-1]:
            print(f"{number}-{name}: {fault}", flush=True)  # noqa: T201
    for name in names:
        differing = Counter(fault.partition(":")[0] for faults in results[name] for fault in faults)
        kinds = ", ".join(f"{kind} {count}" for kind, count in differing.items()) or "nothing differed"
        print(f"{name:<9} {storm.seconds[name]:5.1f} s  {len(results[name]):>5} kills  {kinds}", flush=True)  # noqa: T201
    return results


def main() -> int:
    """Run the storm that the options describe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hone-storm-", ignore_cleanup_errors=True) as place:
        results = run_storm(Path(place), options.commands, options.kills, options.seed)
    return int(any(faults for kills in results.values() for faults in kills))


if __name__ == "__main__":
    sys.exit(main())
