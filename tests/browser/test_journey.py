"""A day with the service in a real browser: Prefect's UI, both its versions, and MLflow's.

Only the first page is opened by its address; from there everything is clicked. Screenshots are kept in
build/screenshots; docs/day.md shows those of the first test, which writes them to docs/images with HONE_DOCS=1.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import yaml

from tests.polling import until
from tests.receiving import Receiver, receive
from tests.services import Service, ask

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

PlaywrightError = pytest.importorskip("playwright.sync_api").TimeoutError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "docs" / "images" if os.environ.get("HONE_DOCS") else ROOT / "build" / "screenshots"
SECONDS = 1000  # of Playwright's milliseconds
MODEL = "journey"


@dataclass
class Prefect:
    """Prefect's UI in a page, and what a person does there."""

    page: Page
    service: Service

    def open(self) -> None:
        """The first page, which is that of the newer UI."""
        self.page.set_default_timeout(60 * SECONDS)
        self.page.goto(self.service.prefect_url)
        self.page.get_by_role("button", name="Switch to V1 UI").wait_for()

    def open_form(self, deployment: str) -> None:
        """From anywhere to the form of a deployment."""
        self.dismiss_messages()
        self.page.get_by_role("link", name="Deployments", exact=True).first.click()
        # Not the link of the flow of this name on the page before, which may still be there.
        links = self.page.locator("a[href*='/deployments/deployment/']")
        links.filter(has_text=re.compile(f"^{deployment}$")).first.click()
        self.page.get_by_role("button", name="Run", exact=True).click()
        self.page.get_by_text("Custom run").click()
        self.page.get_by_role("button", name="Submit").wait_for()

    def select(self, option: str) -> None:
        """In the form's first choice."""
        choose(self.page, self.page.locator("button", has_text="Select").first, option)

    def change(self, text: str) -> None:
        """Write the last of the form's changes."""
        self.page.locator("textarea").last.fill(text)
        self.page.wait_for_timeout(1.5 * SECONDS)  # the form takes over what was written after a moment

    def submit(self, run: str) -> None:
        """Send the form, and go to the page of the run that it starts, which will have this name."""
        submit, view = (self.page.get_by_role("button", name=name) for name in ("Submit", "View run"))
        submit.click()
        try:
            view.wait_for(timeout=15 * SECONDS)
        except PlaywrightError:  # the first click after a correction may only check it
            submit.click()
        view.click()
        self.page.wait_for_url("**/runs/flow-run/**")
        self.page.get_by_text(run, exact=True).first.wait_for(timeout=120 * SECONDS)

    def see(self, state: str) -> None:
        """Wait until the run's page shows the state."""
        self.page.get_by_text(state, exact=True).first.wait_for(timeout=300 * SECONDS)

    def open_tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).click()

    def open_artifact(self, key: str) -> None:
        """From a run's page to the content of one of its artifacts."""
        self.open_tab("Artifacts")
        self.page.get_by_role("link", name=key).first.click()
        self.page.get_by_role("link", name=re.compile(r"^[0-9a-f]{8}$")).first.click()

    def dismiss_messages(self) -> None:
        """The note of a run that was started stays while the mouse is on it."""
        self.page.mouse.move(5, 5)
        self.page.locator("[data-sonner-toast]").last.wait_for(state="hidden")


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receive() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def journey(service: Service, small: dict[str, Any], receiver: Receiver) -> Iterator[dict[str, Any]]:
    """A file in conf/, offered by the forms, whose model has a first champion that was hardly trained."""
    config = small | {"name": MODEL, "promotion": {"resamples": 500}}
    file = service.place / "conf" / f"{MODEL}.yaml"
    file.write_text(yaml.safe_dump(config))
    up = service.hone("up", HONE_NOTIFY_URL=receiver.url)
    assert up.returncode == 0, up.stdout + up.stderr
    first = service.start("finetune/finetune", config=MODEL, settings={"epochs": 0.1})
    assert service.ended(first) == "COMPLETED"
    with service.unscheduled("reconcile/watch-registry"):
        ask(
            f"{service.mlflow_url}/api/2.0/mlflow/registered-models/alias",
            {"name": MODEL, "alias": "champion", "version": "1"},
        )
        [moved] = until(lambda: service.noticed(MODEL), 60)
        assert service.ended(moved) == "COMPLETED"
        yield config
    file.unlink()


def shoot(page: Page, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png")


def choose(page: Page, box: Locator, option: str) -> None:
    box.click()
    page.get_by_role("option", name=option, exact=True).click()


def see_text(page: Page, text: str) -> None:
    """On the page or in a frame in it."""
    until(lambda: any(frame.get_by_text(text).count() for frame in page.frames), 60)


def find_champion(service: Service) -> str:
    url = f"{service.mlflow_url}/api/2.0/mlflow/registered-models/get?name={MODEL}"
    aliases = ask(url)["registered_model"].get("aliases", [])
    return next((alias["version"] for alias in aliases if alias["alias"] == "champion"), "")


def count_runs(service: Service) -> int:
    count: int = service.ask("/flow_runs/count", {"deployments": {"name": {"any_": ["finetune"]}}})
    return count


def start_with_a_change(prefect: Prefect) -> None:
    """A file in conf/ and a change: what cannot run is refused in the form; the log says what happens."""
    page, service = prefect.page, prefect.service
    prefect.open_form("finetune")
    prefect.select(MODEL)
    page.get_by_role("button", name="Add item").click()
    prefect.change("training.epohs=8")
    runs = count_runs(service)
    page.get_by_role("button", name="Submit").click()
    page.get_by_text(re.compile("section.field=value")).first.wait_for()
    page.get_by_text("Add item").scroll_into_view_if_needed()
    shoot(page, "form-refused")
    assert count_runs(service) == runs
    prefect.dismiss_messages()
    prefect.change("training.epochs=8")
    page.get_by_text("Parameters", exact=True).scroll_into_view_if_needed()
    shoot(page, "form")
    prefect.submit(f"finetune {MODEL}")
    # The log says what happens, the last state what came of it.
    page.get_by_text("curate: cached: 300 of 300 rows kept").first.wait_for(timeout=120 * SECONDS)
    prefect.see("Completed")
    shoot(page, "run")
    prefect.open_tab("Details")
    page.get_by_text(re.compile(rf"^{MODEL} version 2, \d+\.\d% \(")).first.wait_for()


def open_results(prefect: Prefect) -> None:
    """The version's artifact has the verdict and leads to the pages in MLflow."""
    page = prefect.page
    prefect.open_artifact(f"version-{MODEL}")
    page.get_by_role("heading", name=f"{MODEL} version 2").wait_for()
    shoot(page, "version-artifact")
    pages = {"Report": "Was fine-tuning worth it?", "Data Docs": "Expectation Validation Result"}
    for link, words in (pages | {"Model version": "hone.verdict"}).items():
        page.get_by_role("link", name=link, exact=True).click()
        see_text(page, words)
        shoot(page, link.lower().replace(" ", "-"))
        page.go_back()
        page.get_by_role("heading", name=f"{MODEL} version 2").wait_for()


def approve(prefect: Prefect, receiver: Receiver) -> None:
    """The promotion waits for a person, who is told, and approves it in its form."""
    page, service = prefect.page, prefect.service
    prefect.open_form("promote")
    prefect.select(MODEL)
    prefect.submit(f"promote {MODEL}")
    prefect.see("Suspended")
    assert find_champion(service) == "1"
    waiting = receiver.about(f"{MODEL}: version 2 waits for approval")
    assert page.url.split("/flow-run/")[1].split("?")[0] in waiting["message"]
    page.get_by_role("button", name="Open menu").last.click()
    page.get_by_role("menuitem", name="Resume").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("heading", name=f"{MODEL} version 2: all gates passed").wait_for()
    shoot(page, "approval")
    choose(page, dialog.locator("button", has_text="Select").first, "approve")
    dialog.get_by_label(re.compile("^Who")).fill("Ada")
    dialog.locator("textarea").last.fill("looks right")
    dialog.get_by_role("button", name="Resume").click()
    prefect.see("Promoted")
    assert find_champion(service) == "2"
    receiver.about(f"{MODEL}: version 2 is the champion (was 1), promoted by Ada")


def roll_back(prefect: Prefect, receiver: Receiver) -> None:
    """The previous champion is the champion again."""
    service = prefect.service
    prefect.open_form("rollback")
    prefect.select(MODEL)
    prefect.submit(f"rollback {MODEL}")
    prefect.see("Rolled back")
    assert find_champion(service) == "1"
    receiver.about(f"{MODEL}: version 1 is the champion again (was 2), rolled back by")
    history = service.hone("history", MODEL).stdout
    assert re.search(r"promoted.*Ada|Ada.*promoted", history), history
    assert "rolled back" in history


@pytest.mark.timeout(1500)
def test_from_a_file_with_a_change_to_a_champion_and_back(
    page: Page, service: Service, journey: dict[str, Any], receiver: Receiver
) -> None:
    prefect = Prefect(page, service)
    prefect.open()
    start_with_a_change(prefect)
    open_results(prefect)
    approve(prefect, receiver)
    roll_back(prefect, receiver)


def test_an_alias_moved_by_hand_in_mlflow_is_noticed(
    page: Page, service: Service, journey: dict[str, Any], receiver: Receiver
) -> None:
    before = service.noticed(MODEL)
    page.set_default_timeout(60 * SECONDS)
    page.goto(service.mlflow_url)
    page.get_by_text("Model training", exact=True).click()
    page.get_by_role("link", name="Model registry").click()
    page.get_by_role("button", name="Try it now").click()  # MLflow introduces its registry once
    page.get_by_role("link", name=MODEL, exact=True).click()
    page.get_by_test_id("model-version-table").get_by_role("link", name="Version 2").click()
    page.get_by_text(re.compile(r"^@\s*(candidate|previous)$")).first.wait_for()
    page.get_by_title("Edit aliases").click()
    dialog = page.get_by_role("dialog")
    box = dialog.get_by_role("combobox")
    box.click()
    box.press_sequentially("champion")
    page.keyboard.press("Enter")
    dialog.get_by_role("button", name="Save aliases").click()
    until(lambda: find_champion(service) == "2", 60)
    shoot(page, "moved-by-hand")
    [run] = until(lambda: set(service.noticed(MODEL)) - set(before), 60)
    assert service.ended(run) == "COMPLETED"
    receiver.about(f"{MODEL}: version 2 is the champion (was 1), moved by hand in MLflow")
    prefect = Prefect(page, service)
    prefect.open()
    page.get_by_role("link", name="Runs", exact=True).first.click()
    page.get_by_role("link", name="watch the registry", exact=True).first.click()
    prefect.see("Completed")
    prefect.open_artifact(f"watch-{MODEL}")
    page.get_by_text("moved by hand").first.wait_for()
    assert "moved by hand" in service.hone("history", MODEL).stdout
    # Each was told once.
    titles = [message["title"] for message in receiver.messages]
    assert len(titles) == len(set(titles)), titles


def test_a_run_that_is_cancelled_in_the_ui_has_stopped_training(
    page: Page, service: Service, journey: dict[str, Any]
) -> None:
    slow = journey | {"name": "slow", "training": {"epochs": 1000, "batch_size": 1, "checkpoint_seconds": 0.5}}
    service.start("finetune/finetune", config=slow)
    until(lambda: trainings(service))
    prefect = Prefect(page, service)
    prefect.open()
    page.get_by_role("link", name="Runs", exact=True).first.click()
    page.get_by_role("link", name="finetune slow", exact=True).first.click()
    page.get_by_role("button", name="Open menu").last.click()
    page.get_by_role("menuitem", name="Cancel").click()
    page.get_by_role("button", name="Cancel Flow Run").click()
    cancelled = time.monotonic()
    until(lambda: not trainings(service), 15)
    assert time.monotonic() - cancelled < 15
    prefect.see("Cancelled")
    shoot(page, "cancelled")


def test_the_older_ui_starts_runs_too(page: Page, service: Service, journey: dict[str, Any]) -> None:
    """A list in its form is opened by keyboard: a click opens and closes it when the page is slow."""
    Prefect(page, service).open()
    page.get_by_role("button", name="Switch to V1 UI").click()
    page.get_by_role("button", name="Skip feedback and switch").click()
    page.locator(".context-sidebar, nav").get_by_text("Deployments", exact=True).first.click()
    page.locator("a[href*='/deployments/deployment/']").filter(has_text="finetune").first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()
    page.get_by_role("button", name="Submit").wait_for()
    part = page.locator(".schema-form-property").filter(has=page.get_by_text(re.compile("^config$"))).last
    part.locator("button.p-select-button__control").first.press("ArrowDown")
    page.get_by_text(MODEL, exact=True).last.click()
    page.locator(".schema-form-property").filter(
        has=page.get_by_text(re.compile(r"^Epochs( \(Optional\))?$"))
    ).last.locator("input").fill("0.1")
    shoot(page, "form-v1")
    with page.expect_response(lambda answer: answer.url.endswith("/create_flow_run")) as answered:
        page.get_by_role("button", name="Submit").click()
    assert answered.value.ok, answered.value.text()
    assert service.ended(answered.value.json()["id"]) == "COMPLETED"


def trainings(service: Service) -> list[psutil.Process]:
    """The training processes of this service that run now."""
    found = [(one, one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"])]
    return [one for one, words in found if "hone.training.loop" in words and str(service.home) in " ".join(words)]
