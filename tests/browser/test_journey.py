"""A day with the service, in a real browser, on the real servers that `hone up` started.

Screenshots of each step are kept in build/screenshots.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.polling import until
from tests.services import Service, ask

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.slow

SHOTS = Path(__file__).parents[2] / "build" / "screenshots"
SECONDS = 1000  # of Playwright's milliseconds
MODEL = "journey"


@pytest.fixture(scope="module")
def prefilled(service: Service, small: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The deployment `finetune` with a configuration in its form, and a first champion that was hardly trained."""
    finetune = service.ask("/deployments/name/finetune/finetune")
    config = small | {"name": MODEL, "promotion": {"resamples": 500}}
    first = service.start("finetune/finetune", config=config | {"training": {"epochs": 0.1}})
    assert service.ended(first) == "COMPLETED"
    pointed = {"name": MODEL, "alias": "champion", "version": "1"}
    path = f"/deployments/{finetune['id']}"
    service.ask(path, {"parameters": {"config": config}}, method="PATCH")
    with service.unscheduled("reconcile/watch-registry"):
        ask(f"{service.mlflow_url}/api/2.0/mlflow/registered-models/alias", pointed)
        yield config
    service.ask(path, {"parameters": finetune["parameters"]}, method="PATCH")


def shoot(page: Page, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


def open_form(page: Page, service: Service, deployment: str) -> None:
    """From the list of deployments to the form of one."""
    page.goto(f"{service.prefect_url}/deployments")
    # By its address: its flow's link, which may be called the same, stands beside it.
    page.locator(f"a[href$='/deployment/{known(service, deployment)}']").first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()
    page.get_by_role("button", name="Submit").wait_for()


def known(service: Service, deployment: str) -> str:
    """The id of the deployment of this name."""
    wanted = {"deployments": {"name": {"any_": [deployment]}}}
    [found] = service.ask("/deployments/filter", wanted)
    return str(found["id"])


def field(page: Page, label: str) -> Locator:
    """The innermost part of a form that has this label."""
    named = page.get_by_text(re.compile(rf"^{label}( \(Optional\))?$"))
    return page.locator(".schema-form-property").filter(has=named).last


def write(page: Page, label: str, text: str) -> None:
    field(page, label).locator("textarea, input").first.fill(text)


def start_for_the_model(page: Page, service: Service, deployment: str) -> str:
    """A run from the form of a deployment that asks for a model."""
    open_form(page, service, deployment)
    write(page, "model", MODEL)
    return submit(page, service)


def submit(page: Page, service: Service) -> str:
    """Send the form; the id of the run that it started."""
    before = runs(service)
    press(page, page.get_by_role("button", name="Submit"), "/create_flow_run")
    page.wait_for_url(re.compile(r"/deployment/[0-9a-f-]+$"))
    shoot(page, "sent")
    (run,) = set(runs(service)) - set(before)
    return run


def press(page: Page, button: Locator, posted: str) -> None:
    """Press a button that posts to an address that ends so, which is taken."""
    with page.expect_response(lambda answer: answer.url.endswith(posted)) as answered:
        button.click()
    assert answered.value.ok, answered.value.text()


def runs(service: Service) -> list[str]:
    """What people started."""
    filters = {"flow_runs": {"deployment_id": {"is_null_": False}}, "sort": "EXPECTED_START_TIME_ASC", "limit": 200}
    found = service.ask("/flow_runs/filter", filters)
    return [run["id"] for run in found if not run["auto_scheduled"] and "mlflow-webhook" not in run["tags"]]


def see_run(page: Page, service: Service, run: str, state: str) -> None:
    """Open the page of a run and wait until it shows the state."""
    page.goto(f"{service.prefect_url}/runs/flow-run/{run}")
    page.get_by_text(state, exact=True).first.wait_for(timeout=300 * SECONDS)


def champion(service: Service) -> str:
    url = f"{service.mlflow_url}/api/2.0/mlflow/registered-models/get?name={MODEL}"
    aliases = ask(url)["registered_model"].get("aliases", [])
    return next((alias["version"] for alias in aliases if alias["alias"] == "champion"), "")


def see_version(page: Page, service: Service, version: str, alias: str) -> None:
    """The version's page in MLflow, with its tags and the alias."""
    page.goto(f"{service.mlflow_url}/#/models/{MODEL}/versions/{version}")
    page.get_by_text(f"Version {version}", exact=True).first.wait_for(timeout=60 * SECONDS)
    page.get_by_text("hone.verdict").first.wait_for()
    page.get_by_text(re.compile(rf"^@\s*{alias}$")).first.wait_for()


def choose(page: Page, part: Locator, option: str) -> None:
    """Pick an option of a list, by keyboard: a click of the mouse opens and closes it when the page is slow."""
    part.locator("button.p-select-button__control").press("ArrowDown")
    page.get_by_text(option, exact=True).last.click()


def test_from_the_form_to_a_champion_and_back(page: Page, service: Service, prefilled: dict[str, Any]) -> None:
    page.set_default_timeout(60 * SECONDS)
    # A value that is out of bounds is refused by the form, and no run is made.
    open_form(page, service, "finetune")
    before = runs(service)
    field(page, "Epochs").locator("input").fill("-3")
    page.get_by_role("button", name="Submit").click()
    page.get_by_text(re.compile("config.training.epochs.*-3 is less than")).first.wait_for()
    shoot(page, "finetune-refused")
    assert runs(service) == before
    # With one field changed it runs; its artifacts lead to the report.
    field(page, "Epochs").locator("input").fill("8")
    shoot(page, "finetune-form")
    run = submit(page, service)
    see_run(page, service, run, "Completed")
    assert service.ask(f"/flow_runs/{run}")["parameters"]["config"]["training"]["epochs"] == 8
    page.get_by_text("Artifacts", exact=True).first.click()
    page.get_by_text(f"metrics-{MODEL}").first.wait_for()
    shoot(page, "finetune-artifacts")
    version = service.ask(
        "/artifacts/filter", {"artifacts": {"key": {"any_": [f"version-{MODEL}"]}, "flow_run_id": {"any_": [run]}}}
    )[0]
    for link, words in (("Report", "Was fine-tuning worth it?"), ("Data Docs", "Expectation Validation Result")):
        page.goto(f"{service.prefect_url}/artifacts/artifact/{version['id']}")
        page.get_by_role("heading", name=f"{MODEL} version 2").wait_for()
        page.goto(page.get_by_role("link", name=link).get_attribute("href") or "")
        until(lambda words=words: any(frame.get_by_text(words).count() for frame in page.frames))
        shoot(page, link)
    see_version(page, service, "2", "candidate")
    shoot(page, "mlflow-candidate")
    # The promotion waits for a person, who approves it in its form.
    run = start_for_the_model(page, service, "promote")
    see_run(page, service, run, "Suspended")
    assert champion(service) == "1"
    shoot(page, "promote-waits")
    page.get_by_role("button", name="Resume").first.click()
    page.get_by_text("Whether the version becomes the champion.").first.wait_for()
    choose(page, field(page, "Decision"), "approve")
    write(page, "Who", "kim")
    write(page, "Reason", "looks right")
    shoot(page, "promote-form")
    press(page, page.get_by_role("dialog").get_by_role("button", name="Submit"), "/resume")
    see_run(page, service, run, "Promoted")
    shoot(page, "promoted")
    see_version(page, service, "2", "champion")
    shoot(page, "mlflow-champion")
    # And back.
    run = start_for_the_model(page, service, "rollback")
    see_run(page, service, run, "Rolled back")
    see_version(page, service, "1", "champion")
    shoot(page, "mlflow-rolled-back")
    said = service.hone("history", MODEL).stdout
    assert re.search(r"promoted.*kim|kim.*promoted", said), said
    assert "rolled back" in said


def test_an_alias_moved_by_hand_in_mlflow_is_noticed(page: Page, service: Service, prefilled: dict[str, Any]) -> None:
    before = service.noticed(MODEL)
    page.goto(f"{service.mlflow_url}/#/models/{MODEL}/versions/2")
    page.get_by_text("Aliases").first.wait_for()
    page.get_by_text(re.compile(r"^@\s*(candidate|previous)$")).first.wait_for()
    page.get_by_title("Edit aliases").click()
    dialog = page.get_by_role("dialog")
    box = dialog.get_by_role("combobox")
    box.click()
    box.press_sequentially("champion")
    page.keyboard.press("Enter")
    dialog.get_by_role("button", name="Save aliases").click()
    until(lambda: champion(service) == "2", 60)
    shoot(page, "mlflow-by-hand")
    [run] = until(lambda: set(service.noticed(MODEL)) - set(before), 60)
    see_run(page, service, run, "Completed")
    page.get_by_text("Artifacts", exact=True).first.click()
    page.get_by_text(f"watch-{MODEL}").first.wait_for()
    shoot(page, "watch-registry")
    assert "moved by hand" in service.hone("history", MODEL).stdout


def test_a_run_that_is_cancelled_in_the_ui_has_stopped_training(
    page: Page, service: Service, prefilled: dict[str, Any]
) -> None:
    slow = prefilled | {"name": "slow", "training": {"epochs": 1000, "batch_size": 1, "checkpoint_seconds": 0.5}}
    run = service.start("finetune/finetune", config=slow)
    until(lambda: trainings(service))
    page.goto(f"{service.prefect_url}/runs/flow-run/{run}")
    page.get_by_role("button", name="Cancel", exact=True).first.click()
    press(page, page.get_by_role("dialog").get_by_role("button", name="Confirm"), "/set_state")
    cancelled = time.monotonic()
    until(lambda: not trainings(service), 15)
    assert time.monotonic() - cancelled < 15
    see_run(page, service, run, "Cancelled")
    shoot(page, "cancelled")


def trainings(service: Service) -> list[psutil.Process]:
    """The training processes of this service that run now."""
    found = [(one, one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"])]
    return [one for one, words in found if "hone.training.loop" in words and str(service.home) in " ".join(words)]
