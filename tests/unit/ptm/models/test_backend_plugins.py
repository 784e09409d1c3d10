"""Backends from other packages: loaded by the prefix of a model's name, and refused with a reason."""

from pathlib import Path

import pytest

from examples import own_backend
from fedbbpt.errors import InvalidInput, InvalidPlugin
from fedbbpt.ptm.models.loading import load
from fedbbpt.types import Precision
from tests.plugins import use_package, write_package

GROUP = "fedbbpt.backends"
MODULE = """
LOADED = []
NOTHING = 0

def load(name, *, threads, precision, device):
    LOADED.append((name, threads, precision, device))
    return "backend"
"""


def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str, value: str) -> None:
    use_package(monkeypatch, write_package(tmp_path, "recorder", {GROUP: {prefix: value}}, MODULE))


def test_a_plugin_receives_the_name_after_its_prefix_and_the_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "mine", "recorder:load")
    made: object = load("mine:a:b", threads=2, precision=Precision.BFLOAT16, device="cuda")
    assert made == "backend"
    import recorder  # type: ignore[import-not-found]  # the test has just written it

    assert recorder.LOADED == [("a:b", 2, Precision.BFLOAT16, "cuda")]


def test_the_example_is_loaded_by_its_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "word-count", "examples.own_backend:load")
    assert isinstance(load("word-count:v1"), own_backend.WordCount)


def test_a_plugin_has_no_families(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "mine", "recorder:load")
    with pytest.raises(InvalidInput, match="family is for checkpoints"):
        load("mine:a", family="causal-lm")


def test_a_plugin_must_not_take_a_built_in_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "openai", "recorder:load")
    with pytest.raises(InvalidPlugin, match=r"recorder 1.0 offers 'openai', which is built into fedbbpt"):
        load("openai:model@http://127.0.0.1:9/v1")


def test_an_entry_point_must_be_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "mine", "recorder:NOTHING")
    with pytest.raises(InvalidPlugin, match="entry point 'mine' is 0; a function that loads a model"):
        load("mine:a")
