from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hone.config.file import load_config
from hone.config.sections import Curation
from hone.curation import STEPS
from hone.curation.normalize import Normalize
from hone.curation.text.html_text import html_to_text
from hone.objectives import OBJECTIVES
from hone.objectives.base import Objective
from hone.objectives.causal_lm import CausalLM
from hone.objectives.masked_lm import MaskedLM
from hone.pipeline.stage import build_part
from hone.progress import ignore
from hone.sources.ingest import text_of

CONF = Path(__file__).parents[3] / "conf"


def normalized(text: str, **options: object) -> str:
    return Normalize(**options).normalize([text])[0][0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "if a < b and c > d: x &= y",
        "List<int> and Map<String, List<b>> and vector<p>"[:40],
        "usage: copy <source> <input> <output>",
        "AT&T, R&D; Q&A",
        "x <- 3; y << 2; a <b> c",
        "“Curly” quotes, 10³ and ﬁgures",
        "emoji 👩‍💻 and हिन्दी",
    ],
)
def test_text_that_only_looks_like_markup_stays(text: str) -> None:
    assert normalized(text) == text


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("cafÃ© â€” naÃ¯ve", "café — naïve"),
        ("e\u0301te\u0301", "été"),
        ("a\u200bb\ufeffc\x00d\x07e", "abcde"),
        ("one  two\t three \n\n\n\n four ", "one two three\n\nfour"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("non\u00a0breaking", "non breaking"),
        ("Fish &amp; chips &#8212; &lt;3", "Fish & chips — <3"),
        ("<p>One <b>bold</b> move</p><p>Two<br>lines</p>", "One bold move\n\nTwo\nlines"),
        ("<div>seen<script>var hidden = '<p>';</script><!-- hidden --> too</div>", "seen too"),
        ("<p>A List<int> of 3 < 4</p>", "A List<int> of 3 < 4"),
        ("<a href=\"/x?a=1>2\" title='b > c'>link</a><br/>next", "link\nnext"),
        ("<!DOCTYPE html><html><body><P CLASS=x>Loud</P></body></html>", "Loud"),
        ("<table><tr><td>a</td><td>b</td></tr></table>", "a b"),
        ("\x1b[31mred\x1b[0m", "red"),
    ],
)
def test_dirt_goes(dirty: str, clean: str) -> None:
    assert normalized(dirty) == clean


def test_options() -> None:
    assert normalized("ﬁve²", form="NFKC") == "five2"
    assert normalized("cafÃ©", encoding=False) == "cafÃ©"
    assert normalized("<p>kept</p>", html=False) == "<p>kept</p>"
    assert normalized("def f():\n    return 1  \n", spacing="trim") == "def f():\n    return 1"
    assert normalized(" a  b ", spacing="keep") == " a  b "


def test_notes_count_the_texts_that_changed_and_nothing_is_dropped() -> None:
    rows = pa.table({"id": ["1", "2", "3"], "text": ["fine", "two  spaces", "<p>x  y</p>"]})
    verdict = Normalize().apply(rows, MaskedLM(), ignore)
    assert verdict.rows["text"].to_pylist() == ["fine", "two spaces", "x y"]
    assert verdict.reasons == ["", "", ""]
    assert verdict.notes == {"html": 1, "spacing": 2}


@given(st.text())
@example("\x8dÜ\x86")  # without its control characters it is mojibake
def test_what_is_normal_stays_as_it_is(text: str) -> None:
    once = normalized(text, html=False)
    assert normalized(once, html=False) == once


@given(st.text(alphabet="<>/!-[]&;# abpbrdiv\"'=?", max_size=60))
def test_no_markup_however_broken_is_too_much(text: str) -> None:
    assert "<p>" not in html_to_text("<p>" + text)


@pytest.mark.parametrize(
    "unit", ["<", "<a", "<!--", "<![", "<a b=", "<a '", '<a "b" ', "</", "<script>", "&", "< ", "<p "]
)
def test_a_million_characters_of_broken_markup_take_linear_time(unit: str) -> None:
    assert html_to_text("<p>" + unit * (1_000_000 // len(unit))).count("<p>") == 0


def test_a_text_of_a_million_characters() -> None:
    assert len(normalized("<p>" + "naïve <b>text</b> &amp; " * 40_000)) == len("naïve text & ") * 40_000 - 1


CODE = "def f(x):\n    if x:\n        return 1\n\n\n\n    return '&lt;b&gt;'  # <div>\ttab, ｆｕｌｌ and Ã©"
GENERATING: dict[str, dict[str, Any]] = {
    "chat": {
        "messages": [
            {"role": "system", "content": CODE},
            {"role": "user", "content": f"```html\n<div>\n  <p>x</p>\n</div>\n```\n{CODE}"},
            {
                "role": "assistant",
                "content": CODE,
                "tool_calls": [{"type": "function", "function": {"name": "run", "arguments": {"code": CODE}}}],
            },
            {"role": "tool", "content": f"<table>{CODE}</table>"},
            {"role": "assistant", "content": CODE},
        ]
    },
    "preference": {"prompt": CODE, "chosen": f"{CODE} ", "rejected": f"\nno: {CODE}"},
    "causal-lm": {"text": CODE},
    "span-corruption": {"text": CODE},
    "seq2seq": {"text": "in  put", "target": CODE},
}


@pytest.mark.parametrize("kind", GENERATING)
def test_what_a_model_learns_to_write_keeps_its_characters(kind: str) -> None:
    objective = OBJECTIVES[kind]()
    row = objective.normalize_row(GENERATING[kind])
    values = {name: [row[name] if isinstance(row[name], str) else json.dumps(row[name])] for name in objective.columns}
    rows = pa.table({"id": ["row 1"], **values})
    verdict = Normalize().apply(rows, objective, ignore)
    assert verdict.reasons == [""]
    for name in objective.generated:
        before, after = (
            [json.loads(v) if v[0] in "[{" else v for v in t[name].to_pylist()] for t in (rows, verdict.rows)
        )
        assert after == before
    if kind == "seq2seq":
        assert verdict.rows["text"].to_pylist() == ["in put"]
    assert CODE not in str(Normalize(generated=True).apply(rows, objective, ignore).rows.to_pylist()[0])


def test_line_ends_and_invalid_characters_of_written_text_are_unified() -> None:
    rows = pa.table({"text": ["a\r\n  b\rc\u2028\x00d\x1b[0m\ud800".encode("utf8", "replace").decode()]})
    assert Normalize().apply(rows, CausalLM(), ignore).rows["text"].to_pylist() == ["a\n  b\nc\nd[0m?"]


def normalize_row(kind: str, row: dict[str, Any]) -> dict[str, str]:
    """The objective's columns of a source's row, after the step."""
    objective = OBJECTIVES[kind]()
    shaped = objective.normalize_row(row)
    table = pa.table({"id": ["row 1"], **{name: [text_of(shaped[name])] for name in objective.columns}})
    [normalized_row] = Normalize().apply(table, objective, ignore).rows.to_pylist()
    return dict(normalized_row)


@pytest.mark.parametrize("kind", GENERATING)
def test_line_ends_and_invalid_characters_are_unified_everywhere_in_a_row(kind: str) -> None:
    clean = json.dumps(GENERATING[kind])
    dirty = clean.replace("\\n", "\\r\\n").replace("return", "re\\u0000turn").replace("def", "\\fde\\u001bf")
    assert normalize_row(kind, json.loads(dirty)) == normalize_row(kind, json.loads(clean))


@pytest.mark.parametrize("objective", [MaskedLM(), CausalLM()], ids=["read", "written"])
def test_html_is_not_interpreted_in_code(objective: Objective) -> None:
    text = "<p>Write</p>\n```html\n<div>&lt;b&gt;</div>\n```\nand `<br>` or\n~~~\n<p>\n~~~~\n<p>then &amp;</p>"
    (result,) = Normalize(spacing="keep").apply(pa.table({"text": [text]}), objective, ignore).rows["text"].to_pylist()
    for code in ("```html\n<div>&lt;b&gt;</div>\n```", "`<br>`", "~~~\n<p>\n~~~~"):
        assert code in result
    assert ("then &\n" in result) is (objective.generated == ())


def answers_in_file(row: dict[str, Any]) -> list[Any]:
    """The answers, arguments of tool calls and results of tools in a row of LLaMA-Factory's demo files."""
    if "chosen" in row:
        return [row["chosen"]["value"], row["rejected"]["value"]]
    if "output" in row:
        return [row["output"]]
    turns = [(turn["from"], turn["value"]) for turn in row["conversations"] if turn["from"] != "human"]
    return [json.loads(value)["arguments"] if role == "function_call" else value for role, value in turns]


def answers_in_row(row: dict[str, Any]) -> list[Any]:
    """The same in a row as curation has it."""
    if "chosen" in row:
        messages = [*json.loads(row["chosen"]), *json.loads(row["rejected"])]
    else:
        conversation = json.loads(row["messages"])
        messages = conversation if isinstance(conversation, list) else conversation["messages"]
    answers = []
    for message in messages:
        calls = [call["function"]["arguments"] for call in message.get("tool_calls", ())]
        answers += calls or [message["content"]] if message["role"] in ("assistant", "tool") else []
    return answers


@pytest.mark.parametrize("curation", ["shipped", "default"])
@pytest.mark.parametrize(
    ("kind", "name", "repeated"),
    [
        ("chat", "alpaca_en_demo", 14),
        ("chat", "glaive_toolcall_en_demo", 35),
        ("preference", "dpo_en_demo", 5),
    ],
)
def test_real_answers_keep_every_character(kind: str, name: str, repeated: int, curation: str, shared: Path) -> None:
    parts = Curation().steps if curation == "default" else load_config(CONF / f"{kind}.yaml").curation.steps
    objective = OBJECTIVES[kind]()
    rows = json.loads((shared / f"datasets/llamafactory_demo/{name}.json").read_text("utf8"))
    shaped = [objective.normalize_row(row) for row in rows]
    columns = {column: [text_of(row[column]) for row in shaped] for column in objective.columns}
    table = pa.table({"id": [str(number) for number in range(len(rows))], **columns})
    for part in parts:
        verdict = build_part(STEPS, part).apply(table, objective, ignore)
        table = verdict.rows.filter(pa.array([not reason for reason in verdict.reasons]))
    assert len(table) == len(rows) - repeated
    for row in table.to_pylist():
        assert answers_in_row(row) == answers_in_file(rows[int(row["id"])])


@pytest.mark.parametrize(
    "code",
    [
        "> ```\n> <div>x</div>\n> ```",
        "1. item\n\n    ```html\n    <div>x</div>\n    ```",
        "``a ` <b>b</b>``",
        "```\nan open fence\n<p>x</p>",
    ],
)
def test_code_in_quotes_lists_and_spans_is_code(code: str) -> None:
    text = f"<p>prose &amp;</p>\n{code}"
    assert normalized(text, spacing="keep").endswith(f"\n{code}")
    assert "prose &\n" in normalized(text, spacing="keep")
