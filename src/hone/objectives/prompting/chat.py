"""Chat in words: the answer is the assistant's last turn that is learned."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hone.objectives.base import Outcome, Targets
from hone.objectives.chat.conversations import Conversation, parse_conversation
from hone.objectives.prompting.prompting import Judgement, Prompting
from hone.objectives.shared.overlap import rouge_scores

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from hone.objectives.chat.objective import Chat


@dataclass(frozen=True)
class ChatPrompting(Prompting):
    """The answer is a turn's content, with a line of JSON for each tool call, as `Conversation` writes it."""

    objective: Chat

    @property
    def metric(self) -> str:
        """ROUGE-L: a prompted model's probabilities of the references, so its perplexity, are not known."""
        return "rougeL"

    @property
    def takes_passages(self) -> bool:
        """True."""
        return True

    def describe_task(self, targets: Targets) -> str:
        """To write the assistant's next turn."""
        return (
            "Continue the conversation with the assistant's next message. Write only the content of that message,"
            " without its role. Write a call of a tool as a line of JSON with its name and arguments."
        )

    def build_questions(self, rows: pa.Table) -> list[str]:
        """Tools, roles, contents and calls of what is before the answer, separated by empty lines."""
        questions = []
        for conversation in _list_conversations(rows):
            question = Conversation(conversation.messages[: _find_answer(conversation)])
            tools = [json.dumps(tool, ensure_ascii=False) for tool in conversation.tools]
            parts = ["\n".join(["tools:", *tools])] if tools else []
            questions.append("\n\n".join([*parts, str(question)]))
        return questions

    def build_answers(self, rows: pa.Table, targets: Targets) -> list[str]:
        """The turns that are answers."""
        answers = []
        for conversation in _list_conversations(rows):
            message = conversation.messages[_find_answer(conversation)]
            answers.append(str(Conversation([message])).removeprefix("assistant: ").strip())
        return answers

    def judge(self, answers: Sequence[str], tokens: pa.Table, targets: Targets, rows: pa.Table) -> Judgement:
        """As `Prompting.judge`; `perplexity`, `loss` and `token_accuracy` are nan.

        Only an empty answer is invalid. The error is 1 minus ROUGE-L, and so cannot be compared with the trained
        model's, which is a loss.
        """
        import numpy as np

        texts, references = [answer.strip() for answer in answers], self.build_answers(rows, targets)
        scores = rouge_scores(texts, [[reference] for reference in references])[:, 2]
        exact = np.array([text == reference for text, reference in zip(texts, references, strict=True)], np.float64)
        none = np.zeros((len(texts), 3))  # summed loss, tokens and right tokens
        outcome = Outcome(
            statistics=np.concatenate([none, np.stack([np.ones(len(texts)), exact, scores], axis=1)], axis=1),
            predictions=texts,
            references=references,
            errors=1 - scores,
        )
        return Judgement(outcome, np.array([not text for text in texts], bool))

    def add_passages(self, inputs: Mapping[str, str], passages: Sequence[str]) -> dict[str, str]:
        """The conversation, with the passages before the last message of the user."""
        value = parse_conversation(inputs["messages"]).value
        messages = value["messages"] if isinstance(value, dict) else value
        last = max((n for n, message in enumerate(messages) if message["role"] == "user"), default=None)
        if last is not None and isinstance(messages[last].get("content"), str):
            content = "\n\n".join([*passages, messages[last]["content"]])
            messages[last] = {**messages[last], "content": content}
        return {**inputs, "messages": json.dumps(value, ensure_ascii=False)}

    def select_rows(self, tokens: pa.Table) -> np.ndarray:
        """The rows for which the trained model generates an answer: the first `generate`, if their answer was not cut
        off.
        """
        import numpy as np

        selected: np.ndarray = (np.arange(len(tokens)) < self.objective.generate) & (tokens["prompt"].to_numpy() > 0)
        return selected


def _list_conversations(rows: pa.Table) -> list[Conversation]:
    return [parse_conversation(value) for value in rows["messages"].to_pylist()]


def _find_answer(conversation: Conversation) -> int:
    """The index of the assistant's last turn that is learned (its weight is not 0)."""
    turns = [index for index, message in enumerate(conversation.messages) if message["role"] == "assistant"]
    learned = [index for index in turns if conversation.messages[index].get("weight", 1)]
    return (learned or turns)[-1]
