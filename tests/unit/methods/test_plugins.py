"""Methods from outside the package: passed by the caller or installed, and what happens to a client without them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedbbpt
from examples import own_method
from fedbbpt.errors import InvalidJob, InvalidPlugin, PluginMissing
from fedbbpt.job.job_file import job_text
from fedbbpt.job.settings import run_settings
from fedbbpt.methods import METHODS, client_method, find_method, told_settings
from fedbbpt.methods.extension import extension_settings
from fedbbpt.methods.method import Method, MethodConfig
from fedbbpt.types import ExtensionSettings, MethodSettings
from tests.plugins import use_package, write_package

TABLES = {
    "task": {"labels": ["a", "b"], "prompt": {"dim": 6}},
    "method": {"name": "fed-cem", "population": 8},
}
GROUP = "fedbbpt.methods"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example's method, installed by an entry point."""
    use_package(monkeypatch, write_package(tmp_path, "cem", {GROUP: {"fed-cem": "examples.own_method:METHOD"}}))
    yield


def told() -> ExtensionSettings:
    settings = told_settings(own_method.METHOD, own_method.Config(population=8))
    assert isinstance(settings, ExtensionSettings)
    return settings


def test_a_job_finds_a_method_that_the_caller_passes() -> None:
    job = fedbbpt.make_job(TABLES, methods=[own_method.METHOD])
    assert job.definition() is own_method.METHOD
    assert job.method == own_method.Config(population=8)
    assert job.model_copy(update={"run": job.run}).definition() is own_method.METHOD
    assert fedbbpt.parse_job(job_text(job), methods=[own_method.METHOD]) == job


def test_a_job_finds_an_installed_method(installed: None) -> None:
    job = fedbbpt.make_job(TABLES)
    assert job.definition() is own_method.METHOD
    assert fedbbpt.parse_job(job_text(job)) == job


def test_an_unknown_method_is_answered_with_the_known_ones(installed: None) -> None:
    with pytest.raises(
        InvalidJob, match=r"job:1: method.name = .* is unknown; one of fed-bbpt, fed-bpt, fed-cem, fed-cma, "
    ):
        fedbbpt.parse_job('[method]\nname = "fed-cme"\n')


def test_a_wrong_key_of_an_own_method_is_explained_with_its_line() -> None:
    text = '[method]\nname = "fed-cem"\npopulatoin = 8\n'
    with pytest.raises(InvalidJob, match=r"job:3: unknown key 'method.populatoin'; did you mean 'population'"):
        fedbbpt.parse_job(text, methods=[own_method.METHOD])


def test_an_own_method_must_not_take_a_built_in_name() -> None:
    method = replace(own_method.METHOD, name="fed-cma")
    with pytest.raises(InvalidPlugin, match="'fed-cma' is built into fedbbpt"):
        find_method("fed-cma", [method])
    assert find_method("fed-cma", [METHODS["fed-cma"]]) is METHODS["fed-cma"]


def test_an_installed_method_must_not_take_a_built_in_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_package(monkeypatch, write_package(tmp_path, "cma", {GROUP: {"fed-cma": "examples.own_method:METHOD"}}))
    with pytest.raises(InvalidPlugin, match=r"cma 1.0 offers 'fed-cma', which is built into fedbbpt"):
        fedbbpt.make_job({"method": {"name": "fed-cma"}})


@pytest.mark.parametrize(("entry", "value"), [("fed-cem", "Config"), ("fed-other", "METHOD")])
def test_an_entry_point_must_be_a_method_of_its_name(
    entry: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_package(monkeypatch, write_package(tmp_path, "wrong", {GROUP: {entry: f"examples.own_method:{value}"}}))
    with pytest.raises(InvalidPlugin, match=f"a Method with the name '{entry}'"):
        find_method(entry)


def test_a_method_has_one_kind_of_client() -> None:
    with pytest.raises(ValueError, match="either a client or a white_box_client"):
        replace(own_method.METHOD, client=None)
    with pytest.raises(ValueError, match="either a client or a white_box_client"):
        replace(own_method.METHOD, white_box_client=METHODS["fed-sp"].white_box_client)


def test_clients_get_the_settings_of_a_plugin_back(installed: None) -> None:
    settings = replace(run_settings(fedbbpt.make_job(TABLES), "run-1"), method=told())
    assert settings.method == ExtensionSettings("fed-cem", "1", {"population": 8})
    assert client_method(settings).settings == own_method.Settings(8)


def test_a_client_without_the_plugin_says_what_to_install() -> None:
    settings = run_settings(fedbbpt.make_job(TABLES, methods=[own_method.METHOD]), "run-1")
    with pytest.raises(PluginMissing) as raised:
        client_method(settings)
    assert "the run uses method 'fed-cem', version 1, which is not installed here" in raised.value.what
    assert "fed-cma" in raised.value.what
    assert "install the package" in raised.value.fix


@pytest.mark.parametrize("changes", [{"version": "2"}, {"values": {"population": 8, "elite": 2}}, {"values": {}}])
def test_a_client_with_another_version_says_which_one(changes: dict[str, Any]) -> None:
    job = fedbbpt.make_job(TABLES, methods=[own_method.METHOD])
    settings = replace(run_settings(job, "run-1"), method=replace(told(), **changes))
    with pytest.raises(PluginMissing, match=r"version [12], and version 1 is installed here"):
        client_method(settings, [own_method.METHOD])


@dataclass(frozen=True)
class AnySettings(MethodSettings):
    value: Any


@pytest.mark.parametrize("value", [2**63, (1, 2), None, np.float64])
def test_settings_that_cannot_be_sent_are_refused_before_the_run(value: Any) -> None:
    with pytest.raises(InvalidPlugin, match=r"method fed-cem: settings.value is a \w+ that cannot be sent"):
        extension_settings(own_method.METHOD, AnySettings(value))


def test_settings_must_be_a_dataclass() -> None:
    with pytest.raises(InvalidPlugin, match="fed-cem: settings are a MethodSettings; a frozen dataclass"):
        extension_settings(own_method.METHOD, MethodSettings())


def test_a_method_needs_no_settings() -> None:
    @dataclass(frozen=True)
    class Nothing(MethodSettings):
        pass

    base = own_method.METHOD
    method: Method[MethodConfig, Nothing] = Method(
        name="fed-nothing",
        config=MethodConfig,
        settings_type=Nothing,
        settings=lambda config: Nothing(),
        server=METHODS["fed-cma"].server,
        client=METHODS["fed-cma"].client,
    )
    assert base.version == method.version == "1"
    assert extension_settings(method, Nothing()) == ExtensionSettings("fed-nothing", "1", {})
