"""Starts watch-registry as soon as MLflow reports that a champion was moved by anyone but Hone.

Run it with `python -m hone_app.service.webhook`. MLflow's registry webhook posts to this server, which subscribes
itself. Deliveries that are not signed with the secret in HONE_WEBHOOK_SECRET are refused. A lost delivery delays
watch-registry by at most five minutes, the interval of its schedule.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import uvicorn
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from hone.environment import home, set_umask
from hone.errors import ConfigError, HoneError
from hone.promotion.reconcile import is_moved_by_hand
from hone_app.service.registry_webhook import find_moved_model, is_signed, subscribe

DEPLOYMENT = "reconcile/watch-registry"
MAX_BYTES = 65_536
SECRET = "HONE_WEBHOOK_SECRET"

_log = logging.getLogger(__name__)

Start = Callable[[str, str], Awaitable[str]]


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description="Start watch-registry when MLflow reports a changed champion.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: any free port)")
    parser.add_argument("--url", help="URL of this server for MLflow (default: http://HOST:PORT)")
    parser.add_argument("--ready", type=Path, help="file to write once this server has subscribed to MLflow")
    return parser


def main() -> int:
    """Subscribe to MLflow and serve until the process is terminated."""
    options = build_parser().parse_args()
    try:
        set_umask()
        listener = socket.create_server((options.host, options.port))
        url = options.url or f"http://{options.host}:{listener.getsockname()[1]}"
        secret = read_secret()
        subscribe(home().tracking_uri, url, secret)
    except (HoneError, OSError) as fault:
        sys.exit(str(fault))
    if options.ready:
        options.ready.write_text(url, "utf8")
    uvicorn.Server(uvicorn.Config(build_application(secret, start_watch), log_level="warning")).run([listener])
    return 0


def read_secret() -> str:
    """The secret with which MLflow signs deliveries. Raises ConfigError if it is not set."""
    if not os.environ.get(SECRET):
        raise ConfigError(
            "is not set", where=SECRET, fix="Set it to a long random string in the environment of this process only."
        )
    return os.environ[SECRET]


def build_application(secret: str, start: Start) -> Starlette:
    """The server: MLflow posts to /, GET /health is the health check.

    `start(model, delivery)` starts watch-registry and returns the run's id, or '' if there is no reason to. Responses:
    202 if a run was started, 204 if not, 400 for a body that is no event of the registry, 401 for a bad signature, 413
    for a body over MAX_BYTES, and 503, after which
    MLflow retries, if a server did not answer.
    """

    async def receive(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BYTES:
                return PlainTextResponse("too long\n", 413)
        if not is_signed(request.headers, body, secret):
            return PlainTextResponse("MLflow did not sign this with our secret in the last five minutes\n", 401)
        try:
            model = find_moved_model(body)
        except ValueError as fault:
            return PlainTextResponse(f"{fault}\n", 400)
        try:
            run = await start(model, request.headers["x-mlflow-delivery-id"]) if model else ""
        except (PrefectException, httpx.HTTPError, RuntimeError, HoneError) as fault:
            _log.warning("watch-registry was not started for %s: %s", model, fault)
            return PlainTextResponse("watch-registry was not started\n", 503)
        return PlainTextResponse(f"{run}\n", 202) if run else Response(status_code=204)

    async def health(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    return Starlette(routes=[Route("/", receive, methods=["POST"]), Route("/health", health)])


async def start_watch(model: str, delivery: str) -> str:
    """Start watch-registry, once per delivery, if the champion was not moved by Hone; return the run's id, else ''."""
    if not await run_in_threadpool(is_moved_by_hand, home().tracking_uri, model):
        return ""
    async with get_client() as client:
        deployment = await client.read_deployment_by_name(DEPLOYMENT)
        run = await client.create_flow_run_from_deployment(
            deployment.id,
            parameters={"models": [model]},
            idempotency_key=f"mlflow/{delivery}",
            tags=["mlflow-webhook"],
        )
    return str(run.id)


if __name__ == "__main__":
    sys.exit(main())
