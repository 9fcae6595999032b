"""Scripts that put no space between words."""

from __future__ import annotations

_Ranges = tuple[tuple[int, int], ...]

_CHARACTER_WORDS: _Ranges = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x9FFF),  # Han
    (0x20000, 0x2FFFF),  # Han, extensions
)
# And scripts in which something else shows where words end, or where a part of one may be meant, as in Korean a word
# without its particle.
_OPEN_WORDS: _Ranges = (
    *_CHARACTER_WORDS,
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1100, 0x11FF),  # Hangul Jamo
    (0x2E80, 0x9FFF),  # Han with its radicals, Bopomofo, Hangul compatibility Jamo
    (0xAC00, 0xD7FF),  # Hangul
    (0xF900, 0xFAFF),  # Han, compatibility forms
    (0xFF66, 0xFFDC),  # half-width Katakana and Hangul
    (0x30000, 0x3FFFF),  # Han, extensions
)

# In a regular expression: a character that is a word of its own, for want of spaces.
CHARACTER_WORD = "[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in _CHARACTER_WORDS) + "]"


def has_open_words(sign: str) -> bool:
    """Whether words of the character's script may begin and end beside any other character."""
    code = ord(sign)
    return code >= _OPEN_WORDS[0][0] and any(first <= code <= last for first, last in _OPEN_WORDS)
