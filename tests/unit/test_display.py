"""What is shown of a text: no secret of a URL, and no character that a terminal obeys."""

from __future__ import annotations

import pickle

import pytest

from hone.display import escape_cell, escape_controls, escape_markdown, has_secret, mask_secrets
from hone.errors import DataError

SECRET_URLS = [
    "postgresql://ada:geheim@db/app",
    "postgresql://db/app?user=ada&password=geheim",
    "postgresql://db/app?sslpassword=geheim",
    "https://geheim@example.org/rows.csv",
    "https://ada:geheim@example.org/rows.csv",
    "https://example.org/rows.csv?access_token=geheim",
    "https://example.org/rows.csv?api_key=geheim&page=2",
    "https://example.org/rows.csv?apikey=geheim",
    "https://account.blob.core.windows.net/c/rows.csv?sv=2024&sig=geheim",
    "https://bucket.s3.amazonaws.com/rows.csv?X-Amz-Signature=geheim",
    "https://bucket.s3.amazonaws.com/rows.csv?X-Amz-Security-Token=geheim",
    "https://storage.googleapis.com/b/rows.csv?X-Goog-Signature=geheim",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3DODBC%3BSERVER%3Ddb%3BUID%3Dada%3BPWD%3Dgeheim",
    "mssql+pyodbc://ada@db/app?driver=x;PWD=geheim",
    "postgresql://ada:${PW:-geheim}@db/app",
    "postgresql://${USER:-ada}:${PW:-geheim}@db/app",
    "postgresql://ada:ge${PW}heim@db/app",
]
OPEN_URLS = [
    "postgresql://ada@db/app",
    "postgresql://ada:${PW}@db/app",
    "postgresql://${USER:-ada}:${PW:-}@db/app?token=${TOKEN}",
    "postgresql://db/app?sslmode=require&connect_timeout=2",
    "https://${TOKEN}@example.org/rows.csv",
    "https://example.org/rows.csv?page=2&design=a&sign=b",
    "ssh://git@example.org/data.git",
    "s3://bucket/token=a/password.csv",
    "select token, password from users where token = 'x' and url like 'https://example.org/%'",
    "${DATA}/a:b@c/*.csv",
]


@pytest.mark.parametrize("url", SECRET_URLS)
def test_a_secret_in_a_url_is_found_and_masked(url: str) -> None:
    assert has_secret(url)
    assert "geheim" not in mask_secrets(url.replace("${PW:-geheim}", "geheim").replace("ge${PW}heim", "geheim"))
    fault = DataError(f"cannot read {url.replace('${PW:-geheim}', 'geheim').replace('${PW}', '')}", where="here")
    assert "geheim" not in str(fault) and "geheim" not in str(pickle.loads(pickle.dumps(fault)))


@pytest.mark.parametrize("url", OPEN_URLS)
def test_what_is_no_secret_stays(url: str) -> None:
    assert not has_secret(url)


def test_a_masked_url_keeps_the_rest() -> None:
    url = "postgresql://ada:geheim@db:5432/app?password=geheim&sslmode=require"
    assert mask_secrets(f"({url}) failed") == "(postgresql://ada:***@db:5432/app?password=***&sslmode=require) failed"


def test_control_characters_are_visible() -> None:
    text = "\x1b[2J\x1b]0;owned\x07 \u202egnp\u2066 \x9b31m \r\ud800 tab\tand\nline \u00fc \u2713 \u200d"
    visible = escape_controls(text)
    assert (
        visible == r"\x1b[2J\x1b]0;owned\x07 \u202egnp\u2066 \x9b31m \r\ud800" + " tab\tand\nline \u00fc \u2713 \u200d"
    )
    assert escape_controls(visible) == visible
    assert "\x1b" not in str(DataError("the label \x1b[31mred", where="\x1b[1mrow", fix="Fix\x1b it."))


def test_text_in_markdown_is_no_markup() -> None:
    text = "a|b\n<img src=x onerror=alert(1)> `c` ![d](http://e/f.png) [g](javascript:h) \x1b[2J [0.1, 0.2]"
    expected = "a|b &lt;img src=x onerror=alert(1)> 'c' ![d]\\(http://e/f.png) [g]\\(javascript:h) \\x1b[2J [0.1, 0.2]"
    assert escape_markdown(text) == expected
    assert escape_cell(text) == expected.replace("|", "\\|")
