"""The commands that need no other process, as a user types them: results, errors, exit codes."""

import json
import re
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import typer.main

from fedbbpt import cli, errors
from fedbbpt.cli.terminal.console import EXIT_CODES, exit_code, show
from fedbbpt.federation.prompt_file import read_prompt
from fedbbpt.job.config import read_job
from fedbbpt.methods import METHODS
from fedbbpt.types import Report
from tests.command_line import JOB, WORDS, CommandLine, write_job

COMMANDS = (Path(__file__).parents[3] / "docs/commands.md").read_text()


@pytest.fixture
def run(command_line: CommandLine, tmp_path: Path) -> CommandLine:
    """Runs a command in a folder that holds questions.csv and job.toml."""
    write_job(tmp_path)
    return command_line


def commands() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    pending: list[tuple[tuple[str, ...], Any]] = [((), typer.main.get_command(cli.app))]
    while pending:
        path, command = pending.pop()
        found.append(path)
        pending += [((*path, name), child) for name, child in getattr(command, "commands", {}).items()]
    return sorted(found)


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_help_describes_each_command_in_80_columns(path: tuple[str, ...], run: CommandLine) -> None:
    ended = run(*path, "--help")
    assert ended.code == 0
    lines = [line.strip() for line in ended.out.splitlines() if line.strip()]
    assert "Usage: fedbbpt" in lines[0]
    # The description is between the usage and the first panel.
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
def test_init_writes_a_job_that_reads_back(method: str, run: CommandLine) -> None:
    assert run("init", "new.toml", "--method", method).code == 0
    assert read_job(Path("new.toml")).method.name == method


def test_init_does_not_overwrite_a_file(run: CommandLine) -> None:
    ended = run("init", "job.toml")
    assert ended.code == 3 and "job.toml: the file exists already" in ended.err and "--force" in ended.err
    assert Path("job.toml").read_text() == JOB
    assert run("init", "job.toml", "--force").code == 0
    assert Path("job.toml").read_text() != JOB


def test_simulate_predict_evaluate(run: CommandLine) -> None:
    ended = run("simulate", "job.toml", "--out", "out", "--json")
    assert ended.code == 0, ended.err
    (line,) = ended.out.splitlines()
    summary = json.loads(line)
    documented = re.findall(
        r"^\| `(\w+)` \|", COMMANDS.partition("`summary.json`, which")[2].partition("An entry of")[0], re.M
    )
    assert list(summary) == [name for name in documented if name != "privacy"]  # only with a budget
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
    by_class = {label: metrics["recall"] for label, metrics in found["classes"].items()}
    counts = {label: 8 * len(words.split()) for label, words in WORDS.items()}
    assert found["examples"] == sum(counts.values())
    assert found["accuracy"] == pytest.approx(sum(by_class[c] * n for c, n in counts.items()) / found["examples"])


def test_tables_for_people_fit_eighty_columns(run: CommandLine) -> None:
    ended = run("simulate", "job.toml", "--out", "out")
    assert ended.code == 0
    for words in (
        "training examples of client",
        "offsets, no prompt",
        "where the search began",
        "95 % interval",
        "queries",
        "predict --prompt",
    ):
        assert words in ended.out
    assert all(len(line.rstrip()) <= 80 for line in ended.out.splitlines())
    assert len(re.findall(r"^round \d: dev accuracy ", ended.err, re.M)) == 4


def test_another_seed_gives_another_run(run: CommandLine) -> None:
    for seed in ("0", "1"):
        assert run("simulate", "job.toml", "--out", seed, "--seed", seed).code == 0
    first, second = (read_prompt(Path(seed, "prompt.safetensors"))[0] for seed in ("0", "1"))
    assert first.tolist() != second.tolist()


def test_a_finished_run_is_not_overwritten(run: CommandLine) -> None:
    Path("out").mkdir()
    Path("out/summary.json").write_text("{}")
    for command in ("run", "simulate"):
        ended = run(command, "job.toml", "--out", "out")
        assert ended.code == 6 and "out: holds a finished run" in ended.err and "hint: another --out" in ended.err
    assert Path("out/summary.json").read_text() == "{}"


Words: TypeAlias = tuple[str, ...]
REFUSED: dict[str, tuple[Words, int, str]] = {
    "a file as --out": (("simulate", "job.toml", "--out", "questions.csv"), 6, "questions.csv: is a file"),
    "nobody to revoke": (("admin", "revoke", "nobody", "--tokens", "empty"), 3, "no member 'nobody'"),
    "no job": (("run", "gone.toml"), 3, "InvalidJob: gone.toml: No such file or directory"),
    "a file in place of a run's folder": (
        ("report", "job.toml"),
        3,
        "job.toml: its files cannot be read: Not a directory",
    ),
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
    "half an identity": (
        ("ptm", "serve", "--model", "fake", "--tls-cert", "c.pem"),
        3,
        "--tls-cert, --tls-key: TLS",
    ),
    "no tokens": (
        ("ptm", "serve", "--model", "fake", "--tokens", "job.toml"),
        3,
        ": not a line of a tokens file",
    ),
    "a token in clear": (
        ("status", "--coordinator", "hub.example.org:7000", "--token-file", "token"),
        5,
        "hub.example.org:7000: a token would be sent without encryption",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_commands_with_bad_input_say_why_they_fail(case: str, run: CommandLine) -> None:
    words, code, message = REFUSED[case]
    Path("bad.toml").write_text("[run]\nround = 3\n")
    Path("empty").write_text("\n")
    Path("token").write_text("secret\n")
    ended = run(*words)
    assert (ended.code, ended.out) == (code, "")
    assert message in ended.message
    assert "Traceback" not in ended.err


def test_square_brackets_in_help_are_printed_unchanged(run: CommandLine) -> None:
    assert "pip install 'fedbbpt[web]'" in run("dashboard", "--help").out


def test_square_brackets_in_a_message_are_printed_unchanged(run: CommandLine) -> None:
    ended = run("run", "[bold]gone[/bold].toml")
    assert ended.code == 3 and "[bold]gone[/bold].toml" in ended.err


def test_every_error_has_an_exit_code() -> None:
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.FedbbptError)]
    codes = {exit_code(error("")) for error in classes}
    assert codes == set(EXIT_CODES.values())
    assert exit_code(errors.InvalidJob("")) == 3
    assert exit_code(errors.PtmUnavailable("")) == 4


def test_classes_that_are_numbers_are_pointed_out(run: CommandLine) -> None:
    table = Path("questions.csv").read_text()
    assert "classes are numbers" not in run("simulate", "job.toml", "--out", "named").err
    for index, label in enumerate(WORDS):
        table = table.replace(f",{label}\n", f",{index}\n")
    Path("questions.csv").write_text(table)
    assert "classes are numbers" in run("simulate", "job.toml", "--out", "numbered").err.replace("\n", " ")


def test_json_output_has_no_numbers_that_json_does_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    show({"last": {"dev_loss": float("inf")}, "z": (1.0, float("nan"))}, as_json=True)
    read = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert read == {"last": {"dev_loss": None}, "z": [1.0, None]}
