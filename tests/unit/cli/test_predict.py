"""`fedbbpt predict` on files and standard input, and the file of its predictions."""

import csv
import io
import json
import sys
from pathlib import Path

import pytest

from fedbbpt.federation.prompt_file import read_prompt, write_prompt
from tests.command_line import CommandLine, Ended, write_job

TEXTS = ["where is parking", "my invoice, please", "the lab\nresult", "naïve ☕"]


@pytest.fixture
def predict(command_line: CommandLine, tmp_path: Path) -> CommandLine:
    """Runs `fedbbpt predict` with the prompt of a simulation."""
    write_job(tmp_path)
    assert command_line("simulate", "job.toml", "--out", "out").code == 0
    return lambda *words: command_line("predict", "--prompt", "out/prompt.safetensors", *words)


def probabilities(ended: Ended) -> list[dict[str, float]]:
    return [one["probabilities"] for one in json.loads(ended.out)["predictions"]]


def write_csv(path: Path, texts: list[str]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows([["id", "text"], *([str(i), text] for i, text in enumerate(texts))])


def test_files_of_all_kinds_and_standard_input_give_the_same(
    predict: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [word for text in TEXTS for word in ("--text", text)]
    wanted = probabilities(predict(*words, "--json"))
    assert all(sum(row.values()) == pytest.approx(1) and len(row) == 3 for row in wanted)
    write_csv(Path("q.csv"), TEXTS)
    Path("q.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    for name in ("q.csv", "q.jsonl"):
        assert probabilities(predict("--data", name, "--json")) == wanted
    for kind, content in (
        ("csv", Path("q.csv").read_bytes()),
        ("jsonl", Path("q.jsonl").read_bytes()),
        ("lines", "\n".join(text.replace("\n", " ") for text in TEXTS).encode()),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))
        found = probabilities(predict("--data", "-", "--stdin-format", kind, "--json"))
        assert found == wanted


def test_the_order_is_kept_over_many_batches(predict: CommandLine) -> None:
    texts = [f"question {i} on parking" for i in range(600)]
    write_csv(Path("q.csv"), texts)
    shown = json.loads(predict("--data", "q.csv", "--out", "p.jsonl", "--json").out)
    rows = [json.loads(line) for line in Path("p.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == texts
    assert shown["inputs"] == 600 == sum(shown["predicted"].values())


def test_a_csv_of_predictions_has_the_probability_of_every_class(predict: CommandLine) -> None:
    write_csv(Path("q.csv"), TEXTS)
    assert predict("--data", "q.csv", "--out", "p.csv").code == 0
    with Path("p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == TEXTS
    for row, wanted in zip(rows, probabilities(predict("--data", "q.csv", "--json")), strict=True):
        found = {label: float(row[f"probability of {label}"]) for label in wanted}
        assert found == pytest.approx(wanted, rel=1e-5)
        assert row["label"] == max(wanted, key=lambda label: wanted[label])
        assert float(row["probability"]) == max(found.values())


def test_a_bad_row_is_found_before_the_model_is_asked_and_leaves_no_file(predict: CommandLine) -> None:
    write_csv(Path("q.csv"), [*TEXTS, " "])
    ended = predict("--data", "q.csv", "--out", "p.csv")
    assert ended.code == 3 and "q.csv:7: 'text' is empty" in ended.message
    assert not list(Path().glob("p.csv*"))


@pytest.mark.parametrize("source", ["-", "empty.jsonl"])
def test_no_examples_are_refused_and_leave_no_file(
    source: str, predict: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("empty.jsonl").touch()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO())))
    ended = predict("--data", source, "--out", "p.csv")
    assert ended.code == 3 and ": no examples hint: at least one row" in ended.message
    assert not list(Path().glob("p.csv*"))


def test_a_file_is_not_overwritten_unless_told(predict: CommandLine) -> None:
    write_csv(Path("q.csv"), TEXTS)
    Path("p.csv").write_text("kept")
    ended = predict("--data", "q.csv", "--out", "p.csv")
    assert ended.code == 3 and "the file exists already" in ended.message and "--force" in ended.message
    assert Path("p.csv").read_text() == "kept"
    assert predict("--data", "q.csv", "--out", "p.csv", "--force").code == 0
    assert Path("p.csv").read_text().startswith("text,label,probability")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--text, --data, --images: give texts, a file or images"),
        (("--text", "a", "--data", "q.csv"), "and not two of them"),
        (("--text", "a", "--out", "p.xlsx"), "a name in .csv or .jsonl"),
        (("--data", "q.xlsx"), "an Excel workbook, which is not read"),
        (("--data", "q.csv", "--text-column", "question"), "no column 'question'"),
    ],
)
def test_wrong_options_say_what_would_be_right(words: tuple[str, ...], said: str, predict: CommandLine) -> None:
    write_csv(Path("q.csv"), TEXTS)
    ended = predict(*words)
    assert ended.code == 3 and said in ended.message


def test_labels_on_a_card_cannot_control_the_terminal(predict: CommandLine) -> None:
    """Kills: a label that clears the screen, renames the window, or reads as another one."""
    path = Path("out/prompt.safetensors")
    z, card = read_prompt(path)
    write_prompt(
        path, z, card.model_copy(update={"labels": tuple(f"\x1b]0;{label}\x07\u202e" for label in card.labels)})
    )
    ended = predict("--text", "my \x1b[2Jinvoice")
    assert ended.code == 0 and not {"\x1b", "\x07", "\u202e"} & set(ended.out + ended.err)
    assert r"\x1b]0;" in ended.out and r"my \x1b[2Jinvoice" in ended.out


def test_address_on_a_card_is_not_dialled(predict: CommandLine) -> None:
    path = Path("out/prompt.safetensors")
    z, card = read_prompt(path)
    write_prompt(path, z, card.model_copy(update={"ptm": "openai:m@http://elsewhere.invalid/v1"}))
    ended = predict("--text", "my invoice")
    assert ended.code == 3 and "--model, --ptm: the prompt's card names a model on another server" in ended.message
    assert predict("--text", "my invoice", "--model", "fake").code == 0


def test_tables_of_many_batches_have_one_header(predict: CommandLine) -> None:
    write_csv(Path("q.csv"), [f"question {i}" for i in range(300)])
    printed = predict("--data", "q.csv").out
    assert printed.count("probability") == 1 and len(printed.splitlines()) == 301


def test_paths_are_named_as_they_were_given(predict: CommandLine) -> None:
    ended = predict("--data", "./patients")
    assert ended.code == 3 and "./patients: no such file, and not the name of a dataset" in ended.message
