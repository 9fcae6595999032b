"""The report in a real browser, from a file, as a reader opens it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hone.evaluation.report.report import Origin, render
from hone.evaluation.report.report_champion import Registered
from hone.objectives.text_classification import TextClassification
from tests.report_samples import HOSTILE, build, champion

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow
WIDTHS = (420, 800, 1280, 1440, 1920)
# The elements whose text stands out too little from what lies behind it.
FAINT = """() => {
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
      return faint; }"""


# The numbers that stand on two lines, and the figures that lie beyond the page's column or on another.
BROKEN = """() => {
      const broken = [], right = document.querySelector('main').getBoundingClientRect().right + 1;
      const walk = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
      while (walk.nextNode()) {
        const node = walk.currentNode;
        if (node.parentElement.closest('code, pre, svg, .hidden, .text, blockquote, .examples, .where, .axis, .x-axis'))
          continue;
        for (const match of node.data.matchAll(/[+\u2212]?\\d[\\d,.\u2013]*\\d%?/g)) {
          const range = document.createRange();
          range.setStart(node, match.index);
          range.setEnd(node, match.index + match[0].length);
          const boxes = [...range.getClientRects()];
          if (new Set(boxes.map((box) => Math.round(box.top))).size > 1) broken.push(`broken: ${match[0]}`);
          if (boxes.some((box) => box.right > right) && !node.parentElement.closest('.scroll'))
            broken.push(`clipped: ${match[0]}`);
        }
      }
      for (const bar of document.querySelectorAll('.cell-bar')) {
        const figure = bar.previousElementSibling.getBoundingClientRect(), box = bar.getBoundingClientRect();
        if (box.left < figure.right && box.top < figure.bottom - 3 && box.width)
          broken.push(`covered: ${bar.parentElement.textContent}`);
      }
      return broken; }"""
LONG_LABELS = ["A long label of many words on the weather in the north", "Donaudampfschifffahrtsgesellschaft", "x", "y"]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report of six classes, one of 77 with all that can be in it, and one of long labels and large numbers."""
    home = tmp_path_factory.mktemp("reports")
    names = [f"a_rather_long_name_of_a_class_{n}" for n in range(77)]
    samples: dict[str, dict[str, Any]] = {
        "few": {},
        "many": {"labels": names, "test_rows": 3_080, "adapter": True, "failing": True},
        "large": {"labels": LONG_LABELS, "test_rows": 10_000, "failing": True},
    }
    for name, sample in samples.items():
        links = {"MLflow run": "http://127.0.0.1:5000/#/experiments/1/runs/a"}
        origin = Origin("ada", "0123456789abcdef" * 2 + "-dirty", "0.1.0", "apache-2.0", f"{name}-of-the-team")
        made = build(home / name, **sample)
        page = "http://127.0.0.1:5000/#/models/demo/versions/"
        registered = Registered(f"{name}-of-the-team", "13", "candidate", f"{page}13", champion(home, made, "12", page))
        html = render(name, made, links, (), origin, TextClassification(), registered)
        (home / f"{name}.html").write_text(html, "utf8")
    return {name: home / f"{name}.html" for name in samples}


def open_at(page: Page, report: Path, width: int = 1280) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(report.as_uri())


def test_opens_without_a_request_beyond_its_own_file_and_without_a_complaint(
    page: Page, reports: dict[str, Path]
) -> None:
    for report in reports.values():
        asked: list[str] = []
        said: list[str] = []
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.on("console", lambda message, said=said: said.append(message.text))
        page.on("pageerror", lambda fault, said=said: said.append(str(fault)))
        open_at(page, report)
        assert {url for url in asked if not url.startswith("data:")} == {report.as_uri()}
        assert said == []


def test_the_verdict_is_on_the_first_screen(page: Page, reports: dict[str, Path]) -> None:
    for width in WIDTHS:
        open_at(page, reports["few"], width)
        answer = page.locator(".answer")
        assert answer.is_visible() and answer.inner_text() == "Yes."
        box = answer.bounding_box()
        assert box and box["y"] + box["height"] < 900


def test_text_that_is_markup_is_not_run(page: Page, reports: dict[str, Path]) -> None:
    open_at(page, reports["many"])
    assert page.title().startswith("many: ")
    assert any(HOSTILE in text for text in page.locator(".errors .text").all_inner_texts())
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_sticks_out_sideways(page: Page, reports: dict[str, Path], width: int) -> None:
    for report in reports.values():
        open_at(page, report, width)
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        assert page.evaluate("innerWidth") == width
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", (390, 800, 1280, 1920))
def test_no_number_is_broken_or_cut_off(page: Page, reports: dict[str, Path], width: int) -> None:
    for report in reports.values():
        open_at(page, report, width)
        assert page.evaluate(BROKEN) == []


def test_a_short_label_is_not_broken(page: Page, reports: dict[str, Path]) -> None:
    for width in (800, 1280, 1440, 1920):
        open_at(page, reports["few"], width)
        heights = page.locator(".matrix tbody th").evaluate_all("all => all.map(one => one.offsetHeight)")
        assert len(set(heights)) == 1, (width, heights)
        spans = page.locator(".matrix thead span").evaluate_all("all => all.map(one => one.getClientRects().length)")
        assert spans == [1] * len(heights), (width, spans)


def test_tables_fit_a_laptop_and_scroll_on_a_phone(page: Page, reports: dict[str, Path]) -> None:
    hidden = "[...document.querySelectorAll('.scroll')].map((one) => one.scrollWidth - one.clientWidth)"
    for report in reports.values():
        open_at(page, report, 1280)
        assert max(page.evaluate(hidden)) <= 1
    open_at(page, reports["few"], 390)
    table = page.get_by_role("region", name="Token account")
    before = table.evaluate("one => { one.scrollLeft = 1e4; return one.scrollLeft; }")
    assert before > 0


def test_dark_where_the_reader_likes_it_dark(page: Page, reports: dict[str, Path]) -> None:
    shades = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        open_at(page, reports["few"])
        color = page.evaluate("getComputedStyle(document.body).backgroundColor")
        shades[scheme] = [int(part) for part in color.strip("rgba()").split(",")[:3]]
    assert min(shades["light"]) > 200 and max(shades["dark"]) < 60


def test_every_word_can_be_read_in_both_schemes(page: Page, reports: dict[str, Path]) -> None:
    """The contrast of text with what lies behind it is 4.5 or more (WCAG 2.2, 1.4.3)."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for report in reports.values():
            open_at(page, report)
            assert page.evaluate(FAINT) == []


def test_a_heading_sorts_its_table_by_keyboard(page: Page, reports: dict[str, Path]) -> None:
    open_at(page, reports["few"])
    page.locator("#classes thead th:nth-child(5) button").press("Enter")
    cells = page.locator("#classes tbody td:nth-child(5)")
    recalls = [float(cell.get_attribute("data-sort") or "nan") for cell in cells.all()]
    assert recalls == sorted(recalls) and len(recalls) == 6
    assert recalls != recalls[::-1]


def test_errors_are_filtered_by_the_words_typed(page: Page, reports: dict[str, Path]) -> None:
    open_at(page, reports["few"])
    page.locator(".filter input").fill("freedom deviation")
    shown = [error.inner_text() for error in page.locator("#errors .errors > li").all() if error.is_visible()]
    assert len(shown) == 1 and "degrees of freedom" in shown[0]
    assert page.locator(".filter output").inner_text() == "1 of 7"


def test_the_loss_is_told_step_by_step_with_the_arrow_keys(page: Page, reports: dict[str, Path]) -> None:
    open_at(page, reports["few"])
    page.locator("#training .canvas").first.press("ArrowLeft")
    assert page.locator(".tip").first.inner_text().startswith("step 134: training loss")


def test_without_scripts_all_of_it_is_there(browser: Browser, reports: dict[str, Path]) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    open_at(page, reports["few"])
    for section in page.locator("main > section").all():
        box = section.bounding_box()
        assert section.is_visible() and box and box["height"] > 100
    assert not page.locator(".filter").is_visible()
    context.close()
