"""Installing: which interpreter is taken, and that uv installs what pip is configured for, from a real index."""

from __future__ import annotations

import base64
import datetime
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PASSWORD = "a-secret-of-the-mirror"
BACKEND = """
import zipfile
from pathlib import Path

def build_editable(directory, settings=None, metadata=None):
    name = "sample-1.0-py3-none-any.whl"
    with zipfile.ZipFile(Path(directory, name), "w") as wheel:
        info, kind = "sample-1.0.dist-info", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr(f"{info}/WHEEL", kind)
        requires = "".join(f"Requires-Dist: {name}\\n" for name in Path("requires.txt").read_text().split())
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: sample\\nVersion: 1.0\\n" + requires)
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""


def write_wheel(folder: Path, name: str, version: str, requires: str = "") -> Path:
    """A wheel without content."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(place, "w") as wheel:
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        requirement = f"Requires-Dist: {requires}\n" if requires else ""
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requirement}")
        wheel.writestr(f"{info}/RECORD", "")
    return place


def write_uv_wheel(folder: Path) -> Path:
    """The wheel that this environment's uv was installed from, put together again."""
    try:
        uv = importlib.metadata.distribution("uv")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("uv is not installed in this environment: `make check` installs it")
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"uv-{uv.version}-py3-none-any.whl"
    with zipfile.ZipFile(place, "w") as wheel:
        for file in uv.files or ():
            if file.name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json") or "__pycache__" in file.parts:
                continue
            script = f"uv-{uv.version}.data/scripts/{file.name}" if file.parts[0] == ".." else str(file)
            wheel.write(str(file.locate()), script)
        wheel.writestr(f"uv-{uv.version}.dist-info/RECORD", "")
    return place


def pin(wheel: Path) -> str:
    """A line of constraints.txt for a wheel, with its hash."""
    name, version = wheel.name.split("-")[:2]
    return f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


class Mirror(BaseHTTPRequestHandler):
    """PEP 503 pages and files of the folders beneath `folder`, for who knows the password."""

    folder: Path

    def do_GET(self) -> None:
        expected = "Basic " + base64.b64encode(f"me:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != expected:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="mirror"')
            self.end_headers()
            return
        index, *rest = self.path.strip("/").split("/")
        files = [
            file for file in (self.folder / index).iterdir() if file.name.split("-")[0] == rest[0].replace("-", "_")
        ]
        if len(rest) == 2:
            content = (self.folder / index / rest[1]).read_bytes()
        else:
            content = "".join(f'<a href="{file.name}">{file.name}</a>' for file in files).encode()
        self.send_response(200 if files else 404)
        self.send_header("Content-Type", "text/html" if len(rest) == 1 else "application/octet-stream")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None: ...


def write_certificate(folder: Path) -> Path:
    """An authority that nothing here trusts; beside it `server.pem`, with its certificate of localhost and the key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now = datetime.datetime.now(datetime.UTC)
    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    names = {key: x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, key)]) for key in ("authority", "server")}
    certificates = []
    for name, key in (("authority", authority), ("server", server)):
        builder = x509.CertificateBuilder(names["authority"], names[name], key.public_key(), len(certificates) + 1)
        builder = builder.not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=name == "authority", path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        certificates.append(builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    place = folder / "authority.pem"
    place.write_bytes(certificates[0])
    private = server.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(private + certificates[1])
    return place


class Machine:
    """A project of few packages and a virtual environment, where pip is configured for a company's mirror."""

    def __init__(self, folder: Path, address: str, certificate: Path) -> None:
        self.folder, self.address = folder, address
        self.project, self.indexes = folder / "project", folder / "indexes"
        (self.project / ".ci").mkdir(parents=True)
        shutil.copy(ROOT / ".ci" / "install.py", self.project / ".ci")
        (self.project / "backend.py").write_text(BACKEND)
        (self.project / "pyproject.toml").write_text(
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        )
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
        self.configuration = {
            "index-url": f"https://me:{PASSWORD}@{address}/main/",
            "extra-index-url": f"https://me:{PASSWORD}@{address}/other/",
            "find-links": f"{folder / 'missing'}\n    {folder / 'wheels'}",
            "cert": str(certificate),
        }
        (folder / "company.txt").write_text("capped<2\n")

    def install(self, pins: str, *requires: str, **configuration: str | None) -> subprocess.CompletedProcess[str]:
        """Run .ci/install.py for a project that needs `requires`, with these pins, and with pip configured so."""
        (self.project / "constraints.txt").write_text(pins)
        (self.project / "requires.txt").write_text("\n".join(requires))
        configured = {**self.configuration, **{name.replace("_", "-"): value for name, value in configuration.items()}}
        lines = [f"{name} = {value}\n" for name, value in configured.items() if value is not None]
        (self.folder / "pip.conf").write_text("[global]\n" + "".join(lines))
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "XDG_CONFIG_DIRS": str(self.folder),
            "PIP_CONFIG_FILE": str(self.folder / "pip.conf"),
            "PIP_CONSTRAINT": str(self.folder / "company.txt"),
            "UV_CACHE_DIR": str(self.folder / "cache"),
            "UV_HTTP_RETRIES": "0",
        }
        command = [str(self.folder / "venv" / "bin" / "python"), str(self.project / ".ci" / "install.py")]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    @property
    def installed(self) -> Mapping[str, tuple[str, str]]:
        """The version of each installed package, and what installed it."""
        script = (
            "import importlib.metadata as m, json;"
            "print(json.dumps({d.name: (d.version, d.read_text('INSTALLER').strip()) for d in m.distributions()}))"
        )
        run = subprocess.run(
            [str(self.folder / "venv" / "bin" / "python"), "-c", script], capture_output=True, check=True
        )
        return {name: (version, program) for name, (version, program) in json.loads(run.stdout).items()}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    certificate = write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    handler = type("Handler", (Mirror,), {"folder": tmp_path / "indexes"})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Machine(tmp_path, f"localhost:{server.server_port}", certificate)
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def pins(machine: Machine) -> str:
    """The mirror has a torch for CUDA, the folder of find-links one without; constraints.txt pins all but `capped`."""
    main, other = machine.indexes / "main", machine.indexes / "other"
    write_wheel(main, "torch", "2.13.0", "cuda_libraries")
    write_wheel(main, "cuda_libraries", "13.0")
    write_wheel(machine.folder / "wheels", "torch", "2.13.0+cpu")
    write_wheel(main, "plain", "1.1")
    for version in ("1.0", "1.5", "2.0"):
        write_wheel(main, "capped", version)
    locked = [write_wheel(main, "plain", "1.0"), write_wheel(other, "elsewhere", "3.0")]
    write_wheel(main, "elsewhere", "2.0")
    write_wheel(other, "capped", "1.2")
    return "torch==2.13.0\n" + "".join(map(pin, locked))


def uv_pin(machine: Machine) -> str:
    return pin(write_uv_wheel(machine.indexes / "main"))


MISSING_UV = f"uv==0.13.9 \\\n    --hash=sha256:{'0' * 64}\n"
EXPECTED = {"sample": "1.0", "torch": "2.13.0+cpu", "plain": "1.0", "elsewhere": "3.0", "capped": "1.5"}


def test_uv_installs_what_pip_is_configured_for(machine: Machine, pins: str) -> None:
    done = machine.install(pins + uv_pin(machine), "torch", "plain", "elsewhere", "capped")
    assert done.returncode == 0, done.stderr
    installed = machine.installed
    assert {name: installed.get(name) for name in EXPECTED} == {name: (EXPECTED[name], "uv") for name in EXPECTED}
    assert "cuda_libraries" not in installed
    assert "missing is not a folder, and is left out" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr

    # What was not locked is refused, and the mirror's password is not in the message.
    other = re.sub("sha256:.{8}", "sha256:00000000", pins) + uv_pin(machine)
    shutil.rmtree(machine.folder / "cache")
    subprocess.run([machine.folder / "venv" / "bin" / "python", "-m", "pip", "uninstall", "-qy", "plain"], check=True)
    done = machine.install(other, "torch", "plain", cert=None, trusted_host=machine.address)
    assert done.returncode and "Hash mismatch for `plain==1.0`" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert "plain" not in machine.installed


def test_pip_installs_the_same_where_there_is_no_uv(machine: Machine, pins: str) -> None:
    done = machine.install(pins + MISSING_UV, "torch", "plain", "elsewhere", "capped")
    assert done.returncode == 0, done.stderr
    assert "uv 0.13.9 cannot be installed here: pip installs" in done.stderr
    installed = machine.installed
    assert {name: installed.get(name) for name in EXPECTED} == {name: (EXPECTED[name], "pip") for name in EXPECTED}
    assert "cuda_libraries" not in installed

    # Another file by that name is no reason to go on with pip.
    write_wheel(machine.indexes / "main", "uv", "0.13.9")
    done = machine.install(pins + MISSING_UV, "torch")
    assert done.returncode and "another uv 0.13.9 than constraints.txt" in done.stderr


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"].values()
    groups = [project["project"]["dependencies"], *extras, project["dependency-groups"]["install"]]
    return [Requirement(line) for group in groups for line in group]


def test_the_lock_pins_what_pyproject_asks_for_and_names_no_host() -> None:
    text = (ROOT / "constraints.txt").read_text()
    versions = dict(re.findall(r"^([\w-]+)==([^\s;]+)", text, re.MULTILINE))
    for requirement in requirements():
        name = requirement.name.lower().replace("_", "-").replace(".", "-")
        assert name in versions, f"{requirement}: run `make lock`"
        assert requirement.specifier.contains(versions[name]), f"{requirement}, not {versions[name]}: run `make lock`"
    without_hashes = re.findall(r"^([\w-]+)==[^\\\n]*\n", text, re.MULTILINE)
    assert without_hashes == ["torch"]
    assert "://" not in text


class TestPython:
    """.ci/find-python, with programs on PATH that say what they are told to."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for program in ("sh", "sed", "head"):
            (tmp_path / program).symlink_to(shutil.which(program) or "")
        return tmp_path

    def program(self, folder: Path, name: str, body: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)

    def find(self, folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
        script = str(ROOT / ".ci" / "find-python")
        return subprocess.run([script, *names], env={"PATH": str(folder)}, capture_output=True, text=True)

    def test_the_newest_that_runs_is_taken(self, folder: Path) -> None:
        self.program(folder, "python3.14", "echo 'pyenv: python3.14: command not found' >&2; exit 127")
        self.program(folder, "python3.12", f'exec {sys.executable} "$@"')
        self.program(folder, "python3.11", "exit 1")
        found = self.find(folder)
        assert found.returncode == 0, found.stderr
        assert found.stdout.strip() == sys.executable

    def test_none_is_an_error_that_says_what_was_tried(self, folder: Path) -> None:
        self.program(folder, "python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127")
        blocked = folder / "blocked"
        blocked.mkdir()
        (blocked / "ensurepip.py").write_text("raise ImportError")  # Debian without python3-venv
        self.program(folder, "python3", f'PYTHONPATH={blocked} exec {sys.executable} "$@"')
        old = "import sys; sys.version_info = (3, 10, 1); exec(sys.argv[1])"
        self.program(folder, "python", f'exec {sys.executable} -c "{old}" "$2"')
        found = self.find(folder)
        assert (found.returncode, found.stdout) == (1, "")
        assert "python3.14, python3.13, python3.12, python3.11, python3, python on PATH" in found.stderr
        assert "python3.13 pyenv: python3.13: command not found" in found.stderr
        version = ".".join(map(str, sys.version_info[:2]))
        assert f"python3 has no venv with pip: on Debian or Ubuntu, apt install python{version}-venv" in found.stderr
        assert "python is cpython 3.10.1" in found.stderr

    def test_one_that_is_named_is_the_only_one_tried(self, folder: Path) -> None:
        self.program(folder, "python3.12", f'exec {sys.executable} "$@"')
        assert self.find(folder, "python3.13").returncode == 1
