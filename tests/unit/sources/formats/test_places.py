"""Places: text is the same text however it is cut into pieces."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.sources.formats.formats import read_json
from hone.sources.formats.places import UndecodableError, decode_texts, split_lines

Cut = TypeVar("Cut", str, bytes)
PROPERTY = settings(max_examples=100, deadline=None, database=None)


def pieces(whole: Cut, size: int) -> Sequence[Cut]:
    return [whole[at : at + size] for at in range(0, len(whole), size)]


@PROPERTY
@given(
    text=st.text(st.characters(exclude_categories=["Cs"])),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-7"]),
    size=st.integers(1, 5),
)
def test_decoding(text: str, encoding: str, size: int) -> None:
    assert "".join(decode_texts(pieces(text.encode(encoding), size), encoding)) == text.removeprefix("\ufeff")


def test_a_byte_order_mark_is_one_at_the_beginning_alone() -> None:
    assert "".join(decode_texts(pieces("\ufeffa\ufeffb".encode(), 1), "utf-8")) == "a\ufeffb"
    assert "".join(decode_texts(["\ufeffa".encode(), "\ufeffb".encode()], "utf-8")) == "a\ufeffb"


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize(
    ("encoding", "bad"), [("utf-8", b"\xff"), ("shift_jis", b"\x85\x20"), ("utf-16-le", b"\x00\xdc")]
)
def test_the_offset_of_a_bad_byte(encoding: str, bad: bytes, size: int) -> None:
    before = "aあé"[: 2 if encoding == "shift_jis" else 3].encode(encoding)
    got = []
    with pytest.raises(UndecodableError) as fault:
        for text in decode_texts(pieces(before + bad + "rest".encode(encoding), size), encoding):
            got.append(text)
    assert (fault.value.offset, fault.value.byte) == (len(before), bad[0])
    assert "".join(got) == before.decode(encoding)


@PROPERTY
@given(text=st.text("ab\n\r\x0b\u2028"), size=st.integers(1, 4))
def test_lines(text: str, size: int) -> None:
    assert list(split_lines(pieces(text, size))) == [line for line in text.replace("\n", "\n\0").split("\0") if line]


@PROPERTY
@given(
    rows=st.lists(
        st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3)) | st.integers(), min_size=1
    ),
    size=st.integers(1, 9),
)
def test_a_json_array(rows: list[object], size: int) -> None:
    found = list(read_json(pieces(json.dumps(rows), size), "a.json", {}, ("text", "label")))
    assert [values if not refused else values["value"] for values, refused in found] == rows
