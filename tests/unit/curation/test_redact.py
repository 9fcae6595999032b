from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.curation.redact import Redact
from hone.curation.text.personal_data import passes_luhn
from hone.objectives.shared.tagging import find_word_extents
from hone.objectives.text_classification import TextClassification
from hone.objectives.token_classification import TokenClassification
from hone.progress import ignore


def redacted(text: str, **options: object) -> str:
    return Redact(**options).redact([text])[0][0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("write to Jo.Doe+news@mail.example.co.uk.", "write to <EMAIL>."),
        ("mail jörg@müller.de now", "mail <EMAIL> now"),
        ("my card 5213591727586604 expires", "my card <CARD> expires"),
        ("card 4532-2766-4457-7020", "card <CARD>"),
        ("amex 3782 822463 10005!", "amex <CARD>!"),
        ("pay DE89 3704 0044 0532 0130 00 AND more", "pay <IBAN> AND more"),
        ("GB82WEST12345698765432", "<IBAN>"),
        ("from 58.74.121.78 blocked", "from <IP> blocked"),
        ("host 2001:db8::ff00:42:8329 up", "host <IP> up"),
        ("call +44 20 7946 0958", "call <PHONE>"),
        ("(555) 123-4567 x89", "<PHONE>"),
        ("001-420-335-7509x38548", "<PHONE>"),
        ("ring (07) 5331 0577?", "ring <PHONE>?"),
        ("someone call me on 21 212 133 2727?", "someone call me on <PHONE>?"),
        ("https://bob:s3cret@db.example.com/x", "https://<SECRET>@db.example.com/x"),
        ("http://x.io/?user=1&api_key=abc-123&page=2", "http://x.io/?user=1&api_key=<SECRET>&page=2"),
        ("http://x.io/cb#access_token=ey.J0", "http://x.io/cb#access_token=<SECRET>"),
    ],
)
def test_personal_data_and_secrets_get_tags(text: str, clean: str) -> None:
    assert redacted(text) == clean
    assert redacted(clean) == clean


@pytest.mark.parametrize(
    "text",
    [
        "card 5213591727586605 fails Luhn",
        "GB82WEST12345698765433 fails the checksum",
        "on 2021-05-31 or 31.12.2021 at 12:30:45",
        "3.14159265358979 and 1234567890123456",
        "std::vector and a::b and 999.1.2.3",
        "array([10, 20, 30, 40, 50]) of shape (1000, 2000)",
        "the decorator @property and a@b",
        "see https://example.com/?page=2&q=token",
        "years 1990-2000, pages 100-200",
    ],
)
def test_other_numbers_and_signs_stay(text: str) -> None:
    assert redacted(text) == text


def test_only_the_kinds_that_are_asked_for() -> None:
    text = "a@b.org from 58.74.121.78"
    assert redacted(text, kinds=("ip",)) == "a@b.org from <IP>"
    assert redacted(text, kinds=()) == text


def test_words_that_give_the_label_away_are_masked_as_whole_words_in_any_case() -> None:
    words = ("refund", "top up", "C++")
    assert (
        redacted("REFUND me: refunded? Top  up, C++!", label_words=words) == "<LABEL> me: refunded? <LABEL>, <LABEL>!"
    )


def words_redacted(words: str, **options: object) -> tuple[list[str], list[str]]:
    [outcome] = Redact(**options).redact_words([words.split(" ")])  # type: ignore[arg-type]
    return outcome


@pytest.mark.parametrize(
    ("words", "clean", "kind"),
    [
        ("call +44 20 7946 0958 now", "call <PHONE> <PHONE> <PHONE> <PHONE> now", "phone"),
        ("call + 44 20 7946 0958 now", "call <PHONE> <PHONE> <PHONE> <PHONE> <PHONE> now", "phone"),
        ("ring ( 555 ) 123 - 4567 .", "ring" + " <PHONE>" * 6 + " .", "phone"),
        ("born 1990 . 020 7946 0958", "born 1990 . <PHONE> <PHONE> <PHONE>", "phone"),
        ("card 4532 2766 4457 7020 ok", "card <CARD> <CARD> <CARD> <CARD> ok", "card"),
        ("card 4532 - 2766 - 4457 - 7020", "card" + " <CARD>" * 7, "card"),
        ("pay DE89 3704 0044 0532 0130 00 AND", "pay" + " <IBAN>" * 6 + " AND", "iban"),
        ("mail jo . doe @ mail . example . com now", "mail" + " <EMAIL>" * 9 + " now", "email"),
        ("mail jo @ mail.example.com , now", "mail <EMAIL> <EMAIL> <EMAIL> , now", "email"),
        ("mail jo@example.org, now", "mail <EMAIL>, now", "email"),
        ("from 58 . 74 . 121 . 78 blocked", "from" + " <IP>" * 7 + " blocked", "ip"),
    ],
)
def test_data_over_several_words_is_replaced_in_each_of_them(words: str, clean: str, kind: str) -> None:
    assert words_redacted(words) == (clean.split(" "), [kind])
    assert words_redacted(clean) == (clean.split(" "), [])


@pytest.mark.parametrize(
    "words",
    [
        "see you @ home . They said so",
        "on 2021 - 05 - 31 at 12 : 30 : 45",
        "pages 100 - 200 , years 1990 - 2000",
        "version 3 . 1 . 2 of 2020 . 1999 was",
        "a",
        "",
    ],
)
def test_other_words_and_numbers_stay(words: str) -> None:
    assert words_redacted(words) == (words.split(" "), [])


def test_label_words_of_several_words_are_found_among_words() -> None:
    label_words = ("top up", "C++", "sign-in")
    assert words_redacted("Top up my C + + account sign - in Top", label_words=label_words) == (
        ["<LABEL>", "<LABEL>", "my", "<LABEL>", "<LABEL>", "<LABEL>", "account", *["<LABEL>"] * 3, "Top"],
        ["label word"] * 3,
    )


def test_redacted_words_keep_their_tags() -> None:
    tokens, tags = ["call", "+44", "20", "7946", "0958"], ["O", "B-PHONE", "I-PHONE", "I-PHONE", "I-PHONE"]
    rows = pa.table({"id": ["1"], "tokens": [json.dumps(tokens)], "tags": [json.dumps(tags)]})
    verdict = Redact().apply(rows, TokenClassification(), ignore)
    assert verdict.rows["tokens"].to_pylist() == [json.dumps(["call", *["<PHONE>"] * 4])]
    assert verdict.rows["tags"].equals(rows["tags"])
    assert verdict.notes == {"phone": 1}


def test_notes_count_what_was_replaced() -> None:
    rows = pa.table({"id": ["1", "2"], "text": ["a@b.org, c@d.org", "spam 58.74.121.78"], "label": ["x", "y"]})
    verdict = Redact(label_words=("spam",)).apply(rows, TextClassification(), ignore)
    assert verdict.rows["text"].to_pylist() == ["<EMAIL>, <EMAIL>", "<LABEL> <IP>"]
    assert verdict.notes == {"email": 2, "ip": 1, "label word": 1}
    assert verdict.reasons == ["", ""]


def test_recall_on_a_real_corpus(shared: Path) -> None:
    rows = json.loads((shared / "datasets" / "presidio_pii" / "generated_small.json").read_text("utf8"))
    kinds = {"EMAIL_ADDRESS", "PHONE_NUMBER", "IP_ADDRESS", "CREDIT_CARD"}
    there: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for row in rows:
        text = redacted(row["full_text"])
        for span in row["spans"]:
            if span["entity_type"] in kinds:
                there[span["entity_type"]] += 1
                found[span["entity_type"]] += span["entity_value"] not in text
    assert there == {"EMAIL_ADDRESS": 2, "PHONE_NUMBER": 10, "IP_ADDRESS": 2, "CREDIT_CARD": 10}
    assert found == there - Counter(PHONE_NUMBER=1)


def test_recall_among_the_words_of_a_real_corpus_is_that_in_its_texts(shared: Path) -> None:
    rows = json.loads((shared / "datasets" / "presidio_pii" / "generated_small.json").read_text("utf8"))
    kinds = {"EMAIL_ADDRESS", "PHONE_NUMBER", "IP_ADDRESS", "CREDIT_CARD"}
    redacted_kinds: Counter[str] = Counter()
    for row in rows:
        text = row["full_text"]
        words = [text[start:end] for start, end in find_word_extents(text, "punctuation")]
        [(clean, _)] = Redact().redact_words([words])
        assert len(clean) == len(words)
        for span in row["spans"]:
            if span["entity_type"] in kinds:
                redacted_kinds[span["entity_type"]] += span["entity_value"].split(" ")[-1][-4:] not in " ".join(clean)
    assert redacted_kinds == {"EMAIL_ADDRESS": 2, "PHONE_NUMBER": 9, "IP_ADDRESS": 2, "CREDIT_CARD": 10}


@pytest.mark.parametrize(
    "unit", ["a", "1", "1 ", "a.", "a@", "ab:", "+1", "DE89 ", "?token=", "call ", "://a", "(1)", "a@b.org "]
)
def test_a_million_characters_take_linear_time(unit: str) -> None:
    assert redacted(unit * (1_000_000 // len(unit)))
    words = [sign for sign in unit * (100_000 // len(unit)) if sign.strip()]
    assert len(words_redacted(" ".join(words))[0]) == len(words)


@given(st.integers(min_value=0, max_value=10**17))
def test_luhn_sees_every_wrong_digit(number: int) -> None:
    valid = [digit for digit in range(10) if passes_luhn(f"{number}{digit}")]
    assert len(valid) == 1
