"""The tenants file: the settings that it gives, and the mistakes that it may have."""

import hashlib
from pathlib import Path

import pytest

from fedbbpt.errors import InvalidInput
from fedbbpt.ptm.tenants.tenants_file import read_tenants
from fedbbpt.types import Output, Price


def sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


ANNA, BELA = sha256("anna's token"), sha256("bela's token")
FILE = f"""
[defaults]
output = "label-logprobs"
max_queries = 1000
[[tenant]]
name = "anna"
token_sha256 = "{ANNA}"
max_queries = 5
label_tokens = "all"
currency = "EUR"
micros_per_query = 20
micros_per_thousand_tokens = 3
[[tenant]]
name = "bela"
token_sha256 = "{BELA}"
certificate = "bela.example.org"
[[tenant]]
name = "clinic"
certificate = "clinic.example.org"
output = "loss-only"
queries_per_second = 50
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tenants.toml"
    path.write_text(FILE)
    return path


def test_file_gives_the_settings_of_each_tenant(file: Path) -> None:
    anna, bela, clinic = read_tenants(file)
    assert (anna.name, anna.output, anna.max_queries) == ("anna", Output.LABEL_LOGPROBS, 5)
    assert anna.price == Price("EUR", 20, 0, 3)
    assert (bela.name, bela.output, bela.max_queries) == ("bela", Output.LABEL_LOGPROBS, 1000)
    assert (clinic.name, clinic.output, clinic.burst) == ("clinic", Output.LOSS_ONLY, 50.0)


ROW = '[[tenant]]\nname = "anna"\ncertificate = "anna.example.org"\n'
REFUSED = {
    ROW + "max_querys = 3": "tenant 'anna': unknown key 'max_querys'; did you mean 'max_queries'?",
    ROW + "quota = 3": "tenant 'anna': unknown key 'quota'; known are name, role, output, ",
    ROW + "max_queries = -1": "tenant 'anna': max_queries = -1: input should be greater than or equal to 0",
    ROW + 'max_queries = "3"': "tenant 'anna': max_queries = \"3\": input should be a valid integer",
    ROW + "min_examples = 1": "tenant 'anna': min_examples = 1: input should be greater than or equal to 2",
    ROW + 'label_tokens = "some"': "label_tokens = \"some\": input should be a valid integer, or input should be 'all'",
    ROW + 'output = "losses"': "tenant 'anna': output = \"losses\": input should be 'loss-only', 'label-argmax', ",
    ROW + "queries_per_second = inf": "tenant 'anna': queries_per_second = Infinity: input should be a finite number",
    ROW + "burst_queries = 3": "tenant 'anna': burst_queries: a burst without a rate limit; queries_per_second as well",
    ROW + "micros_per_query = 3": "tenant 'anna': currency: prices without a currency; for example \"EUR\"",
    ROW + 'token_sha256 = "secret"': "tenant 'anna': token_sha256: string should match",
    ROW + ROW.replace("anna.ex", "a.ex"): "two tenants have the name 'anna'",
    ROW + ROW.replace('"anna"', '"bela"'): "two tenants have the certificate without a token 'anna.example.org'",
    FILE.replace(BELA, ANNA): f"two tenants have the token_sha256 '{ANNA}'",
    '[[tenant]]\nname = "anna"': "tenant 'anna': no token and no certificate; token_sha256, which ",
    '[[tenant]]\ncertificate = "x"': "tenant 1: name is missing",
    '[[tenant]]\nname = ""\ncertificate = "x"': "tenant '': the name is empty",
    '[[tenant]]\nname = "a b"\ncertificate = "x"': "tenant 'a b': name = \"a b\": string should match",
    "[defaults]\nmin_examples = 1\n" + ROW: "defaults: min_examples = 1: input should be",
    '[defaults]\ncertificate = "x"\n' + ROW: "defaults: unknown key 'certificate'",
    "[default]\n" + ROW: "unknown key 'default'; [defaults] and a [[tenant]] table for each tenant",
    "defaults = 3": "defaults is not a table",
    "": "no tenant in the file; a [[tenant]] table for each tenant",
    '[tenant]\nname = "anna"': "no tenant in the file; a [[tenant]] table for each tenant",
    "x ==": "not TOML: ",
}


@pytest.mark.parametrize("text", REFUSED, ids=REFUSED.values())
def test_invalid_file_is_rejected(text: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(InvalidInput) as refused:
        read_tenants(file)
    assert REFUSED[text] in str(refused.value)
    assert refused.value.where in (str(file), f"{file}:1")
    assert "secret" not in str(refused.value)


def test_missing_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"gone\.toml"):
        read_tenants(tmp_path / "gone.toml")
