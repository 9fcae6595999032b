"""The names of the splits: in tables, file names, configurations and metrics, and the names that data sets use."""

from __future__ import annotations

from typing import Final, Literal

TRAIN: Final = "train"
VALID: Final = "valid"
TEST: Final = "test"
SPLITS = (TRAIN, VALID, TEST)
FLAW = "curation_flaw"  # the column with the reasons for which curation would have dropped a held-out row

Split = Literal["train", "valid", "test"]

NAMES_IN_DATA = {
    TRAIN: ("train", "training", "trn"),
    VALID: ("valid", "validation", "val", "dev", "devel", "development", "eval"),
    TEST: ("test", "testing", "tst", "heldout", "held-out", "held_out"),
}
KNOWN_NAMES = tuple(name for names in NAMES_IN_DATA.values() for name in names)
_SPLIT_OF = {name: split for split, names in NAMES_IN_DATA.items() for name in names}


def get_split(name: object) -> str:
    """The split that a data set's name for it means: train, valid or test; '' for any other value."""
    return _SPLIT_OF.get(name.strip().lower(), "") if isinstance(name, str) else ""
