from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hone.objectives.chat.conversations import parse_conversation
from hone.objectives.chat.forms import conversation_from_row
from hone.objectives.chat.objective import Chat

USER, BOT = {"role": "user", "content": "How warm?"}, {"role": "assistant", "content": "20 degrees"}
SYSTEM = {"role": "system", "content": "Be short."}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"town": "Ulm"}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [SYSTEM, USER, BOT]}, [SYSTEM, USER, BOT]),
        ({"messages": json.dumps([USER, BOT])}, [USER, BOT]),
        ({"messages": [USER, BOT, USER]}, [USER, BOT]),
        (
            {"messages": [{"role": "developer", "content": [{"type": "text", "text": "Be short."}]}, USER, BOT]},
            [SYSTEM, USER, BOT],
        ),
        ({"messages": [USER, {**BOT, "weight": 1, "refusal": None}]}, [USER, BOT]),
        ({"messages": [USER, {**BOT, "weight": 0}, USER, BOT]}, [USER, {**BOT, "weight": 0}, USER, BOT]),
        (
            {
                "conversations": [{"from": "human", "value": "How warm?"}, {"from": "gpt", "value": "20 degrees"}],
                "system": "Be short.",
            },
            [SYSTEM, USER, BOT],
        ),
        ({"prompt": "How warm?", "completion": "20 degrees"}, [USER, BOT]),
        ({"prompt": [SYSTEM, USER], "completion": [BOT]}, [SYSTEM, USER, BOT]),
        (
            {"instruction": "How", "input": "warm?", "output": "20 degrees"},
            [{"role": "user", "content": "How\nwarm?"}, BOT],
        ),
        (
            {
                "instruction": "How warm?",
                "output": "20 degrees",
                "system": "Be short.",
                "history": [["How warm?", "20 degrees"]],
            },
            [SYSTEM, USER, BOT, USER, BOT],
        ),
        ({"instruction": "How warm?", "instances": [{"input": "", "output": "20 degrees"}]}, [USER, BOT]),
    ],
)
def test_every_form_becomes_the_same_messages(row: dict[str, Any], expected: list[dict[str, Any]]) -> None:
    assert Chat().normalize_row(row) == {"messages": expected}
    assert list(parse_conversation(json.dumps(expected)).messages) == expected  # as it is, it is of the form


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "tool_calls": [{**CALL, "id": "1"}]},
        {
            "role": "assistant",
            "tool_calls": [{"id": "1", "function": {"name": "weather", "arguments": '{"town": "Ulm"}'}}],
        },
    ],
)
def test_tool_calls_have_their_arguments_as_an_object(turn: dict[str, Any]) -> None:
    tool = {"role": "tool", "tool_call_id": "1", "content": "20"}
    found = conversation_from_row({"messages": [USER, turn, tool, BOT], "tools": json.dumps([TOOLS[0]["function"]])})
    assert found.messages[1] == {"role": "assistant", "content": "", "tool_calls": [{**CALL, "id": "1"}]}
    assert found.value == {"messages": [USER, found.messages[1], tool, BOT], "tools": TOOLS}
    assert parse_conversation(json.dumps(found.value)) == found


def test_sharegpt_function_calls_are_the_assistants() -> None:
    said = {"name": "weather", "arguments": {"town": "Ulm"}}
    turns = [("human", "How warm?"), ("function_call", json.dumps(said)), ("observation", "20"), ("gpt", "20 degrees")]
    found = conversation_from_row({"conversations": [{"from": who, "value": text} for who, text in turns]})
    assert [message["role"] for message in found.messages] == ["user", "assistant", "tool", "assistant"]
    assert found.messages[1]["tool_calls"] == [CALL]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [USER]}, "no assistant turn: the roles are user"),
        ({"messages": []}, "no assistant turn: the roles are none"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, r"unknown role: messages\[0\].role is 'narrator'"),
        ({"conversations": [{"from": "me", "value": "x"}]}, r"unknown role: conversations\[0\].from is 'me'"),
        ({"messages": [USER, {"role": "assistant", "content": " \n"}]}, r"empty content: messages\[1\].content"),
        ({"messages": [USER, {"role": "assistant", "content": 3}]}, r"not text: messages\[1\].content is a int"),
        ({"messages": [BOT, USER]}, r"wrong order: messages\[0\] has the role assistant at the beginning"),
        ({"messages": [USER, SYSTEM, BOT]}, r"wrong order: messages\[1\] has the role system after user"),
        ({"messages": [USER, USER, BOT]}, r"wrong order: messages\[1\] has the role user after user"),
        ({"messages": [USER, BOT], "tools": "{"}, "not JSON: tools"),
        ({"messages": "no"}, "not JSON: messages"),
        ({"messages": [USER, {**BOT, "weight": 0}]}, "all have the weight 0"),
        ({"messages": [USER, {**BOT, "weight": 0.5}]}, r"neither 0 nor 1: messages\[1\].weight is 0.5"),
        ({"messages": [USER, {**BOT, "tool_calls": [{"function": {}}]}]}, r"messages\[1\].tool_calls\[0\] names no"),
        (
            {"messages": [USER, {**BOT, "tool_calls": [{"function": {"name": "f", "arguments": "["}}]}]},
            "not JSON: .*arguments",
        ),
        ({"messages": [{**USER, "content": [{"type": "image_url"}]}, BOT]}, r"content\[0\] is of the type 'image_url'"),
        ({"prompt": "a", "completion": " "}, "empty content: completion"),
        ({"instruction": "a", "output": ""}, "empty content: output"),
        ({"instruction": "a", "output": "b", "history": [["x"]]}, r"not a pair: history\[0\]"),
        ({"instruction": "a", "instances": []}, "not one example: instances"),
        ({"text": "a", "label": "b"}, "no supported form has the columns text, label"),
    ],
)
def test_what_is_no_conversation_is_refused_with_the_field(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        conversation_from_row(row)


def test_curation_rewrites_what_is_said_and_what_tools_are_told() -> None:
    row = {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [CALL]}, BOT | {"role": "tool"}, BOT]}
    value = json.dumps(Chat().normalize_row(row)["messages"])
    pieces = Chat().extract_texts("messages", value)
    assert pieces == ["How warm?", "Ulm", "20 degrees", "20 degrees"]
    assert json.loads(Chat().replace_texts("messages", value, pieces)) == json.loads(value)
    changed = json.loads(Chat().replace_texts("messages", value, ["A", "B", "C", "D"]))
    assert [message["content"] for message in changed] == ["A", "", "C", "D"]
    assert changed[1]["tool_calls"][0]["function"]["arguments"] == {"town": "B"}


def test_a_question_ends_before_the_answer() -> None:
    assert parse_conversation(json.dumps([USER, BOT, USER, BOT])).question.messages == [USER, BOT, USER]
    assert parse_conversation(json.dumps([SYSTEM, USER])).question.messages == [SYSTEM, USER]
    with pytest.raises(ValueError, match="nothing to answer"):
        _ = parse_conversation(json.dumps([SYSTEM])).question


@pytest.mark.parametrize(
    ("file", "count"),
    [
        ("llamafactory_demo/glaive_toolcall_en_demo.json", 300),
        ("llamafactory_demo/alpaca_zh_demo.json", 1000),
        ("llamafactory_demo/v1_sft_demo.jsonl", 500),
        ("llamafactory_demo/reason_tool_use_demo_50.jsonl", 50),
        ("rasbt_instruct/instruction-data.json", 1100),
        ("self_instruct/seed_tasks.jsonl", 175),
    ],
)
def test_real_data_is_understood_row_by_row(shared: Path, file: str, count: int) -> None:
    text = (shared / "datasets" / file).read_text("utf8")
    rows = json.loads(text) if file.endswith(".json") else [json.loads(line) for line in text.splitlines()]
    found = [conversation_from_row(row) for row in rows]
    assert len(found) == count
    assert all(parse_conversation(json.dumps(one.value)).value == one.value for one in found)


def test_calls_and_tools_of_real_data_are_all_there(shared: Path) -> None:
    rows = json.loads((shared / "datasets/llamafactory_demo/glaive_toolcall_en_demo.json").read_text("utf8"))
    called = [turn["value"] for row in rows for turn in row["conversations"] if turn["from"] == "function_call"]
    found = [conversation_from_row(row) for row in rows]
    calls = [call["function"] for one in found for said in one.messages for call in said.get("tool_calls", ())]
    assert calls == [
        call for text in called for call in (lambda v: v if isinstance(v, list) else [v])(json.loads(text))
    ]
    assert sum(bool(one.tools) for one in found) == sum(row["tools"] not in ("", "[]") for row in rows)


@pytest.mark.parametrize(
    "messages",
    [[BOT, USER, BOT], [USER, USER, BOT], [SYSTEM, SYSTEM, USER, BOT], [USER, SYSTEM, BOT], [USER, BOT, BOT]],
)
def test_roles_in_any_order_are_read_where_that_is_allowed(messages: list[Any]) -> None:
    with pytest.raises(ValueError, match="wrong order"):
        conversation_from_row({"messages": messages})
    found = conversation_from_row({"messages": messages}, strict=False)
    assert found.messages == messages
    stored = json.dumps(found.value)
    assert parse_conversation(stored).messages == found.messages
    with pytest.raises(ValueError, match="wrong order"):
        parse_conversation(stored, strict=True)
    with pytest.raises(ValueError, match="nothing to answer"):
        conversation_from_row({"messages": [SYSTEM, BOT]}, strict=False)
