"""What a training moves: the modules whose parameters are trained, by name."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

_WRAPPER, _COPY = "base_model.model.", ".modules_to_save"  # PEFT's, around the base model and within a head


def list_trained_modules(model: Any) -> list[str]:
    """The largest modules (else parameters) of which all parameters are trained; [] if the whole model is.

    Those that differ in the number of a layer alone are one: `bert.encoder.layer.10-11`.
    """
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    if not frozen:
        return []
    partly = {prefix for name in frozen for prefix in _list_prefixes(name)}
    names = dict.fromkeys(
        next((prefix for prefix in _list_prefixes(name) if prefix not in partly), name)
        for name, _ in model.named_parameters()
        if name in trained
    )
    return _merge_layers(name.removeprefix(_WRAPPER).removesuffix(_COPY) for name in names)


def _list_prefixes(name: str) -> list[str]:
    """The modules around a parameter, outermost first: `a`, `a.b` of a.b.weight."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _merge_layers(names: Iterable[str]) -> list[str]:
    """The names, with one for those that are equal but for their first number."""
    numbers_by_form: dict[str, list[int]] = {}
    for name in names:
        parts = name.split(".")
        place = next((index for index, part in enumerate(parts) if part.isdecimal()), None)
        form = name if place is None else ".".join([*parts[:place], "{}", *parts[place + 1 :]])
        numbers_by_form.setdefault(form, []).extend([] if place is None else [int(parts[place])])
    return [form.format(_describe_numbers(numbers)) for form, numbers in numbers_by_form.items()]


def _describe_numbers(numbers: list[int]) -> str:
    """`0-2,5` for 0, 1, 2 and 5."""
    runs = [
        [number for _, number in run] for _, run in groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0])
    ]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
