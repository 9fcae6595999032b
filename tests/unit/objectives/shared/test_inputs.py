"""Inputs in every form that a caller may send, as the model reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hone.curation.redact import Redact
from hone.objectives.chat.objective import Chat
from hone.objectives.embedding import Embedding
from hone.objectives.preference.objective import Preference
from hone.objectives.question_answering import QuestionAnswering
from hone.objectives.shared.inputs import rewrite_inputs
from hone.objectives.text_classification import TextClassification
from hone.objectives.token_classification import TokenClassification

RAW, READ = "mail ann@b.org now", "mail <EMAIL> now"
CALL = {"type": "function", "function": {"name": "send", "arguments": {"to": "<EMAIL>"}}}


def turns(content: Any, speaker: str = "role", text: str = "content", role: str = "user") -> str:
    return json.dumps([{speaker: role, text: content}])


@pytest.mark.parametrize(
    ("objective", "sent", "read"),
    [
        (TextClassification(), {"text": RAW}, {"text": READ}),
        (Embedding(), {"text": RAW}, {"text": READ}),
        (QuestionAnswering(), {"question": RAW, "context": RAW}, {"question": READ, "context": READ}),
        (Preference(), {"prompt": f"{RAW}\n"}, {"prompt": f"{READ}\n"}),
        (Preference(), {"prompt": turns(RAW, "from", "value", "human")}, {"prompt": turns(READ)}),
        (Chat(), {"messages": turns(RAW)}, {"messages": turns(READ)}),
        (Chat(), {"messages": turns(RAW, "from", "value", "human")}, {"messages": turns(READ)}),
        (Chat(), {"messages": turns([{"type": "text", "text": RAW}])}, {"messages": turns(READ)}),
        (
            TokenClassification(),
            {"tokens": "mail  ann@b.org now"},
            {"tokens": json.dumps(["mail", *["<EMAIL>"] * 5, "now"])},  # ann @ b . org: as many words
        ),
        (
            TokenClassification(words="spaces"),
            {"tokens": json.dumps(RAW.split())},
            {"tokens": json.dumps(READ.split())},
        ),
    ],
)
def test_what_is_sent_is_redacted_in_every_form(objective: Any, sent: dict[str, str], read: dict[str, str]) -> None:
    assert rewrite_inputs(objective, [Redact()], sent)[0] == read


def test_arguments_of_tool_calls_are_redacted_as_text_and_as_an_object() -> None:
    for arguments in ({"to": "ann@b.org"}, json.dumps({"to": "ann@b.org"})):
        call = {"type": "function", "function": {"name": "send", "arguments": arguments}}
        messages = [{"role": "user", "content": "send"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
        read, _ = rewrite_inputs(Chat(), [Redact()], {"messages": json.dumps(messages)})
        assert json.loads(read["messages"])[1]["tool_calls"] == [CALL]


@pytest.mark.parametrize(
    ("objective", "row"),
    [
        (TokenClassification(), {"tokens": "no  data"}),
        (Chat(), {"messages": turns("no data", "from", "value", "human")}),
        (QuestionAnswering(), {"question": "", "context": "no data"}),
    ],
)
def test_an_input_without_personal_data_is_read_as_it_was_sent(objective: Any, row: dict[str, str]) -> None:
    assert rewrite_inputs(objective, [Redact()], row)[0] == row


def test_an_input_of_a_wrong_form_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown role"):
        rewrite_inputs(Chat(), [Redact()], {"messages": turns(RAW, role="narrator")})
