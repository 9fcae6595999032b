"""Finds personal data and secrets in text: patterns, and checks that distinguish a kind of number from other numbers.

All patterns take linear time: every repetition is bounded, or can begin at only one position.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import NamedTuple

Check = Callable[[re.Match[str]], int]
"""Returns the number of characters of a match to replace: all, a leading part, or none (0)."""

_SECRETS = (
    "access_?token|refresh_?token|id_?token|auth_?token|token|api_?key|apikey|key|client_?secret|secret|password|"
    "passwd|pwd|pass|auth|authorization|credential|signature|sig|session_?id|sessionid|sid|jwt|code|"
    "x-amz-signature|x-amz-security-token|x-amz-credential|x-goog-signature"
)
_IBAN_LENGTHS = {
    code[:2]: int(code[2:])
    for code in (
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 "
        "FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 "
        "LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 "
        "SA24 SC31 SD18 SE24 SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20"
    ).split()
}
_CARDS = {
    13: ("4",),
    14: ("30", "36", "38"),
    15: ("34", "37"),
    16: ("4", "6", "22", "23", "24", "25", "26", "27", "51", "52", "53", "54", "55"),
    17: ("6",),
    18: ("6",),
    19: ("4", "6"),
}
"""How card numbers begin, by their length (ISO/IEC 7812-1)."""


def _all(match: re.Match[str]) -> int:
    return len(match[0])


def _card(match: re.Match[str]) -> int:
    """The whole match if the digits have a card issuer's prefix and length and pass Luhn's check."""
    digits = re.sub(r"\D", "", match[0])
    return len(match[0]) if digits.startswith(_CARDS.get(len(digits), ("none",))) and passes_luhn(digits) else 0


def passes_luhn(digits: str) -> bool:
    """Whether the last of `digits` is Luhn's check digit of the others."""
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def _iban(match: re.Match[str]) -> int:
    """The length of the country's IBANs, if the checksum is valid (ISO 13616: remainder 1 modulo 97)."""
    remaining = _IBAN_LENGTHS.get(match[0][:2], 0)
    if not remaining:
        return 0
    for end, character in enumerate(match[0], 1):
        remaining -= character != " "
        if remaining == 0:
            iban = match[0][:end].replace(" ", "")
            ends_here = not match[0][end : end + 1].isalnum()
            return end if ends_here and int("".join(str(int(c, 36)) for c in iban[4:] + iban[:4])) % 97 == 1 else 0
    return 0


def _ipv6(match: re.Match[str]) -> int:
    """The whole match if it is an address with a digit or four groups; not `std::dec` and `12:30:45`."""
    try:
        IPv6Address(match[0])
    except AddressValueError:
        return 0
    groups = [group for group in match[0].split(":") if group]
    return len(match[0]) if len(groups) >= 4 or (len(groups) >= 2 and any(c.isdigit() for c in match[0])) else 0


def _phone(match: re.Match[str]) -> int:
    """The whole match if it has 8 to 15 digits (the maximum of ITU-T E.164) and is not a date."""
    number = re.split(r"\s?(?:x|ext)", match[0])[0]
    digits = re.sub(r"\D", "", number)
    date = re.fullmatch(r"0?\d{1,2}[-./ ]\d{1,2}[-./ ]\d{4}|\d{4}[-./ ]\d{1,2}[-./ ]\d{1,2}", number)
    return len(match[0]) if 8 <= len(digits) <= 15 and not date else 0


_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_EXTENSION = r"(?:\s?(?:x|ext\.?)\s?\d{1,6})?(?!\w)"
_CALLED = r"(?i:\b(?:phone|telephone|tel|call|called|mobile|cell|fax|whatsapp|sms|dial|text)\b[^\d\n+(]{0,25})"

TAGS = {
    "url_secret": "<SECRET>",
    "email": "<EMAIL>",
    "iban": "<IBAN>",
    "card": "<CARD>",
    "ip": "<IP>",
    "phone": "<PHONE>",
}
"""The tag that replaces each kind, in the order of search."""

_PATTERNS: dict[str, tuple[tuple[str, Check], ...]] = {
    "url_secret": (
        (r"(?<=://)[^/\s:@]{0,256}:[^/\s@]{1,256}(?=@)", _all),
        (rf"(?i)(?<=[?&;#])(?P<kept>(?:{_SECRETS})=)[^&\s#\"'<>;]{{1,4096}}", _all),
    ),
    "email": ((r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w-])", _all),),
    "iban": ((r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}", _iban),),
    "card": ((r"(?<![\w.])\d(?:[ -]?\d){12,18}(?!\w)", _card),),
    "ip": (
        (rf"(?<![\w.])(?:{_OCTET}\.){{3}}{_OCTET}(?!\w|\.\d)", _all),
        (r"(?<![\w:])[0-9A-Fa-f:]{2,39}(?![\w:])", _ipv6),
    ),
    "phone": (
        (rf"(?<![\w.+])(?:\+|00)[1-9](?:[ ()./-]{{0,2}}\d){{6,14}}{_EXTENSION}", _phone),
        (rf"(?P<kept>{_CALLED})\(?\d(?:[ ()./-]{{0,2}}\d){{6,14}}{_EXTENSION}", _phone),
        (rf"(?<![\w.])(?:1[ .-])?(?:\(\d{{3}}\) ?|\d{{3}}[ .-])\d{{3}}[ .-]\d{{4}}{_EXTENSION}", _phone),
        (rf"(?<![\w.])\(\d{{1,5}}\)[ -]?\d{{2,5}}(?:[ -]\d{{2,5}}){{1,3}}{_EXTENSION}", _phone),
        (rf"(?<![\w.])0\d{{1,4}}(?:[ /-]\d{{2,5}}){{2,4}}{_EXTENSION}", _phone),
    ),
}
# Quick tests that skip the patterns of a kind: digits that a text must have, and characters, one of which it must have.
_MIN_DIGITS = {"iban": 8, "card": 13, "ip": 1, "phone": 8}
_SIGNS = {"url_secret": "=@", "email": "@", "ip": ".:"}
_DIGIT = re.compile("[0-9]")


class Match(NamedTuple):
    """Characters `start` to `end`, the latter not among them, that are data of one kind."""

    start: int
    end: int
    kind: str


def find_personal_data(text: str, kinds: Iterable[str]) -> list[Match]:
    """Every match of `kinds` in `text`; no two overlap. In the order of `kinds`, then of the text."""
    matches: list[Match] = []
    digits = len(_DIGIT.findall(text))
    for kind in kinds:
        signs = _SIGNS.get(kind)
        if digits >= _MIN_DIGITS.get(kind, 0) and (not signs or any(sign in text for sign in signs)):
            for pattern, check in _compiled(kind):
                of_pattern = [match for hit in pattern.finditer(text) if (match := _match(kind, check, hit))]
                matches += of_pattern
                text = _mask(text, of_pattern)
    return matches


def _mask(text: str, matches: Sequence[Match]) -> str:
    """The text with as many signs in place of each match, in which no pattern matches: offsets stay as they are."""
    pieces, end = [], 0
    for match in matches:
        size = match.end - match.start
        pieces += [text[end : match.start], ("<" + "E" * (size - 2) + ">")[:size]]
        end = match.end
    return "".join([*pieces, text[end:]])


@lru_cache(maxsize=len(TAGS))
def _compiled(kind: str) -> tuple[tuple[re.Pattern[str], Check], ...]:
    return tuple((re.compile(pattern), check) for pattern, check in _PATTERNS[kind])


def _match(kind: str, check: Check, hit: re.Match[str]) -> Match | None:
    length = check(hit)
    if not length:
        return None
    return Match(hit.start() + len(hit.groupdict().get("kept") or ""), hit.start() + length, kind)
