"""What of a text is shown: control characters visibly, secrets in URLs not at all."""

from __future__ import annotations

import re

# Controls but tab and line feed, and what changes the direction of the text after it (Trojan Source, CVE-2021-42574).
_CONTROLS = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_VARIABLE = re.compile(r"\$\{\w+(?::-([^}]*))?\}")
_UNKNOWN = "\0"  # the value of a variable, which a reader of the configuration does not see
_URL = re.compile(r"[\w+.-]+://[^\s'\"<>]*")
_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):([^@/\s]+)(?=@)")
_USER = re.compile(r"(?<=^http://)([^/@\s:]+)(?=@)|(?<=^https://)([^/@\s:]+)(?=@)", re.IGNORECASE)
_PARAMETER = re.compile(
    r"((?:[?&;]|%3B|%26|%3D\{?)(?:[\w.-]*(?:password|passwd|passphrase|pwd|token|secret|credentials?|signature"
    r"|api[_-]?key|access[_-]?key|account[_-]?key)|(?:[\w-]*[_-])?sig)(?:=|%3D))([^&;\s]+?)(?=[&;\s]|%3B|%26|$)",
    re.IGNORECASE,
)


def escape_controls(text: str) -> str:
    r"""The text with control characters as \x1b or \u202e: a terminal would obey them."""
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text)


def escape_markdown(text: str) -> str:
    """The text on one line of Markdown, without tags, links, images and code."""
    line = " ".join(escape_controls(text).split())
    return line.replace("<", "&lt;").replace("`", "'").replace("](", "]\\(")


def escape_cell(text: str) -> str:
    """The same for a cell of a table."""
    return escape_markdown(text).replace("|", "\\|")


def mask_secrets(text: str) -> str:
    """The text with *** for the passwords and tokens in its URLs."""
    return _URL.sub(lambda url: _mask_url(url[0]), text) if "://" in text else text


def has_secret(text: str) -> bool:
    """Whether a URL in the text has a password or token that is not the value of an environment variable.

    The default in `${VAR:-default}` is part of the text.
    """
    if "://" not in text:
        return False
    readable = _VARIABLE.sub(lambda variable: variable[1] or _UNKNOWN, text)
    secrets = (secret for url in _URL.findall(readable) for secret in _find_secrets(url))
    return any(secret.strip(_UNKNOWN) for secret in secrets)


def _mask_url(url: str) -> str:
    return _PARAMETER.sub(r"\1***", _USER.sub("***", _PASSWORD.sub(r"\1:***", url)))


def _find_secrets(url: str) -> list[str]:
    passwords = [password for _, password in _PASSWORD.findall(url)]
    users = [user for pair in _USER.findall(url) for user in pair]
    return [*passwords, *users, *(value for _, value in _PARAMETER.findall(url))]
