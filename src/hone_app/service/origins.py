"""Refuses requests of other web pages to a server: a check of Host and Origin around its ASGI application.

Prefect's server answers every page: it allows all origins and hosts, and a run executes code. A page that a user of
this machine visits could start one. Its requests carry its own origin; a page whose name was rebound to this machine's
address (DNS rebinding) carries its name as the host. Programs send no Origin and are not affected.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse

VARIABLE = "HONE_PREFECT_HOSTS"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class OwnPagesOnly:
    """The application, for requests by one of its names and from its own pages; others are answered with 403.

    Names are `HOST` or `HOST:PORT`, as browsers show them. IP addresses and `localhost` need not be listed: no page can
    rebind them.
    """

    def __init__(self, application: Application, names: Iterable[str]) -> None:
        self.application = application
        self.names = frozenset(map(_strip_default_port, names))
        self.hosts = frozenset(map(_host_of, self.names))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        reason = self.find_reason(scope) if scope["type"] in ("http", "websocket") else ""
        if not reason:
            await self.application(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": reason[:123]})
        else:
            await PlainTextResponse(f"{reason}\n", 403)(scope, receive, send)

    def find_reason(self, scope: Scope) -> str:
        """Why the request is refused; '' if it is not."""
        headers = [(name, value.decode("latin-1")) for name, value in scope["headers"]]
        hosts = [_strip_default_port(value) for name, value in headers if name == b"host"]
        origins = [value for name, value in headers if name == b"origin"]
        if len(hosts) != 1 or not self._is_ours(_host_of(hosts[0])):
            return f"Host {', '.join(hosts)}: not a name of this server. {_fix(hosts)}"
        if any(_netloc_of(origin) not in {hosts[0], *self.names} for origin in origins):
            return f"Origin {', '.join(origins)}: not a page of this server. {_fix(map(_netloc_of, origins))}"
        return ""

    def _is_ours(self, host: str) -> bool:
        return host == "localhost" or host in self.hosts or _is_address(host)


def _fix(names: Iterable[str]) -> str:
    return f"If it is this server's, set {VARIABLE}={','.join(names)} in its environment."


def _strip_default_port(name: str) -> str:
    return re.sub(r":(80|443)$", "", name.strip().lower())


def _netloc_of(origin: str) -> str:
    """`HOST[:PORT]` of an origin; '' for `null`, which sandboxed pages and local files send."""
    return _strip_default_port(urlsplit(origin).netloc)


def _host_of(name: str) -> str:
    return re.sub(r":\d+$", "", name).strip("[]")


def _is_address(host: str) -> bool:
    try:
        return bool(ip_address(host))
    except ValueError:
        return False
