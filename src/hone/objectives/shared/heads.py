"""A base model with the head that an objective needs."""

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
    auto: str, base: Path, *, labels: Sequence[str] = (), all_weights: bool = False, **options: Any
) -> PreTrainedModel:
    """The model in the directory `base`, float32, loaded by the transformers class named `auto`.

    With `labels` its head has one output for each. A new head's weights are random: seed torch first. `all_weights`
    refuses a new head: every weight must be in the base's files. `config.pad_token_id` is the id to collate with.
    Raises ModelError if the weights do not fit the architecture or it has no such head.
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
            ignore_mismatched_sizes=True,  # another task's head is replaced by a new one
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, RuntimeError) as fault:
        # Without transformers' list of a hundred model types.
        reason = str(fault).partition("\nModel type should be one of")[0]
        raise ModelError(
            f"cannot be loaded with the head that the objective needs: {reason}",
            where=str(base),
            fix=f"Choose a base model that transformers' {auto} knows.",
        ) from fault
    _check_weights(model, loading, base, all_weights)
    _set_padding_id(model, base)
    return model


def text_logits(model: Any, batch: Batch) -> Tensor:
    """The logits of a sequence classification head for each text: float32 [rows, outputs].

    XLNet's head reads the last position even if it is padding, because its own tokenizer pads on the left.
    """
    if getattr(model.config, "summary_type", "") == "last":
        batch = pad_on_left(batch)
    logits: Tensor = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits.float()


def _check_weights(model: PreTrainedModel, loading: Mapping[str, Any], base: Path, all_weights: bool) -> None:
    """Raise ModelError if weights are missing or of another shape, and so were initialized at random.

    A pooler's may be, and those of a new head, unless `all_weights`.
    """
    body_prefix = f"{model.base_model_prefix}."
    uninitialized = [*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])]
    missing = sorted(
        key for key in uninitialized if (all_weights or key.startswith(body_prefix)) and ".pooler." not in f".{key}"
    )
    if missing:
        raise ModelError(
            f"{len(missing)} of its weights are not in its files, or not of the shape in config.json: "
            + ", ".join(missing[:3]),
            where=str(base),
            fix="config.json and the safetensors must be of the same model.",
        )


def _set_padding_id(model: PreTrainedModel, base: Path) -> None:
    """Set the padding id that batches are padded with: decoders find a row's last token by it.

    Word embeddings give that token no gradient; with the id of config.json this might be one that rows contain.
    """
    if (base / "tokenizer_config.json").is_file() or model.config.pad_token_id is None:
        model.config.pad_token_id = pad_id = load_tokenizer(base).pad_token_id
        words = model.get_input_embeddings().weight.shape
        for module in model.modules():
            if getattr(module, "padding_idx", None) is not None and getattr(module, "weight", None) is not None:
                module.padding_idx = pad_id if module.weight.shape == words else module.padding_idx
