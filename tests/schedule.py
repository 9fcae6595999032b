"""In which order tests run and which of them share a process, so that two processes end at about the same time."""

from __future__ import annotations

import pytest

# The longest first. Each is a set of tests that share a server, which only one process then starts.
SERVERS = ("service", "workers", "postgresql")
# What takes long stands in front of what can fill the last seconds.
FOLDERS = ("tests/pipeline", "tests/browser", "tests/faults", "tests/unit/families", "tests/unit")


def arrange(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the groups of `--dist loadgroup` and bring the tests into the order in which processes take them."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            if name := group(item):
                item.add_marker(pytest.mark.xdist_group(name))
    items.sort(key=rank)


def group(item: pytest.Item) -> str:
    """The name of those that run in the same process as the test; '' where it can run in any."""
    server = next((name for name in SERVERS if name in _fixtures(item)), "")
    file = item.nodeid.partition("::")[0]
    return server or ("" if _alone(item) else file)


def rank(item: pytest.Item) -> tuple[int, int, int]:
    """Where the test stands among all: a smaller one runs first, equal ones as they were collected."""
    names = _fixtures(item)
    server = next((place for place, name in enumerate(SERVERS) if name in names), len(SERVERS))
    folder = next((place for place, path in enumerate(FOLDERS) if item.nodeid.startswith(path)), len(FOLDERS))
    return server, folder, int(_alone(item))


def _fixtures(item: pytest.Item) -> tuple[str, ...]:
    return tuple(getattr(item, "fixturenames", ()))


def _alone(item: pytest.Item) -> bool:
    """Whether it is a test of seconds that shares nothing with others of its file."""
    known = getattr(item, "_fixtureinfo", None)
    made = known.name2fixturedefs.values() if known else ()
    shares = any(definitions[-1].scope == "module" for definitions in made)
    return item.nodeid.startswith("tests/pipeline/") and not shares
