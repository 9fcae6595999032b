"""Shared by the PEFT methods: task type, head, target layers, and loading an adapter onto its base model.

Every model registered as an adapter has a copy of this module, so that it serves with the code it was tested with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

# PEFT's task type by the end of the model class's name. Without a task type a new head is neither trained nor saved.
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
    """PEFT's task type of `model`; raises ModelError if PEFT has none for its class."""
    name = type(model).__name__
    suffixes = [suffix for suffix in _TASK_TYPES if name.endswith(suffix)]
    if not suffixes:
        raise ModelError(
            "adapters are not supported for this class of model",
            where=name,
            fix=f"Supported are {', '.join(_TASK_TYPES)}; choose the method full or freeze.",
        )
    return _TASK_TYPES[max(suffixes, key=len)]


def find_new_head(model: PreTrainedModel) -> list[str] | None:
    """The names of modules with new weights for the task: those outside the base model, and its pooler; None if none.

    A causal language model's head is pre-trained. Of a masked language model's head, encoders' files often lack all
    layers but the last, which is the token embedding.
    """
    if type(model).__name__.endswith("ForMaskedLM"):
        return _find_layers_before_output(model)
    if find_task_type(model) not in _WITH_NEW_HEAD:
        return None
    body = model.base_model
    head = [
        name for name, child in model.named_children() if child is not body and any(True for _ in child.parameters())
    ]
    return head + [name for name, _ in body.named_children() if name == "pooler"]


def _find_layers_before_output(model: PreTrainedModel) -> list[str] | None:
    """The names of the head's layers with parameters, except the output layer; None if there are none."""
    body, last = model.base_model, model.get_output_embeddings()
    head = {id(module) for child in model.children() if child is not body for module in child.modules()}
    layers = [(name, module) for name, module in model.named_modules() if id(module) in head and module is not last]
    names = [name for name, module in layers if not any(module.children()) and any(True for _ in module.parameters())]
    return names or None


def select_target_modules(
    model: PreTrainedModel,
    wanted: Sequence[str],
    usual: Mapping[str, Any],
    others: Sequence[Sequence[str]],
    option: str = "target_modules",
) -> list[str]:
    """The name suffixes of the target layers: `wanted`, else `usual` for the model's type, else one of `others`.

    Of the last two, the first list of which the model has every name; empty if there is none. Raises ModelError for a
    wanted name that no layer has, and for one whose weights are tied to the token embedding.
    """
    layers = list_linear_layers(model)
    missing = [name for name in wanted if not any(_matches_suffix(full, name) for full in layers)]
    if missing:
        raise ModelError(
            f"method.{option}: no linear layer of the model is called {', '.join(missing)}",
            where=type(model).__name__,
            fix=f"There are {', '.join(_list_last_parts(layers))}.",
        )
    _refuse_tied(model, wanted, layers, option)
    if wanted:
        return list(wanted)
    usual_names = usual.get(model.config.model_type, [])
    # PEFT's defaults may be a string instead of a list of names: then they are not used.
    for names in ([] if isinstance(usual_names, str) else usual_names, *others):
        if names and all(any(_matches_suffix(full, name) for full in layers) for name in names):
            return list(names)
    return []


def list_linear_layers(model: PreTrainedModel, *, inner: bool = False) -> dict[str, nn.Module]:
    """The linear layers by name; with `inner` without those of a new head or a language model's head."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    linear = {name: module for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))}
    if not inner:
        return linear
    head, output = find_new_head(model) or [], model.get_output_embeddings()
    body = {id(module) for module in model.base_model.modules()}
    return {
        name: module
        for name, module in linear.items()
        if id(module) in body and module is not output and not set(name.split(".")) & set(head)
    }


def load_adapter(model: PreTrainedModel, directory: Path) -> Any:
    """A PeftModel of `model` with the adapter in `directory` beside its weights."""
    from peft import PeftModel

    return align_outputs(PeftModel.from_pretrained(model, directory, torch_device="cpu"))


def load_for_serving(model: PreTrainedModel, directory: Path) -> Any:
    """`model` with the adapter in `directory`: merged into its weights if possible, else beside them."""
    adapted = load_adapter(model, directory)
    return adapted if adapted.active_peft_config.is_prompt_learning else merge_adapter(adapted)


def merge_adapter(model: Any) -> PreTrainedModel:
    """The base model with the PeftModel's adapter merged into its weights, in place, and the trained head."""
    from peft.utils import ModulesToSaveWrapper

    base = model.get_base_model()
    # PEFT (0.21) cannot unload (IA)3 if the head has submodules.
    for name, module in list(base.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            base.set_submodule(name, module.modules_to_save[model.active_adapter])
    plain: PreTrainedModel = model.merge_and_unload()
    return plain


def align_outputs(model: Any) -> Any:
    """The PeftModel itself, with hooks that give its outputs the shape and meaning of the base model's.

    With virtual tokens PEFT (0.21) passes rows to the model as vectors: logits then start with those of the virtual
    tokens, and a decoder's classification head, which finds padding by token ids, reads the padding.
    """
    config = model.active_peft_config
    if not config.is_prompt_learning:
        return model
    model.register_forward_pre_hook(_check_positions, with_kwargs=True)
    if config.peft_type != "PROMPT_TUNING":
        return model
    if config.task_type != "SEQ_CLS":
        model.register_forward_hook(_cut_prompt, with_kwargs=True)
    elif hasattr(model.get_base_model(), "score"):
        last = _LastToken(config.num_virtual_tokens)
        model.register_forward_pre_hook(last.record_positions, with_kwargs=True)
        model.get_base_model().score.register_forward_hook(last.move_to_end)
    return model


class _LastToken:
    """Copies a decoder head's logits for each row's last token to the last position, where they are then read."""

    def __init__(self, prompt: int) -> None:
        self._prompt = prompt
        self._last: Tensor | None = None

    def record_positions(self, _: nn.Module, __: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        """Record the position of each row's last token; rows are padded on the right."""
        self._last = self._prompt + inputs["attention_mask"].sum(1) - 1

    def move_to_end(self, _: nn.Module, __: tuple[Any, ...], logits: Tensor) -> Tensor:
        """The logits [rows, positions, labels], the last position replaced by that of each row's last token."""
        import torch

        rows = torch.arange(len(logits), device=logits.device)
        return torch.cat([logits[:, :-1], logits[rows, self._last][:, None]], 1)


def _cut_prompt(model: Any, _: tuple[Any, ...], inputs: dict[str, Any], output: Any) -> Any:
    """Remove the logits of the virtual tokens from the output."""
    full_length = inputs["input_ids"].shape[1] + model.active_peft_config.num_virtual_tokens
    for name in ("logits", "start_logits", "end_logits"):
        logits = output.get(name)
        if logits is not None and logits.shape[1] == full_length and not model.config.is_encoder_decoder:
            output[name] = logits[:, -inputs["input_ids"].shape[1] :]
    return output


def _check_positions(model: Any, _: tuple[Any, ...], inputs: dict[str, Any]) -> None:
    """Raise ModelError if virtual tokens and rows together are longer than the table of position embeddings."""
    virtual, tokens = model.active_peft_config.num_virtual_tokens, inputs["input_ids"].shape[1]
    for name, module in model.get_base_model().named_modules():
        if name.rpartition(".")[2] in _POSITIONS and hasattr(module, "num_embeddings"):
            # With a padding index (RoBERTa) positions start after it.
            limit = module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
            if virtual + tokens > limit:
                raise ModelError(
                    f"{virtual} virtual tokens and a row of {tokens} are more than its {limit} positions",
                    where=type(model.get_base_model()).__name__,
                    fix=f"Set tokenization.max_length to {max(limit - virtual, 0)} or less, or fewer virtual tokens.",
                )


def _refuse_tied(model: PreTrainedModel, wanted: Sequence[str], layers: Mapping[str, nn.Module], option: str) -> None:
    embedding = model.get_input_embeddings().weight
    tied = [
        full
        for full, module in layers.items()
        if module.weight is embedding and any(_matches_suffix(full, name) for name in wanted)
    ]
    if tied:
        raise ModelError(
            f"method.{option}: the weights of {', '.join(tied)} are tied to the word embedding,"
            " which merging an adapter would change",
            where=type(model).__name__,
            fix="Leave it out.",
        )


def _matches_suffix(full: str, name: str) -> bool:
    return full == name or full.endswith(f".{name}")


def _list_last_parts(names: Iterable[str]) -> list[str]:
    """The last parts of the names, each once, in their order of occurrence."""
    return list(dict.fromkeys(name.rpartition(".")[2] for name in names))
