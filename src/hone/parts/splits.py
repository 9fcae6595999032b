"""The names that data sets use for their splits."""

from __future__ import annotations

TRAIN, VALID, TEST = "train", "valid", "test"
SPLITS = (TRAIN, VALID, TEST)
SPLIT_NAMES = {
    TRAIN: ("train", "training", "trn"),
    VALID: ("valid", "validation", "val", "dev", "devel", "development", "eval"),
    TEST: ("test", "testing", "tst", "heldout", "held-out", "held_out"),
}
KNOWN_NAMES = tuple(name for names in SPLIT_NAMES.values() for name in names)
_SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}


def get_split(name: object) -> str:
    """The split that a data set's name for it means: train, valid or test; '' for any other value."""
    return _SPLIT_OF.get(name.strip().lower(), "") if isinstance(name, str) else ""
