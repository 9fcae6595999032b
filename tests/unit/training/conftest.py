"""A tiny base model and its tokens, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_bases import tiny_bert
from tests.tiny_training import without_dropout, write_tokens


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def tokens(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("tokens"), base)


@pytest.fixture(scope="session")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model without dropout: it learns faster, and gives the same whatever the micro-batch."""
    return without_dropout(tiny_bert(tmp_path_factory.mktemp("steady")))


@pytest.fixture(scope="session")
def more(steady: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twice the rows: enough to learn the task from."""
    return write_tokens(tmp_path_factory.mktemp("more"), steady, train=192)
