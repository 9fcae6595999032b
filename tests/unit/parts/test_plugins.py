"""Parts of other installed packages: found by their entry points, and never taken for a part of another's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hone.errors import ConfigError
from hone.parts import plugins

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """`install(package, group, kind)` puts a package with one part where Python looks for packages."""

    def put(package: str, group: str, kind: str, code: str = "class Part: pass\n") -> None:
        site, module = tmp_path / package, package.replace("-", "_")
        about = site / f"{module}-1.0.dist-info"
        about.mkdir(parents=True)
        (site / f"{module}.py").write_text(code)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[{group}]\n{kind} = {module}:Part\n")
        monkeypatch.syspath_prepend(str(site))
        plugins._entry_points.cache_clear()

    yield put
    plugins._entry_points.cache_clear()


def extended(group: str, **built_in: type[Any]) -> dict[str, type[Any]]:
    return dict(plugins.PartTable(group, built_in))


@pytest.mark.parametrize("group", plugins.GROUPS)
def test_a_part_of_a_package_is_found_by_its_kind(install: Install, group: str) -> None:
    install("acme-part", group, "acme")
    assert extended(group, own=int)["acme"].__module__ == "acme_part"


def test_the_former_name_of_a_group_still_works(install: Install) -> None:
    install("acme-old", "hone.curation", "acme")
    assert "acme" in extended("hone.steps")


def test_a_package_with_the_kind_of_a_built_in_part_is_refused(install: Install) -> None:
    install("acme-twin", "hone.methods", "lora")
    with pytest.raises(ConfigError, match="hone and acme-twin both provide the part lora"):
        extended("hone.methods", lora=int)


def test_two_packages_with_one_kind_are_both_named(install: Install) -> None:
    install("acme-one", "hone.sources", "lake")
    install("acme-two", "hone.sources", "lake")
    with pytest.raises(ConfigError) as refusal:
        extended("hone.sources")
    assert "acme-one" in str(refusal.value)
    assert "acme-two" in str(refusal.value)


def test_a_package_that_cannot_be_imported_is_named(install: Install) -> None:
    install("acme-broken", "hone.objectives", "broken", "import no_such_library\n")
    with pytest.raises(ConfigError, match="no_such_library") as refusal:
        extended("hone.objectives")
    assert "acme-broken" in str(refusal.value)


def test_the_module_of_a_part_can_be_imported_before_hone(install: Install, tmp_path: Path) -> None:
    """Its module imports the protocol, whose package has the table in which the part itself stands."""
    code = "from hone.sources.source import RawRow\nclass Part: row = RawRow\n"
    install("acme-early", "hone.sources", "early", code)
    check = "import acme_early; from hone.sources import SOURCES; assert SOURCES['early'] is acme_early.Part"
    path = os.pathsep.join([str(tmp_path / "acme-early"), *sys.path])
    subprocess.run([sys.executable, "-c", check], check=True, env={**os.environ, "PYTHONPATH": path})
