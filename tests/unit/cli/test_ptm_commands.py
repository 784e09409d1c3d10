"""`ptm token` and `ptm audit`, and their descriptions in docs/tenants.md."""

import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from fedbbpt import cli
from fedbbpt.host.audit import AuditLog, read_audit
from fedbbpt.identity.tokens_file import token_digest
from fedbbpt.ptm.tenants.tenant import Tenant
from fedbbpt.ptm.tenants.tenants_file import read_tenants

PAGE = (Path(__file__).parents[3] / "docs/tenants.md").read_text()
LINES = re.findall(r"^```json audit\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)[0]
Run: TypeAlias = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs `fedbbpt ptm ...` in a folder with the page's audit.jsonl; returns its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    Path("audit.jsonl").write_text(LINES)

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedbbpt", "ptm", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return command


def test_a_token_is_admitted_by_its_line(run: Run) -> None:
    code, printed, _ = run("token")
    token, line = printed.splitlines()
    Path("tenants.toml").write_text(f'[[tenant]]\nname = "clinic"\n{line}\n')
    assert code == 0 and token not in line
    assert read_tenants(Path("tenants.toml")).identify(token_digest(token), []).name == "clinic"
    made = json.loads(run("token", "--json")[1])
    assert made["token"] != token and hashlib.sha256(made["token"].encode()).hexdigest() == made["token_sha256"]


def test_the_page_shows_a_sound_log_and_its_sums(run: Run) -> None:
    code, printed, _ = run("audit", "audit.jsonl")
    shown = PAGE.partition("$ fedbbpt ptm audit audit.jsonl\n")[2].partition("```")[0]
    assert code == 0
    assert [line.rstrip() for line in printed.splitlines()] == shown.splitlines()
    found = json.loads(run("audit", "audit.jsonl", "--json")[1])
    assert found["tenants"]["clinic"] == {
        "records": 2,
        "calls": 1,
        "queries": 320,
        "cached_queries": 16,
        "tokens": 9728,
        "cost_micros": 6080,
        "label_tokens": 2,
    }
    log = AuditLog(Path("audit.jsonl"))
    log.append("score", "lab", task="t", queries=5, cached_queries=0, tokens=9, cost_micros=0)
    log.append("score", "clinic", task="t", queries=80, cached_queries=0, tokens=272, cost_micros=0)
    log.close()
    by_tenant = json.loads(run("audit", "audit.jsonl", "--json")[1])["tenants"]
    assert [(name, sums["queries"], sums["tokens"]) for name, sums in by_tenant.items()] == [
        ("clinic", 400, 10_000),
        ("lab", 5, 9),
    ]
    assert list(json.loads(run("audit", "audit.jsonl", "--json", "--tenant", "lab")[1])["tenants"]) == ["lab"]


def test_the_example_token_is_the_example_line() -> None:
    token, line = PAGE.partition("$ fedbbpt ptm token\n")[2].splitlines()[:2]
    assert line == f'token_sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"'
    assert line in PAGE.partition("```toml tenants")[2].partition("```")[0]


def test_an_anchor_is_verified(run: Run) -> None:
    _, printed, _ = run("audit", "audit.jsonl")
    (anchor,) = re.findall(r"^anchor (\S+)$", printed, re.MULTILINE)
    code, printed, _ = run("audit", "audit.jsonl", "--anchor", anchor)
    assert code == 0 and "the anchor's record is among them" in printed
    Path("audit.jsonl").write_text(LINES.splitlines(keepends=True)[0])
    assert run("audit", "audit.jsonl")[0] == 0
    code, printed, said = run("audit", "audit.jsonl", "--anchor", anchor)
    assert (code, printed) == (8, "") and "AuditBroken: audit.jsonl: only 1 of the anchor's 2 records" in said


def test_an_empty_log_has_no_records_and_bad_options_are_rejected(run: Run) -> None:
    Path("empty.jsonl").touch()
    assert run("audit", "empty.jsonl")[1] == "no records\n"
    assert json.loads(run("audit", "empty.jsonl", "--json")[1])["anchor"] is None
    for words, code, message in (
        (("gone.jsonl",), 3, "InvalidInput: gone.jsonl: No such file"),
        (("audit.jsonl", "--tenant", "lab"), 3, "--tenant: no record of 'lab' hint: one of clinic"),
        (("audit.jsonl", "--anchor", "2"), 3, "anchor: '2' is not an anchor hint: N:HASH"),
    ):
        ended = run("audit", *words)
        assert ended[:2] == (code, "") and message in re.sub(r"\s+", " ", ended[2])
    Path("audit.jsonl").write_text(LINES.replace("320", "120"))
    code, printed, said = run("audit", "audit.jsonl")
    assert (code, printed) == (8, "") and "AuditBroken: audit.jsonl:2: the record was changed" in said


def cells(header: str) -> list[list[str]]:
    lines = PAGE[PAGE.index(f"| {header} |") :].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_has_every_key_with_its_default() -> None:
    rows = {name.strip("`"): default for name, default, _ in cells("key")}
    fields = {name: field.default for name, field in Tenant.model_fields.items()}
    assert rows.keys() == fields.keys() | {"token_sha256", "certificate"}
    for name, default in fields.items():
        if name != "name":
            assert rows[name].strip("`") == ("" if default is None else json.dumps(default)), name


def test_the_page_has_every_field_of_its_records(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    file.write_text(LINES)
    kinds = {kind.strip("`"): text for kind, _, text in cells("`kind`")}
    for record in read_audit(file):
        chain = {"n", "time", "kind", "tenant", "previous", "hash"}
        assert set(re.findall(r"`(\w+)`", kinds[record["kind"]])) - {"ok"} == record.keys() - chain


def test_revoked_certificates_are_of_use_only_where_callers_have_some(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, said = run("serve", "--model", "fake", "--tls-crl", "revoked.pem")
    assert code == 3 and "--tls-client-ca as well" in said
