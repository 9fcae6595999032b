"""What the methods of PEFT share: the kind of model, the head that is saved, the layers, and the way back onto a base.

It lies in every model that is registered as an adapter: what answers there is what was tested.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

# PEFT's kind of model by the end of the class's name. Without it a new head is neither trained nor saved.
_TASK_TYPES = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
    "ForQuestionAnsweringSimple": "QUESTION_ANS",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "ForMaskedLM": "FEATURE_EXTRACTION",
    "Model": "FEATURE_EXTRACTION",
}
_WITH_NEW_HEAD = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")
_POSITIONS = ("position_embeddings", "wpe")


def find_task_type(model: PreTrainedModel) -> str:
    """PEFT's name for the kind of `model`; raises ModelError for one that it has no name for."""
    name = type(model).__name__
    ends = [end for end in _TASK_TYPES if name.endswith(end)]
    if not ends:
        raise ModelError(
            "adapters are not known for this kind of model",
            where=name,
            fix=f"They are for {', '.join(_TASK_TYPES)}; choose the method full or freeze.",
        )
    return _TASK_TYPES[max(ends, key=len)]


def find_new_head(model: PreTrainedModel) -> list[str] | None:
    """What is new or made anew for the task: the modules beside the base model, and its pooler; None where nothing is.

    A language model's head is its own, trained with it; of one for masked words encoders often lack all but the last
    layer, which is the word embedding.
    """
    if type(model).__name__.endswith("ForMaskedLM"):
        return _before_last(model)
    if find_task_type(model) not in _WITH_NEW_HEAD:
        return None
    body = model.base_model
    beside_body = [
        name for name, child in model.named_children() if child is not body and any(True for _ in child.parameters())
    ]
    return beside_body + [name for name, _ in body.named_children() if name == "pooler"]


def _before_last(model: PreTrainedModel) -> list[str] | None:
    """The layers of a model's head before its last."""
    body, last = model.base_model, model.get_output_embeddings()
    beside_body = {id(module) for child in model.children() if child is not body for module in child.modules()}
    layers = [
        (name, module) for name, module in model.named_modules() if id(module) in beside_body and module is not last
    ]
    found = [name for name, module in layers if not any(module.children()) and any(True for _ in module.parameters())]
    return found or None


def select_target_modules(
    model: PreTrainedModel,
    wanted: Sequence[str],
    usual: Mapping[str, Any],
    others: Sequence[Sequence[str]],
    option: str = "target_modules",
) -> list[str]:
    """The ends of names of linear layers: those `wanted`, else the `usual` ones of the model's type, else of `others`.

    They are the first of these lists of which the model has every name, and none where it has not one whole list.
    Raises ModelError for a wanted name that no layer has, and for one whose weights are the word embedding's too.
    """
    there = list_linear_layers(model)
    missing = [name for name in wanted if not any(_ends(full, name) for full in there)]
    if missing:
        raise ModelError(
            f"method.{option}: no linear layer of the model is called {', '.join(missing)}",
            where=type(model).__name__,
            fix=f"There are {', '.join(_short(there))}.",
        )
    _refuse_tied(model, wanted, there, option)
    if wanted:
        return list(wanted)
    known = usual.get(model.config.model_type, [])
    for names in ([] if isinstance(known, str) else known, *others):
        if names and all(any(_ends(full, name) for full in there) for name in names):
            return list(names)
    return []


def list_linear_layers(model: PreTrainedModel, *, inner: bool = False) -> dict[str, nn.Module]:
    """The linear layers by name; with `inner` without those of a new head or a language model's."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    linear = {name: module for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))}
    if not inner:
        return linear
    apart, out = find_new_head(model) or [], model.get_output_embeddings()
    body = {id(module) for module in model.base_model.modules()}
    return {
        name: module
        for name, module in linear.items()
        if id(module) in body and module is not out and not set(name.split(".")) & set(apart)
    }


def load_adapter(model: PreTrainedModel, directory: Path) -> Any:
    """A PeftModel of `model` with the adapter in `directory` beside its weights."""
    from peft import PeftModel

    return align_outputs(PeftModel.from_pretrained(model, directory, torch_device="cpu"))


def load_for_serving(model: PreTrainedModel, directory: Path) -> Any:
    """`model` with the adapter in `directory`: in its weights where it can be, else beside them."""
    adapted = load_adapter(model, directory)
    return adapted if adapted.active_peft_config.is_prompt_learning else merge_adapter(adapted)


def merge_adapter(model: Any) -> PreTrainedModel:
    """The base model with the adapter of the PeftModel in its weights, in place, and the trained head."""
    from peft.utils import ModulesToSaveWrapper

    base = model.get_base_model()
    # PEFT (0.21) cannot unload (IA)3 where a head has parts of its own.
    for name, module in list(base.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            base.set_submodule(name, module.modules_to_save[model.active_adapter])
    plain: PreTrainedModel = model.merge_and_unload()
    return plain


def align_outputs(model: Any) -> Any:
    """The PeftModel itself, made to say as much of a row as its base does, where virtual tokens stand before it.

    PEFT (0.21) hands such rows to the model as vectors: logits then begin with those of the virtual tokens, and a
    decoder's classification head, which knows padding by token ids, reads the padding.
    """
    config = model.active_peft_config
    if not config.is_prompt_learning:
        return model
    model.register_forward_pre_hook(_positions_suffice, with_kwargs=True)
    if config.peft_type != "PROMPT_TUNING":
        return model
    if config.task_type != "SEQ_CLS":
        model.register_forward_hook(_cut_prompt, with_kwargs=True)
    elif hasattr(model.get_base_model(), "score"):
        last = _LastToken(config.num_virtual_tokens)
        model.register_forward_pre_hook(last.note, with_kwargs=True)
        model.get_base_model().score.register_forward_hook(last.pick)
    return model


class _LastToken:
    """Puts what a decoder's head says of each row's last token at the last position, where it is then read."""

    def __init__(self, prompt: int) -> None:
        self._prompt = prompt
        self._last: Tensor | None = None

    def note(self, _: nn.Module, __: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        """Remember where the rows of a batch end; they are padded on the right."""
        self._last = self._prompt + inputs["attention_mask"].sum(1) - 1

    def pick(self, _: nn.Module, __: tuple[Any, ...], logits: Tensor) -> Tensor:
        """The logits [rows, positions, labels] with those of the last tokens last."""
        import torch

        rows = torch.arange(len(logits), device=logits.device)
        return torch.cat([logits[:, :-1], logits[rows, self._last][:, None]], 1)


def _cut_prompt(model: Any, _: tuple[Any, ...], inputs: dict[str, Any], output: Any) -> Any:
    """Leave out what the model says of the virtual tokens."""
    long = inputs["input_ids"].shape[1] + model.active_peft_config.num_virtual_tokens
    for name in ("logits", "start_logits", "end_logits"):
        said = output.get(name)
        if said is not None and said.shape[1] == long and not model.config.is_encoder_decoder:
            output[name] = said[:, -inputs["input_ids"].shape[1] :]
    return output


def _positions_suffice(model: Any, _: tuple[Any, ...], inputs: dict[str, Any]) -> None:
    """Raise ModelError where virtual tokens and a row are longer than a table of positions."""
    virtual, tokens = model.active_peft_config.num_virtual_tokens, inputs["input_ids"].shape[1]
    for name, module in model.get_base_model().named_modules():
        if name.rpartition(".")[2] in _POSITIONS and hasattr(module, "num_embeddings"):
            room = module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
            if virtual + tokens > room:
                raise ModelError(
                    f"{virtual} virtual tokens and a row of {tokens} are more than its {room} positions",
                    where=type(model.get_base_model()).__name__,
                    fix=f"Set tokenization.max_length to {max(room - virtual, 0)} or less, or fewer virtual tokens.",
                )


def _refuse_tied(model: PreTrainedModel, wanted: Sequence[str], there: Mapping[str, nn.Module], option: str) -> None:
    words = model.get_input_embeddings().weight
    tied = [full for full, module in there.items() if module.weight is words and any(_ends(full, n) for n in wanted)]
    if tied:
        raise ModelError(
            f"method.{option}: the weights of {', '.join(tied)} are those of the word embedding too,"
            " which an adapter would change when it is merged",
            where=type(model).__name__,
            fix="Leave it out.",
        )


def _ends(full: str, name: str) -> bool:
    return full == name or full.endswith(f".{name}")


def _short(names: Iterable[str]) -> list[str]:
    """The last parts of the names, each once, in the order they come."""
    return list(dict.fromkeys(name.rpartition(".")[2] for name in names))
