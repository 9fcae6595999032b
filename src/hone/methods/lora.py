"""Low-rank adaptation (Hu et al., arXiv 2106.09685) by PEFT, with DoRA (2402.09353) and rsLoRA (2312.03732)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hone.errors import ModelError
from hone.options import option

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# PEFT's kind of model by the end of the class's name. Without it a new head is neither trained nor saved.
_TASK_TYPES = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "ForMaskedLM": "FEATURE_EXTRACTION",  # PEFT has no kind of its own for it
}
_WITH_NEW_HEAD = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")


@dataclass(frozen=True)
class Lora:
    """Small matrices beside the frozen weights move, and the head."""

    adapter: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("peft",)

    rank: int = option(16, "Rank of the matrices that are added.", ge=1, le=1024)
    alpha: int = option(32, "Their output is scaled by alpha / rank.", ge=1)
    dropout: float = option(0.05, "Dropout before them.", ge=0, lt=1)
    target_modules: tuple[str, ...] = option(
        (), "The linear layers they are added to, by the ends of their names; those usual for the model where empty."
    )
    dora: bool = option(False, "Split each weight into magnitude and direction (DoRA).")
    rslora: bool = option(False, "Scale by alpha / sqrt(rank): steadier at high ranks (rsLoRA).")
    merged: bool = option(True, "Register the merged weights; false registers the adapter alone.")

    def prepare(self, model: PreTrainedModel) -> Any:
        """A PeftModel of `model`: adapters and the head move. Raises ModelError for a name that no layer has."""
        from peft import LoraConfig, get_peft_model

        task = _task_type(model)
        config = LoraConfig(
            task_type=task,
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=self._targets(model),
            modules_to_save=_new(model, task),
            use_dora=self.dora,
            use_rslora=self.rslora,
        )
        return get_peft_model(model, config)

    def merge(self, model: Any) -> PreTrainedModel:
        """The base model with the adapters added into its weights, in place, and the trained head."""
        plain: PreTrainedModel = model.merge_and_unload()
        return plain

    def _targets(self, model: PreTrainedModel) -> list[str] | str:
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as USUAL

        there = _linear_names(model)
        missing = [name for name in self.target_modules if not any(_ends(full, name) for full in there)]
        if missing:
            raise ModelError(
                f"method.target_modules: no linear layer of the model is called {', '.join(missing)}",
                where=type(model).__name__,
                fix=f"There are {', '.join(_short(there))}.",
            )
        usual = USUAL.get(model.config.model_type, [])
        fits = usual and all(any(_ends(full, name) for full in there) for name in usual)
        return list(self.target_modules) or (list(usual) if fits else "all-linear")


def _task_type(model: PreTrainedModel) -> str:
    name = type(model).__name__
    for end, task in _TASK_TYPES.items():
        if name.endswith(end):
            return task
    raise ModelError(
        "LoRA does not know this kind of model",
        where=name,
        fix=f"It knows {', '.join(_TASK_TYPES)}; choose the method full or freeze.",
    )


def _new(model: PreTrainedModel, task: str) -> list[str] | None:
    """What the adapter is to hold whole, for it may be new: None where the head is the base model's own."""
    if task in _WITH_NEW_HEAD:
        return _head(model)
    return _transform(model) if task == _TASK_TYPES["ForMaskedLM"] else None


def _transform(model: PreTrainedModel) -> list[str]:
    """The layers of a head for masked words before the last, which is the word embedding; encoders often lack them."""
    body, last = model.base_model, model.get_output_embeddings()
    beside = {id(module) for child in model.children() if child is not body for module in child.modules()}
    layers = [(name, module) for name, module in model.named_modules() if id(module) in beside and module is not last]
    return [name for name, module in layers if not any(module.children()) and any(True for _ in module.parameters())]


def _head(model: PreTrainedModel) -> list[str]:
    """What is new or made anew for the task: the modules beside the base model, and its pooler."""
    body = model.base_model
    beside = [
        name for name, child in model.named_children() if child is not body and any(True for _ in child.parameters())
    ]
    return beside + [name for name, _ in body.named_children() if name == "pooler"]


def _linear_names(model: PreTrainedModel) -> list[str]:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))]


def _ends(full: str, name: str) -> bool:
    return full == name or full.endswith(f".{name}")


def _short(names: Iterable[str]) -> list[str]:
    """The last parts of the names, each once, in the order they come."""
    return list(dict.fromkeys(name.rpartition(".")[2] for name in names))
