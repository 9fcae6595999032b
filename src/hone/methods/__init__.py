"""How weights may move: one file for each method, one line for it in the table."""

from __future__ import annotations

from hone.methods.freeze import Freeze
from hone.methods.full import Full
from hone.methods.lora import Lora
from hone.methods.method import Method
from hone.plugins import installed

METHODS: dict[str, type[Method]] = {
    "full": Full,
    "freeze": Freeze,
    "lora": Lora,
}
METHODS.update(installed("hone.methods"))
