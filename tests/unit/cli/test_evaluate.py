"""`fedbbpt evaluate` with a prompt and without one."""

import json
from pathlib import Path

import pytest

from fedbbpt.tasks.intervals import difference_interval
from tests.command_line import CommandLine, write_job


@pytest.fixture
def run(command_line: CommandLine, tmp_path: Path) -> CommandLine:
    """Runs a command in a folder with a finished simulation."""
    write_job(tmp_path)
    assert command_line("simulate", "job.toml", "--out", "out").code == 0
    return command_line


PROMPT = ("evaluate", "--prompt", "out/prompt.safetensors")


def test_a_prompt_and_the_model_without_one_are_told_apart(run: CommandLine) -> None:
    both = json.loads(run(*PROMPT, "--data", "questions.csv", "--baseline", "--json").out)
    alone = json.loads(run("evaluate", "--job", "job.toml", "--data", "questions.csv", "--json").out)
    assert both["condition"] == "with the prompt" and alone.pop("condition") == "without a prompt"
    assert both["without_a_prompt"] | {"warnings": both["warnings"]} == alone
    assert both["loss"] != alone["loss"]
    gain = both["gain"]
    assert gain["difference"] == pytest.approx(both["accuracy"] - alone["accuracy"])
    assert gain["interval_95"] == list(difference_interval(gain["only_result_right"], gain["only_other_right"], 88))


def test_controls_are_fitted_on_training_examples(run: CommandLine) -> None:
    """The test examples and the training examples are the same here, so that the offsets' fit can be computed."""
    ended = run(*PROMPT, "--data", "questions.csv", "--train", "questions.csv", "--json")
    found = json.loads(ended.out)
    assert found["test_examples"] == 88 and list(found["gains"]) == ["no_prompt", "start", "offsets"]
    baseline = json.loads(run(*PROMPT, "--data", "questions.csv", "--baseline", "--json").out)
    assert found["gains"]["no_prompt"] == baseline["gain"]
    assert found["accuracy"] == baseline["accuracy"] and found["warnings"] == baseline["warnings"]
    printed = run(*PROMPT, "--data", "questions.csv", "--train", "questions.csv").out
    assert "offsets, no prompt" in printed and all(len(line.rstrip()) <= 80 for line in printed.splitlines())


def test_figures_agree_with_the_confusion_matrix(run: CommandLine) -> None:
    found = json.loads(run(*PROMPT, "--data", "questions.csv", "--json").out)
    matrix, labels = found["confusion"]["true_by_predicted"], found["confusion"]["labels"]
    total = sum(map(sum, matrix))
    assert found["examples"] == total == 88
    assert found["accuracy"] == sum(matrix[i][i] for i in range(3)) / total
    low, high = found["accuracy_interval_95"]
    assert low < found["accuracy"] < high
    for index, label in enumerate(labels):
        assert found["classes"][label]["recall"] == matrix[index][index] / sum(matrix[index])
    assert found["macro_f1"] == pytest.approx(sum(one["f1"] for one in found["classes"].values()) / 3)


def test_a_job_is_measured_on_its_test_examples_as_its_run_does(run: CommandLine) -> None:
    found = json.loads(run("evaluate", "--job", "job.toml", "--json").out)
    summary = json.loads(Path("out/summary.json").read_text())
    assert (found["accuracy"], found["loss"]) == (summary["accuracy_before"], summary["loss_before"])


def test_columns_can_be_named_on_the_command_line(run: CommandLine) -> None:
    table = Path("questions.csv").read_text()
    Path("other.csv").write_text(table.replace("text,label", "question,topic"))
    ended = run(*PROMPT, "--data", "other.csv", "--json")
    assert ended.code == 3 and "'question', 'topic'" in ended.message
    columns = ("--text-column", "question", "--label-column", "topic", "--json")
    assert run(*PROMPT, "--data", "other.csv", *columns).out == run(*PROMPT, "--data", "questions.csv", "--json").out
    jobs = ("evaluate", "--job", "job.toml", "--data")
    assert run(*jobs, "other.csv", *columns).out == run(*jobs, "questions.csv", "--json").out
    simulated = ("simulate", "job.toml", "--data", "other.csv", *columns[:-1], "--out", "again")
    assert run(*simulated).code == 0


def test_the_tables_show_both_conditions_within_80_columns(run: CommandLine) -> None:
    printed = run(*PROMPT, "--data", "questions.csv", "--baseline").out
    for said in ("with the prompt", "without a prompt", "95 % interval (Wilson)", "macro-F1", "billing (32)"):
        assert said in printed
    assert all(len(line.rstrip()) <= 80 for line in printed.splitlines())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("evaluate",), "--prompt, --job: give a prompt or a job"),
        ((*PROMPT, "--job", "job.toml"), "give a prompt or a job, not both"),
        (("evaluate", "--job", "job.toml", "--train", "questions.csv"), "--train: controls are compared with a prompt"),
        (PROMPT, "--data: no examples to measure the prompt on"),
    ],
)
def test_wrong_options_say_what_would_be_right(words: tuple[str, ...], said: str, run: CommandLine) -> None:
    ended = run(*words)
    assert ended.code == 3 and said in ended.message


def test_classes_that_the_models_labels_stand_for_need_the_jobs_data(run: CommandLine) -> None:
    job = Path("job.toml").read_text()
    Path("job.toml").write_text(job + '[task]\nmapping = "frequency"\n')
    ended = run("evaluate", "--job", "job.toml", "--data", "questions.csv")
    assert ended.code == 3 and 'task.mapping = "frequency" is found on the job' in ended.message
