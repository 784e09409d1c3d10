"""The tree of commands says of each what the command says of itself, and completion reads it."""

import os
import subprocess
import sys

import pytest
import typer.main

from fedbbpt import cli
from fedbbpt.cli.command_group import CommandGroup


def groups() -> list[CommandGroup]:
    root = typer.main.get_command(cli.app)
    assert isinstance(root, CommandGroup)
    return [root, *(child for child in root.commands.values() if isinstance(child, CommandGroup))]


@pytest.mark.parametrize("group", groups(), ids=lambda group: group.name)
def test_a_listed_command_has_the_help_of_the_real_one(group: CommandGroup) -> None:
    for name, command in group.commands.items():
        first = str(command.help).split("\n\n")[0].replace("\n", " ")
        assert (name, group.get_command(None, name).help) == (command.name, first)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("fedbbpt co", {"coordinator", "conformance"}),
        ("fedbbpt ptm ", {"serve", "audit", "token", "describe", "usage"}),
        ("fedbbpt stop --coord", {"--coordinator"}),
    ],
)
def test_the_shell_completes_commands_and_options(line: str, offered: set[str]) -> None:
    environment = os.environ | {
        "_FEDBBPT_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }
    code = "from fedbbpt.cli import app; app(prog_name='fedbbpt')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert set(ended.stdout.split()) == offered
