"""A base model with the head of an objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import ModelError
from hone.models import own_code
from hone.objectives.shared.padding import pad_on_left
from hone.objectives.shared.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from hone.objectives.base import Batch


def load_with_head(
    auto: str, base: Path, *, labels: Sequence[str] = (), whole: bool = False, **options: Any
) -> PreTrainedModel:
    """The model that the transformers class `auto` makes of the directory `base`, in float32.

    With `labels` its head has one output for each. A new head's weights are random: seed torch before. A `whole` model
    has none: its head is the base's own. `config.pad_token_id` is the id to collate with. Raises ModelError where the
    weights do not fit the architecture, or it has no such head.
    """
    import torch
    import transformers

    if labels:
        names = dict(enumerate(labels))
        options |= {"num_labels": len(names), "id2label": names, "label2id": {name: i for i, name in names.items()}}
    try:
        model, loading = getattr(transformers, auto).from_pretrained(
            base,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=own_code.may_run(base),
            ignore_mismatched_sizes=True,  # of another task's head, which gives way to the new one
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, RuntimeError) as fault:
        why = str(fault).partition("\nModel type should be one of")[0]  # a list of a hundred
        raise ModelError(
            f"cannot be loaded with the head that the objective needs: {why}",
            where=str(base),
            fix=f"Choose a base model that transformers' {auto} knows.",
        ) from fault
    _refuse_random(model, loading, base, whole)
    _set_padding(model, base)
    return model


def text_logits(model: Any, batch: Batch) -> Tensor:
    """What a sequence classification head says of each text: float32 [rows, outputs].

    XLNet's head reads the last position, padding or not, as its own tokenizer pads on the left.
    """
    if getattr(model.config, "summary_type", "") == "last":
        batch = pad_on_left(batch)
    logits: Tensor = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits.float()


def _refuse_random(model: PreTrainedModel, loading: Mapping[str, Any], base: Path, whole: bool) -> None:
    """Raise ModelError where weights were not there, or of another shape.

    A pooler's may be, and those of a new head, unless the model is `whole`.
    """
    inside = f"{model.base_model_prefix}."
    absent = [*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])]
    lacking = sorted(key for key in absent if (whole or key.startswith(inside)) and ".pooler." not in f".{key}")
    if lacking:
        raise ModelError(
            f"{len(lacking)} of its weights are not in its files, or not of the shape config.json says: "
            + ", ".join(lacking[:3]),
            where=str(base),
            fix="config.json and the safetensors must be of the same model.",
        )


def _set_padding(model: PreTrainedModel, base: Path) -> None:
    """Decoders find a row's last token by the padding id: it must be the one that batches are padded with."""
    if (base / "tokenizer_config.json").is_file() or model.config.pad_token_id is None:
        model.config.pad_token_id = load_tokenizer(base).pad_token_id
