"""The report in a real browser, from a file, as a reader opens it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hone.evaluation.report import render
from tests.report_samples import HOSTILE, build

selenium = pytest.importorskip("selenium", reason="selenium is not installed (pip install hone[dev])")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (Path(CHROMIUM).exists() and Path(DRIVER).exists()),
        reason="no chromium and chromedriver in /usr/bin (apt-get install chromium chromium-driver)",
    ),
]
QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
# Headless windows are never narrower than 500 pixels: the width is emulated.
WIDTHS = (420, 800, 1280)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    home = tmp_path_factory.mktemp("chromium")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*QUIET, f"--user-data-dir={home / 'profile'}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    service = webdriver.ChromeService(DRIVER, env={**os.environ, "HOME": str(home), "TMPDIR": str(home)})
    driver = webdriver.Chrome(options, service)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report of six classes, and one of 77 with all that can be in it."""
    home = tmp_path_factory.mktemp("reports")
    names = [f"a_rather_long_name_of_a_class_{n}" for n in range(77)]
    samples: dict[str, dict[str, Any]] = {
        "few": {},
        "many": {"labels": names, "test_rows": 3_080, "adapter": True, "failing": True},
    }
    for name, sample in samples.items():
        links = {"MLflow run": "http://127.0.0.1:5000/#/experiments/1/runs/a"}
        (home / f"{name}.html").write_text(render(name, build(home / name, **sample), links), "utf8")
    return {name: home / f"{name}.html" for name in samples}


def open_at(browser: webdriver.Chrome, report: Path, width: int = 1280) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(report.as_uri())


def requests(browser: webdriver.Chrome) -> list[str]:
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


def test_opens_without_a_request_beyond_its_own_file_and_without_a_complaint(
    browser: webdriver.Chrome, reports: dict[str, Path]
) -> None:
    for report in reports.values():
        browser.get_log("performance"), browser.get_log("browser")
        open_at(browser, report)
        assert {url for url in requests(browser) if not url.startswith("data:")} == {report.as_uri()}
        assert browser.get_log("browser") == []


def test_the_verdict_is_on_the_first_screen(browser: webdriver.Chrome, reports: dict[str, Path]) -> None:
    for width in WIDTHS:
        open_at(browser, reports["few"], width)
        answer = browser.find_element(By.CLASS_NAME, "answer")
        assert answer.is_displayed() and answer.text == "Yes."
        assert answer.location["y"] + answer.size["height"] < 900


def test_text_that_is_markup_is_not_run(browser: webdriver.Chrome, reports: dict[str, Path]) -> None:
    open_at(browser, reports["many"])
    assert browser.title.startswith("many: ")
    assert any(HOSTILE in error.text for error in browser.find_elements(By.CSS_SELECTOR, ".errors .text"))
    assert browser.find_elements(By.TAG_NAME, "img") == []


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_sticks_out_sideways(browser: webdriver.Chrome, reports: dict[str, Path], width: int) -> None:
    for report in reports.values():
        open_at(browser, report, width)
        browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
        assert browser.execute_script("return innerWidth") == width
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_dark_where_the_reader_likes_it_dark(browser: webdriver.Chrome, reports: dict[str, Path]) -> None:
    shades = {}
    for scheme in ("light", "dark"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        open_at(browser, reports["few"])
        color = browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
        shades[scheme] = [int(part) for part in color.strip("rgba()").split(",")[:3]]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert min(shades["light"]) > 200 and max(shades["dark"]) < 60


def test_every_word_can_be_read_in_both_schemes(browser: webdriver.Chrome, reports: dict[str, Path]) -> None:
    """The contrast of text with what lies behind it is 4.5 or more (WCAG 2.2, 1.4.3)."""
    script = """
      const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
      const rgba = (css) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = css; canvas.fillRect(0, 0, 1, 1);
                              return [...canvas.getImageData(0, 0, 1, 1).data]; };
      const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
      const light = ([r, g, b]) => .2126 * linear(r / 255) + .7152 * linear(g / 255) + .0722 * linear(b / 255);
      const behind = (one) => {
        const color = one ? rgba(getComputedStyle(one).backgroundColor) : [255, 255, 255, 255];
        return color[3] === 255 ? color : behind(one.parentElement); };
      const hasText = (one) => [...one.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
      const faint = [];
      for (const one of document.querySelectorAll('body *')) {
        if (!hasText(one) || one.closest('svg, script, style, .skip')) continue;
        const a = light(rgba(getComputedStyle(one).color)), b = light(behind(one));
        const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
        if (contrast < 4.5) faint.push(`${one.className} ${one.textContent.slice(0, 20)} ${contrast.toFixed(2)}`);
      }
      return faint;"""
    for scheme in ("light", "dark"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        for report in reports.values():
            open_at(browser, report)
            assert browser.execute_script(script) == []
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_heading_sorts_its_table_by_keyboard(browser: webdriver.Chrome, reports: dict[str, Path]) -> None:
    open_at(browser, reports["few"])
    button = browser.find_element(By.CSS_SELECTOR, "#classes thead th:nth-child(5) button")
    button.send_keys(Keys.ENTER)
    cells = browser.find_elements(By.CSS_SELECTOR, "#classes tbody td:nth-child(5)")
    recalls = [float(cell.get_attribute("data-sort")) for cell in cells]
    assert recalls == sorted(recalls) and len(recalls) == 6
    assert recalls != [float(cell.get_attribute("data-sort")) for cell in reversed(cells)]


def test_errors_are_filtered_by_the_words_typed(browser: webdriver.Chrome, reports: dict[str, Path]) -> None:
    open_at(browser, reports["few"])
    browser.find_element(By.CSS_SELECTOR, ".filter input").send_keys("freedom deviation")
    shown = [error.text for error in browser.find_elements(By.CSS_SELECTOR, ".errors > li") if error.is_displayed()]
    assert len(shown) == 1 and "degrees of freedom" in shown[0]
    assert browser.find_element(By.CSS_SELECTOR, ".filter output").text == "1 of 7"


def test_the_loss_is_told_step_by_step_with_the_arrow_keys(browser: webdriver.Chrome, reports: dict[str, Path]) -> None:
    open_at(browser, reports["few"])
    browser.find_element(By.CSS_SELECTOR, "#training .canvas").send_keys(Keys.ARROW_LEFT)
    assert browser.find_element(By.CLASS_NAME, "tip").text.startswith("step 134: training loss")


def test_without_scripts_all_of_it_is_there(browser: webdriver.Chrome, reports: dict[str, Path]) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        open_at(browser, reports["few"])
        for section in browser.find_elements(By.CSS_SELECTOR, "main > section"):
            assert section.is_displayed() and section.size["height"] > 100
        assert not browser.find_element(By.CLASS_NAME, "filter").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
