"""Where rows come from: one file for each kind of source, one line for it in the table."""

from __future__ import annotations

from hone.parts.plugins import PartTable
from hone.sources.files import Files
from hone.sources.hub import Hub
from hone.sources.source import Source
from hone.sources.sql import Sql

SOURCES: PartTable[Source] = PartTable(
    "hone.sources",
    {
        "files": Files,
        "hub": Hub,
        "sql": Sql,
    },
)
