"""Where Hone keeps its data on this machine: one data folder, and the servers named in the environment."""

from __future__ import annotations

import getpass
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hone.errors import ConfigError
from hone.store.store import Store

UMASK = "HONE_UMASK"

# Telemetry and start-up messages of the libraries are off; requests to an MLflow server that is down fail early.
# Heartbeat every 30 s instead of 180: deployments/automations/crash-zombies.yaml depends on it.
DEFAULTS = {
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def current_user() -> str:
    """The name of the user that this process runs as."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


@dataclass(frozen=True)
class Home:
    """The data folder (`HONE_HOME`, else ~/.hone) and its subfolders."""

    root: Path

    @property
    def store(self) -> Store:
        """The artifacts of all runs."""
        return Store(self.root / "store")

    @property
    def prefect(self) -> Path:
        """Data of the Prefect server that Hone starts when none is configured."""
        return self.root / "prefect"

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking URI: MLFLOW_TRACKING_URI, else a SQLite file in the data folder."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.root}/mlflow/mlflow.db"

    @property
    def artifact_root(self) -> str:
        """Where MLflow's experiments keep artifacts; '' if an MLflow server decides it."""
        return "" if os.environ.get("MLFLOW_TRACKING_URI") else str(self.root / "mlflow" / "artifacts")

    @property
    def machine(self) -> Path:
        """What was measured of the machines that train here, by processor."""
        return self.root / "machine.json"

    @property
    def downloads(self) -> Path:
        """Model versions downloaded from a remote MLflow server."""
        return self.root / "downloads"

    @property
    def answers(self) -> Path:
        """The answers of prompted models, which may have cost money: kept for every later run."""
        return self.root / "answers"

    @property
    def data_docs(self) -> Path:
        """Data Docs of validations that stopped a run, by its name."""
        return self.root / "data-docs"

    @property
    def promotions(self) -> Path:
        """Results of the promotion's tasks, for runs that wait for approval."""
        return self.root / "promotions"

    @property
    def servers(self) -> Path:
        """Servers that a run starts for itself: which processes use them, and their logs."""
        return self.root / "servers"

    @property
    def service(self) -> Path:
        """State of `hone up`: processes, ports and passwords."""
        return self.root / "service"

    @property
    def logs(self) -> Path:
        """Logs of the processes that `hone up` starts."""
        return self.root / "logs"


@dataclass(frozen=True)
class Retention:
    """How long `hone gc` leaves what nothing needs, in days, and how many versions of a model it leaves (0 for all)."""

    days: int = 30
    versions: int = 0


def load_retention(days: int | None = None, versions: int | None = None) -> Retention:
    """The given values, else HONE_KEEP_DAYS and HONE_KEEP_VERSIONS, else the defaults. Raises ConfigError."""
    return Retention(
        _read_count("HONE_KEEP_DAYS", days, Retention.days, 1),
        _read_count("HONE_KEEP_VERSIONS", versions, Retention.versions, 0),
    )


def _read_count(name: str, option: int | None, default: int, minimum: int) -> int:
    text = str(option) if option is not None else os.environ.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or int(text) < minimum:
        where = f"--{name.removeprefix('HONE_KEEP_').lower()}" if option is not None else name
        raise ConfigError(f"is {text!r}", where=where, fix=f"Write a whole number of at least {minimum}.")
    return int(text)


def home() -> Home:
    """The data folder that this process's environment selects. Raises ConfigError if databases cannot be in it."""
    root = Path(os.environ.get("HONE_HOME") or "~/.hone").expanduser().absolute()
    # In the URL of a database, the path would end there, or be another one.
    unusable = re.search(r"[?#]|%[0-9A-Fa-f]{2}", str(root))
    if unusable:
        fix = "Set HONE_HOME to a folder without ?, # and %XX in its path."
        raise ConfigError(f"a data folder's path cannot contain {unusable[0]}", where=f"HONE_HOME {root}", fix=fix)
    return Home(root)


def set_umask() -> int:
    """Apply HONE_UMASK, by default 077 (files are private), to this process and its children; returns it.

    Raises ConfigError for a value that is no umask, or that denies this user.
    """
    text = os.environ.get(UMASK) or "077"
    denied = int(text, 8) if text.isdecimal() and not set(text) & {"8", "9"} else -1
    if not 0 <= denied <= 0o077:
        fix = "Set 077 for this user only (the default), 007 for a group, or 022 for everyone to read."
        raise ConfigError(f"{text} is not a umask between 000 and 077", where=UMASK, fix=fix)
    os.umask(denied)
    return denied


def close_home(data: Home) -> str:
    """Remove what the umask denies from an existing data folder, once; returns what to report, '' if it was closed.

    The folder itself is changed last, so that an interrupted call is continued by the next.
    """
    denied = set_umask()
    if not data.root.is_dir() or not data.root.stat().st_mode & denied:
        return ""
    if data.root.stat().st_uid != os.getuid():
        return f"{data.root}: is open to other users and belongs to one of them. {UMASK} says for whom files are made."
    for path in _list_bottom_up(data.root):
        _deny(path, denied)
    return f"{data.root}: was open to other users and is closed now. For a shared folder, set {UMASK}."


def _list_bottom_up(root: Path) -> Iterator[Path]:
    for folder, _, files in os.walk(root, topdown=False):
        yield from (Path(folder, name) for name in files)
        yield Path(folder)


def _deny(path: Path, denied: int) -> None:
    """Remove permissions from a file or folder of this user that is not a link."""
    try:
        status = path.lstat()
        if not stat.S_ISLNK(status.st_mode) and status.st_mode & denied:
            path.chmod(stat.S_IMODE(status.st_mode) & ~denied)
    except (FileNotFoundError, PermissionError):  # removed meanwhile, or another user's
        return
