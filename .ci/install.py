"""Install Hone into the environment of the interpreter that runs this, in the versions of constraints.txt.

    .venv/bin/python .ci/install.py demo dev     the extras named, with uv; with pip where uv cannot be installed
    .venv/bin/python .ci/install.py --pip demo   with pip alone, which does not verify the hashes
    .venv/bin/python .ci/install.py --lock       make constraints.txt again from pyproject.toml

uv does not read pip's configuration, which is where many machines name their indexes, certificates and builds of torch:
uv gets what `pip config list` shows. UV_* variables that are set already win.
"""

import argparse
import ast
import importlib.metadata
import importlib.util
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
HEADER = """\
# Every package that was tested together, with the hashes of its files on the package index. `make lock` makes it from
# pyproject.toml; delete the lines of a package first to get its newest version.
# torch has no hashes and its CUDA packages are left out: a machine without a GPU, or a company's mirror, may have its
# own build of torch, which names what it needs.
"""
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
UV = (sys.executable, "-m", "uv")
# A pin and its hashes.
BLOCK = r"^{}==[^\\\n]*(?:\\\n[^\\\n]*)*\n"
# torch's CUDA packages; nvidia-ml-py is a requirement of Hone.
CUDA = r"(?:triton|cuda-[\w-]+|nvidia-(?!ml-py)[\w-]+)"
# The order in which pip's sections replace one another.
SECTIONS = ("global", "install", ":env:")


def main() -> int:
    parser = argparse.ArgumentParser(description="Install Hone in the versions of constraints.txt.")
    parser.add_argument("extras", nargs="*", help="extras of pyproject.toml")
    parser.add_argument("--pip", action="store_true", help="install with pip alone, which does not verify hashes")
    parser.add_argument("--lock", action="store_true", help="make constraints.txt again from pyproject.toml")
    options = parser.parse_args()
    os.chdir(ROOT)
    ensure_pip()
    if options.lock:
        return lock() if install_uv() else 1
    # torch is named in the same command as everything else: no other package brings a build of its own choosing.
    packages = ["torch", "--editable", f".[{','.join(options.extras)}]" if options.extras else "."]
    if "demo" in options.extras:
        packages += ["--editable", "examples/installed_docs"]
    if options.pip or not install_uv():
        return pip_install(packages)
    pinned = ["--constraint", str(CONSTRAINTS), "--build-constraint", str(CONSTRAINTS)]
    return run_uv("pip", "install", "--quiet", "--python", sys.executable, *pinned, *packages)


def ensure_pip() -> None:
    """Install the interpreter's own pip into an environment without one, such as uv makes."""
    if not importlib.util.find_spec("pip"):
        subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)


def install_uv() -> bool:
    """Install the pinned uv with pip; whether that worked. Exits when the file is not the one that was locked."""
    block = read_block("uv")
    version = block.split()[0].partition("==")[2]
    try:
        if importlib.metadata.version("uv") == version:
            return True
    except importlib.metadata.PackageNotFoundError:
        pass
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "uv.txt")
        requirements.write_text(block)
        command = [*PIP, "install", "--quiet", "--no-deps", "--require-hashes", "--requirement", str(requirements)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return True
    sys.stderr.write(done.stderr)
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise SystemExit(f"The package index has another uv {version} than constraints.txt: nothing was installed.")
    sys.stderr.write(f"uv {version} cannot be installed here: pip installs, and does not verify the hashes.\n")
    return False


def pip_install(packages: Sequence[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        # With a hash in a constraint, pip wants one for everything, the project's own folder too.
        pins = Path(folder, "constraints.txt")
        pins.write_text("\n".join(re.findall(r"^\w[^\\\n]*", CONSTRAINTS.read_text(), re.MULTILINE)) + "\n")
        configured = pip_configuration().get("constraint", "").split()
        constraints = [word for file in (str(pins), *configured) for word in ("--constraint", file)]
        # use-pep517: an older pip builds what has no wheel (seqeval) in a way that fails.
        return subprocess.run([*PIP, "install", "--quiet", "--use-pep517", *constraints, *packages]).returncode


def run_uv(*arguments: str, without: Sequence[str] = ()) -> int:
    """Run uv with pip's configuration, without the options of pip that are named."""
    configured = {option: value for option, value in pip_configuration().items() if option not in without}
    variables, options = translate(configured)
    environment = {**variables, **os.environ}
    if "proxy" in configured:  # as in pip, it counts for more than the variables
        environment.update(
            dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), configured["proxy"])
        )
    if "client-cert" in configured:
        environment["SSL_CLIENT_CERT"] = configured["client-cert"]
    return subprocess.run([*UV, *arguments, *options], env=environment).returncode


def lock() -> int:
    """Resolve pyproject.toml for every supported Python and platform, keeping the versions of constraints.txt that fit.

    From the default index alone: extra indexes and find-links hold the builds, and so the hashes, of one platform.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "constraints.txt")
        shutil.copy(CONSTRAINTS, output)
        kind = [
            "--universal",
            "--fork-strategy",
            "fewest",
            "--generate-hashes",
            "--no-annotate",
            "--no-header",
            "--quiet",
        ]
        status = run_uv(
            *("pip", "compile", "pyproject.toml", "--all-extras", "--group", "install", "--python-version", "3.11"),
            *(*kind, "--output-file", str(output)),
            without=("extra-index-url", "find-links"),
        )
        if status == 0:
            torch = read_block("torch", output)
            text = output.read_text().replace(torch, torch.split()[0] + "\n")
            CONSTRAINTS.write_text(HEADER + re.sub(BLOCK.format(CUDA), "", text, flags=re.MULTILINE))
    return status


def read_block(package: str, file: Path = CONSTRAINTS) -> str:
    """The lines of a package in a constraints file: its pin and its hashes."""
    block = re.search(BLOCK.format(re.escape(package)), file.read_text(), re.MULTILINE)
    if not block:
        raise SystemExit(
            f"{file}: no line pins {package}. Take the file from the repository again, then run `make lock`."
        )
    return block[0]


def pip_configuration() -> dict[str, str]:
    """What pip would use for `pip install`, from its files and PIP_* variables, by option."""
    shown = subprocess.run([*PIP, "config", "list"], stdout=subprocess.PIPE, text=True, check=True).stdout
    options: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in shown.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in options:
            options[section][option] = str(ast.literal_eval(value))
    merged: dict[str, str] = {}
    for section in SECTIONS:
        merged.update(options[section])
    return merged


def translate(configured: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """pip's options as variables and options of uv. Addresses, which may hold passwords, become variables alone."""
    variables = {"UV_INDEX_STRATEGY": "unsafe-best-match"}  # as pip: the best version of all indexes
    for option, variable in {
        "index-url": "UV_DEFAULT_INDEX",
        "extra-index-url": "UV_INDEX",
        "trusted-host": "UV_INSECURE_HOST",
        "retries": "UV_HTTP_RETRIES",
        "default-timeout": "UV_HTTP_TIMEOUT",
        "timeout": "UV_HTTP_TIMEOUT",
    }.items():
        if configured.get(option):
            variables[variable] = " ".join(configured[option].split())
    if configured.get("keyring-provider") == "subprocess":
        variables["UV_KEYRING_PROVIDER"] = "subprocess"
    if "cert" not in configured and has_system_certificates():
        variables["UV_SYSTEM_CERTS"] = "true"
    links = [link for link in map(find_links_for_uv, configured.get("find-links", "").split()) if link]
    if links:
        variables["UV_FIND_LINKS"] = ",".join(links)
    options = [word for file in configured.get("constraint", "").split() for word in ("--constraint", file)]
    if "cert" in configured:
        options += ["--cert", configured["cert"]]
    if configured.get("no-index", "").lower() in ("1", "true", "t", "yes", "y", "on"):
        options.append("--no-index")
    return variables, options


def find_links_for_uv(link: str) -> str | None:
    """An address of pip's find-links as uv takes it; None for a folder that does not exist, which pip passes over."""
    if urlsplit(link).scheme in ("http", "https"):
        return link
    path = Path(url2pathname(urlsplit(link).path) if link.startswith("file:") else link).expanduser()
    if path.is_dir():
        return str(path)
    sys.stderr.write(f"pip's find-links: {path} is not a folder, and is left out.\n")
    return None


def has_system_certificates() -> bool:
    """Newer releases of pip trust the system's certificates; uv does where asked, and fails where there are none."""
    paths = ssl.get_default_verify_paths()
    folder = Path(paths.capath or "/nonexistent")
    return sys.platform == "darwin" or bool(paths.cafile) or (folder.is_dir() and any(folder.iterdir()))


if __name__ == "__main__":
    sys.exit(main())
