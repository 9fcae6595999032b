"""Answers of a model in a local directory that was not trained on the rows: a decoder or an encoder-decoder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hone.errors import ModelError
from hone.evaluation.judging.predict import best_device
from hone.evaluation.rivals.completion import Completion
from hone.evaluation.rivals.likelihood import score_continuations, score_targets
from hone.models import own_code
from hone.models.positions import get_max_tokens
from hone.objectives.chat.conversations import Conversation
from hone.objectives.chat.template import render_conversation, resolve_template
from hone.objectives.shared.generation import generate_ids
from hone.objectives.shared.heads import load_with_head
from hone.objectives.shared.special_tokens import get_special_tokens
from hone.objectives.shared.tokenizer import encode_rendered, encode_with_offsets, load_tokenizer
from hone.store.digests import digest_of
from hone.store.recipe import code_digests, installed_versions

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

# An answer in a rendered conversation, from which is read what a chat template writes before answers.
_PROBE = "ANSWER"
_NO_GENERATION = "Name a local decoder in rivals.model, or use an api."


class _Choices(NamedTuple):
    """A prompt's tokens, and for each choice those that follow them; one of `ends` must be the next token."""

    prompt: list[int]
    answers: list[list[int]]
    ends: list[int]


@dataclass(frozen=True)
class LocalEngine:
    """A model of this machine that answers one prompt at a time, float32 on the best device, loaded when first asked.

    path            its directory, with safetensors and a fast tokenizer
    digest          of its files (`BaseModel.compute_digest`)
    max_new_tokens  maximum length of a generated answer
    choices         the only possible answers; empty: the answer is generated
    stops           texts at which an answer ends that continues a prompt. The first is what follows an example's answer

    A prompt is one message of the user if the tokenizer has a chat template. What the template writes before an answer,
    such as the empty thoughts of a model that can think, is written before this one. Else a prompt is text to continue,
    and the answer follows after a space, unless the prompt ends with a line's end. Names of control tokens in a prompt
    are text.

    With `choices` the answer is the one with the highest likelihood: the sum of the log-probabilities of its tokens and
    of its end, without normalisation by length (`acc`, not `acc_norm`, in EleutherAI's lm-evaluation-harness). With the
    end in it this is the probability that the model writes exactly that label, so that `no` and `not spam` compete
    fairly, and the choice is the one that generation confined to the labels finds most likely: the same task that a
    model behind an API does. Brown et al. (2020, section 2.4) divide by the number of tokens for answers of a sentence;
    labels are names from a list in the prompt, whose later tokens follow from the first: a mean over tokens dilutes the
    evidence in long labels, which then win. Several wordings of one answer sharing its probability (Holtzman et al.,
    2021) matter less where examples show the wording. The end is the first of `stops` in a prompt that is continued,
    and an end-of-text token of the model otherwise. Equal likelihoods: the first choice.
    """

    path: Path
    digest: str
    max_new_tokens: int
    choices: Sequence[str] = ()
    stops: Sequence[str] = ()

    @property
    def parallel(self) -> int:
        """1: the device computes one prompt at a time."""
        return 1

    @property
    def identity(self) -> Mapping[str, Any]:
        """Digest of the model's files, its options, versions of libraries, digest of the code that asks it."""
        return {
            "engine": "local",
            "model": self.digest,
            "max_new_tokens": self.max_new_tokens,
            "choices": list(self.choices),
            "stops": list(self.stops),
            "versions": installed_versions(("torch", "transformers", "tokenizers")),
            "code": digest_of(code_digests([__name__])),
        }

    def close(self) -> None:
        """Drop the weights; a later `ask` loads them again."""
        self.__dict__.pop("_model", None)

    def fits(self, prompt: str) -> bool:
        """Whether the model has positions for the prompt and an answer of full length; loads the tokenizer alone.

        The caller leaves out examples until it is true: nothing is cut off here.
        """
        return self._count_positions(prompt) <= self._max_tokens

    def ask(self, prompt: str) -> Completion:
        """The answer; `seconds` are without loading the model.

        Raises ModelError if the prompt and an answer do not fit the model's positions, or if the model cannot be
        loaded, has no tokenizer, or is neither a decoder nor an encoder-decoder.
        """
        _ = self._model  # loaded before the clock starts, and checked first: what is no decoder has no right prompt
        positions = self._count_positions(prompt)
        if positions > self._max_tokens:
            raise ModelError(
                f"a prompt and its answer take {positions:,} tokens, and the model has {self._max_tokens:,} positions",
                where=str(self.path),
                fix="Put fewer or shorter examples into the prompt, or choose a model with more positions.",
            )
        start = time.perf_counter()
        completion = self._choose(prompt) if self.choices else self._generate(prompt)
        return replace(completion, seconds=time.perf_counter() - start)

    def score_choices(self, prompt: str) -> np.ndarray:
        """The log-likelihood of each choice and its end after the prompt: nats, float64 [choices].

        Where a choice's first characters are part of the prompt's last token, that token counts in all choices.
        """
        return self._score(self._encode_choices(prompt))

    def _score(self, encoded: _Choices) -> np.ndarray:
        if self._is_pair:
            return score_targets(self._model, encoded.prompt, encoded.answers)
        return score_continuations(self._model, encoded.prompt, encoded.answers, encoded.ends)

    def _choose(self, prompt: str) -> Completion:
        encoded = self._encode_choices(prompt)
        best = int(self._score(encoded).argmax())
        return Completion(self.choices[best], "stop", len(encoded.prompt), len(encoded.answers[best]), 0.0)

    def _generate(self, prompt: str) -> Completion:
        import torch

        ids = self._encode_prompt(prompt)
        inputs: dict[str, Any] = {"input_ids": torch.tensor([ids], device=self._model.device)}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        start = 1 if self._is_pair else len(ids)

        def has_stopped(rows: Tensor, _scores: object) -> Tensor:
            return torch.tensor([self._cut_answer(rows[0, start:].tolist())[1]], device=rows.device)

        if self._stops:
            inputs["stopping_criteria"] = [has_stopped]  # generate_ids passes it on to the model's generate
        with torch.inference_mode():
            [new] = generate_ids(self._model, inputs, max_new_tokens=self.max_new_tokens, ends=self._ends)
        text, has_stop = self._cut_answer(new)
        is_complete = has_stop or len(new) < self.max_new_tokens
        return Completion(text.strip(), "stop" if is_complete else "length", len(ids), len(new), 0.0)

    def _cut_answer(self, ids: Sequence[int]) -> tuple[str, bool]:
        """The text of new tokens before the first stop in it, and whether there is one."""
        text = str(self._tokenizer.decode(ids, skip_special_tokens=True))
        cut = min((text.find(stop) for stop in self._stops if stop in text), default=-1)
        return (text, False) if cut < 0 else (text[:cut], True)

    def _count_positions(self, prompt: str) -> int:
        """The number of positions that a prompt and its answer take: the last token of an answer is never read."""
        if not self.choices:
            count = len(self._encode_prompt(prompt))
            return max(count, self.max_new_tokens) if self._is_pair else count + self.max_new_tokens - 1
        encoded = self._encode_choices(prompt)
        longest = max(map(len, encoded.answers))
        if self._is_pair:
            return max(len(encoded.prompt), longest)
        return len(encoded.prompt) + longest - (0 if encoded.ends else 1)

    def _encode_prompt(self, prompt: str) -> list[int]:
        """The prompt's token ids, after which an answer is generated.

        Spaces at the end are left out: most tokenizers have them at the beginning of the next word's token.
        """
        return self._encode([self._render(prompt).rstrip(" ")])[0]

    def _encode_choices(self, prompt: str) -> _Choices:
        """The tokens of the prompt, and those of each choice, encoded together so that tokens may span the border."""
        if self._is_pair:
            targets = [encoding.ids for encoding in encode_with_offsets(self._tokenizer, self.choices)]
            ended = [ids if ids[-1:] == self._ends[:1] else [*ids, *self._ends[:1]] for ids in targets]
            return _Choices(self._encode_prompt(prompt), ended, [])
        rendered = self._render(prompt)
        border = rendered.rstrip(" ")
        lead = " " if not self._has_template and not rendered.endswith("\n") else rendered[len(border) :]
        hide = get_special_tokens(self._tokenizer).hide if self._has_template else str
        texts = [f"{border}{lead}{hide(choice)}{self._end_text}" for choice in self.choices]
        context, *full = self._encode([border, *texts])
        shared = min(_count_shared(context, ids) for ids in full)
        return _Choices(context[:shared], [ids[shared:] for ids in full], [] if self._end_text else self._ends)

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of rendered texts, without an end token where a decoder continues them."""
        if self._has_template:
            return [encoding.ids for encoding in encode_rendered(self._tokenizer, texts)]
        encodings = encode_with_offsets(self._tokenizer, texts)
        if self._is_pair:
            return [encoding.ids for encoding in encodings]
        return [_drop_end(encoding.ids, encoding.special_tokens_mask) for encoding in encodings]

    def _render(self, prompt: str) -> str:
        """The prompt as the user's message with the beginning of the answer, in which names of tokens are hidden.

        The prompt itself if there is no chat template.
        """
        if not self._has_template:
            return prompt
        content = get_special_tokens(self._tokenizer).hide(prompt)
        return self._render_turn(content) + self._answer_lead

    def _render_turn(self, content: str, answer: str = "") -> str:
        """The conversation as text: up to the answer if there is none."""
        messages = [{"role": "user", "content": content}]
        messages += [{"role": "assistant", "content": answer}] if answer else []
        try:
            return render_conversation(self._tokenizer, Conversation(messages), prompt=not answer)
        except ValueError as fault:
            raise ModelError(str(fault), where=str(self.path), fix=_NO_GENERATION) from fault

    @cached_property
    def _answer_lead(self) -> str:
        """What the chat template writes between the beginning of the assistant's turn and its content."""
        question, whole = self._render_turn("question"), self._render_turn("question", _PROBE)
        lead, _, _ = whole.removeprefix(question).partition(_PROBE)
        return lead if whole.startswith(question) else ""

    @cached_property
    def _end_text(self) -> str:
        """What ends an answer that continues a prompt; '' if an end token does, as where line ends are no tokens."""
        if self._is_pair or self._has_template or not self.stops:
            return ""
        [encoding] = encode_with_offsets(self._tokenizer, self.stops[:1], special=False)
        return self.stops[0] if encoding.ids else ""

    @property
    def _stops(self) -> Sequence[str]:
        """The texts that end an answer; none for a model that ends its turn itself."""
        return () if self._has_template or self._is_pair else self.stops

    @cached_property
    def _has_template(self) -> bool:
        template = self._tokenizer.chat_template
        return "default" in template if isinstance(template, dict) else bool(template)

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        tokenizer = load_tokenizer(self.path)
        template = tokenizer.chat_template
        if template and (isinstance(template, str) or "default" in template):
            try:
                tokenizer.chat_template = resolve_template(tokenizer, "")
            except ModelError as fault:
                fix = "Write a fixed date into its chat_template.jinja, or use an api."
                raise ModelError(fault.what, where=fault.where, fix=fix) from fault
        return tokenizer

    @cached_property
    def _config(self) -> PretrainedConfig:
        from transformers import AutoConfig

        try:
            return AutoConfig.from_pretrained(
                self.path, local_files_only=True, trust_remote_code=own_code.may_run(self.path)
            )
        except (OSError, ValueError) as fault:
            raise ModelError(f"cannot be loaded: {fault}", where=str(self.path), fix=_NO_GENERATION) from fault

    @cached_property
    def _max_tokens(self) -> int:
        return get_max_tokens(self._config.get_text_config())

    @cached_property
    def _is_pair(self) -> bool:
        """Whether the model is an encoder-decoder."""
        return bool(self._config.is_encoder_decoder)

    @cached_property
    def _ends(self) -> list[int]:
        """The ids at which generation stops: a chat model may have one for turns and one for texts."""
        from transformers import GenerationConfig

        ids: Any = None
        if (self.path / "generation_config.json").is_file():
            ids = GenerationConfig.from_pretrained(self.path, local_files_only=True).eos_token_id
        listed = ids if isinstance(ids, list) else [ids]
        return [token for token in dict.fromkeys([self._tokenizer.eos_token_id, *listed]) if token is not None]

    @cached_property
    def _model(self) -> PreTrainedModel:
        model = self._load_model()
        if self.choices and not self._end_text and not self._ends:
            fix = "Set eos_token in tokenizer_config.json."
            raise ModelError("has no end-of-text token, which ends a label", where=str(self.path), fix=fix)
        return model

    def _load_model(self) -> PreTrainedModel:
        auto = "AutoModelForSeq2SeqLM" if self._is_pair else "AutoModelForCausalLM"
        if self._is_pair and hasattr(self._tokenizer, "_switch_to_target_mode"):
            raise ModelError(
                f"its tokenizer ({type(self._tokenizer).__name__}) encodes answers otherwise than prompts",
                where=str(self.path),
                fix=_NO_GENERATION,
            )
        try:
            model = load_with_head(auto, self.path, all_weights=True).eval().to(best_device())
        except ModelError as fault:
            raise ModelError(fault.what, where=fault.where, fix=_NO_GENERATION) from fault
        if not self._is_pair and not _is_causal(model):
            raise ModelError("reads texts in both directions: it writes none", where=str(self.path), fix=_NO_GENERATION)
        return model


def _is_causal(model: PreTrainedModel) -> bool:
    """Whether the logits after the first token do not depend on the second one, as those of an encoder do.

    transformers loads encoders as decoders too: BERT as BertLMHeadModel, which without is_decoder attends both ways.
    """
    import torch

    with torch.inference_mode():
        ids = torch.tensor([[0, 1], [0, 2]], device=model.device)
        first, second = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, 0].float()
    return bool((first - second).abs().max() <= 1e-5 * first.abs().max())


def _count_shared(first: Sequence[int], second: Sequence[int]) -> int:
    """The number of tokens with which both begin."""
    pairs = zip(first, second, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def _drop_end(ids: Sequence[int], is_special: Sequence[int]) -> list[int]:
    """The ids without the special tokens that a tokenizer puts at the end."""
    end = len(ids)
    while end and is_special[end - 1]:
        end -= 1
    return list(ids[:end])
