"""A small fixed part of the storm: `make storm` has as many kills of all commands as you like."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from hone.environment import Home
from hone_app.service.servers import prefect_server, use
from tests import preloaded
from tests.storm import Storm

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def storm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storm]:
    """A storm with a Prefect server of its own."""
    place = tmp_path_factory.mktemp("storm")
    programs = {"hone": preloaded.hone(), "python": preloaded.python()}
    yield Storm(place, programs, use(prefect_server(Home(place / "server"))) + "/api")


@pytest.mark.parametrize("command", ["register", "promote", "reconcile"])
def test_a_killed_command_that_is_repeated_leaves_what_an_undisturbed_one_leaves(storm: Storm, command: str) -> None:
    storm.prepare(command)
    kill = storm.disturb(command, random.Random(5), command)  # after three fifths of its time
    assert kill.faults == []
