"""Every error that Hone raises on purpose.

HoneError                       exit 1
├── ConfigError                 exit 2   a configuration that cannot be run
├── DataError                   exit 3   rows are missing, or do not match the configuration
│   └── ValidationFailed        exit 4   the rows were read, but fail an expectation
├── ModelError                  exit 5   a base model cannot be loaded or does not fit the objective
│   └── DamagedVersion                   a file of a registered version's run is not what was logged
├── TrainingError               exit 6   the training process failed
│   ├── NonFiniteLoss                    the loss became nan or infinite
│   ├── OutOfMemory                      not even the smallest micro-batch fits
│   └── CheckpointError                  a checkpoint marked as complete cannot be read
├── StoreError                  exit 7   the artifact store is full, unwritable or damaged
├── ServiceError                exit 8   a server (Prefect, MLflow, a database) did not answer; worth a retry
└── PromotionError              exit 9   the champion is unchanged
    ├── PromotionRefused                 a gate failed, or a person declined
    └── ChampionMoved                    someone else moved the champion meanwhile

Each message states what happened, where, and how to fix it; the command adds the page of the documentation about errors
of its class. A run interrupted by a person exits with 130.
"""

from __future__ import annotations

from typing import ClassVar

from hone.display import escape_controls, mask_secrets

# A value that is named in a message may be a whole document.
LONGEST_LINE = 1_000


class HoneError(Exception):
    """What happened, where (a file, a row, a field, a stage) and how to fix it.

    `str()` gives the message to print, without secrets of URLs, with control characters made visible and without the
    middle of very long lines; `retryable` is true if the same call may succeed later. `page` is the page of the
    documentation to read next.
    """

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    page: ClassVar[str] = "docs/operations.md"

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what, where, fix)
        self.what, self.where, self.fix = what, where, fix

    def __str__(self) -> str:
        message = f"{self.where}: {self.what}" if self.where else self.what
        lines = mask_secrets(f"{message}\n  {self.fix}" if self.fix else message).split("\n")
        return escape_controls("\n".join(map(_cut, lines)))

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.fix)


def _cut(line: str) -> str:
    """The line, without its middle if it is too long."""
    left_out = len(line) - LONGEST_LINE
    half = LONGEST_LINE // 2
    return line if left_out <= 0 else f"{line[:half]} ... {left_out:,} characters left out ... {line[-half:]}"


def _rebuild(kind: type[HoneError], what: str, where: str, fix: str) -> HoneError:
    return kind(what, where=where, fix=fix)


class ConfigError(HoneError):
    """A configuration that cannot be run."""

    exit_code = 2
    page = "README.md"  # its table leads from each section of a configuration to a page


class DataError(HoneError):
    """Rows are missing, or do not match the configuration."""

    exit_code = 3
    page = "docs/fine-tune-your-data.md"


class ValidationFailed(DataError):
    """An expectation about the rows does not hold."""

    exit_code = 4
    page = "docs/validation.md"


class ModelError(HoneError):
    """A base model that cannot be loaded, or that does not fit the objective."""

    exit_code = 5
    page = "README.md"  # as for a configuration: base models, methods and registered versions have pages of their own


class DamagedVersion(ModelError):
    """A file of a registered version's run is not what was logged: the version exists, and can be registered again."""


class TrainingError(HoneError):
    """The training process failed."""

    exit_code = 6
    page = "docs/training.md"


class NonFiniteLoss(TrainingError):
    """The loss became nan or infinite."""


class OutOfMemory(TrainingError):
    """The device's memory does not hold even the smallest micro-batch."""


class CheckpointError(TrainingError):
    """A checkpoint marked as complete cannot be read."""


class StoreError(HoneError):
    """The artifact store is full, unwritable or damaged."""

    exit_code = 7


class ServiceError(HoneError):
    """A server did not answer; the same call may succeed later."""

    exit_code = 8
    retryable = True


class PromotionError(HoneError):
    """The champion is unchanged, or has been restored."""

    exit_code = 9
    page = "docs/promotion.md"


class PromotionRefused(PromotionError):
    """A gate failed, or the person who was asked declined."""


class ChampionMoved(PromotionError):
    """The champion is no longer the one that the comparison started from."""


class SkippedRow(ValueError):
    """A row that is not meant to be used, such as one that an annotator rejected: it is left out and counted by reason.

    Not a fault, so no HoneError: ingest catches it. Elsewhere it is what its base class says: a row without a meaning.
    """
