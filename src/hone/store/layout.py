"""The file names that the stages' artifacts have in common."""

from __future__ import annotations

MANIFEST = "manifest.json"
CONFIG = "config.yaml"
