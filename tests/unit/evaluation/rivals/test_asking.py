from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from hone.errors import ConfigError, ServiceError, StoreError
from hone.evaluation.rivals import asking
from hone.evaluation.rivals.asking import Asked, Budget, ask_all
from hone.evaluation.rivals.book import open_book
from hone.evaluation.rivals.client import OVERHEAD_TOKENS, ApiEngine, Clock, Patience
from hone.evaluation.rivals.completion import Completion
from tests.unit.evaluation.rivals.scripted_server import (
    Reply,
    Request,
    ScriptedServer,
    chat,
    echo,
    error,
    serve_script,
)

ROOT = Path(__file__).parents[4]
PROMPTS = [f"prompt {number:02}" for number in range(40)]
NO_WAIT = Clock(wait=lambda event, seconds: None)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with serve_script() as script:
        yield script


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("rival")]


def engine(server: ScriptedServer, parallel: int = 4, max_tokens: int = 50, **options: Any) -> ApiEngine:
    return ApiEngine("openai", server.url, "small", max_tokens=max_tokens, parallel=parallel, clock=NO_WAIT, **options)


def ask(
    server: ScriptedServer, folder: Path, prompts: list[str], budget: Budget | None = None, **options: Any
) -> Asked:
    with engine(server, **options) as api, open_book(folder, api.identity) as book:
        return ask_all(api, prompts, book, budget)


def texts(asked: Asked) -> list[str | None]:
    return [answer and answer.text for answer in asked.answers]


def expected(prompts: list[str]) -> list[str | None]:
    return [f"answer to {prompt}" for prompt in prompts]


class LocalEngine:
    """An engine of this machine, which notes in which thread it is asked."""

    def __init__(self, parallel: int = 1) -> None:
        self.identity = {"model": "local"}
        self.parallel = parallel
        self.threads: list[str] = []
        self.fails_on = ""

    def ask(self, prompt: str) -> Completion:
        self.threads.append(threading.current_thread().name)
        if prompt == self.fails_on:
            raise ServiceError("no answer", where="here", fix="Wait.")
        return Completion(f"answer to {prompt}", "stop", 1, 1, 0.1)


def test_each_prompt_is_asked_once_and_answered_in_its_place(server: ScriptedServer, tmp_path: Path) -> None:
    prompts = [*PROMPTS, *PROMPTS[:5]]
    asked = ask(server, tmp_path, prompts)
    assert texts(asked) == expected(prompts)
    assert sorted(server.prompts) == PROMPTS
    assert (asked.from_book, asked.asked, asked.stopped, asked.retries) == (0, 40, "", {})
    again = ask(server, tmp_path, [*PROMPTS, "new"])
    assert texts(again) == expected([*PROMPTS, "new"])
    assert server.prompts[40:] == ["new"]
    assert (again.from_book, again.asked) == (40, 1)


def test_each_answer_is_reported_with_its_index(server: ScriptedServer, tmp_path: Path) -> None:
    ask(server, tmp_path, ["b"])
    reported: dict[int, str] = {}
    with engine(server) as api, open_book(tmp_path, api.identity) as book:
        ask_all(api, ["a", "b", "a"], book, None, lambda index, answer: reported.update({index: answer.text}))
    assert reported == {0: "answer to a", 1: "answer to b", 2: "answer to a"}


def test_as_many_prompts_are_in_flight_as_the_engine_allows(server: ScriptedServer, tmp_path: Path) -> None:
    together = threading.Barrier(3)

    def answer(request: Request) -> Reply:
        together.wait(60)  # breaks unless three requests are there at a time
        return echo(request)

    server.answer = answer
    assert texts(ask(server, tmp_path, PROMPTS[:9], parallel=3)) == expected(PROMPTS[:9])


def test_retries_are_those_of_the_call(server: ScriptedServer, tmp_path: Path) -> None:
    with engine(server) as api, open_book(tmp_path, api.identity) as book:
        server.replies = [error("busy", 503), error("slow", 429)]
        assert ask_all(api, PROMPTS[:3], book).retries == {"503": 1, "429": 1}
        assert ask_all(api, PROMPTS[:6], book).retries == {}


def test_a_local_engine_is_asked_in_this_thread(tmp_path: Path) -> None:
    local = LocalEngine()
    with open_book(tmp_path, local.identity) as book:
        assert texts(ask_all(local, PROMPTS, book)) == expected(PROMPTS)
        assert set(local.threads) == {threading.current_thread().name}
        local.fails_on = "new"
        with pytest.raises(ServiceError, match=r"here: no answer\n  Wait. 1 of 3 prompts are answered"):
            ask_all(local, [PROMPTS[0], "new", "newer"], book)


def test_a_local_engine_that_answers_several_at_a_time_has_threads(tmp_path: Path) -> None:
    local = LocalEngine(parallel=2)
    with open_book(tmp_path, local.identity) as book:
        assert texts(ask_all(local, PROMPTS, book)) == expected(PROMPTS)
        with pytest.raises(ConfigError, match="a budget needs a model behind an API"):
            ask_all(local, PROMPTS, book, Budget(1, 1, 1))


def test_an_error_of_one_prompt_leaves_the_answers_of_the_others(server: ScriptedServer, tmp_path: Path) -> None:
    failing = threading.Event()

    def answer(request: Request) -> Reply:
        if request.prompt == "prompt 02":
            failing.set()
            return error("down for repair", 503)
        if request.prompt in ("prompt 00", "prompt 01", "prompt 03"):
            assert failing.wait(60)  # these are in flight as the error comes
        return echo(request)

    server.answer = answer
    with pytest.raises(ServiceError, match="down for repair") as raised:
        ask(server, tmp_path, PROMPTS, patience=Patience(attempts=1))
    answered = len({*server.prompts} - {"prompt 02"})
    assert 3 <= answered < 10
    assert f"{answered} of 40 prompts are answered; running again asks only the rest." in str(raised.value)
    before = len(server.requests)
    server.answer = echo
    assert texts(ask(server, tmp_path, PROMPTS)) == expected(PROMPTS)
    assert len(server.requests) - before == 40 - answered


def test_an_answer_that_cannot_be_recorded_ends_the_asking(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreError("is full", where="book")

    with engine(server) as api, open_book(tmp_path, api.identity) as book:
        monkeypatch.setattr(book, "add_answer", fail)
        with pytest.raises(StoreError, match="is full"):
            ask_all(api, PROMPTS, book)
    assert len(server.requests) <= 8


def test_an_interruption_waits_for_the_answers_in_flight(server: ScriptedServer, tmp_path: Path) -> None:
    interrupted = threading.Event()

    def answer(request: Request) -> Reply:
        if request.prompt != "prompt 00":
            assert interrupted.wait(60)
        return echo(request)

    def interrupt(index: int, _: Completion) -> None:
        threading.Timer(0.2, interrupted.set).start()  # while the grace lasts
        signal.raise_signal(signal.SIGINT)

    server.answer = answer
    with engine(server) as api, open_book(tmp_path, api.identity) as book:
        with pytest.raises(KeyboardInterrupt):
            ask_all(api, PROMPTS, book, None, interrupt, grace=60)
        recorded = [prompt for prompt in PROMPTS if book.find_answer(prompt)]
    assert recorded == sorted(server.prompts)
    assert len(recorded) == 4


def test_an_interruption_ends_requests_that_get_no_answer(server: ScriptedServer, tmp_path: Path) -> None:
    arrived = threading.Semaphore(0)

    def answer(request: Request) -> Reply:
        arrived.release()
        return echo(request) if request.prompt == "prompt 00" else Reply(fault="stall")

    def interrupt(index: int, _: Completion) -> None:
        for _request in range(4):
            assert arrived.acquire(timeout=60)
        raise KeyboardInterrupt

    server.answer = answer
    with engine(server) as api, open_book(tmp_path, api.identity) as book:
        with pytest.raises(KeyboardInterrupt):
            ask_all(api, PROMPTS, book, None, interrupt, grace=0.05)
        assert [prompt for prompt in PROMPTS if book.find_answer(prompt)] == ["prompt 00"]
        # The others may have been charged.
        assert [book.count_spent(prompt)[1] for prompt in PROMPTS[:5]] == [0, 50, 50, 50, 0]


BOUND = len("prompt 00") + OVERHEAD_TOKENS  # of the input; each output has at most 50


def test_the_budget_stops_before_it_is_exceeded(server: ScriptedServer, tmp_path: Path) -> None:
    server.answer = lambda request: chat("a", usage=(BOUND, 50))
    budget = Budget(Decimal(f"{3 * (BOUND + 100)}e-6"), 1, 2)  # of exactly three requests
    asked = ask(server, tmp_path, PROMPTS, budget)
    assert [answer is not None for answer in asked.answers] == [True] * 3 + [False] * 37
    assert asked.stopped == "budget"
    assert len(server.requests) == 3
    assert budget.spent == budget.max_cost


def test_a_budget_is_for_all_runs_of_a_command(server: ScriptedServer, tmp_path: Path) -> None:
    server.answer = lambda request: chat("a", usage=(BOUND, 50))
    for _ in range(3):
        budget = Budget(Decimal(f"{3 * (BOUND + 100)}e-6"), 1, 2)
        assert ask(server, tmp_path, PROMPTS, budget).stopped == "budget"
        assert budget.spent == budget.max_cost
    assert len(server.requests) == 3


def test_answers_in_the_book_are_there_although_the_budget_is_spent(server: ScriptedServer, tmp_path: Path) -> None:
    ask(server, tmp_path, PROMPTS[5:])
    asked = ask(server, tmp_path, PROMPTS, Budget(0, 1, 1))
    assert texts(asked) == [None] * 5 + expected(PROMPTS[5:])
    assert ask(server, tmp_path, PROMPTS, Budget(0, 0, 0)).stopped == ""


@pytest.mark.parametrize("seed", range(5))
def test_the_budget_is_never_exceeded_by_threads(server: ScriptedServer, tmp_path: Path, seed: int) -> None:
    generator = random.Random(seed)
    cost = 0
    lock = threading.Lock()

    def answer(request: Request) -> Reply:
        nonlocal cost
        with lock:
            usage = (generator.randint(1, BOUND), generator.randint(1, 50))
            broken = generator.random() < 0.3
            cost += BOUND + 250 if broken else usage[0] + 5 * usage[1]
            return Reply(b'{"choices": [') if broken else chat("a", usage=usage)

    server.answer = answer
    limit = generator.randint(2, 20) * BOUND
    budget = Budget(Decimal(limit) / 10**6, 1, 5)
    asked = ask(server, tmp_path, PROMPTS, budget, patience=Patience(attempts=100))
    assert asked.stopped == "budget"
    assert cost <= limit
    assert budget.spent == Decimal(cost) / 10**6
    # No request in flight keeps the asking from using what is left.
    assert limit - cost < BOUND + 250


def test_a_charged_request_without_an_answer_is_spent_for_the_next_run_too(
    server: ScriptedServer, tmp_path: Path
) -> None:
    server.replies = [Reply(b"{"), Reply(b"{")]
    with pytest.raises(ServiceError, match="malformed JSON"):
        ask(server, tmp_path, ["prompt 00"], Budget(1, 1, 1), parallel=1, patience=Patience(attempts=2))
    budget = Budget(Decimal(f"{2 * (BOUND + 50)}e-6"), 1, 1)
    assert ask(server, tmp_path, ["prompt 00"], budget).stopped == "budget"
    assert budget.spent == budget.max_cost
    assert len(server.requests) == 2


def test_a_repetition_that_does_not_fit_the_budget_is_not_sent(server: ScriptedServer, tmp_path: Path) -> None:
    server.answer = lambda request: Reply(b"{")
    asked = ask(server, tmp_path, PROMPTS, Budget(Decimal(f"{3 * (BOUND + 50)}e-6"), 1, 1), parallel=1)
    assert asked.stopped == "budget"
    assert len(server.requests) == 3


def test_a_request_that_is_not_charged_keeps_its_reservation(server: ScriptedServer, tmp_path: Path) -> None:
    server.replies = [error("busy", 503)] * 4
    budget = Budget(Decimal(f"{BOUND + 50}e-6"), 1, 1)
    assert texts(ask(server, tmp_path, PROMPTS[:1], budget)) == expected(PROMPTS[:1])
    assert budget.spent == Decimal("12e-6")


def test_money_is_exact() -> None:
    budget = Budget(0.3, 0.1, 0.1)
    million = (1_000_000, 0)
    assert [budget.reserve(million) for _ in range(4)] == [True, True, True, False]
    for _ in range(3):
        budget.release(million, million)
    assert budget.spent == Decimal("0.3")


@pytest.mark.parametrize("number", [-1, float("inf"), float("nan"), "much"])
def test_a_budget_is_a_number(number: Any) -> None:
    with pytest.raises(ConfigError, match=f"input_price is {number}"):
        Budget(1, number, 1)


CHILD = """
import json, sys
from pathlib import Path
from hone.evaluation.rivals.asking import ask_all
from hone.evaluation.rivals.book import open_book
from hone.evaluation.rivals.client import ApiEngine

url, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
with ApiEngine("openai", url, "small", max_tokens=50, parallel=4) as engine:
    with open_book(folder, engine.identity, lambda: print("waits", flush=True)) as book:
        asked = ask_all(engine, [f"prompt {number:02}" for number in range(count)], book)
print(json.dumps([answer.text for answer in asked.answers]))
"""


def start_child(server: ScriptedServer, folder: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-P", "-c", CHILD, server.url, str(folder), str(len(PROMPTS))]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_killed_process_loses_the_answers_in_flight_alone(server: ScriptedServer, tmp_path: Path, seed: int) -> None:
    generator = random.Random(seed)
    child: subprocess.Popen[str]
    begun = 0  # requests before this child
    kill_after = 0

    def answer(request: Request) -> Reply:
        if len(server.requests) - begun == kill_after:
            delay = generator.uniform(0, 0.02)
            threading.Timer(delay, child.kill).start()
        time.sleep(0.005)  # as a model takes its time: kills meet requests in all their phases
        return echo(request)

    server.answer = answer
    kills = 0
    for _ in range(4):
        begun, kill_after = len(server.requests), generator.randint(1, 9)
        child = start_child(server, tmp_path)
        child.communicate(timeout=120)
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL
        kills += 1
        again = {*server.prompts[begun:]} & {*server.prompts[:begun]}
        assert len(again) <= 4 * max(0, kills - 1)
    assert kills
    kill_after = -1
    child = start_child(server, tmp_path)
    output, _ = child.communicate(timeout=120)
    assert json.loads(output) == expected(PROMPTS)
    assert {*server.prompts} == {*PROMPTS}
    assert len(server.requests) <= 40 + 4 * kills


def test_two_processes_ask_each_prompt_once(server: ScriptedServer, tmp_path: Path) -> None:
    children = [start_child(server, tmp_path) for _ in range(2)]
    outputs = [child.communicate(timeout=120)[0] for child in children]
    assert [json.loads(output.splitlines()[-1]) for output in outputs] == [expected(PROMPTS)] * 2
    assert sorted(server.prompts) == PROMPTS


def test_the_contract_of_a_metered_engine_is_that_of_the_client(server: ScriptedServer) -> None:
    with engine(server) as api:
        assert isinstance(api, asking.MeteredEngine)
    assert not isinstance(LocalEngine(), asking.MeteredEngine)
