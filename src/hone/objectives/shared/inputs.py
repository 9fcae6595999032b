"""The inputs of a served model as the model reads them, where that differs from what a caller sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hone.objectives.base import Objective
from hone.rewriting import Rewriter, Rewritten, rewrite_text

Row = Mapping[str, str]
TextsByInput = Mapping[str, Sequence[Rewritten]]


def rewrite_inputs(objective: Objective, rewriters: Sequence[Rewriter], row: Row) -> tuple[Row, TextsByInput]:
    """The row with its texts rewritten, and the texts of each input; of an input whose texts are words there are none.

    An input that is no column of the rows is a text. One in which nothing is rewritten keeps its form. Raises
    ValueError for one of a wrong form.
    """
    if not rewriters:
        return row, {}
    read, texts_by_input = dict(row), {}
    for name in filter(row.get, objective.inputs):
        if name not in objective.columns:
            texts_by_input[name] = [rewrite_text(row[name], rewriters)]
            read[name] = texts_by_input[name][0].text
        elif name in objective.text:
            value = objective.normalize_input(name, row[name])
            texts = objective.extract_texts(name, value)
            if name in objective.word_lists:
                new_texts = list(texts)
                for rewriter in rewriters:
                    new_texts = rewriter.rewrite_words(new_texts)
            else:
                texts_by_input[name] = [rewrite_text(text, rewriters) for text in texts]
                new_texts = [rewritten.text for rewritten in texts_by_input[name]]
            if new_texts != texts:
                read[name] = objective.replace_texts(name, value, new_texts)
    return read, texts_by_input
