"""A real browser: Debian's chromium, driven by Playwright."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    # These names are of this machine, as after DNS rebinding.
    "--host-resolver-rules=MAP *.example.org 127.0.0.1",
)


# Not longer than a module: while it lives, Playwright's event loop runs in this thread, and Prefect's calls see it.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; tests that need it skip where it is not."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (pip install hone[dev])"
    )
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM} (apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a fresh profile."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    yield context.new_page()
    context.close()
