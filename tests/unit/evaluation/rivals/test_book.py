from __future__ import annotations

import errno
import json
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from hone.errors import StoreError
from hone.evaluation.rivals.book import open_book
from hone.evaluation.rivals.completion import Completion
from hone.store.digests import digest_of

IDENTITY = {"model": "small", "max_tokens": 5}
ANSWERS = {
    "first": Completion("uné\n\u2028", "stop", 10, 2, 0.25, 1),
    "half \ud83d": Completion("", "refusal", 11, 0, 1.5, 3),
    "third": Completion("three" * 20, "length", 12, 50, 2.0, 1),
}


def write_book(folder: Path) -> Path:
    """A book with the answers and a charged request of the first prompt."""
    with open_book(folder, IDENTITY) as book:
        book.add_spent("first", 100, 20)
        for prompt, answer in ANSWERS.items():
            book.add_answer(prompt, answer)
        return book.path


def read_book(folder: Path) -> tuple[dict[str, Completion | None], list[str]]:
    """The answers to the prompts, and the notes."""
    with open_book(folder, IDENTITY) as book:
        return {prompt: book.find_answer(prompt) for prompt in ANSWERS}, book.notes


def test_what_was_answered_is_remembered(tmp_path: Path) -> None:
    write_book(tmp_path)
    with open_book(tmp_path, dict(reversed(IDENTITY.items()))) as book:
        assert {prompt: book.find_answer(prompt) for prompt in ANSWERS} == ANSWERS
        assert book.count_spent("first") == (100, 20)
        assert book.count_spent("third") == (0, 0)
        assert book.find_answer("fourth") is None
        assert not book.notes


def test_another_identity_has_another_book(tmp_path: Path) -> None:
    write_book(tmp_path)
    with open_book(tmp_path, IDENTITY | {"max_tokens": 6}) as book:
        assert book.find_answer("first") is None
    assert len(list(tmp_path.iterdir())) == 2


def test_the_file_names_its_identity_and_holds_no_prompt(tmp_path: Path) -> None:
    content = write_book(tmp_path).read_text()
    assert json.loads(content.splitlines()[0])["entry"] == {"format": 1, "identity": IDENTITY}
    assert not [prompt for prompt in ANSWERS if prompt in content]


def test_a_line_that_is_cut_anywhere_is_asked_again_and_swallows_nothing(tmp_path: Path) -> None:
    path = write_book(tmp_path)
    whole = path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        with open_book(tmp_path, IDENTITY) as book:
            # Only the line's end is missing where the line is whole.
            assert book.find_answer("third") == (ANSWERS["third"] if end == len(whole) - 1 else None)
            book.add_answer("third", ANSWERS["third"])
        answers, notes = read_book(tmp_path)
        assert answers == ANSWERS
        assert len(notes) == (start < end < len(whole) - 1)


def test_a_flipped_bit_is_never_trusted(tmp_path: Path) -> None:
    path = write_book(tmp_path)
    whole = path.read_bytes()
    generator = random.Random(7)
    lost = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        answers, notes = read_book(tmp_path)
        assert all(answer in (None, ANSWERS[prompt]) for prompt, answer in answers.items())
        missing = [prompt for prompt, answer in answers.items() if answer is None]
        lost += len(missing)
        assert notes or not missing
    assert lost > len(whole) / 2


def test_a_book_of_another_format_is_not_overwritten(tmp_path: Path) -> None:
    path = write_book(tmp_path)
    entry = {"format": 2, "identity": IDENTITY}
    content = json.dumps({"entry": entry, "digest": digest_of(entry)}) + "\n"
    path.write_text(content)
    with pytest.raises(StoreError, match="has format 2"):
        read_book(tmp_path)
    assert path.read_text() == content


def test_the_second_waits_for_the_first(tmp_path: Path) -> None:
    waiting, answers = threading.Event(), []

    def read() -> None:
        with open_book(tmp_path, IDENTITY, waiting.set) as book:
            answers.append(book.find_answer("first"))

    with open_book(tmp_path, IDENTITY) as book:
        thread = threading.Thread(target=read)
        thread.start()
        assert waiting.wait(60)
        book.add_answer("first", ANSWERS["first"])
        assert not answers
    thread.join(60)
    assert answers == [ANSWERS["first"]]


def test_a_book_that_is_deleted_while_another_waits_is_begun_anew(tmp_path: Path) -> None:
    waiting = threading.Event()

    def write() -> None:
        with open_book(tmp_path, IDENTITY, waiting.set) as book:
            book.add_answer("first", ANSWERS["first"])

    with open_book(tmp_path, IDENTITY) as book:
        thread = threading.Thread(target=write)
        thread.start()
        assert waiting.wait(60)
        book.path.unlink()
    thread.join(60)
    assert read_book(tmp_path)[0]["first"] == ANSWERS["first"]


def test_a_full_disk_is_an_error_that_spoils_no_other_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def write_half(handle: int, content: bytes) -> int:
        if len(content) < 100:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, content[:50])

    with open_book(tmp_path, IDENTITY) as book:
        with monkeypatch.context() as full:
            full.setattr(os, "write", write_half)
            with pytest.raises(StoreError, match="No space left on device") as raised:
                book.add_answer("first", ANSWERS["first"])
        assert str(book.path) in str(raised.value)
        assert book.find_answer("first") is None
        book.add_answer("third", ANSWERS["third"])
    answers, notes = read_book(tmp_path)
    assert (answers["first"], answers["third"]) == (None, ANSWERS["third"])
    assert len(notes) == 1


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "answers").write_text("a file")
    with pytest.raises(StoreError, match="could not be read or written"), open_book(tmp_path / "answers", IDENTITY):
        pass


def test_an_answer_is_on_disk_when_it_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Any] = []
    with open_book(tmp_path, IDENTITY) as book:
        monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
        book.add_answer("first", ANSWERS["first"])
        assert synced == [book.path.stat().st_size]
