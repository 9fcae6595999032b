"""What a person reads on the page of a model version in MLflow: its description, in sections, written and updated.

The description begins with the verdict and the figures; then come the section `Promotion`, which a decision writes,
sections of the model card as far as they fit, and the section `Notes`, which is a person's own and is never changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hone.evaluation.report import figures
from hone.evaluation.report.report_results import measured, select_figures, system_name

LIMIT = 5000  # characters: the column of MLflow's database, which PostgreSQL enforces and SQLite does not
MAX_METRICS = 5
GAP = "&emsp;"
PROMOTION, NOTES = "Promotion", "Notes"
HINT = "*Hone writes what is above. What you write below this line stays.*"
CARD_SECTIONS = ("How to use", "Bias, risks and limitations", "Data")
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_TABLE_ROW = re.compile(r"^\|(?! ---).*$", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """A description: `head`, the sections by title, and a person's `notes`."""

    head: str
    sections: Mapping[str, str]
    notes: str = ""


def parse_page(text: str) -> Page:
    """The parts of a description; one that Hone did not write is a person's notes."""
    written, hint, notes = text.partition(HINT)
    if not hint:
        return Page("", {}, text.strip())
    head, *pieces = _HEADING.split(written)
    titles, bodies = pieces[::2], pieces[1::2]
    sections = {title: body.strip() for title, body in zip(titles, bodies, strict=True) if title != NOTES}
    return Page(head.strip(), sections, notes.strip())


def render_page(page: Page) -> str:
    """The description, of at most LIMIT characters: last sections are left out first, then lines of the beginning.

    Notes that leave no room for their heading stay as they are, alone.
    """
    notes = f"\n\n## {NOTES}\n\n{HINT}\n{page.notes}".rstrip()
    if len(notes) > LIMIT:
        return page.notes
    text = _fit(page.head, LIMIT - len(notes))
    for title in sorted(page.sections, key=lambda title: title != PROMOTION):
        section = f"\n\n## {title}\n\n{page.sections[title]}"
        if title == PROMOTION:
            section = _fit(section, LIMIT - len(notes) - len(text))
        if len(text) + len(section) + len(notes) <= LIMIT:
            text += section
    return (text + notes).strip()


def update_page(existing: str, head: str, sections: Mapping[str, str]) -> str:
    """The description with this head and these sections; its notes stay, and its promotion if `sections` has none."""
    former = parse_page(existing)
    promotion = {PROMOTION: former.sections[PROMOTION]} if PROMOTION in former.sections else {}
    return render_page(Page(head, promotion | dict(sections), former.notes))


def set_promotion(existing: str, body: str) -> str:
    """The description with `body` as its section `Promotion`; the rest stays."""
    former = parse_page(existing)
    return render_page(Page(former.head, dict(former.sections) | {PROMOTION: body}, former.notes))


def select_card_sections(card: str) -> dict[str, str]:
    """The sections of a model card that help to decide on a version."""
    _, *pieces = _HEADING.split(card)
    by_title = dict(zip(pieces[::2], (body.strip() for body in pieces[1::2]), strict=True))
    return {title: _TABLE_ROW.sub(_widen, by_title[title]) for title in CARD_SECTIONS if by_title.get(title)}


def render_figures(metrics: Mapping[str, Any], champion: Mapping[str, Any] | None = None, title: str = "") -> str:
    """A Markdown table of all systems' figures, the main metric first; with those of the champion, called `title`.

    Both arguments are the contents of a metrics.json.
    """
    main = metrics["main_metric"]
    systems = measured(metrics)["systems"]
    names = sorted(systems["model"], key=lambda name: name != main)[:MAX_METRICS]
    rows = {"**this version**": systems["model"]}
    if champion:
        rows[title] = select_figures(metrics, champion)
    rows |= {
        figures.within_sentence(system_name(system)): values for system, values in systems.items() if system != "model"
    }
    cells = [[label, *(_format_figure(values.get(name)) for name in names)] for label, values in rows.items()]
    return render_table(["", *(metrics["measures"][name]["title"] for name in names)], cells)


def render_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose cells end with a space: MLflow's pages have none between columns."""
    lines = [columns, [":---"] * len(columns)]
    lines += [[cell.replace("|", "\\|") + GAP for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def render_links(addresses: Mapping[str, str]) -> str:
    """One line of Markdown links, without those that have no address."""
    return " · ".join(f"[{title}]({address})" for title, address in addresses.items() if address)


def _widen(row: re.Match[str]) -> str:
    return row[0].replace(" | ", f"{GAP} | ")


def _format_figure(figure: dict[str, Any] | None) -> str:
    """`69.4% (64.1–74.2%)`."""
    if not figure:
        return figures.NONE
    interval = figures.interval(figure)
    return figures.shown(figure) + (f" ({interval})" if interval else "")


def _fit(text: str, limit: int) -> str:
    """The first lines of `text` that have at most `limit` characters together."""
    lines = text.split("\n")
    while lines and len("\n".join(lines)) > max(limit, 0):
        lines.pop()
    return "\n".join(lines)
