"""Asks an engine a list of prompts: what the answer book has is not asked again, and a budget is never exceeded."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation, localcontext
from fractions import Fraction
from operator import mul
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from hone.errors import ConfigError, HoneError
from hone.evaluation.rivals.book import AnswerBook, open_book
from hone.evaluation.rivals.client import Meter
from hone.evaluation.rivals.completion import Completion, Engine

GRACE_SECONDS = 5.0  # an interrupted command waits for answers that are paid for, but not until a person gives up
_MILLION = 1_000_000


@runtime_checkable
class MeteredEngine(Engine, Protocol):
    """An engine whose requests cost money and can be ended from another thread, such as ApiEngine."""

    @property
    def retries(self) -> Counter[str]:
        """The number of repeated requests by kind of fault."""

    def bound_tokens(self, prompt: str) -> tuple[int, int]:
        """Upper bounds of the input and output tokens of one request."""

    def ask(self, prompt: str, meter: Meter | None = None) -> Completion:
        """The answer to one prompt, as of Engine; the meter accounts for each request."""

    def stop(self) -> None:
        """End the requests in flight; each `ask` raises ServiceError."""


class Budget:
    """The maximum cost of asking, in the currency of the prices; both prices are per million tokens.

    A request is sent only if its upper bound still fits. May be used by several threads, and for several lists of
    prompts; a recorded answer counts once. Raises ConfigError for a negative or infinite number.
    """

    def __init__(self, max_cost: Decimal | float, input_price: Decimal | float, output_price: Decimal | float) -> None:
        self._max_cost = _exact("max_cost", max_cost)
        self._input_price, self._output_price = _exact("input_price", input_price), _exact("output_price", output_price)
        self._spent = self._reserved = Fraction(0)
        self._counted: set[str] = set()
        self._lock = threading.Lock()

    @property
    def spent(self) -> Decimal:
        """The cost of all answers and of all requests without one, with those of earlier commands."""
        with self._lock:
            return _decimal(self._spent)

    @property
    def max_cost(self) -> Decimal:
        """The maximum cost."""
        return _decimal(self._max_cost)

    def cost(self, tokens: tuple[int, int]) -> Fraction:
        """The cost of input and output tokens, without rounding."""
        return (tokens[0] * self._input_price + tokens[1] * self._output_price) / _MILLION

    def count(self, digest: str, tokens: tuple[int, int]) -> None:
        """Count what the book has for a prompt, unless that has been counted."""
        with self._lock:
            if digest not in self._counted:
                self._counted.add(digest)
                self._spent += self.cost(tokens)

    def reserve(self, tokens: tuple[int, int]) -> bool:
        """Reserve the cost of a request; False if it does not fit into what is left."""
        with self._lock:
            fits = self._spent + self._reserved + self.cost(tokens) <= self._max_cost
            if fits:
                self._reserved += self.cost(tokens)
            return fits

    def release(self, tokens: tuple[int, int], spent: tuple[int, int]) -> None:
        """Give back the reservation of a request, and count the tokens that it has really cost."""
        with self._lock:
            self._reserved -= self.cost(tokens)
            self._spent += self.cost(spent)


def _exact(name: str, value: Decimal | float) -> Fraction:
    """The number as it is written: 0.1 is a tenth, also as a float."""
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite() or number < 0:
        raise ConfigError(f"{name} is {value}", fix="Set it to 0 or a positive number.")
    return Fraction(number)


def _decimal(value: Fraction) -> Decimal:
    with localcontext(prec=50):
        return Decimal(value.numerator) / Decimal(value.denominator)


@dataclass(frozen=True)
class Asked:
    """What came back for a list of prompts.

    answers    by index of the prompt; None where the budget did not allow to ask
    stopped    why not all prompts were asked: '' (they were) or 'budget'
    from_book  number of different prompts whose answer was in the book
    asked      number of different prompts that were answered by the engine
    retries    number of repeated requests by kind of fault
    spent      input and output tokens of requests that may have been charged without an answer
    notes      sentences about lines of the book that were ignored
    """

    answers: Sequence[Completion | None]
    stopped: Literal["", "budget"]
    from_book: int
    asked: int
    retries: Counter[str]
    spent: tuple[int, int] = (0, 0)
    notes: Sequence[str] = ()


OnAnswer = Callable[[int, Completion], None]


def ask_all(
    engine: Engine,
    prompts: Sequence[str],
    book: AnswerBook,
    budget: Budget | None = None,
    on_answer: OnAnswer = lambda index, answer: None,
    *,
    grace: float = GRACE_SECONDS,
) -> Asked:
    """Answers to prompts, from the book or else from the engine; equal prompts are asked once.

    Prompts are asked in order, `engine.parallel` at a time; an answer is in the book as soon as it comes. With a budget
    the asking stops at the first prompt whose request might exceed it, once no request in flight can free a part of it.
    `on_answer` is called in this thread with each index and its answer, in the order in which answers come.

    An error of one prompt is raised after the others in flight are answered. After an interruption these have `grace`
    seconds; a MeteredEngine is stopped then, and asks no more. Running again asks only the prompts without an answer.

    Raises what `engine.ask` raises; StoreError if the book cannot be written; ConfigError for a budget of an engine
    that is not metered.
    """
    metered = engine if isinstance(engine, MeteredEngine) else None
    if budget and not metered:
        raise ConfigError("a budget needs a model behind an API: another has no prices", fix="Remove the budget.")
    retries_before = Counter(metered.retries) if metered else Counter()
    asking = _Asking(engine, metered, book, budget, on_answer, [None] * len(prompts))
    pending = asking.take_recorded(prompts)
    if metered is None and engine.parallel == 1:
        asking.ask_here(pending)
    elif pending:
        asking.ask_in_threads(pending, grace)
    asking.raise_fault(len(asking.indices))
    retries = Counter(metered.retries) - retries_before if metered else Counter()
    spent = [book.count_spent(prompt) for prompt in asking.indices]
    return Asked(
        asking.answers,
        asking.stopped,
        len(asking.indices) - len(pending),
        asking.asked,
        retries,
        (sum(inputs for inputs, _ in spent), sum(outputs for _, outputs in spent)),
        book.notes,
    )


@dataclass(frozen=True)
class Terms:
    """Where answers are recorded, and what they may cost: `prices` are of a million input and output tokens."""

    books: Path
    prices: tuple[float, float] | None = None
    max_cost: float | None = None

    def cost(self, tokens: tuple[int, int]) -> float | None:
        """The cost of input and output tokens; None without prices."""
        return sum(map(mul, tokens, self.prices)) / _MILLION if self.prices else None


def ask_in_book(
    engine: Engine,
    prompts: Sequence[str],
    terms: Terms,
    on_answer: OnAnswer = lambda index, answer: None,
    on_wait: Callable[[], None] = lambda: None,
) -> Asked:
    """As `ask_all`, with the engine's book, for which it waits (`on_wait`), and within the terms."""
    budget = Budget(terms.max_cost, *terms.prices) if terms.max_cost and terms.prices else None
    with open_book(terms.books, engine.identity, on_wait) as book:
        return ask_all(engine, prompts, book, budget, on_answer)


@dataclass
class _Asking:
    """One call of `ask_all`. Only `_ask` runs in the threads of the pool."""

    engine: Engine
    metered: MeteredEngine | None
    book: AnswerBook
    budget: Budget | None
    on_answer: OnAnswer
    answers: list[Completion | None]
    indices: dict[str, list[int]] = field(default_factory=dict)
    pending: deque[str] = field(default_factory=deque)
    running: dict[Future[Completion | None], str] = field(default_factory=dict)
    stopped: Literal["", "budget"] = ""
    fault: BaseException | None = None
    asked: int = 0

    def take_recorded(self, prompts: Sequence[str]) -> list[str]:
        """Deliver and count what the book has; returns the other prompts, each once and in order."""
        for index, prompt in enumerate(prompts):
            self.indices.setdefault(prompt, []).append(index)
        pending = []
        for prompt in self.indices:
            answer = self.book.find_answer(prompt)
            if self.budget:
                inputs, outputs = self.book.count_spent(prompt)
                if answer:
                    inputs, outputs = inputs + answer.input_tokens, outputs + answer.output_tokens
                self.budget.count(self.book.digest_prompt(prompt), (inputs, outputs))
            if answer:
                self._deliver(prompt, answer)
            else:
                pending.append(prompt)
        return pending

    def ask_here(self, pending: Sequence[str]) -> None:
        """Ask in this thread, which an interruption reaches at once."""
        for prompt in pending:
            try:
                answer = self._ask(prompt, None)
            except HoneError as fault:
                self.fault = fault
                return
            if answer:
                self.asked += 1
                self._deliver(prompt, answer)

    def ask_in_threads(self, pending: Sequence[str], grace: float) -> None:
        """Ask in threads, all of which have ended when this returns or raises."""
        pool = ThreadPoolExecutor(self.engine.parallel, thread_name_prefix="rival")
        try:
            self.pending.extend(pending)
            while not self.fault and not self.stopped and (self.pending or self.running):
                if len(self.running) >= self.engine.parallel or not self.pending:
                    self._collect()
                    continue
                prompt = self.pending.popleft()
                meter = self._reserve(prompt)
                if self.fault or self.stopped:
                    if meter:
                        meter.release()
                    break
                future = pool.submit(copy_context().run, self._ask, prompt, meter)
                self.running[future] = prompt
            while self.running:
                self._collect()
        finally:
            if self.running:  # this thread was interrupted
                try:
                    wait(self.running, timeout=grace)
                finally:
                    if self.metered:
                        self.metered.stop()
                    pool.shutdown(cancel_futures=True)
            else:
                pool.shutdown()

    def raise_fault(self, total: int) -> None:
        """Raise the first error of a prompt, if there is one."""
        if not isinstance(self.fault, HoneError):
            if self.fault:
                raise self.fault
            return
        answered = sum(self.answers[indices[0]] is not None for indices in self.indices.values())
        progress = f"{answered:,} of {total:,} prompts are answered; running again asks only the rest."
        fix = f"{self.fault.fix} {progress}" if self.fault.fix else progress
        raise type(self.fault)(self.fault.what, where=self.fault.where, fix=fix) from self.fault.__cause__

    def _reserve(self, prompt: str) -> _Meter | None:
        """The meter of a prompt with the cost of its first request reserved; sets `stopped` if that never fits."""
        if not self.budget or not self.metered:
            return _Meter(prompt, self.metered.bound_tokens(prompt), self.book, None) if self.metered else None
        meter = _Meter(prompt, self.metered.bound_tokens(prompt), self.book, self.budget)
        while not meter.reserve():
            if not self.running:
                self.stopped = "budget"
                break
            self._collect()
        return meter

    def _collect(self) -> None:
        """Wait until a prompt in flight has ended, and deliver all that have."""
        done, _ = wait(self.running, return_when=FIRST_COMPLETED)
        for future in done:
            prompt = self.running.pop(future)
            fault = future.exception()
            if fault:
                self.fault = self.fault or fault
            elif answer := future.result():
                self.asked += 1
                self._deliver(prompt, answer)
            else:  # its repetition did not fit; the others in flight may free enough for it
                self.pending.appendleft(prompt)

    def _deliver(self, prompt: str, answer: Completion) -> None:
        for index in self.indices[prompt]:
            self.answers[index] = answer
            self.on_answer(index, answer)

    def _ask(self, prompt: str, meter: _Meter | None) -> Completion | None:
        """The answer, recorded; None if another attempt does not fit into the budget now."""
        if not self.metered or not meter:
            answer = self.engine.ask(prompt)
            self.book.add_answer(prompt, answer)
            return answer
        try:
            answer = self.metered.ask(prompt, meter)
            meter.settle(answer)
        except _OverBudget:
            return None
        finally:
            meter.release()
        return answer


class _OverBudget(Exception):
    """A repeated request does not fit into what is left of the budget."""


class _Meter:
    """Accounts for the requests of one prompt: in the book always, in the budget if there is one."""

    def __init__(self, prompt: str, bound: tuple[int, int], book: AnswerBook, budget: Budget | None) -> None:
        self._prompt, self._bound, self._book, self._budget = prompt, bound, book, budget
        self._holds = False  # a reservation

    def reserve(self) -> bool:
        """Reserve the cost of a request, unless that is done; False if it does not fit."""
        self._holds = self._holds or self._budget is None or self._budget.reserve(self._bound)
        return self._holds

    def admit(self) -> None:
        """Called before each request. Raises _OverBudget."""
        if not self.reserve():
            raise _OverBudget

    def charge(self) -> None:
        """Count the bound of a request that may have been charged without an answer."""
        self._end(self._bound)
        self._book.add_spent(self._prompt, *self._bound)

    def settle(self, answer: Completion) -> None:
        """Count the tokens of the answer and record it."""
        self._end((answer.input_tokens, answer.output_tokens))
        self._book.add_answer(self._prompt, answer)

    def release(self) -> None:
        """Give back a reservation that no request has used."""
        if self._holds:
            self._end((0, 0))

    def _end(self, spent: tuple[int, int]) -> None:
        self._holds = False
        if self._budget:
            self._budget.release(self._bound, spent)
