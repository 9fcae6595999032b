r"""The answer book: what a model has answered is never asked, and paid for, again.

One file for each identity of an engine, `DIGEST-OF-IDENTITY.jsonl`. Its first line names the format and the identity;
every other line is an answer, or the tokens of requests that may have been charged without one:

    {"entry": {"format": 1, "prompt": DIGEST, "answer": {"text": ..., ...}}, "digest": DIGEST-OF-ENTRY}
    {"entry": {"format": 1, "prompt": DIGEST, "spent": [INPUT-TOKENS, OUTPUT-TOKENS]}, "digest": DIGEST-OF-ENTRY}

A prompt has rows in it, so there is only its digest (with the identity's). A line is on disk before the answer is used.
A line that is cut or damaged is ignored, so its prompt is asked again.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hone.errors import StoreError
from hone.evaluation.rivals.completion import Completion
from hone.store.digests import digest_of
from hone.store.files import sync

FORMAT = 1
_ENDS = ("stop", "length", "refusal")
_FIX = "Free or extend the disk, make it writable, or set HONE_HOME to another one; recorded answers are kept."


@contextmanager
def open_book(
    folder: Path, identity: Mapping[str, Any], on_wait: Callable[[], None] = lambda: None
) -> Iterator[AnswerBook]:
    """The book of an identity, which no other process or thread has open within the block.

    `on_wait` is called if another has it, before waiting for it. Raises StoreError if it cannot be read or written, or
    is of another version of Hone.
    """
    digest = digest_of(identity)
    path = folder / f"{digest}.jsonl"
    with _store_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        handle = _open_locked(path, on_wait)
    try:
        with _store_errors(path):
            book = AnswerBook(path, identity, handle)
            book.load()
        yield book
    finally:
        os.close(handle)  # and with it the lock


def _open_locked(path: Path, on_wait: Callable[[], None]) -> int:
    """A handle of the file with an exclusive lock, of the one that the path names now."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        locked = False
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(handle, fcntl.LOCK_EX)
            # While this process waited, the file may have been deleted: its answers would be lost with the handle.
            locked = path.exists() and os.path.samestat(os.fstat(handle), path.stat())
            if locked:
                return handle
        finally:
            if not locked:
                os.close(handle)


class AnswerBook:
    """The recorded answers of one engine. Use `open_book`. Its methods may be called by several threads.

    `notes` are sentences about lines that were ignored.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], handle: int) -> None:
        self.path = path
        self.notes: list[str] = []
        self._identity = identity
        self._salt = digest_of(identity)
        self._handle = handle
        self._writing = threading.Lock()
        self._unended = False  # the last line has no end
        self._answers: dict[str, Completion] = {}
        self._inputs: Counter[str] = Counter()
        self._outputs: Counter[str] = Counter()

    def find_answer(self, prompt: str) -> Completion | None:
        """The recorded answer to a prompt."""
        return self._answers.get(self.digest_prompt(prompt))

    def count_spent(self, prompt: str) -> tuple[int, int]:
        """Input and output tokens of the requests of a prompt that may have been charged without an answer."""
        digest = self.digest_prompt(prompt)
        return self._inputs[digest], self._outputs[digest]

    def add_answer(self, prompt: str, answer: Completion) -> None:
        """Record an answer; it is on disk when this returns. Raises StoreError."""
        digest = self.digest_prompt(prompt)
        with self._writing:
            self._append({"format": FORMAT, "prompt": digest, "answer": dataclasses.asdict(answer)})
            self._answers.setdefault(digest, answer)

    def add_spent(self, prompt: str, input_tokens: int, output_tokens: int) -> None:
        """Record the tokens of a request that may have been charged without an answer. Raises StoreError."""
        digest = self.digest_prompt(prompt)
        with self._writing:
            self._append({"format": FORMAT, "prompt": digest, "spent": [input_tokens, output_tokens]})
            self._inputs[digest] += input_tokens
            self._outputs[digest] += output_tokens

    def digest_prompt(self, prompt: str) -> str:
        """SHA-256 of the identity and the prompt; a prompt with half a surrogate pair has one as well."""
        return hashlib.sha256(f"{self._salt}\n{prompt}".encode("utf8", "surrogatepass")).hexdigest()

    def load(self) -> None:
        """Read the file and begin it if it is empty. Raises StoreError for one of another version of Hone."""
        content = self._read()
        if not content:
            self._append({"format": FORMAT, "identity": self._identity})
            sync(self.path.parent)
            return
        self._unended = not content.endswith(b"\n")
        damaged = 0
        for line in content.split(b"\n"):
            if line:
                damaged += not self._load_line(line)
        if damaged:
            lines = "1 damaged line is" if damaged == 1 else f"{damaged:,} damaged lines are"
            self.notes.append(f"{self.path}: {lines} ignored; their prompts are asked again.")

    def _read(self) -> bytes:
        with self.path.open("rb") as file:
            return file.read()

    def _load_line(self, line: bytes) -> bool:
        """Take in a line; False if it is not what was written."""
        try:
            content = json.loads(line)
            entry = content["entry"]
            if content["digest"] != digest_of(entry):
                return False
            if entry["format"] != FORMAT:
                raise StoreError(
                    f"has format {entry['format']}, which this version of Hone cannot read",
                    where=str(self.path),
                    fix="Use the version of Hone that wrote it, or move the file away: its prompts are asked again.",
                )
            return "identity" in entry or self._load_entry(entry)
        except (ValueError, TypeError, KeyError, RecursionError):
            return False

    def _load_entry(self, entry: Mapping[str, Any]) -> bool:
        digest = entry["prompt"]
        if "spent" in entry:
            inputs, outputs = entry["spent"]
            self._inputs[digest] += inputs
            self._outputs[digest] += outputs
            return True
        answer = Completion(**entry["answer"])
        if answer.ended not in _ENDS or not isinstance(answer.text, str):
            return False
        self._answers.setdefault(digest, answer)
        return True

    def _append(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps({"entry": entry, "digest": digest_of(entry)}).encode() + b"\n"
        if self._unended:
            line = b"\n" + line
        with _store_errors(self.path):
            self._unended = True  # a full disk may take a part of the line
            while line:
                line = line[os.write(self._handle, line) :]
            self._unended = False
            os.fsync(self._handle)


@contextmanager
def _store_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        what = f"could not be read or written: {fault.strerror or fault}"
        raise StoreError(what, where=str(fault.filename or path), fix=_FIX) from fault
