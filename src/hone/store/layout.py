"""File names that the artifacts of all stages share."""

from __future__ import annotations

MANIFEST = "manifest.json"
CONFIG = "config.yaml"
