"""A command in a pseudo terminal of 80 columns: what a person sees there, as text."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

COLUMNS, ROWS = 80, 24
# Cursor up, erase the line, and the sequences that change nothing in the text: colours, modes, links.
_SEQUENCE = re.compile(r"\x1b\[(\d*)A|(\x1b\[2K)|\x1b\[[\d;?]*[A-Za-z]|\x1b\]8;.*?\x1b\\|([\r\n])", re.DOTALL)


def type_command(
    command: str, environment: Mapping[str, str], folder: Path, answers: Sequence[str] = ()
) -> tuple[str, int]:
    """What the terminal shows after the shell's `command`, and its exit status. `answers` answer its questions."""
    child, terminal = pty.fork()
    if not child:
        os.chdir(folder)
        os.execvpe("bash", ["bash", "-c", command], {**environment, "TERM": "xterm-256color"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    output = _read(terminal, list(answers))
    return render(output), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _read(terminal: int, answers: list[str]) -> str:
    """All output; an answer is typed when it ends with a question."""
    output = b""
    while True:
        is_waiting = answers and not select.select([terminal], [], [], 1.0)[0]
        if is_waiting and output.endswith((b"? ", b"] ")):
            os.write(terminal, answers.pop(0).encode() + b"\n")
        try:
            chunk = os.read(terminal, 1 << 16)
        except OSError:  # the command has closed the terminal
            return output.decode()
        if not chunk:
            return output.decode()
        output += chunk


def render(output: str) -> str:
    """The lines that stay, also those that have left the screen: a live view is replaced by its last state."""
    lines, row, column, position = [""], 0, 0, 0

    def write(text: str) -> None:
        nonlocal column
        line = lines[row].ljust(column)
        lines[row] = line[:column] + text + line[column + len(text) :]
        column += len(text)

    for match in _SEQUENCE.finditer(output):
        write(output[position : match.start()])
        position = match.end()
        up, erase, control = match.groups()
        if up is not None:
            row = max(row - int(up or 1), 0)
        elif erase:
            lines[row] = ""
        elif control == "\r":
            column = 0
        elif control:
            row += 1
            lines += [""] * (row == len(lines))
    write(output[position:])
    return "\n".join(piece.rstrip() for line in lines for piece in _wrap(line.rstrip())).rstrip("\n")


def _wrap(line: str) -> list[str]:
    """The rows of the screen that a line takes."""
    return [line[start : start + COLUMNS] for start in range(0, len(line), COLUMNS)] or [""]
