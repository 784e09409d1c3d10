"""Commands warn of texts that are cut and of duplicates: on standard error, once, and in --json."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedbbpt.ptm.models.fake import MAX_TOKENS
from tests.command_line import JOB, CommandLine, write_job

EXCESS = 30


@pytest.fixture
def run(command_line: CommandLine, tmp_path: Path) -> CommandLine:
    """Runs a command in a folder whose data has a text that is too long and one that stands in all splits."""
    write_job(tmp_path)
    Path("splits").mkdir()
    header, *rows = Path("questions.csv").read_text().splitlines()
    long = "word " * (MAX_TOKENS + EXCESS) + ",visits"
    for index, split in enumerate(("train", "dev", "test")):
        own = [row.replace("question", f"{split} question") for row in rows]
        extra = ["my knee hurts,tests", *([long] if index == 2 else [])]
        Path(f"splits/{split}.csv").write_text("\n".join([header, *own, *extra]) + "\n")
    table = JOB.replace("questions.csv", "splits").replace("shots_per_class = 8", "shots_per_class = 0")
    Path("job.toml").write_text(table.replace("[cohort]", "dev_shots_per_class = 0\n[cohort]"))
    return command_line


def kinds(warnings: list[dict[str, Any]]) -> dict[str, int]:
    return {warning["kind"]: warning["count"] for warning in warnings}


def test_warnings_reach_people_and_programs(run: CommandLine) -> None:
    ended = run("simulate", "job.toml", "--out", "out", "--json")
    summary = json.loads(ended.out)
    shared = {"dev examples in train": 1, "test examples in train": 1, "test examples in dev": 1}
    assert kinds(summary["warnings"]) == {**shared, "cut texts": 1}
    messages = {warning["kind"]: warning["message"] for warning in summary["warnings"]}
    assert "test examples is also in train;" in messages["test examples in train"]
    for warning in summary["warnings"]:
        assert ended.message.count(" ".join(warning["message"].split())) == 1
    assert "knee" not in ended.err
    assert kinds(json.loads(run("data", "job.toml", "--json").out)["warnings"]) == shared


def test_evaluate_and_predict_say_how_much_of_a_text_the_model_does_not_read(run: CommandLine) -> None:
    assert run("simulate", "job.toml", "--out", "out").code == 0
    prompt = ("--prompt", "out/prompt.safetensors", "--json", "--data", "splits/test.csv")
    measured = json.loads(run("evaluate", *prompt).out)["warnings"]
    predicted = json.loads(run("predict", *prompt).out)["warnings"]
    assert measured == predicted and kinds(measured) == {"cut texts": 1}
    # The prompt takes 8 of the model's tokens.
    assert f"{EXCESS + 8} tokens on average" in measured[0]["message"]
    ended = run("predict", *prompt[:2], "--data", "splits/test.csv", "--out", "p.csv")
    assert "warning: 1 of 90 texts is too long for the model" in ended.message
