from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest

from hone.errors import ConfigError
from hone.objectives.shared.tagging import join_words
from hone.objectives.shared.tokenizer import encode_with_offsets, load_tokenizer
from hone.objectives.shared.word_windows import WordWindow, merge_windows, split_encoding
from tests.tiny_bases import tiny_bert


def split(words: list[str], base: Path, max_length: int, stride: int) -> list[WordWindow]:
    text, extents = join_words(words)
    [encoding] = encode_with_offsets(load_tokenizer(base), [text])
    return split_encoding(encoding, extents, max_length, stride)


@pytest.mark.parametrize("name", ["bert-base-uncased", "gpt2"])
def test_windows_have_every_word_whole_with_the_tokens_it_has_in_the_text(name: str, shared: Path) -> None:
    base = shared / "tokenizers" / name / "hf"
    draw = random.Random(1)
    vocabulary = ["Ataxia", "-", "telangiectasia", "\u200b", "naïve", "日本", "a", "x" * 12, "."]
    for _ in range(40):
        words = draw.choices(vocabulary, k=draw.randrange(1, 60))
        max_length, stride = draw.randrange(20, 40), draw.randrange(0, 12)
        [whole] = split(words, base, 10_000, 0)
        windows = split(words, base, max_length, stride)
        assert all(len(window.ids) <= max_length and not window.lost for window in windows)
        assert windows[0].first == 0
        assert windows[-1].first + len(windows[-1].words) == len(words)
        for window in windows:
            end = window.first + len(window.words)
            in_whole = [place for place in whole.words[window.first : end] if place >= 0]
            in_window = [place for place in window.words if place >= 0]
            assert [window.ids[place] for place in in_window] == [whole.ids[place] for place in in_whole]
            assert [place - in_window[0] for place in in_window] == [place - in_whole[0] for place in in_whole]
            assert (window.ids[0], window.ids[-1]) == (whole.ids[0], whole.ids[-1]) or name == "gpt2"
        for before, after in pairwise(windows):
            assert before.first < after.first <= before.first + len(before.words)
            assert after.first + len(after.words) > before.first + len(before.words)
        merged = merge_windows(
            [window.first for window in windows],
            [range(window.first, window.first + len(window.words)) for window in windows],
        )
        assert merged == list(range(len(words)))


def test_neighbours_share_the_words_of_the_stride(tmp_path: Path) -> None:
    base = tiny_bert(tmp_path)
    assert [window.first for window in split(["card"] * 20, base, 12, 0)] == [0, 10]
    assert [window.first for window in split(["card"] * 20, base, 12, 4)] == [0, 6, 12]
    assert [window.first for window in split(["card"] * 20, base, 12, 100)] == [0, 5, 10]  # half a window


def test_a_text_that_fits_is_one_window_as_the_tokenizer_encodes_it(tmp_path: Path) -> None:
    base = tiny_bert(tmp_path)
    [window] = split(["card"] * 10, base, 12, 4)
    assert window.ids == load_tokenizer(base)("card " * 10)["input_ids"]


def test_a_word_longer_than_a_window_keeps_its_first_tokens_and_the_rest_is_counted(shared: Path) -> None:
    base = shared / "tokenizers/bert-base-uncased/hf"
    words = ["a", "xq" * 20, "b"]
    [whole] = split(words, base, 10_000, 0)
    windows = split(words, base, 8, 2)
    [long] = [window for window in windows if window.lost]
    assert (long.first, len(long.words), len(long.ids)) == (1, 1, 8)
    assert long.lost == whole.words[2] - whole.words[1] - 6
    assert [window.first for window in windows] == [0, 1, 2]


def test_of_two_windows_the_one_with_the_word_farther_from_its_edge_counts() -> None:
    assert merge_windows([0, 2], ["aaaaaa", "bbbbbb"]) == list("aaaabbbb")
    assert merge_windows([0, 3], ["aaaa", "bbb"]) == list("aaaabb")
    assert merge_windows([0], ["aa"]) == list("aa")


def test_no_room_for_a_word_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 tokens do not hold a word"):
        split(["card", "card"], tiny_bert(tmp_path), 2, 0)
