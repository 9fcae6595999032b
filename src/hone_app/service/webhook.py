"""Starts watch-registry as soon as MLflow reports that a champion was moved, and not by Hone.

Started by `python -m hone_app.service.webhook`.
A server of one address, which MLflow's registry webhook posts to. It subscribes itself; what MLflow did not sign, with
the secret in HONE_WEBHOOK_SECRET, is refused. A delivery that is lost costs five minutes: there is a schedule as well.
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

from hone.environment import home
from hone.errors import ConfigError, HoneError
from hone.promotion.reconcile import is_moved_by_hand
from hone_app.service.registry_webhook import moved, signed, subscribe

DEPLOYMENT = "reconcile/watch-registry"
MOST_BYTES = 65_536
SECRET = "HONE_WEBHOOK_SECRET"

_log = logging.getLogger(__name__)

Start = Callable[[str, str], Awaitable[str]]


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description="Start watch-registry when MLflow says that a champion changed.")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=0, help="the port; any that is free where none is given")
    parser.add_argument("--url", help="where MLflow reaches this server, where that is not http://HOST:PORT")
    parser.add_argument("--ready", type=Path, help="a file to write once MLflow was told of this server")
    return parser


def main() -> int:
    """Subscribe and serve until the process is asked to end."""
    given = parser().parse_args()
    try:
        listening = socket.create_server((given.host, given.port))
        url = given.url or f"http://{given.host}:{listening.getsockname()[1]}"
        word = secret()
        subscribe(home().tracking_uri, url, word)
    except (HoneError, OSError) as fault:
        sys.exit(str(fault))
    if given.ready:
        given.ready.write_text(url, "utf8")
    uvicorn.Server(uvicorn.Config(application(word, start), log_level="warning")).run([listening])
    return 0


def secret() -> str:
    """What MLflow signs with; ConfigError where there is none."""
    if not os.environ.get(SECRET):
        raise ConfigError(
            "is not set", where=SECRET, fix="Give the receiver of MLflow's webhook a long random word; no one else."
        )
    return os.environ[SECRET]


def application(secret: str, start: Start) -> Starlette:
    """The server: POST / is for MLflow, GET /health for those who wait for it.

    `start(model, delivery)` starts watch-registry and gives the run's id, '' where there is nothing to notice. Answers
    202 where it started, 204 where not, 401 to what MLflow did not sign, 413 to what is too long; 503, on which MLflow
    tries again, where a server did not answer.
    """

    async def hear(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                return PlainTextResponse("too long\n", 413)
        if not signed(request.headers, body, secret):
            return PlainTextResponse("MLflow did not sign this with our secret in the last five minutes\n", 401)
        model = moved(body)
        try:
            run = await start(model, request.headers["x-mlflow-delivery-id"]) if model else ""
        except (PrefectException, httpx.HTTPError, RuntimeError, HoneError) as fault:
            _log.warning("watch-registry was not started for %s: %s", model, fault)
            return PlainTextResponse("watch-registry was not started\n", 503)
        return PlainTextResponse(f"{run}\n", 202) if run else Response(status_code=204)

    async def health(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    return Starlette(routes=[Route("/", hear, methods=["POST"]), Route("/health", health)])


async def start(model: str, delivery: str) -> str:
    """Start watch-registry, once a delivery, where it was not Hone that moved the champion; the run's id, else ''."""
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
