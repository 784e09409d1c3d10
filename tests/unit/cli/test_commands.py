"""The commands that need no other process, as a user types them: results, errors, exit codes."""

import json
import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import trustme
import typer.main

from fedbbpt import cli, errors
from fedbbpt.cli.terminal.console import EXIT_CODES, exit_code
from fedbbpt.federation.prompt_file import read_prompt
from fedbbpt.job.config import read_job
from fedbbpt.methods import METHODS
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.ptm.tenants.registry import Tenant, Tenants
from fedbbpt.types import Output, Report
from fedbbpt.wire.tls import ServerTls

COMMANDS = (Path(__file__).parents[3] / "docs/commands.md").read_text()
WORDS = {"billing": "invoice charge pay refund", "tests": "scan blood result lab", "visits": "parking hours entrance"}
JOB = """
[run]
rounds = 3
[ptm]
model = "fake"
[data]
source = "questions.csv"
shots_per_class = 8
[cohort]
clients = 2
"""


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    out: str
    err: str


Run: TypeAlias = Callable[..., Ended]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Run]:
    """Runs a command in an empty folder that holds questions.csv and job.toml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    rows = [f"question {i} on {word},{label}" for i in range(8) for label in WORDS for word in WORDS[label].split()]
    Path("questions.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    Path("job.toml").write_text(JOB)
    root = logging.getLogger()
    before = root.handlers[:], root.level

    def command(*words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["fedbbpt", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    yield command
    root.handlers[:], root.level = before


def commands() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    pending: list[tuple[tuple[str, ...], Any]] = [((), typer.main.get_command(cli.app))]
    while pending:
        path, command = pending.pop()
        found.append(path)
        pending += [((*path, name), child) for name, child in getattr(command, "commands", {}).items()]
    return sorted(found)


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_help(path: tuple[str, ...], run: Run) -> None:
    ended = run(*path, "--help")
    assert ended.code == 0
    lines = [line.strip() for line in ended.out.splitlines() if line.strip()]
    assert "Usage: fedbbpt" in lines[0]
    # What it does stands behind the usage and before the first panel.
    assert len(" ".join(lines[1:]).partition("╭")[0]) > 15
    assert all(len(line) <= 80 for line in ended.out.splitlines())


def test_every_option_says_what_it_means() -> None:
    pending: list[Any] = [typer.main.get_command(cli.app)]
    while pending:
        command = pending.pop()
        pending += getattr(command, "commands", {}).values()
        for parameter in command.params:
            assert parameter.name == "help" or getattr(parameter, "help", None), (command.name, parameter.name)


@pytest.mark.parametrize("method", METHODS)
def test_init_writes_a_job_that_reads_back(method: str, run: Run) -> None:
    assert run("init", "new.toml", "--method", method).code == 0
    assert read_job(Path("new.toml")).method.name == method


def test_init_leaves_a_file_that_is_there(run: Run) -> None:
    ended = run("init", "job.toml")
    assert ended.code == 3 and "job.toml: is there already" in ended.err and "--force" in ended.err
    assert Path("job.toml").read_text() == JOB
    assert run("init", "job.toml", "--force").code == 0
    assert Path("job.toml").read_text() != JOB


def test_simulate_predict_evaluate(run: Run) -> None:
    ended = run("simulate", "job.toml", "--out", "out", "--json")
    assert ended.code == 0, ended.err
    (line,) = ended.out.splitlines()
    summary = json.loads(line)
    documented = re.findall(
        r"^\| `(\w+)` \|", COMMANDS.partition("`summary.json`, which")[2].partition("A line")[0], re.M
    )
    assert list(summary) == documented
    assert summary == json.loads(Path("out/summary.json").read_text())
    reports = [Report(**json.loads(line)) for line in Path("out/metrics.jsonl").read_text().splitlines()]
    assert [report.round for report in reports] == [0, 1, 2, 3]
    assert summary["queries"] == sum(report.queries for report in reports)
    _, card = read_prompt(Path("out/prompt.safetensors"))
    assert card.labels == ("billing", "tests", "visits")

    prompt = ("--prompt", "out/prompt.safetensors")
    ended = run("predict", *prompt, "--text", "where is parking", "--text", "my invoice", "--json")
    assert "[/b]" in run("predict", *prompt, "--text", "where [/b] is parking").out
    predictions = json.loads(ended.out)["predictions"]
    assert [one["text"] for one in predictions] == ["where is parking", "my invoice"]
    assert all(one["label"] in card.labels and 1 / 3 <= one["probability"] <= 1 for one in predictions)
    assert predictions[1]["label"] in run("predict", *prompt, "--text", "my invoice").out

    found = json.loads(run("evaluate", *prompt, "--data", "questions.csv", "--json").out)
    by_class = found["accuracy_by_class"]
    counts = {label: 8 * len(words.split()) for label, words in WORDS.items()}
    assert found["examples"] == sum(counts.values())
    assert found["accuracy"] == pytest.approx(sum(by_class[c] * n for c, n in counts.items()) / found["examples"])
    assert "accuracy by class" in run("evaluate", *prompt, "--data", "questions.csv").out


def test_a_ptm_service_that_asks_for_a_certificate_gets_it(run: Run, ptm_servers: Any, tmp_path: Path) -> None:
    """Kills: tenants that are known by certificates, and no command that shows one."""
    assert run("simulate", "job.toml", "--out", "out").code == 0
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name in ("127.0.0.1", "north.example.org"):
        issued = authority.issue_cert(name)
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    Path("tenants.toml").write_text('[[tenant]]\nname = "north"\ncertificate = "north.example.org"\n')
    tenants = Tenants.read(Path("tenants.toml"))
    tls = ServerTls(tmp_path / "127.0.0.1.pem", tmp_path / "127.0.0.1.key", tmp_path / "ca.pem")
    port = ptm_servers.start(Engine(Fake(), lambda: 0.0), tenants=tenants, tls=tls)
    ask = ("--ptm", f"127.0.0.1:{port}", "--ptm-tls-ca", "ca.pem")
    shown = ("--ptm-client-cert", "north.example.org.pem", "--ptm-client-key", "north.example.org.key")
    asked = ("predict", "--prompt", "out/prompt.safetensors", "--text", "my invoice", *ask)
    assert "my invoice" in run(*asked, *shown).out
    half = run(*asked, *shown[:2])
    assert half.code == 3 and "--ptm-client-cert, --ptm-client-key" in half.err


class Frugal(Tenants):
    """Everybody gets losses only."""

    def __init__(self) -> None:
        super().__init__([])

    def identify(self, shown: Sequence[str], certificate_names: Sequence[str]) -> Tenant:
        return Tenant(name="anyone", output=Output.LOSS_ONLY)


def test_what_a_ptm_does_not_let_one_know_is_left_open(run: Run, ptm_servers: Any) -> None:
    port = ptm_servers.start(Engine(Fake(), lambda: 0.0), tenants=Frugal())
    address = f'[ptm]\naddress = "127.0.0.1:{port}"'
    Path("job.toml").write_text(JOB.replace("[ptm]", address).replace("[data]", '[data]\npartition = "iid"'))
    ended = run("simulate", "job.toml", "--out", "out")
    assert ended.code == 0, ended.err
    summary = json.loads(Path("out/summary.json").read_text())
    assert {key for key, value in summary.items() if value is None and "bytes" not in key} == {
        *(f"accuracy_{condition}" for condition in ("before", "start", "bias_only", "after")),
        "dev_accuracy",
    }
    assert summary["loss_after"] < summary["loss_before"]
    assert re.search(r"accuracy after tuning +- *\n", ended.out) and "gained" not in ended.out
    assert len(re.findall(r"^round \d: dev accuracy -, dev loss \d", ended.err, re.M)) == 4
    ended = run(
        "evaluate", "--prompt", "out/prompt.safetensors", "--data", "questions.csv", "--ptm", f"127.0.0.1:{port}"
    )
    assert ended.code == 8 and "the PTM gives loss-only" in ended.err


def test_tables_for_people_fit_eighty_columns(run: Run) -> None:
    ended = run("simulate", "job.toml", "--out", "out")
    assert ended.code == 0
    for words in (
        "training examples of client",
        "accuracy before tuning",
        "accuracy after tuning",
        "queries",
        "predict --prompt",
    ):
        assert words in ended.out
    assert all(len(line.rstrip()) <= 80 for line in ended.out.splitlines())
    assert len(re.findall(r"^round \d: dev accuracy ", ended.err, re.M)) == 4


def test_another_seed_is_another_run(run: Run) -> None:
    for seed in ("0", "1"):
        assert run("simulate", "job.toml", "--out", seed, "--seed", seed).code == 0
    first, second = (read_prompt(Path(seed, "prompt.safetensors"))[0] for seed in ("0", "1"))
    assert first.tolist() != second.tolist()


def test_a_finished_run_is_not_written_over(run: Run) -> None:
    Path("out").mkdir()
    Path("out/summary.json").write_text("{}")
    for command in ("run", "simulate"):
        ended = run(command, "job.toml", "--out", "out")
        assert ended.code == 6 and "out: holds a finished run" in ended.err and "hint: another --out" in ended.err
    assert Path("out/summary.json").read_text() == "{}"


Words: TypeAlias = tuple[str, ...]
REFUSED: dict[str, tuple[Words, int, str]] = {
    "no job": (("run", "gone.toml"), 3, "gone.toml"),
    "a key that is not known": (("run", "bad.toml"), 3, "InvalidJob: bad.toml:2: unknown key 'run.round'"),
    "no data": (("run", "job.toml", "--data", "gone.csv"), 3, "gone.csv: cannot be read"),
    "not a method": (("init", "x.toml", "--method", "fed-avg"), 3, "--method: 'fed-avg' is unknown"),
    "nowhere to write": (("init", "gone/job.toml"), 6, "gone/job.toml: No such file"),
    "not a prompt": (("predict", "--prompt", "job.toml", "--text", "x"), 3, "job.toml: not a prompt"),
    "no option of ours": (("run", "job.toml", "--rounds", "3"), 2, "No such option"),
    "no command of ours": (("walk",), 2, "No such command"),
    "a seed below 0": (("run", "job.toml", "--seed", "-1"), 2, "--seed"),
    "a seed that no job can have": (("run", "job.toml", "--seed", str(2**63)), 2, "--seed"),
    "a coordinator without labels": (("coordinator", "serve", "job.toml"), 3, "job.toml: task.labels names 0 classes"),
    "half an identity": (("ptm", "serve", "--model", "fake", "--tls-cert", "c.pem"), 3, "--tls-cert, --tls-key: half"),
    "no certificate": (
        ("ptm", "serve", "--model", "fake", "--tls-cert", "c.pem", "--tls-key", "k.pem"),
        3,
        "k.pem: No such file",
    ),
    "unusable certificate": (
        ("ptm", "serve", "--model", "fake", "--tls-cert", "job.toml", "--tls-key", "job.toml"),
        3,
        "job.toml, job.toml: certificate and key cannot be used",
    ),
    "no token": (("ptm", "serve", "--model", "fake", "--token-file", "empty"), 3, "empty: no token in it"),
    "open to all": (
        ("ptm", "serve", "--model", "fake", "--host", "0.0.0.0"),
        5,
        "0.0.0.0: without TLS, anybody on the network",
    ),
    "a token in clear": (
        ("status", "--coordinator", "hub.example.org:7000", "--token-file", "token"),
        5,
        "hub.example.org:7000: a token would be sent without encryption",
    ),
    "nobody there": (("status", "--coordinator", "127.0.0.1:1"), 4, "127.0.0.1:1: nobody answers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_says_so(case: str, run: Run) -> None:
    words, code, message = REFUSED[case]
    Path("bad.toml").write_text("[run]\nround = 3\n")
    Path("empty").write_text("\n")
    Path("token").write_text("secret\n")
    ended = run(*words)
    assert (ended.code, ended.out) == (code, "")
    assert message in re.sub(r"\s+", " ", re.sub(r"[│\n]", " ", ended.err))
    assert "Traceback" not in ended.err


def test_square_brackets_in_a_message_are_printed_as_they_are(run: Run) -> None:
    ended = run("run", "[bold]gone[/bold].toml")
    assert ended.code == 3 and "[bold]gone[/bold].toml" in ended.err


def test_every_error_has_an_exit_code() -> None:
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.FedbbptError)]
    codes = {exit_code(error("")) for error in classes}
    assert codes == set(EXIT_CODES.values())
    assert exit_code(errors.InvalidJob("")) == 3
    assert exit_code(errors.PtmUnavailable("")) == 4


def test_classes_that_are_numbers_are_pointed_out(run: Run) -> None:
    table = Path("questions.csv").read_text()
    assert "classes are numbers" not in run("simulate", "job.toml", "--out", "named").err
    for index, label in enumerate(WORDS):
        table = table.replace(f",{label}\n", f",{index}\n")
    Path("questions.csv").write_text(table)
    assert "classes are numbers" in run("simulate", "job.toml", "--out", "numbered").err.replace("\n", " ")
