"""What a caller learns about a PTM service: the model's card and its own account, for people and as JSON."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest

from fedbbpt.api.ptm import ask, open_ptm
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.ptm.tenants.tenants_file import read_tenants
from fedbbpt.types import ModelCard
from tests.command_line import CommandLine

TENANTS = """
[[tenant]]
name = "clinic"
token_sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
max_queries = 10
currency = "EUR"
micros_per_query = 2500
"""
TOKEN = "secret"


@pytest.fixture
def address(ptm_servers: Any, tmp_path: Path) -> str:
    """The address of a service with a tenant whose token is in the file `token`."""
    (tmp_path / "tenants.toml").write_text(TENANTS)
    (tmp_path / "token").write_text(TOKEN)
    tenants = read_tenants(tmp_path / "tenants.toml")
    return f"127.0.0.1:{ptm_servers.start(Engine(Fake(), time.monotonic, tenants=tenants), tenants=tenants)}"


def test_describe_shows_the_card(address: str, command_line: CommandLine) -> None:
    words = ("ptm", "describe", address, "--ptm-token-file", "token")
    shown = json.loads(command_line(*words, "--json").out)
    assert set(shown) == {field.name for field in dataclasses.fields(ModelCard)}
    card = Fake().describe()
    assert shown["revision"] == card.revision and shown["prompt_kinds"] == sorted(card.prompt_kinds)
    assert shown["price"]["micros_per_query"] == 2500
    table = command_line(*words).out
    assert shown["precision"] == card.precision == "float32"
    for text in (card.revision, card.family, "float32", "latent, soft, text, tokens", "label-logits", "0.002500 EUR"):
        assert text in table
    assert all(len(line) <= 80 for line in table.splitlines())


def test_usage_shows_what_is_used_and_what_is_left(address: str, command_line: CommandLine) -> None:
    with open_ptm(address=address, token=TOKEN) as ptm:
        ask(ptm, ["how many are there", "in which city"], ["a number", "a place"])
    words = ("ptm", "usage", address, "--ptm-token-file", "token")
    shown = json.loads(command_line(*words, "--json").out)
    assert shown["usage"]["queries"] == 2 and shown["usage"]["cost_micros"] == 5000 and shown["currency"] == "EUR"
    assert shown["left"]["queries"] == 8 and shown["left"]["tokens"] is None
    (task,) = shown["tasks"].values()
    assert task["queries"] == 2
    table = " ".join(command_line(*words).out.split())
    assert "queries 2 8" in table and "unlimited" in table and "cost 0.005000 EUR" in table


@pytest.mark.parametrize("command", ["describe", "usage"])
def test_a_caller_is_told_why_it_learns_nothing(command: str, address: str, command_line: CommandLine) -> None:
    Path("other").write_text("wrong")
    ended = command_line("ptm", command, address, "--ptm-token-file", "other")
    assert ended.code == 5 and "--ptm-token-file with this service's token" in ended.message
    ended = command_line("ptm", command, "127.0.0.1:1")
    assert ended.code == 4 and "127.0.0.1:1: connection refused" in ended.message
    assert command_line("ptm", command, "http://127.0.0.1:1").code == 3
