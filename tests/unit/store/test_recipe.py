"""Cache keys: what moves them, what leaves them, and the reason that is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hone.store import recipe as recipes
from hone.store.recipe import Recipe, code_digests, find_nearest, installed_versions, list_reasons

RECIPE = Recipe(
    "curate",
    {"curation": {"steps": [{"kind": "filters", "min_chars": 20}, {"kind": "redact"}]}},
    {"ingest": "abc"},
    {"src/hone/curation/dedup/near.py": "1"},
    {"rensa": "0.5.0"},
)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package in hone's place: `a` imports `b`, and `c` for the type checker alone."""
    files = {
        "a.py": "from typing import TYPE_CHECKING\nfrom hone.b import f\nif TYPE_CHECKING:\n    from hone import c\n",
        "b.py": '"""What b is."""\n\ndef f(x):\n    """Twice."""\n    return x * 2  # twice\n',
        "c.py": "x = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(recipes, "PACKAGE", tmp_path)
    recipes._parse.cache_clear()
    return tmp_path


def digests() -> dict[str, str]:
    recipes._parse.cache_clear()
    return code_digests(["hone.a"])


def test_code_is_followed_through_imports_but_not_those_for_type_checkers(package: Path) -> None:
    assert list(digests()) == ["src/hone/a.py", "src/hone/b.py"]


def test_a_change_of_what_is_imported_changes_the_digest(package: Path) -> None:
    before = digests()
    (package / "b.py").write_text("def f(x):\n    return x * 3\n")
    after = digests()
    assert [path for path in before if before[path] != after[path]] == ["src/hone/b.py"]


def test_comments_docstrings_and_layout_change_nothing(package: Path) -> None:
    before = digests()
    (package / "b.py").write_text('def f(x):\n    """Two times x."""\n    # doubled\n\n    return (x * 2)\n')
    assert digests() == before


def test_an_import_inside_a_function_counts(package: Path) -> None:
    (package / "b.py").write_text("def f(x):\n    from hone.c import x as y\n    return y\n")
    assert "src/hone/c.py" in digests()


def test_a_template_counts_by_its_bytes(package: Path) -> None:
    (package / "page.html").write_text("<p>")
    assert "src/hone/page.html" in code_digests([], ["page.html"])


def test_the_real_stages_see_their_helpers() -> None:
    assert "src/hone/curation/dedup/near.py" in code_digests(["hone.curation.curate"])


def test_versions_name_python_and_what_is_absent() -> None:
    found = installed_versions(["pydantic", "no-such-package"])
    assert found["python"].startswith("3.")
    assert found["no-such-package"] == "absent"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"config": {"curation": {"steps": [{"kind": "filters", "min_chars": 40}, {"kind": "redact"}]}}},
         "curation.steps.filters.min_chars 20 -> 40"),
        ({"inputs": {"ingest": "xyz"}}, "input ingest changed"),
        ({"code": {"src/hone/curation/dedup/near.py": "2"}}, "src/hone/curation/dedup/near.py changed"),
        ({"code": RECIPE.code | {"src/hone/new.py": "1"}}, "src/hone/new.py is new"),
        ({"versions": {"rensa": "0.6.0"}}, "rensa 0.5.0 -> 0.6.0"),
    ],
)  # fmt: skip
def test_every_miss_has_its_reason(change: dict[str, object], reason: str) -> None:
    changed = replace(RECIPE, **change)
    assert changed.key != RECIPE.key
    assert list_reasons(changed, RECIPE) == [reason]


def test_a_step_more_is_told_by_its_name() -> None:
    more = replace(RECIPE, config={"curation": {"steps": [*RECIPE.config["curation"]["steps"], {"kind": "balance"}]}})
    assert any("curation.steps.balance" in reason for reason in list_reasons(more, RECIPE))


def test_without_an_earlier_result_it_says_so() -> None:
    assert list_reasons(RECIPE, None) == ["no earlier result"]


def test_the_same_recipe_means_that_the_result_is_gone() -> None:
    assert "gone or damaged" in list_reasons(RECIPE, RECIPE)[0]


def test_a_tuple_is_what_a_manifest_keeps_as_a_list() -> None:
    """Options of parts are tuples; JSON has none, and the keys of the two are one."""
    kept, made = (replace(RECIPE, config={"method": {"modules": names}}) for names in (["q"], ("q",)))
    assert kept.key == made.key
    assert "gone or damaged" in list_reasons(made, kept)[0]
    longer = replace(RECIPE, config={"method": {"modules": ("q",), "rank": 8}})
    assert list_reasons(longer, kept) == ["method.rank nothing -> 8"]


def test_a_recipe_is_compared_with_the_last_one_of_its_name_else_with_the_most_alike() -> None:
    def manifest(name: str, recipe: Recipe) -> dict[str, object]:
        return {"name": name, "recipe": vars(recipe)}

    far = replace(RECIPE, inputs={"ingest": "q"}, versions={"rensa": "0.1"})
    near = replace(RECIPE, inputs={"ingest": "q"})
    assert find_nearest(RECIPE, [manifest("mine", far), manifest("other", near)], "mine") == far
    assert find_nearest(RECIPE, [manifest("a", far), manifest("b", near)], "mine") == near
    assert find_nearest(RECIPE, [], "mine") is None


def test_empty_options_that_an_earlier_release_did_not_have_are_one_reason() -> None:
    before = Recipe("ingest", {"source": {"kind": "files"}}, {}, {}, {})
    after = Recipe("ingest", {"source": {"kind": "files", "aliases": {}, "escape": "", "limit": 0}}, {}, {}, {})
    assert list_reasons(after, before) == ["source.limit nothing -> 0", "new options: source.aliases, source.escape"]
