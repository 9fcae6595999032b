"""Sources of rows: one file per kind of source, and one line per kind in the table."""

from __future__ import annotations

from hone.parts.plugins import load_plugins
from hone.sources.files import Files
from hone.sources.hub import Hub
from hone.sources.installed_docs import InstalledDocs
from hone.sources.source import Source
from hone.sources.sql import Sql

SOURCES: dict[str, type[Source]] = {
    "files": Files,
    "hub": Hub,
    "sql": Sql,
    "installed_docs": InstalledDocs,
}
SOURCES.update(load_plugins("hone.sources"))
