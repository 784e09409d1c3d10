"""The page of a run, read back by a parser: its figures are those of the files, and nothing of a user becomes HTML."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import fedbbpt
from fedbbpt.errors import InvalidInput
from fedbbpt.report.charts import ticks
from fedbbpt.report.figures import percent, points, points_range
from fedbbpt.report.html import element
from fedbbpt.report.page import page
from fedbbpt.report.run_data import RunData
from tests.command_line import JOB, CommandLine

EVIL = '<script>alert("1")</script>'


class Parsed(HTMLParser):
    """The elements of a page, and its tables as texts."""

    VOID = frozenset({"meta", "br", "circle", "line", "polyline", "polygon"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.tables: list[list[list[str]]] = []
        self.titles: list[str] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.texts.append(data)
        if self._open and self._open[-1] == "title":
            self.titles.append(data)
        elif "table" in self._open and ("td" in self._open or "th" in self._open):
            self.tables[-1][-1][-1] += data


@pytest.fixture
def folder(command_line: CommandLine, tmp_path: Path) -> Path:
    """A finished simulation whose labels and texts are HTML."""
    words = {EVIL: "invoice charge pay refund", "a & b": "scan blood result lab", "visits": "parking hours entrance"}
    rows = [
        f'"question {i} <i>on</i> {word}","{label.replace(chr(34), chr(34) * 2)}"'
        for i in range(8)
        for label in words
        for word in words[label].split()
    ]
    (tmp_path / "questions.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    (tmp_path / "job.toml").write_text(JOB)
    ended = command_line("simulate", "job.toml", "--out", "out", "--json")
    assert ended.code == 0, ended.err
    return tmp_path / "out"


def test_the_figures_are_those_of_the_files(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    answers = [json.loads(line) for line in (folder / "test_answers.jsonl").read_text().splitlines()]
    reports = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    run = RunData.of_folder(folder)
    read = Parsed(page(run))
    controls = {row[0]: row[1:] for row in read.tables[0]}
    for name, key in {
        "no prompt": "accuracy_before",
        "where the search began": "accuracy_start",
        "offsets, no prompt": "accuracy_bias_only",
        "tuned prompt": "accuracy_after",
    }.items():
        assert controls[name][0] == percent(summary[key])
    gain = summary["gains"]["offsets"]
    assert controls["offsets, no prompt"][3:] == [points(gain["difference"]), points_range(gain["interval_95"])]
    for report in reports:
        said = [title for title in read.titles if title.startswith(f"round {report['round']}: ")]
        assert any(percent(report["dev_accuracy"]) in title for title in said)
        assert any(title.endswith(f"{report['dev_loss']:.4f}") for title in said)

    matrix = next(table for table in read.tables if table[0][0].startswith("true"))
    labels = run.labels
    for label, row in zip(labels, matrix[1:], strict=True):
        counts = [sum(a["label"] == label and a["result"] == other for a in answers) for other in labels]
        assert [int(cell.replace("·", "0")) for cell in row[1:]] == counts
    wrong = [place for place, row in enumerate(answers) if row["result"] != row["label"]]
    shown = next(table for table in read.tables if table[0][:2] == ["text", "label"])[1:]
    assert wrong, "the test says something"
    assert [row[:3] for row in shown] == [
        [run.inputs[place], answers[place]["label"], answers[place]["result"]] for place in wrong
    ]
    cost = {row[0]: row[1] for table in read.tables for row in table if len(row) == 2}
    assert cost["queries of the clients"] == f"{summary['queries']:,}"
    assert cost["method.name"] if "method.name" in cost else cost["method"] == summary["method"]
    assert cost["run.rounds"] == "3" and cost["data.shots_per_class"] == "8"


def test_nothing_of_a_user_becomes_html_and_nothing_is_loaded_from_elsewhere(folder: Path) -> None:
    text = page(RunData.of_folder(folder))
    read = Parsed(text)
    assert "script" not in read.names and "b" not in read.names and "i" not in read.names
    assert any(EVIL in said for said in read.texts) and any("<i>on</i>" in said for said in read.texts)
    own = re.sub(r"<pre>.*?</pre>", "", text, flags=re.DOTALL)  # the job's comments quote addresses, as text
    assert not re.search(r"https?:|//|url\(|@import|javascript:", own.replace("<!doctype", "")), "no address"
    assert {name for name, _ in read.attributes}.isdisjoint({"src", "onload", "onclick"})
    assert all(value.startswith("#") for name, value in read.attributes if name == "href")


def test_texts_are_left_out_if_asked_and_if_the_data_has_gone_or_changed(folder: Path) -> None:
    assert "&lt;i&gt;on" in page(RunData.of_folder(folder))
    without = RunData.of_folder(folder, texts=False)
    assert without.inputs == () and "&lt;i&gt;on" not in page(without)
    data = folder.parent / "questions.csv"
    data.write_text(data.read_text().replace("question 1", "question one"))
    assert "the data has changed since the run" in page(RunData.of_folder(folder))
    data.unlink()
    gone = page(RunData.of_folder(folder))
    assert "Their texts are not shown: the data cannot be read" in gone


def test_a_coordinators_folder_has_a_page_without_test_examples(folder: Path) -> None:
    run = RunData.of_folder(folder)
    tested = ("accuracy_", "loss_", "test_", "intervals", "gains", "queries_evaluation")
    own = {key: value for key, value in run.summary.items() if not key.startswith(tested)} | {"tested": False}
    read = Parsed(page(replace(run, summary=own, answers=(), inputs=(), job=None)))
    said = " ".join(read.texts)
    assert "The coordinator of a run has no test examples" in said and "of the clients' dev examples right" in said
    assert "The folder holds no job." in said


def test_a_run_with_losses_only_has_a_page(folder: Path) -> None:
    run = RunData.of_folder(folder)
    none = {key: None for key in run.summary if key.startswith("accuracy_")}
    gains, intervals = (dict.fromkeys(run.summary[key]) for key in ("gains", "intervals_95"))
    hidden = {**run.summary, **none, "gains": gains, "intervals_95": intervals, "dev_accuracy": None}
    reports = [replace(report, dev_accuracy=None) for report in run.reports]
    assert "This PTM returns losses only" in page(replace(run, summary=hidden, reports=reports, answers=()))


def test_files_that_are_no_finished_run_are_refused_in_words(folder: Path, command_line: CommandLine) -> None:
    assert command_line("report", str(folder)).out.startswith(f"wrote {folder / 'report.html'}")
    ended = command_line("report", str(folder / "nothing"))
    assert ended.code == 3 and "summary.json is missing" in ended.message
    whole = (folder / "test_answers.jsonl").read_text()
    (folder / "test_answers.jsonl").write_text(whole.replace('"visits"', '"other"'))
    with pytest.raises(InvalidInput, match="not an answer to an example of this run"):
        RunData.of_folder(folder)
    (folder / "test_answers.jsonl").write_text("[]\n")
    assert "not a JSON object" in command_line("report", str(folder)).message
    (folder / "test_answers.jsonl").write_text(whole)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(
        json.dumps({**summary, "gains": 0} | {"tested": True}).replace('"gains"', '"g"')
    )
    ended = command_line("report", str(folder))
    assert ended.code == 3 and "it has no 'gains'" in ended.message
    (folder / "summary.json").write_text("{")
    assert command_line("report", str(folder)).code == 3


def test_a_notebook_shows_the_result_and_matplotlib_draws_it(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = fedbbpt.simulate(fedbbpt.load_job("job.toml")).finish()
    shown = Parsed(run._repr_html_())
    assert "html" not in shown.names and "svg" in shown.names
    assert percent(run.comparison.tuned.accuracy) in shown.texts
    left, right = run.plot().axes
    assert left.get_lines()[0].get_ydata() == pytest.approx([100 * (one.dev_accuracy or 0) for one in run.reports])
    assert next(label.get_text() for label in right.get_yticklabels()) == "tuned prompt"
    run.report(tmp_path / "page.html")
    assert "they are not kept in memory" in (tmp_path / "page.html").read_text()


def test_texts_are_escaped_and_only_elements_are_not() -> None:
    assert element("p", "a < b", element("b", "&"), title='"') == '<p title="&quot;">a &lt; b<b>&amp;</b></p>'


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.31, 0.95), (2.0, 2.0), (-1.5, 4e6), (1e-9, 3e-9), (0, 40)])
def test_ticks_are_round_numbers_within_the_axis(low: float, high: float) -> None:
    found = np.array(ticks(low, high))
    assert 1 <= len(found) <= 7 and (found >= low - 1e-9 * abs(low)).all() and (found <= high * (1 + 1e-9)).all()
