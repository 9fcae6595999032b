"""In place of `python`: a command that imports the large libraries is run by the fork server, others as they are.

It stays while the process that the fork server forked for it runs: passes signals on, ends as that ends, and that ends
if this is killed. Copied by `tests.preloaded` under the names `python` and `hone`, with nothing to import but the
standard library: pathlib would take half the time of a start.
"""

import json
import os
import re
import signal
import socket
import sys

PYTHON = sys.executable
HERE = os.path.dirname(os.path.abspath(sys.argv[0]))
MODULES = ("hone_app.cli.main", "hone.training.loop", "prefect.engine")
# What it starts is forked as well.
WORKER = (
    "import runpy, sys; sys.executable = {!r}; sys.argv = {!r}; runpy.run_module('prefect', None, '__main__', True)"
)
# A script that does not name any of these has no use for them.
LIBRARIES = re.compile(r"\b(import|from) (mlflow|torch|prefect|hone|hone_app|flows|tasks)\b")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    words = [*(["-P", "-m", "hone_app.cli.main"] if sys.argv[0].endswith("/hone") else []), *sys.argv[1:]]
    flags = ["-P"] if words[:1] == ["-P"] else []
    kind, what = [*words[len(flags) :], "", ""][:2]
    if (kind == "-m" and what in MODULES) or (kind == "-c" and LIBRARIES.search(what)):
        forked({"safe": bool(flags), "kind": kind, "what": what, "words": words[len(flags) + 2 :]})
    if (kind, what) == ("-m", "prefect") and "worker" in words:
        words = [*flags, "-c", WORKER.format(f"{HERE}/python", ["prefect", *words[len(flags) + 2 :]])]
    os.execv(PYTHON, [PYTHON, *words])


def forked(request: dict[str, object]) -> None:
    """Let the fork server do it and end as it ended; return where the server would not."""
    inherited = [int(name) for name in os.listdir("/dev/fd") if os.path.exists(f"/dev/fd/{name}")]
    inherited = [fd for fd in inherited if os.get_inheritable(fd)]
    umask = os.umask(0)
    os.umask(umask)
    request |= {
        "environment": dict(os.environ),
        "directory": os.getcwd(),
        "umask": umask,
        "descriptors": inherited,
    }
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(f"{HERE}/socket")
        body = json.dumps(request).encode()
        socket.send_fds(server, [len(body).to_bytes(8, "big")], inherited)
        server.sendall(body)
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda received, _: server.send(bytes([received])))
        answer = json.loads(server.makefile().readline() or '{"signal": 9}')
    if "signal" in answer:
        if answer["signal"] in SIGNALS:
            signal.signal(answer["signal"], signal.SIG_DFL)
        os.kill(os.getpid(), answer["signal"])
    if "status" in answer:
        os._exit(answer["status"])


main()
