"""The forms in which tags say that a word begins, continues or ends an entity, brought into B-, I-, E-, S- and O.

Besides these, which are BIO, IOB1, BIOES and IO: lower case (b-per, o), an underscore (B_PER), the letter behind the
type (PER-B), and the letters of BMES and BMEWO (M is I, W is S) and of BILOU (L is E, U is S).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

OUTSIDE = "O"
_ALPHABETS = tuple(map(frozenset, ("BIES", "BMES", "BMEW", "BILU")))
_CONVERTED = {"B": "B", "I": "I", "E": "E", "S": "S", "M": "I", "W": "S", "L": "E", "U": "S"}
_LETTERS = "".join(_CONVERTED)
_UNSUPPORTED = re.compile(r"(?P<letter>[BIESMWLUbiesmwlu])[:/|.+ ].+")


class TagForm(NamedTuple):
    """How tags are written.

    side        where the letter is: prefix, suffix, bare (there is no type), or none (types alone)
    separator   what is between letter and type
    lower       whether letters and `o` are in lower case
    """

    side: str
    separator: str
    lower: bool


STANDARD = TagForm("prefix", "-", False)
TYPES = TagForm("none", "", False)
_BARE = tuple(TagForm("bare", "", lower) for lower in (False, True))
_WITH_TYPES = tuple(
    TagForm(side, separator, lower) for lower in (False, True) for side in ("prefix", "suffix") for separator in "-_"
)


def find_form(tags: Iterable[str]) -> TagForm:
    """The form of a set of tags; TYPES where they have no letters, or where these tags alone do not show it.

    Raises ValueError where some tags have letters and some have none, or letters of no scheme that is known.
    """
    distinct = set(tags)
    inside = sorted(distinct - {OUTSIDE})
    if not inside:
        return STANDARD
    for form in (STANDARD, *_BARE, *_WITH_TYPES):
        parts = [_split(tag, form) for tag in inside if not _is_outside(tag, form)]
        if parts and _is_scheme([pair for pair in parts if pair], form) and all(parts):
            return form
    for form in _WITH_TYPES:
        _check_not_mixed(inside, form)
    _check_separators(inside)
    # Types in lower case with an o among them: no set of parts of speech has such a tag.
    has_lower_outside = "o" in inside and len(inside) > 1 and OUTSIDE not in distinct
    return TYPES._replace(lower=has_lower_outside and all(tag == tag.lower() for tag in inside))


def convert_tags(tags: Iterable[str], form: TagForm) -> list[str]:
    """The tags in the standard form; a tag that is not of the form stays as it is."""
    return [_convert(tag, form) for tag in tags]


def is_standard(tag: str) -> bool:
    """Whether a tag is O, or a letter of the standard form with or without a type."""
    return tag == OUTSIDE or tag in set("BIES") or bool(_split(tag, STANDARD) and tag[0] in "BIES")


def describe_form(form: TagForm, tags: Iterable[str]) -> str:
    """How tags of a form that is not the standard one are read, by the first four of them; '' if nothing changes."""
    standard_by_tag = {tag: _convert(tag, form) for tag in sorted(tags)}
    changes = [f"{tag} as {standard}" for tag, standard in standard_by_tag.items() if standard != tag]
    return ", ".join(changes[:4])


def form_to_targets(form: TagForm) -> dict[str, Any]:
    """The form as an entry of an objective's targets; none where tags are converted without it."""
    return {} if form in (STANDARD, TYPES) else {"tag_form": list(form)}


def form_from_targets(targets: Mapping[str, Any]) -> TagForm:
    """The form that targets name; where they name none, tags are converted from TYPES: they stay as they are."""
    entry = targets.get("tag_form")
    return TagForm(*entry) if entry else STANDARD if targets["scheme"] == "prefixed" else TYPES


@lru_cache(maxsize=len(_WITH_TYPES) + len(_BARE))
def _pattern(form: TagForm) -> re.Pattern[str]:
    letter = f"(?P<letter>[{_LETTERS.lower() if form.lower else _LETTERS}])"
    patterns = {
        "prefix": f"{letter}{form.separator}(?P<type>.+)",
        "suffix": f"(?P<type>.+){form.separator}{letter}",
        "bare": f"{letter}(?P<type>)",
    }
    return re.compile(patterns[form.side], re.DOTALL)


def _split(tag: str, form: TagForm) -> tuple[str, str] | None:
    """Letter, in upper case, and type of a tag; None if it is not of the form."""
    match = _pattern(form).fullmatch(tag)
    return (match["letter"].upper(), match["type"]) if match else None


def _is_outside(tag: str, form: TagForm) -> bool:
    return tag == OUTSIDE or (form.lower and tag == "o")


def _is_scheme(parts: Sequence[tuple[str, str]], form: TagForm) -> bool:
    """Whether the letters are those of one scheme.

    In any form but the standard one they may as well be part of the types' names (b-day, S_URL): there they must be
    B and I alone, or one type must have two of them.
    """
    letters = {letter for letter, _ in parts}
    if not any(letters <= alphabet for alphabet in _ALPHABETS):
        return False
    if form == STANDARD:
        return bool(letters & {"B", "I", "E", "S"})
    has_pair = len(set(parts)) > len({kind for _, kind in parts})
    return bool(letters & {"B", "I"}) and (has_pair or letters <= {"B", "I"})


def _check_not_mixed(inside: Sequence[str], form: TagForm) -> None:
    """Raises ValueError if some tags have the letters of a scheme in this form, but not all, or other letters too."""
    parts_by_tag = {tag: parts for tag in inside if (parts := _split(tag, form))}
    letters = {letter for letter, _ in parts_by_tag.values()}
    if form == STANDARD:
        has_letters = bool(letters & {"B", "I", "E", "S"})
    else:  # a type that begins and goes on
        begun = {kind for letter, kind in parts_by_tag.values() if letter == "B"}
        has_letters = any(letter != "B" and kind in begun for letter, kind in parts_by_tag.values())
    if not has_letters:
        return
    schemes = "BIO, BIOES, BMES, BMEWO or BILOU"
    others = [tag for tag in inside if tag not in parts_by_tag and not _is_outside(tag, form)]
    if others:
        first = next(iter(parts_by_tag))
        raise ValueError(f"tags: {others[0]!r} has none of the prefixes that {first!r} has (supported are {schemes})")
    raise ValueError(f"tags: the prefixes {', '.join(sorted(letters))} together are not those of {schemes}")


def _check_separators(inside: Sequence[str]) -> None:
    """Raises ValueError if all tags have the letters of a scheme and a separator that is not supported."""
    parts = [_UNSUPPORTED.fullmatch(tag) for tag in inside]
    letters = {part["letter"].upper() for part in parts if part}
    if all(parts) and "B" in letters and any(letters <= alphabet for alphabet in _ALPHABETS):
        raise ValueError(f"tags: {inside[0]!r} has a separator that is not supported; write B-TYPE or B_TYPE")


def _convert(tag: str, form: TagForm) -> str:
    if _is_outside(tag, form):
        return OUTSIDE
    parts = None if form.side == "none" else _split(tag, form)
    if parts is None:
        return tag
    letter, kind = parts
    return f"{_CONVERTED[letter]}-{kind}" if kind else _CONVERTED[letter]
