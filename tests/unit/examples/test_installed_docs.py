"""Installed docs: the passages of docstrings by the role they play, read without importing anything."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from inspect import cleandoc
from pathlib import Path

import pytest
from installed_docs.docstrings import passages
from installed_docs.source import InstalledDocs

from hone.errors import DataError
from hone.sources.source import RawRow
from hone.store.digests import file_digest

DOCSTRING = """
    frobnicate(x, *, times=1)

    Shake `x` until it works.

    More on shaking, which has no role.

    Parameters
    ----------
    x : array_like
        What to shake.

        It may be empty.
    y, z : float
    times : int, optional
        How often.

    Other Parameters
    ----------------
    **kwargs
        Passed on.

    Returns
    -------
    out : ndarray
        The shaken thing.

    Yields
    ------
    int
        A count.

    Raises
    ------
    ValueError
        If `x` is glued down.

    See Also
    --------
    rest : Does nothing.

    Notes
    -----
    Shaking is defined by

    .. math::

        x + 1

    It is slow.

    %(after_notes)s

    Attributes
    ----------
    speed_ : float
        The speed that was reached.

    Examples
    --------
    >>> frobnicate(1)
    Notes
    """


def test_each_section_gives_its_role_without_names_types_and_headings() -> None:
    assert list(passages(cleandoc(DOCSTRING))) == [
        ("Shake `x` until it works.", "summary"),
        ("What to shake.\n\nIt may be empty.", "parameters"),
        ("How often.", "parameters"),
        ("Passed on.", "parameters"),
        ("The shaken thing.", "returns"),
        ("A count.", "returns"),
        ("If `x` is glued down.", "raises"),
        ("Shaking is defined by", "notes"),
        (".. math::\n\n    x + 1", "notes"),
        ("It is slow.", "notes"),
        ("The speed that was reached.", "attributes"),
    ]


@pytest.mark.parametrize("text", ["", "Only a summary.", "A summary.\n\nExamples\n--------\n>>> 1"])
def test_a_docstring_without_such_sections_gives_nothing(text: str) -> None:
    assert list(passages(text)) == []


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package on the path whose import would fail, with docstrings in all the places they stand in."""
    home = tmp_path / "shaky"
    (home / "tests").mkdir(parents=True)
    section = "\\n\\n    Returns\\n    -------\\n    int\\n        {}.\\n    "
    body = 'def {}():\n    """Do.{}"""\n    def inner():\n        """Hide.{}"""\n'.replace("{}", "%s")
    doc = {name: section.format(name) for name in ("plain", "method", "hidden", "inner", "cond", "added", "list")}
    (home / "__init__.py").write_text(
        "raise ImportError('read me, do not run me')\n" + body % ("plain", doc["plain"], doc["inner"])
    )
    (home / "a.py").write_text(
        f'class Thing:\n    def method(self):\n        """Do.{doc["method"]}"""\n    def _private(self):\n'
        f'        """Do.{doc["hidden"]}"""\nif True:\n    def cond():\n        """Do.{doc["cond"]}"""\n'
        f'add_newdoc("shaky.core", "added", """Do.{doc["added"]}""")\n'
        f'add_newdoc("added", [("attr", """Do.{doc["list"]}""")])\n'
    )
    (home / "tests/test_a.py").write_text((home / "a.py").read_text())
    monkeypatch.syspath_prepend(str(tmp_path))
    return home


def rows(package: Path) -> list[RawRow]:
    return list(InstalledDocs(packages=[package.name]).rows())


def test_where_docstrings_stand(package: Path) -> None:
    found = {
        row.values["text"].rstrip("."): row.values["object"] for row in rows(package) if row.values["text"] != "Do."
    }
    assert found == {
        "plain": "shaky.plain",
        "method": "shaky.a.Thing.method",
        "cond": "shaky.a.cond",
        "added": "shaky.core.added",
        "list": "shaky.added.attr",
    }
    assert {(row.source, row.values["library"]) for row in rows(package)} == {("shaky", "shaky")}
    assert rows(package)[0].where == "shaky/__init__.py:2:1"


def test_a_file_that_cannot_be_parsed_is_refused(package: Path) -> None:
    (package / "b.py").write_text("def broken(:\n")
    refused = [row for row in rows(package) if row.refused]
    assert [row.where for row in refused] == ["shaky/b.py"]
    assert refused[0].refused.startswith("cannot be parsed: ")


@pytest.mark.parametrize("name", ["no_such_package", "numpy.linalg", "../etc", "json.decoder"])
def test_a_package_that_is_not_installed(name: str) -> None:
    for act in (lambda source: source.fingerprint(file_digest), lambda source: list(source.rows())):
        with pytest.raises(DataError, match=f"the package {name} is not installed"):
            act(InstalledDocs(packages=[name]))


def test_the_fingerprint_of_what_no_distribution_claims_is_of_its_files(package: Path) -> None:
    source = InstalledDocs(packages=["shaky"])
    before = source.fingerprint(file_digest)
    assert source.fingerprint(file_digest) == before
    (package / "a.py").write_text("changed = True\n")
    assert source.fingerprint(file_digest) != before


def test_a_new_version_changes_the_fingerprint(package: Path) -> None:
    source, record = InstalledDocs(packages=["shaky"]), package.parent / "shaky-1.0.dist-info/RECORD"
    record.parent.mkdir()
    record.write_text("shaky/__init__.py,,\n")
    before = source.fingerprint(file_digest)
    record.parent.rename(package.parent / "shaky-1.1.dist-info")
    assert source.fingerprint(file_digest) != before


def test_the_fingerprint_is_of_the_packages_and_their_versions() -> None:
    one, other = InstalledDocs(packages=["numpy"]), InstalledDocs(packages=["numpy", "networkx"])
    assert one.fingerprint(file_digest) == InstalledDocs(packages=["numpy"]).fingerprint(file_digest)
    assert one.fingerprint(file_digest) != other.fingerprint(file_digest)


@pytest.mark.slow
def test_the_real_packages() -> None:
    """Every role in numbers, every id once, and none of the packages imported."""
    script = (
        "import sys; from installed_docs.source import InstalledDocs\n"
        "for row in InstalledDocs().rows(): print(row.where, row.values['label'], bool(row.refused), sep='\\t')\n"
        "assert not {'numpy', 'scipy', 'pandas', 'sklearn', 'matplotlib', 'networkx'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    found = [line.split("\t") for line in done.stdout.splitlines()]
    assert len({where for where, _, _ in found}) == len(found) > 30_000
    counts = Counter(label for _, label, _ in found)
    assert counts.keys() == {"summary", "parameters", "returns", "raises", "notes", "attributes"}
    assert min(counts.values()) > 800
    assert {refused for *_, refused in found} == {"False"}
