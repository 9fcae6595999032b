"""What the deployments are called, for programs that must not import Prefect."""

from __future__ import annotations

from pathlib import Path

POOL = "hone"
FILE = Path("deployments/prefect.yaml")
AUTOMATIONS = Path("deployments/automations")
