"""The command `wordings` on the fake model: the table, JSON, wordings of one's own, and what it writes."""

import json
from pathlib import Path

import pytest

from fedbbpt.job.config import read_job
from tests.command_line import CommandLine

JOB = '# Mine.\n[ptm]\nmodel = "fake"\n[data]\nsource = "data.jsonl"\nshots_per_class = 0\n[cohort]\nclients = 2\n'


@pytest.fixture
def job(tmp_path: Path) -> Path:
    words = {"good": "pos", "bad": "neg"}
    rows = [{"text": f"{word} {n}", "label": label} for n in range(20) for word, label in words.items()]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "job.toml"
    path.write_text(JOB)
    return path


def test_the_best_wording_is_written_and_comments_stay(command_line: CommandLine, job: Path) -> None:
    ended = command_line("wordings", "job.toml", "--classes", "bad,good", "--write", "--json")
    found = json.loads(ended.out)
    best = found["wordings"][0]
    task = read_job(job).task
    assert ended.code == 0 and (task.template, list(task.classes)) == (best["template"], best["classes"])
    assert found["labels"] == list(task.labels) == ["neg", "pos"] and job.read_text().startswith("# Mine.")
    assert best["accuracy_fitted"] == 1.0 and found["queries"] == found["examples"] * len(found["wordings"])
    assert found["examples"] == 24, "the training examples of a file that is not split, and no test examples"


def test_own_wordings_from_a_file_alone(command_line: CommandLine, job: Path, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('templates = ["{prompt} {text}!"]\nclasses = [["bad", "good"]]\n')
    ended = command_line("wordings", "job.toml", "--file", "own.toml", "--own-only", "--json")
    assert ended.code == 0 and {one["template"] for one in json.loads(ended.out)["wordings"]} == {
        "{prompt} {text}",
        "{prompt} {text}!",
    }
    ended = command_line("wordings", "job.toml", "--file", "own.toml", "--own-only")
    assert ended.code == 0 and "(the" in ended.out and "fitted on four fifths" in ended.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--classes", "bad"), "1 class texts (bad)"),
        (("--kind", "mood"), "unknown kind 'mood'"),
        (("--limit", "5"), "too few to compare"),
        (("--file", "no.toml"), "no.toml"),
        (("--max-length", "64"), "max_length is for checkpoints"),
    ],
)
def test_wrong_options_are_refused_in_words(
    command_line: CommandLine, job: Path, words: tuple[str, ...], message: str
) -> None:
    ended = command_line("wordings", "job.toml", *words)
    assert ended.code == 3 and message in ended.message
