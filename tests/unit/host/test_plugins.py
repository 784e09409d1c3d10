"""Plug-ins by entry point: found, loaded when used, and refused with a reason."""

from pathlib import Path

import pytest

from fedbbpt.errors import InvalidPlugin
from fedbbpt.host.plugins import load_plugin, plugin_names
from tests.plugins import use_package, write_package

GROUP = "fedbbpt.tests"


def test_a_plugin_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_package(monkeypatch, write_package(tmp_path, "found", {GROUP: {"answer": "found:ANSWER"}}, "ANSWER = 42"))
    assert plugin_names(GROUP) == ["answer"]
    assert load_plugin(GROUP, "answer", built_in=()) == 42
    assert load_plugin(GROUP, "question", built_in=()) is None


def test_a_plugin_is_imported_only_when_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_package(monkeypatch, write_package(tmp_path, "eager", {GROUP: {"eager": "eager:X"}}, "raise SystemExit"))
    assert plugin_names(GROUP) == ["eager"]
    assert load_plugin(GROUP, "other", built_in=()) is None


@pytest.mark.parametrize(
    ("module", "cause"),
    [
        ("import a_package_that_is_missing", "ModuleNotFoundError: No module named 'a_package_that_is_missing'"),
        ("raise ValueError('first line\\nsecond line')", "ValueError: first line"),
        ("", "AttributeError"),
    ],
)
def test_a_plugin_that_does_not_load_is_named(
    module: str, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_package(monkeypatch, write_package(tmp_path, "broken", {GROUP: {"mine": "broken:MINE"}}, module))
    monkeypatch.delitem(__import__("sys").modules, "broken", raising=False)
    with pytest.raises(InvalidPlugin) as raised:
        load_plugin(GROUP, "mine", built_in=())
    assert f"'mine' of broken 1.0 does not load: {cause}" in raised.value.what
    assert "second line" not in str(raised.value)
    assert "broken:MINE" in raised.value.fix


def test_a_name_of_fedbbpt_itself_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_package(monkeypatch, write_package(tmp_path, "thief", {GROUP: {"fed-cma": "thief:METHOD"}}, "METHOD = 1"))
    with pytest.raises(InvalidPlugin, match=r"thief 1.0 offers 'fed-cma', which is built into fedbbpt"):
        load_plugin(GROUP, "fed-cma", built_in=["fed-cma"])


def test_a_name_that_two_packages_offer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_package(monkeypatch, write_package(tmp_path, "first", {GROUP: {"same": "first:X"}}, "X = 1"))
    write_package(tmp_path, "second", {GROUP: {"same": "second:X"}}, "X = 2")
    with pytest.raises(InvalidPlugin, match=r"first 1.0 and second 1.0 both offer 'same'|second 1.0 and first 1.0"):
        load_plugin(GROUP, "same", built_in=())
