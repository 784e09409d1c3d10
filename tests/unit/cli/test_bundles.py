"""Bundles of options: commands see one value, users see one option per field, and a name means the same everywhere."""

import inspect
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer.main

from fedbbpt import cli
from fedbbpt.cli.terminal.bundles import CoordinatorAccess, Listening, PtmAccess, with_bundles
from fedbbpt.errors import InvalidInput

FOLDERS = {"DIR"}


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields every command that does something, with its words."""
    group = group or typer.main.get_command(cli.app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def kind(option: Any) -> tuple[str, bool]:
    """Returns the kind of an option's value (a choice counts as text), and whether it names a folder."""
    found = str(option.bare_type())
    return found if found in ("Path", "bool", "float", "int") else "text", option.metavar in FOLDERS


def test_a_bundle_becomes_one_option_per_field() -> None:
    received: list[object] = []

    @with_bundles
    def command(access: CoordinatorAccess, word: str = "none") -> None:
        received.append((access, word))

    names = list(inspect.signature(command).parameters)
    assert names == ["coordinator", "tls_ca", "client_cert", "client_key", "token_file", "word"]
    given: dict[str, Any] = dict.fromkeys(names[1:5])
    command(coordinator="hub:7000", word="yes", **given)
    assert received == [(CoordinatorAccess("hub:7000"), "yes")]


def test_two_bundles_with_one_option_name_are_refused() -> None:
    def command(access: CoordinatorAccess, other: CoordinatorAccess) -> None: ...

    with pytest.raises(ValueError, match="duplicate parameter name: 'coordinator'"):
        with_bundles(command)


def test_half_a_tls_identity_is_refused_with_the_names_of_both_options() -> None:
    with pytest.raises(InvalidInput, match="--tls-cert, --tls-key: TLS needs a certificate and its key"):
        Listening(tls_cert=Path("server.pem")).tls()
    with pytest.raises(InvalidInput, match="--ptm-client-cert, --ptm-client-key: a client certificate needs its key"):
        PtmAccess(ptm_client_cert=Path("me.pem")).tls()
    with pytest.raises(InvalidInput, match="--ptm-client-cert: a client certificate is used only with TLS"):
        PtmAccess(ptm_client_cert=Path("me.pem"), ptm_client_key=Path("me.key")).tls()


def test_an_option_name_means_the_same_kind_of_value_in_every_command() -> None:
    kinds: dict[str, set[tuple[str, bool]]] = defaultdict(set)
    for _, command in commands():
        for parameter in command.params:
            for name in parameter.opts:
                if name.startswith("--"):
                    kinds[name].add(kind(parameter))
    # A run leaves a folder of results, and `predict` leaves a file.
    assert {name for name, found in kinds.items() if len(found) > 1} == {"--out"}
    assert kinds["--out"] == {("Path", True), ("Path", False)}


@pytest.mark.parametrize("words", [words for words, _ in commands()], ids=" ".join)
def test_short_help_is_the_long_help(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for option in ("-h", "--help"):
        with pytest.raises(SystemExit) as ended:
            cli.app([*words, option], prog_name="fedbbpt")
        assert ended.value.code == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] and f"fedbbpt {' '.join(words)}" in shown[0]


def test_version_is_that_of_the_installed_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.app(["--version"], prog_name="fedbbpt")
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"fedbbpt {version('fedbbpt')}\n"


def test_completion_can_be_installed() -> None:
    options = {option for parameter in typer.main.get_command(cli.app).params for option in parameter.opts}
    assert {"--install-completion", "--show-completion", "--version"} <= options
