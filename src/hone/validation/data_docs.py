"""The Data Docs as one HTML file: MLflow shows a file of a run by itself, without the files that it links to."""

from __future__ import annotations

import base64
import hashlib
import json
import posixpath
import re
from collections.abc import Collection
from pathlib import Path

from hone.splits import SPLITS

_LINK = re.compile(r'href="([^":#?]+\.html)[^"]*"')
_FETCHED = re.compile(r"<(link|img)\b[^>]*>", re.IGNORECASE)
_SCRIPT = re.compile(r"<script\b.*?</script>", re.DOTALL | re.IGNORECASE)
_STYLE = """<style>
body { font: 14px/1.5 sans-serif; margin: 12px } table { border-collapse: collapse; margin: 8px 0 }
td, th { border: 1px solid #ccc; padding: 4px 8px; text-align: left; vertical-align: top }
h4, h5, h6 { font-size: 1.1em; margin: 12px 0 4px }
.fa-check-circle::before { content: "\u2713"; color: #080 } .fa-times::before { content: "\u2717"; color: #c00 }
.fa-exclamation-triangle::before { content: "!"; color: #c60 }
.modal, .cooltip .top, .card, [data-toggle=collapse], nav, button, footer { display: none }
</style>"""
# A page is shown in a frame without rights of its own, so it can only ask its parent for another page.
_FOLLOW = """addEventListener("click", event => {
  const link = event.target.closest("a[data-page]");
  if (link) { event.preventDefault(); parent.postMessage(link.dataset.page, "*"); }
});"""
# The frame has the policy of the page around it: of all scripts only these two run, and nothing is fetched.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src SCRIPTS; base-uri 'none'; form-action 'none'"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Data Docs</title>
<meta http-equiv="Content-Security-Policy" content="POLICY">
<style>
html, body { margin: 0; height: 100%; font: 14px sans-serif }
body { display: flex; flex-direction: column }
nav { padding: 6px; border-bottom: 1px solid #ccc } button { font: inherit; margin: 2px }
button[aria-current] { font-weight: bold } iframe { border: 0; flex: 1; background: #fff }
</style></head>
<body><nav></nav><iframe title="Data Docs" sandbox="allow-scripts allow-popups"></iframe>
<script type="application/json">PAGES</script>
<script>SHOW</script></body></html>
"""
_SHOW = """
const frame = document.querySelector("iframe"), buttons = {};
const pages = JSON.parse(document.querySelector("script[type='application/json']").textContent);
function show(path) {
  frame.srcdoc = pages[path].html;
  for (const [own, button] of Object.entries(buttons)) button.toggleAttribute("aria-current", own === path);
}
for (const [path, page] of Object.entries(pages)) {
  const button = buttons[path] = document.createElement("button");
  button.textContent = page.title;
  button.addEventListener("click", () => show(path));
  document.querySelector("nav").append(button);
}
addEventListener("message", event => {
  if (event.source === frame.contentWindow && Object.hasOwn(pages, event.data)) show(event.data);
});
show(Object.keys(pages)[0]);
"""


def write_single_page(docs: Path, file: Path) -> None:
    """Write the pages of the Data Docs in the directory `docs` to one HTML file: results first, then expectations.

    Without what the pages fetch from the network (Bootstrap, charts), so that they look the same without one, and
    without the index, a table that only these scripts fill.
    """
    pages = {path: _build_title(path) for path in _list_pages(docs)}
    embedded = {
        path: {"title": title, "html": _embed(path, (docs / path).read_text("utf8"), pages)}
        for path, title in pages.items()
    }
    text = json.dumps(embedded, ensure_ascii=False).replace("<", "\\u003c")  # no </script> in it
    policy = _POLICY.replace("SCRIPTS", f"{_hash_script(_SHOW)} {_hash_script(_FOLLOW)}")
    file.write_text(_PAGE.replace("POLICY", policy).replace("SHOW", _SHOW).replace("PAGES", text), "utf8")


def _hash_script(script: str) -> str:
    """The source of a script in a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _list_pages(docs: Path) -> list[str]:
    """The paths of the pages: results of the last round first, in the order of the splits, then the suites."""
    results = [page.relative_to(docs) for page in docs.glob("validations/*/*/*/*.html")]
    results.sort(key=lambda page: (-int(page.parts[2].removeprefix("round-")), SPLITS.index(page.parts[1])))
    suites = [page.relative_to(docs) for page in docs.glob("expectations/*.html")]
    suites.sort(key=lambda page: SPLITS.index(page.stem))
    return [page.as_posix() for page in (*results, *suites)]


def _build_title(path: str) -> str:
    """`train: results of round 1`, `train: expectations`."""
    kind, name, *rest = path.split("/")
    if kind == "validations":
        return f"{name}: results of {rest[0].replace('-', ' ')}"
    return f"{name.removesuffix('.html')}: expectations"


def _embed(path: str, html: str, paths: Collection[str]) -> str:
    """The page without scripts, stylesheets and images, with links that ask the parent for a page."""
    folder = posixpath.dirname(path)

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[1]))
        return f'href="#" data-page="{target}"' if target in paths else 'href="#"'

    return _FETCHED.sub("", _SCRIPT.sub("", _LINK.sub(link, html))) + f"{_STYLE}<script>{_FOLLOW}</script>"
