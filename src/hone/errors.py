"""Every error that Hone raises on purpose.

HoneError                       exit 1
├── ConfigError                 exit 2   a configuration that cannot be run
├── DataError                   exit 3   the rows are not there, or are not what the config says
│   └── ValidationFailed        exit 4   the rows were read; an expectation about them does not hold
├── ModelError                  exit 5   a base model that cannot be loaded or does not fit the objective
├── TrainingError               exit 6   the training process failed
│   ├── NonFiniteLoss                    the loss became nan or infinite
│   ├── OutOfMemory                      no smaller micro-batch is left to try
│   └── CheckpointError                  a checkpoint that says it is complete cannot be read
├── StoreError                  exit 7   the artifact store is full, unwritable or damaged
├── ServiceError                exit 8   a server (Prefect, MLflow, a database) did not answer; worth a retry
└── PromotionError              exit 9   the champion stays what it was
    ├── PromotionRefused                 a gate, or a person, was against it
    └── ChampionMoved                    someone else moved it meanwhile

Each says what happened, where, and what to do about it. Interrupted by a person: exit 130.
"""

from __future__ import annotations

from typing import ClassVar


class HoneError(Exception):
    """What happened, where (a file, a row, a field, a stage) and what to do about it.

    `str()` of it is the message to print; `retryable` says whether the same call may pass later.
    """

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what, where, fix)
        self.what, self.where, self.fix = what, where, fix

    def __str__(self) -> str:
        message = f"{self.where}: {self.what}" if self.where else self.what
        return f"{message}\n  {self.fix}" if self.fix else message

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.fix)


def _rebuild(kind: type[HoneError], what: str, where: str, fix: str) -> HoneError:
    return kind(what, where=where, fix=fix)


class ConfigError(HoneError):
    """A configuration that cannot be run."""

    exit_code = 2


class DataError(HoneError):
    """The rows are not there, or are not what the configuration says."""

    exit_code = 3


class ValidationFailed(DataError):
    """An expectation about the rows does not hold."""

    exit_code = 4


class ModelError(HoneError):
    """A base model that cannot be loaded, or that does not fit the objective."""

    exit_code = 5


class TrainingError(HoneError):
    """The training process failed."""

    exit_code = 6


class NonFiniteLoss(TrainingError):
    """The loss became nan or infinite."""


class OutOfMemory(TrainingError):
    """The device's memory does not hold even the smallest micro-batch."""


class CheckpointError(TrainingError):
    """A checkpoint that says it is complete cannot be read."""


class StoreError(HoneError):
    """The artifact store is full, unwritable or damaged."""

    exit_code = 7


class ServiceError(HoneError):
    """A server did not answer; the same call may pass later."""

    exit_code = 8
    retryable = True


class PromotionError(HoneError):
    """The champion stays, or is again, what it was."""

    exit_code = 9


class PromotionRefused(PromotionError):
    """A gate, or the person who was asked, was against it."""


class ChampionMoved(PromotionError):
    """The champion is no longer the one that the comparison started from."""
