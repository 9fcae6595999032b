"""`hone completion`: a script with which a shell completes commands, options and the names of configurations."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

SHELLS = ("bash", "zsh", "fish")
# Names of files in conf/ and paths. Read at each completion by the shell itself, which takes no start of Python.
CONFIGURATIONS = {
    "bash": "_hone_configurations",
    "zsh": "_hone_configurations",
    "fish": "(_hone_configurations)",
    "preamble": {
        "bash": """
_hone_configurations() {
  local file
  for file in conf/*.yaml; do
    [ -e "$file" ] && file=${file#conf/} && compgen -W "${file%.yaml}" -- "$1"
  done
  compgen -f -X '!*.yaml' -- "$1"
  compgen -d -- "$1"
}
""",
        "zsh": """
_hone_configurations() {
  local -a names=(conf/*.yaml(N:t:r))
  compadd -a names
  _files -g '*.yaml'
}
""",
        "fish": """
function _hone_configurations
  for file in conf/*.yaml
    string replace -r '.*/(.*)\\.yaml$' '$1' $file
  end
  __fish_complete_suffix .yaml
end
""",
    },
}


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `completion` to the parser."""
    text = "print a script that completes commands, options and configurations"
    sub = commands.add_parser(
        "completion", help=text, description=f'{text[0].upper()}{text[1:]}: eval "$(hone completion bash)"'
    )
    sub.add_argument("shell", choices=SHELLS, help="the shell that evaluates the script")
    sub.set_defaults(command=complete)


def complete(arguments: argparse.Namespace) -> int:
    """Print the script for the shell."""
    import shtab

    by_metavar = {"CONF": CONFIGURATIONS, "FOLDER": shtab.DIRECTORY}
    by_metavar |= dict.fromkeys(("FILE", "PATH", "IN", "OUT"), shtab.FILE)
    for action in _list_actions(arguments.parser):
        if isinstance(action.metavar, str) and action.metavar in by_metavar:
            action.complete = by_metavar[action.metavar]  # type: ignore[attr-defined]
    print(shtab.complete(arguments.parser, arguments.shell))  # noqa: T201
    return 0


def _list_actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The options and arguments of the parser and of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from _list_actions(sub)
