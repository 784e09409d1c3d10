"""Mistakes in a TOML file, described in the words of the file: its keys, its values, its lines."""

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import BaseModel, ValidationError

from fedbbpt.errors import InvalidInput

KeyPath: TypeAlias = tuple[str, ...]
"""A key below the names of the tables that it stands in; an index into a list is a part, too."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The first mistake in a file."""

    path: KeyPath
    what: str
    """The mistake, with its key."""
    fix: str
    """The right value or key; empty if `what` says it already."""


def parse_toml(text: str, name: str, error_type: type[InvalidInput] = InvalidInput) -> dict[str, Any]:
    """Returns the tables of a TOML text. Raises `error_type`, with file `name` and line, if it is not TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, _, place = str(error).partition(" (at line ")
        where = f"{name}:{place.partition(',')[0]}" if place[:1].isdigit() else name
        raise error_type(f"not TOML: {what}", where=where) from None


def first_problem(
    error: ValidationError,
    known_keys: Callable[[KeyPath], Sequence[str]],
    *,
    unions: Set[KeyPath] = frozenset(),
    secret: Set[str] = frozenset(),
) -> Problem:
    """Returns the first mistake that pydantic found while it validated the tables of a file.

    Args:
        error: What pydantic raised for a `Section`.
        known_keys: Returns the keys of the table at a path, and nothing for a path that is no table.
        unions: Paths of tables that are one of several sections; pydantic's locations name the one that was chosen.
        secret: Keys whose values must not stand in a message.
    """
    problems = [(_path(problem, known_keys, unions), problem) for problem in error.errors()]
    path, first = problems[0]
    key = ".".join(path)
    match first["type"]:
        case "extra_forbidden":
            return Problem(path, f"unknown key {key!r}", suggestion(path[-1], known_keys(path[:-1])))
        case "missing":
            return Problem(path, f"{key} is missing", f"{key} = ...")
        case "contradiction":
            context = first["ctx"]
            path = (*path, *context["key"].split("."))
            return Problem(path, f"{'.'.join(path)}: {context['what']}", context["fix"])
    # A key of several types has one problem with each of them.
    messages = dict.fromkeys(_lower_first(problem["msg"]) for place, problem in problems if place == path)
    hidden = isinstance(first["input"], (dict, BaseModel)) or not secret.isdisjoint(path)
    given = "" if hidden else f" = {json.dumps(first['input'], default=str, ensure_ascii=False)}"
    return Problem(path, f"{key}{given}: {', or '.join(messages)}", "")


def suggestion(key: str, known: Sequence[str]) -> str:
    """Returns what the user may have meant by an unknown key: the most similar known one, or the list of all."""
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"


def line_of(text: str, path: Sequence[str]) -> int:
    """Returns the number of the line, from 1, on which the key at `path` stands.

    A key that has no line of its own, as in an inline table, gets that of the nearest key or table above it.
    """
    table: list[str] = []
    found, depth = 1, 0
    for number, line in enumerate(text.split("\n"), start=1):
        if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            here = table = re.split(r"\s*\.\s*", header[1])
        elif key := re.match(r"\s*([A-Za-z0-9_.-]+|\"[^\"]*\")\s*=", line):
            here = [*table, *key[1].strip('"').split(".")]
        else:
            continue
        if len(here) > depth and here == list(path[: len(here)]):
            found, depth = number, len(here)
    return found


def _path(problem: Any, known_keys: Callable[[KeyPath], Sequence[str]], unions: Set[KeyPath]) -> KeyPath:
    """The keys of a pydantic location, without the members of unions that it names besides."""
    path: KeyPath = ()
    member_follows = False
    for index, part in enumerate(problem["loc"], start=1):
        unknown = problem["type"] == "extra_forbidden" and index == len(problem["loc"])
        if not member_follows and (unknown or isinstance(part, int) or part in known_keys(path)):
            path = (*path, str(part))
            member_follows = path in unions
        else:
            member_follows = False
    return path


def _lower_first(message: str) -> str:
    return message[:1].lower() + message[1:]
