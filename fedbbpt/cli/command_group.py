"""Groups of commands that are listed without importing them; the one that is used is imported."""

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from fedbbpt.cli.tree import TREE, Branch, Node


class CommandGroup(TyperGroup):
    """A group that lists its commands without importing them, and imports the one that is used."""

    def __init__(self, nodes: Mapping[str, Node] = TREE, **attributes: Any) -> None:
        super().__init__(**attributes | {"commands": _Commands(nodes)})
        self._nodes = nodes

    def list_commands(self, ctx: Any) -> list[str]:
        """Returns the names of the commands, in the order of the tree."""
        return list(self._nodes)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Returns a command that has a name and a help line, for lists. None if there is none of this name."""
        node = self._nodes.get(cmd_name)
        return node and TyperCommand(cmd_name, help=node.help)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Returns the command that the arguments name, ready to run, with its name and the other arguments."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and self.commands[args[0]], rest


class _Commands(MutableMapping[str, Any]):
    """The commands by name, each imported when it is looked up."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self._nodes = nodes
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = _load(name, self._nodes[name])
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)


def _load(name: str, node: Node) -> Any:
    if isinstance(node, Branch):
        return CommandGroup(node.commands, name=name, help=node.help, no_args_is_help=True)
    lone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    lone.callback()(lambda: None)  # otherwise a single command would take the place of its group
    lone.command(name)(getattr(import_module(f"fedbbpt.cli.{node.module}"), node.name))
    group: Any = typer.main.get_command(lone)
    command = group.commands[name]
    for described in (command, *command.params):  # typer reads help as rich's markup, which would swallow "[web]"
        described.help = described.help and escape(described.help)
    return command
