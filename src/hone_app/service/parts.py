"""The parts of the service: the command and environment of each for given settings, and its clients' environment."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from hone.environment import Home
from hone.errors import ConfigError
from hone_app.deploy.names import POOL
from hone_app.service import servers
from hone_app.service.credentials import Credentials, load_credentials, write_private
from hone_app.service.servers import Server

LOOPBACK = "127.0.0.1"
# The default ports of each server.
SERVERS = {"prefect": 4200, "mlflow": 5000}
KEY = "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"
HOSTS = "MLFLOW_SERVER_ALLOWED_HOSTS"


@dataclass(frozen=True)
class Settings:
    """How the service is started. A database is a postgresql:// URL, or '' for SQLite in the data folder."""

    host: str = LOOPBACK
    auth: bool = False
    prefect_database: str = ""
    mlflow_database: str = ""

    @property
    def local_host(self) -> str:
        """The host name for processes on this machine."""
        return LOOPBACK if self.host == "0.0.0.0" else self.host

    @property
    def public_host(self) -> str:
        """The host name for people's browsers."""
        return socket.gethostname() if self.host == "0.0.0.0" else self.host

    def check(self) -> None:
        """Raise ConfigError for settings that are invalid or unsafe."""
        if not self.auth and not _is_loopback(self.host):
            raise ConfigError(
                "others could use the servers without a password",
                where=f"--host {self.host}",
                fix="Add --auth, or omit --host: the servers are then reachable from this machine only.",
            )
        if self.auth and importlib.util.find_spec("flask_wtf") is None:
            raise ConfigError("mlflow[auth] is not installed", where="--auth", fix="pip install 'mlflow[auth]'")
        for name, url in (("prefect", self.prefect_database), ("mlflow", self.mlflow_database)):
            if url and not url.startswith("postgresql://"):
                raise ConfigError(
                    "is not a PostgreSQL URL",
                    where=f"--{name}-database",
                    fix="Write postgresql://USER:PASSWORD@HOST/NAME.",
                )

    def passwords(self) -> tuple[str, ...]:
        """The databases' passwords in the forms that may appear in a log: quoted and unquoted."""
        passwords = [urllib.parse.urlsplit(url).password for url in (self.prefect_database, self.mlflow_database)]
        return tuple(form for password in passwords if password for form in (password, urllib.parse.unquote(password)))


def build_prefect(home: Home, settings: Settings) -> Server:
    """The Prefect server."""
    server = servers.prefect_server(home, settings.host, settings.public_host)
    environment = dict(server.environment)
    if settings.prefect_database:
        url = settings.prefect_database.replace("postgresql://", "postgresql+asyncpg://")
        environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = url
    if settings.auth:
        auth = load_credentials(home.service).auth_string
        environment |= {"PREFECT_SERVER_API_AUTH_STRING": auth, "PREFECT_API_AUTH_STRING": auth}
    return Server("prefect", server.command, server.health, home.logs, environment, settings.passwords())


def build_mlflow(home: Home, settings: Settings) -> Server:
    """The MLflow server, on the same store as runs without a server. Its files are in the data folder."""
    root = home.root / "mlflow"
    store = settings.mlflow_database.replace("postgresql://", "postgresql+psycopg://")
    command = [
        *(sys.executable, "-P", "-m", "mlflow", "server", "--host", settings.host, "--port", "{port}"),
        *("--workers", "1", "--default-artifact-root", str(root / "artifacts")),
    ]
    environment = {
        # Not on the command line, which every user of the machine can read.
        "MLFLOW_BACKEND_STORE_URI": store or f"sqlite:///{root}/mlflow.db",
        # 2 processes and 0.5 GB in place of 15 and 3.2 GB.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # By default MLflow posts to public https addresses only; our webhook is on this machine.
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        # Without it MLflow generates a key at each start and cannot decrypt stored secrets.
        KEY: os.environ.get(KEY) or load_credentials(home.service).mlflow_webhook_encryption,
        HOSTS: os.environ.get(HOSTS) or ",".join(_list_mlflow_hosts(settings)),
    }
    if settings.auth:
        command += ["--app-name", "basic-auth"]
        environment |= _basic_auth(home, store or f"sqlite:///{root}/users.db", load_credentials(home.service))
    return Server("mlflow", command, "/health", home.logs, environment, settings.passwords())


def _list_mlflow_hosts(settings: Settings) -> list[str]:
    """The Host headers that MLflow accepts. Its own default has `10.*`, which `10.example.org` matches too."""
    names = dict.fromkeys(("localhost", LOOPBACK, settings.host, settings.public_host))
    ipv6 = {name for name in names if ":" in name}
    # With a `*`, MLflow takes `[` for the start of a set of characters.
    return [
        form for name in names for form in ((f"[{name}]", f"[[]{name}]:*") if name in ipv6 else (name, f"{name}:*"))
    ]


def _basic_auth(home: Home, database: str, passwords: Credentials) -> dict[str, str]:
    settings = {
        "default_permission": "READ",
        # MLflow reads the file with configparser, which interpolates %.
        "database_uri": database.replace("%", "%%"),
        "admin_username": passwords.client()["MLFLOW_TRACKING_USERNAME"],
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
        # Otherwise MLflow hashes the password for every request, which is slow by design.
        "auth_cache_ttl_seconds": "60",
    }
    path = home.service / "mlflow-auth.ini"
    write_private(path, "\n".join(("[mlflow]", *(f"{name} = {value}" for name, value in settings.items()), "")))
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(path),
        "MLFLOW_AUTH_ADMIN_PASSWORD": passwords.mlflow,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": passwords.mlflow_forms,
    }


def build_worker(home: Home, client: dict[str, str]) -> Server:
    """The worker; its runs are processes that inherit its environment."""
    command = (
        *(sys.executable, "-P", "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"),
        *("--name", POOL, "--install-policy", "never"),
    )
    # Polls for new runs every 3 s; Prefect's default is 10 s.
    environment = {"PREFECT_LOGGING_EXTRA_LOGGERS": "hone", "PREFECT_WORKER_QUERY_SECONDS": "3"} | client
    return Server("worker", command, "", home.logs, environment)


def build_webhook(home: Home, client: dict[str, str]) -> Server:
    """The receiver of MLflow's registry webhook: on loopback, since both are on this machine, and on any free port."""
    command = (sys.executable, "-P", "-m", "hone_app.service.webhook", "--ready", str(webhook_ready_file(home)))
    secret = load_credentials(home.service).mlflow_webhook
    return Server("webhook", command, "", home.logs, {"HONE_WEBHOOK_SECRET": secret} | client)


def webhook_ready_file(home: Home) -> Path:
    """The file that the webhook's server writes once it has subscribed to MLflow."""
    return home.service / "webhook"


def client_environment(settings: Settings, home: Home, url: Callable[[str], str]) -> dict[str, str]:
    """The environment variables with which Prefect's and MLflow's clients find and access the servers."""
    addresses = {
        "PREFECT_HOME": str(home.prefect),
        "PREFECT_API_URL": f"{url('prefect')}/api",
        "MLFLOW_TRACKING_URI": url("mlflow"),
    }
    return addresses | (load_credentials(home.service).client() if settings.auth else {})


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
