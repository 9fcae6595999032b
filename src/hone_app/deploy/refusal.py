"""Why `prefect deploy` refused a deployment, found in its output: one line in place of tracebacks and schemas."""

from __future__ import annotations

import ast
import re

# Of a reason that lists every permitted value.
MAX_CHARACTERS = 400

_PANEL = re.compile(r"^╭─.*?│ Deploying (?P<name>.*?) +│.*?─╯$", re.MULTILINE | re.DOTALL)
_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
# The server's answer, as Prefect prints it: a Python dict with 'msg' (422) or 'detail' (409).
_ANSWER = re.compile(rf"'(?:msg|detail)': (?P<text>{_QUOTED})")
# What Prefect adds: it asks for an entrypoint, for example, once it has skipped an invalid file.
_ADDITIONS = re.compile(
    r"^ *(An entrypoint must be provided:|For valid deployment fields|For further information|Skipping ).*",
    re.MULTILINE | re.DOTALL,
)
_LABELS = re.compile(r"Value error, |Error \w+ deployment: |Failure reason: ")


def describe_refusal(output: str) -> tuple[str, str]:
    """The name of the refused deployment ('' if Prefect refused the whole file), and the reason on one line."""
    name, rest = "", output
    for panel in _PANEL.finditer(output):
        name, rest = panel["name"], output[panel.end() :]
    answer = _ANSWER.search(rest)
    if answer:
        reason = str(ast.literal_eval(answer["text"]))
    elif "Traceback" in rest:
        reason = rest.strip().splitlines()[-1]
    else:
        reason = _ADDITIONS.sub("", rest).strip() or rest
    reason = _LABELS.sub("", " ".join(reason.split()))
    return name, reason if len(reason) <= MAX_CHARACTERS else f"{reason[:MAX_CHARACTERS]}..."
