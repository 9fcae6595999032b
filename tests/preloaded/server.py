"""A process that has imported the large libraries and runs each command in a fork of itself.

Started by `tests.preloaded` with the path of its socket; ends with the process that holds the other end of its standard
input, and all that it forked with it. Neither hone nor Prefect is imported before the fork: tests hide and change the
one, the other reads its settings from the environment as it is imported.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
import traceback
import types
from typing import Any

LIBRARIES = """
pandas pyarrow.parquet pyarrow.compute sklearn.feature_extraction.text sklearn.linear_model sklearn.model_selection
sklearn.preprocessing sklearn.svm scipy.special scipy.stats torch transformers
peft accelerate datasets mlflow mlflow.pyfunc mlflow.models great_expectations sqlalchemy.ext.asyncio
fastapi httpx uvicorn pydantic_settings jinja2 rich.console yaml psutil griffe pathspec pendulum websockets anyio
prometheus_client amplitude humanize coolname asgi_lifespan toml slugify
""".split()
# What begins so is read when a library is imported.
READ_AT_IMPORT = ("HF_", "TRANSFORMERS_", "OMP_", "MKL_", "KMP_", "ONEDNN_", "ATEN_", "CUDA_", "TORCH_", "GX_")
PR_SET_PDEATHSIG = 1
FREE = 512  # descriptors from here on are nobody's

Request = dict[str, Any]


def serve(path: str) -> Request:
    """Fork for each request. Returns in the forks, each with what it is to do."""
    running: dict[socket.socket, int] = {}
    waking, wake = socket.socketpair()
    wake.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    print("ready", flush=True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    selector = selectors.PollSelector()
    for channel in (sys.stdin, waking, listener):
        selector.register(channel, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            channel: Any = key.fileobj
            if channel is sys.stdin:  # the end of the tests
                for process in running.values():
                    kill(process)
                os._exit(0)
            elif channel is waking:
                waking.recv(4096)
                reap(running, selector)
            elif channel is listener:
                connection, _ = listener.accept()
                request = receive(connection)
                if fits(request.get("environment")):
                    process = os.fork()
                    if not process:
                        signal.set_wakeup_fd(-1)
                        for channel in (waking, wake, listener, connection, *running):
                            channel.close()
                        return request
                    running[connection] = process
                    selector.register(connection, selectors.EVENT_READ)
                else:
                    answer(connection, {})
                for descriptor in request["received"]:
                    os.close(descriptor)
            elif channel in running:
                numbers = b""
                with contextlib.suppress(ConnectionResetError):
                    numbers = channel.recv(64)
                for number in numbers:
                    os.kill(running[channel], number)
                if not numbers:  # who asked for it was killed
                    selector.unregister(channel)
                    kill(running[channel])


def receive(connection: socket.socket) -> Request:
    """A request with the descriptors that came with it; nothing but those where the launcher is gone."""
    head, received, _, _ = socket.recv_fds(connection, 8, 253)
    body = b""
    while len(head) == 8 and len(body) < int.from_bytes(head, "big"):
        part = connection.recv(1 << 16)
        if not part:
            return {"received": received}
        body += part
    return {"received": received} | (json.loads(body) if body else {})


def fits(environment: dict[str, str] | None) -> bool:
    """Whether the libraries are as they would be, imported in this environment."""
    return environment is not None and all(
        os.environ.get(name) == environment[name] for name in environment if name.startswith(READ_AT_IMPORT)
    )


def kill(process: int) -> None:
    """Kill a fork, and what it started in its group."""
    try:
        os.killpg(process, signal.SIGKILL)
    except ProcessLookupError:  # it has no group of its own yet
        os.kill(process, signal.SIGKILL)


def reap(running: dict[socket.socket, int], selector: selectors.BaseSelector) -> None:
    """Say how each ended that has."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            connection = next(one for one, process in running.items() if process == ended[0])
            del running[connection]
            with contextlib.suppress(KeyError):
                selector.unregister(connection)
            code = os.waitstatus_to_exitcode(ended[1])
            answer(connection, {"signal": -code} if code < 0 else {"status": code})


def answer(connection: socket.socket, content: dict[str, int]) -> None:
    """Answer and hang up; the launcher may be gone."""
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps(content).encode() + b"\n")
    connection.close()


def become(request: Request, executable: str) -> None:
    """Make this fork the process that was asked for: its session, descriptors, directory, environment and paths."""
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, FREE) for descriptor in request["received"]]
    for descriptor in request["received"]:
        os.close(descriptor)
    for descriptor, wanted in zip(moved, request["descriptors"], strict=True):
        os.dup2(descriptor, wanted, inheritable=True)
        os.close(descriptor)
    os.chdir(request["directory"])
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.stdout.reconfigure(write_through=bool(os.environ.get("PYTHONUNBUFFERED")))  # type: ignore[union-attr]
    sys.executable = executable
    own = [] if request["safe"] else ["" if request["kind"] == "-c" else request["directory"]]
    sys.path[:0] = [*own, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = [request["kind"], *request["words"]]
    importlib.invalidate_caches()


def main() -> None:
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.collect()
    gc.freeze()
    path = sys.argv[1]
    request = serve(path)
    become(request, os.path.join(os.path.dirname(path), "python"))
    status = run(request)
    # Not the interpreter's own end: to free 7,000 modules takes a second.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def run(request: Request) -> int:
    """Do what was asked; the exit status that Python would have."""
    try:
        if request["kind"] == "-m":
            runpy.run_module(request["what"], run_name="__main__", alter_sys=True)
        else:
            module = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(request["what"], "<string>", "exec"), module.__dict__)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 0xFF
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        traceback.print_exc()
        return -signal.SIGINT
    except BaseException:  # as Python itself does at the end of a program
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    main()
