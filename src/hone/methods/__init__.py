"""The fine-tuning methods: one file and one line in the table for each."""

from __future__ import annotations

from hone.methods.freeze import Freeze
from hone.methods.full import Full
from hone.methods.ia3 import Ia3
from hone.methods.lora import Lora
from hone.methods.method import Method
from hone.methods.prefix import Prefix
from hone.methods.prompt import Prompt
from hone.methods.qlora import QLora
from hone.parts.plugins import PartTable

METHODS: PartTable[Method] = PartTable(
    "hone.methods",
    {
        "full": Full,
        "freeze": Freeze,
        "lora": Lora,
        "qlora": QLora,
        "ia3": Ia3,
        "prompt": Prompt,
        "prefix": Prefix,
    },
)
