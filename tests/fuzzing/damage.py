"""Random damage to bytes and to values as JSON has them."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, MutableMapping, MutableSequence
from typing import Any

# What has meaning to some reader, or none to all of them.
PIECES = (
    *(
        b'"',
        b"'",
        b",",
        b";",
        b"\t",
        b"\n",
        b"\r\n",
        b"\r",
        b"\n\n",
        b"\0",
        b"\\",
        b"\xff",
        b"\xfe\xff",
        b"\xef\xbb\xbf",
    ),
    *(b"{", b"}", b"[", b"]", b":", b"null", b"NaN", b"1e999", b"-0", b"\\ud800", b"\\u0000", b"sep=;\n", b"#", b"---"),
    *("\u2028".encode(), "\x85".encode(), "\ufeff".encode(), "😀".encode(), b"[" * 3_000, b"a" * 70_000, b" " * 5_000),
    *(
        b"*x",
        b"&x",
        b"<<: ",
        b"!!python/object:os.system",
        b"- ",
        b"? ",
        b"${HOME}",
        b"1" * 5_000,
        b"2026-13-45",
        b"% ",
    ),
)
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        2**63,
        10**400,
        1.5,
        float("nan"),
        float("inf"),
        "",
        " ",
        "\0",
        "\ud800",
        "😀",
        "x" * 9_000,
    ),
    *(
        [],
        {},
        [None],
        [[]],
        {"": ""},
        [{}],
        {"role": ["user"]},
        "null",
        "[]",
        "{}",
        "\n",
        "O",
        "B-x",
        "__label__",
        "user",
    ),
)


def damage_bytes(draw: random.Random, content: bytes) -> bytes:
    """The content after one to four changes: a bit, a span, a piece put in, the end."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        content = draw.choice(_BYTES)(draw, content)
    return content


def _flip(draw: random.Random, content: bytes) -> bytes:
    if not content:
        return content
    place = draw.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]


def _delete(draw: random.Random, content: bytes) -> bytes:
    start, end = _span(draw, content)
    return content[:start] + content[end:]


def _double(draw: random.Random, content: bytes) -> bytes:
    start, end = _span(draw, content)
    return content[:end] + content[start:]


def _move(draw: random.Random, content: bytes) -> bytes:
    start, end = _span(draw, content)
    rest = content[:start] + content[end:]
    place = draw.randint(0, len(rest))
    return rest[:place] + content[start:end] + rest[place:]


def _insert(draw: random.Random, content: bytes) -> bytes:
    place = draw.randint(0, len(content))
    return content[:place] + draw.choice(PIECES) + content[place:]


def _cut(draw: random.Random, content: bytes) -> bytes:
    return content[: draw.randint(0, len(content))]


def _span(draw: random.Random, content: bytes) -> tuple[int, int]:
    start = draw.randint(0, len(content))
    return start, min(len(content), start + draw.choice((1, 2, 8, 64, 512)))


_BYTES: tuple[Callable[[random.Random, bytes], bytes], ...] = (_flip, _delete, _double, _move, _insert, _insert, _cut)


def damage_value(draw: random.Random, value: Any) -> Any:
    """The value, as JSON has them, with one to three of its parts replaced, removed, doubled, wrapped or renamed."""
    holder = [copy.deepcopy(value)]
    for _ in range(draw.choice((1, 1, 2, 3))):
        if parts := _list_parts(holder):
            container, key = draw.choice(parts)
            draw.choice(_PARTS)(draw, container, key)
    return holder[0] if holder else None


def _list_parts(value: Any) -> list[tuple[Any, Any]]:
    """Each part of a value, as the list or dictionary that has it and its place there."""
    places = range(len(value)) if isinstance(value, list) else list(value) if isinstance(value, dict) else ()
    parts = [(value, place) for place in places]
    return parts + [part for place in places for part in _list_parts(value[place])]


Container = MutableMapping[Any, Any] | MutableSequence[Any]


def _replace(draw: random.Random, container: Any, key: Any) -> None:
    container[key] = copy.deepcopy(draw.choice(VALUES))


def _remove(draw: random.Random, container: Any, key: Any) -> None:
    del container[key]


def _repeat(draw: random.Random, container: Any, key: Any) -> None:
    if isinstance(container, list):
        container.insert(key, copy.deepcopy(container[key]))
    else:
        container[f"{key} "] = copy.deepcopy(container[key])


def _wrap(draw: random.Random, container: Any, key: Any) -> None:
    container[key] = draw.choice(([container[key]], {"value": container[key]}, str(container[key])))


def _rename(draw: random.Random, container: Any, key: Any) -> None:
    if isinstance(container, dict):
        container[draw.choice(("text", "label", "kind", "", str(key).upper()))] = container.pop(key)


def _edit(draw: random.Random, container: Any, key: Any) -> None:
    if isinstance(container[key], str):
        damaged = damage_bytes(draw, container[key].encode("utf8", "surrogatepass"))
        container[key] = damaged.decode("utf8", "replace")
    elif isinstance(container[key], int | float):
        container[key] = draw.choice((-container[key], container[key] * 1_000, 0.5))


_PARTS: tuple[Callable[[random.Random, Any, Any], None], ...] = (
    _replace,
    _replace,
    _remove,
    _repeat,
    _wrap,
    _rename,
    _edit,
)
