"""Files of all formats are read, and their errors name the file, the line and the fix."""

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.data import examples
from fedbbpt.data.columns import Columns
from fedbbpt.data.examples import check_trainable, label, label_names, read, read_table, write_jsonl
from fedbbpt.errors import InvalidData, InvalidInput
from fedbbpt.tasks.presets import PRESETS
from fedbbpt.types import Examples, LabelledExamples

LABELS = ("cat", "dog")
PUBLISHED = {
    "trec": ("abbreviation", "description", "entity", "human", "location", "number"),
    "agnews": ("World", "Sports", "Business", "Sci/Tech"),
    "dbpedia": (
        *("Artist", "Company", "OfficeHolder", "Building", "Village", "Plant", "EducationalInstitution", "Animal"),
        *("Album", "WrittenWork", "NaturalPlace", "MeanOfTransportation", "Athlete", "Film"),
    ),
    "sst2": ("negative", "positive"),
}
"""The classes of public data sets, in the order of the indices in their files."""

Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(name: str, content: str | bytes) -> Path:
        data = content.encode() if isinstance(content, str) else content
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return to_file


def lines(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


MEOW: dict[str, object] = {"text": "meow", "label": "cat"}
WOOF: dict[str, object] = {"text": "woof, woof", "label": "dog"}

SAME: dict[str, str | bytes] = {
    "a.jsonl": lines(MEOW, WOOF),
    "a.jsonl.gz": lines(MEOW, WOOF),
    "indices.jsonl": lines(MEOW | {"label": 0}, WOOF | {"label": 1}),
    "blank-lines.jsonl": "\n" + lines(MEOW, WOOF) + "\n",
    "a.csv": 'text,label\nmeow,cat\n"woof, woof",dog\n',
    "a.csv.gz": 'label,text,id\ncat,meow,7\ndog,"woof, woof",8\n',
    "indices.csv": 'text,label\nmeow,0\n"woof, woof",1\n',
    "from-windows.csv": b'\xef\xbb\xbftext,label\r\nmeow,cat\r\n"woof, woof",dog\r\n',
    "a.tsv": "text\tlabel\nmeow\tcat\nwoof, woof\tdog\n",
    "from-old-mac.csv": 'text,label\rmeow,cat\r"woof, woof",dog\r',
    "from-europe.csv": "text;label\r\nmeow;cat\r\nwoof, woof;dog\r\n",
    "unicode-text.txt": "text\tlabel\r\nmeow\tcat\r\nwoof, woof\tdog\r\n".encode("utf-16"),
    "big-endian.csv": "\ufefftext;label\nmeow;cat\nwoof, woof;dog\n".encode("utf-16-be"),
    "utf-16.jsonl": lines(MEOW, WOOF).encode("utf-16"),
    "blank-rows.csv": 'text,label,\nmeow,cat,\n,,\n"woof, woof",dog,\n,,\n',
    "declared.csv": "sep=;\ntext;label\nmeow;cat\nwoof, woof;dog\n",
    "tabs.csv": "text\tlabel\nmeow\tcat\nwoof, woof\tdog\n",
    "CAPITALS.JSONL": lines(MEOW, WOOF),
}


@pytest.mark.parametrize("name", SAME)
def test_all_formats_give_the_same_examples(write: Write, name: str) -> None:
    data = read(write(name, SAME[name]), LABELS)
    assert data.examples == Examples(("meow", "woof, woof"))
    np.testing.assert_array_equal(data.labels, [0, 1])


def test_columns_may_have_any_name(write: Write) -> None:
    path = write("a.csv", "premise,hypothesis,gold\nIt rains.,It is wet.,dog\n")
    data = read(path, LABELS, Columns("premise", "hypothesis", "gold"))
    assert data.examples == Examples(("It rains.",), ("It is wet.",))
    np.testing.assert_array_equal(data.labels, [1])


BAD: dict[str, tuple[str, str | bytes, str, str]] = {
    # name: (file, content, where and what, fix)
    "no rows": ("a.jsonl", "", "a.jsonl: no examples", "at least one row"),
    "header only": ("a.csv", "text,label\n", "a.csv: no examples", "at least one row"),
    "empty text": ("a.jsonl", lines(MEOW, WOOF | {"text": " \t"}), "a.jsonl:2: 'text' is empty", "leave the row out"),
    "no text": ("a.jsonl", lines(MEOW | {"text": None}), "a.jsonl:1: 'text' is None", "a text"),
    "number for text": ("a.jsonl", lines(MEOW | {"text": 3}), "a.jsonl:1: 'text' is a number", "a text"),
    "no column": (
        "a.csv",
        "question,label\nx,cat\n",
        "a.csv:1: no column 'text'",
        "--text-column NAME (in a job: data.text_column), where NAME is one of the columns: 'question', 'label'",
    ),
    "no label column": ("a.jsonl", lines({"text": "x"}), "a.jsonl:1: no column 'label'", "'text'"),
    "unknown label": ("a.jsonl", lines(MEOW, WOOF | {"label": "cow"}), "a.jsonl:2: label 'cow'", "'cat', 'dog'"),
    "unknown index": ("a.csv", "text,label\nx,2\n", "a.csv:2: label '2' is not a class of", "'cat', 'dog'"),
    "no label": ("a.jsonl", lines(MEOW | {"label": ""}), "a.jsonl:1: 'label' is empty", "name of a class"),
    "negative label": (
        "a.jsonl",
        lines(MEOW | {"label": -1}),
        "a.jsonl:1: 'label' is a number below 0",
        "counted from 0",
    ),
    "truth for label": ("a.jsonl", lines(MEOW | {"label": True}), "a.jsonl:1: 'label' is True", "counted from 0"),
    "fraction for label": ("a.jsonl", lines(MEOW | {"label": 1.0}), "'label' is a number with a decimal point", "name"),
    "list for label": ("a.jsonl", lines(MEOW | {"label": [1]}), "a.jsonl:1: 'label' is a list", "counted from 0"),
    "half a pair": (
        "a.jsonl",
        lines(MEOW | {"text_pair": "x"}, WOOF),
        "a.jsonl:2: 'text_pair' is missing",
        "or in none",
    ),
    "not JSON": ("a.jsonl", lines(MEOW) + "{text: meow}\n", "a.jsonl:2: not JSON", "one JSON object on each line"),
    "deep JSON": ("a.jsonl", "[" * 100_000, "a.jsonl:1: not JSON", "one JSON object on each line"),
    "a name twice": (
        "a.jsonl",
        '{"text": "meow", "label": 0, "text": "woof"}\n',
        "a.jsonl:1: not JSON (a name stands twice in one object)",
        "one JSON object",
    ),
    "JSON list": ("a.jsonl", "[]\n", "a.jsonl:1: a JSON list", "one JSON object on each line"),
    "latin-1": ("a.csv", "text,label\ncafé,cat\n".encode("latin-1"), "a.csv:2: byte 0xe9 at character 4", "--encoding"),
    "surrogate": (
        "a.jsonl",
        '{"text": "\\ud800", "label": 0}\n',
        "a.jsonl:1: 'text' contains half of a surr",
        "encoded as UTF-8",
    ),
    "surrogate in a label": (
        "a.jsonl",
        '{"text": "x", "label": "\\ud800"}\n',
        "a.jsonl:1: 'label' contains half of a surr",
        "encoded as UTF-8",
    ),
    "too many fields": (
        "a.csv",
        'text,label\n"a\nb",cat\nx, y,dog\n',
        "a.csv:4: 3 fields where the header has 2",
        "quotes",
    ),
    "open quote": (
        "a.csv",
        'text,label\nx,cat\n"y,dog\n',
        "a.csv:3: a quote is opened here and never closed",
        "close every",
    ),
    "other format": ("a.dat", "", "a.dat: not a file of a known format", ".jsonl, .csv, .tsv, .txt, .parquet"),
    "workbook": ("a.xlsx", "", "a.xlsx: an Excel workbook, which is not read", "CSV UTF-8"),
    "JSON document": ("a.json", "[]", "a.json: a JSON document, which is not read", ".jsonl"),
    "archive": ("a.zip", "", "a.zip: an archive, which is not read", "unpack it"),
    "workbook called CSV": ("a.csv", b"PK\x03\x04rest", "a.csv: not text, but a ZIP archive", "CSV UTF-8"),
    "NUL": ("a.csv", "text,label\nme\0ow,cat\n", "a.csv:2: character 3 is a NUL", "UTF-8"),
    "half a character": ("a.csv", "text,label\n".encode("utf-16") + b"x", "a.csv:1: damaged UTF-16", "UTF-8"),
    "a column twice": ("a.csv", "text,label,text\nx,cat,y\n", "a.csv:1: 2 columns are called 'text'", "different name"),
    "too few fields": ("a.csv", "text;label\nx;cat\ny\n", "a.csv:3: 1 fields where the header has 2", "a semicolon"),
    "a quote in a field": (
        "a.csv",
        'text,label\n"a "b" c",cat\n',
        "a.csv:2: a character follows the quote",
        'twice: ""',
    ),
    "a long label": (
        "a.csv",
        "text,label\nx,my doctor told me something very private\n",
        "a.csv:2: label of 40 characters is not a class",
        "'cat', 'dog'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_get_a_clear_error(write: Write, name: str) -> None:
    file, content, said, fix = BAD[name]
    with pytest.raises(InvalidData) as caught:
        read(write(file, content), LABELS)
    assert said in str(caught.value) and fix in caught.value.fix


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: b"text", "it is not a gzip file"),
        (lambda data: data[:-12], "it ends too early"),
        (lambda data: data[:10] + b"\xff" * 9, "it is damaged"),
        (lambda data: data + b"rest", "it is damaged"),
    ],
)
def test_a_damaged_archive_is_named(tmp_path: Path, damage: Callable[[bytes], bytes], said: str) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(damage(gzip.compress(lines(*[MEOW] * 100).encode())))
    with pytest.raises(InvalidData) as caught:
        read(path, LABELS)
    assert str(caught.value) == f"{path}: cannot be read: {said}; a complete .gz file, or the unpacked file"


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"gone\.csv: cannot be read: No such file"):
        read(tmp_path / "gone.csv", LABELS)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InvalidData, match="Is a directory"):
        read(tmp_path / "folder.csv", LABELS)


def test_sizes_are_bounded(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "MAX_DATA_ROWS", 2)
    assert len(read(write("two.jsonl", lines(MEOW, WOOF)), LABELS)) == 2
    with pytest.raises(InvalidData, match=r"three\.jsonl:3: too many rows; at most 2"):
        read(write("three.jsonl", lines(MEOW, WOOF, MEOW)), LABELS)
    with pytest.raises(InvalidData, match="100001 characters; at most 100000"):
        read(write("long.jsonl", lines(MEOW | {"text": "x" * 100_001})), LABELS)
    with pytest.raises(InvalidData, match=r"endless\.jsonl:1: the line is too long"):
        read(write("endless.jsonl", b"x" * (9 * 1024 * 1024)), LABELS)


@pytest.mark.parametrize(
    ("labels", "names"),
    [(["dog", "cat", "dog"], ("cat", "dog")), ([10, 2, 0], ("0", "2", "10")), ([1, "b"], ("1", "b"))],
)
def test_label_names_come_from_the_data(write: Write, labels: list[str | int], names: tuple[str, ...]) -> None:
    table = read_table(write("a.jsonl", lines(*(MEOW | {"label": name} for name in labels))))
    assert label_names(table) == names
    np.testing.assert_array_equal(label(table, names).labels, [names.index(str(name)) for name in labels])


def test_a_label_of_thousands_of_digits_is_a_name(write: Write) -> None:
    long = "9" * 5000
    assert label_names(read_table(write("a.jsonl", lines(MEOW | {"label": long}, WOOF)))) == (long, "dog")


def test_a_number_that_names_a_class_is_not_an_index(write: Write) -> None:
    """One to five stars, of which two stars never occur: 4 means four stars, not the fifth class."""
    table = read_table(write("a.jsonl", lines(*(MEOW | {"label": stars} for stars in (1, 3, 4, 5)))))
    other = read_table(write("b.jsonl", lines(MEOW | {"label": 2})))
    with pytest.raises(
        InvalidData, match=r"b\.jsonl:1: label '2' is not a class of the task; one of '1', '3', '4', '5'"
    ):
        label(other, label_names(table))
    assert label_names(table, other) == ("1", "2", "3", "4", "5")


def test_a_column_of_texts_is_refused_as_labels(write: Write) -> None:
    table = read_table(write("a.jsonl", lines(*(MEOW | {"label": f"id-{row}"} for row in range(1001)))))
    with pytest.raises(InvalidData, match="1001 different labels; at most 1000; is it the right column"):
        label_names(table)


@pytest.mark.parametrize(("labels", "said"), [([], "no examples"), ([1, 1], "all 2 examples are of class 'dog'")])
def test_data_of_one_class_is_refused_for_training(labels: list[int], said: str) -> None:
    data = LabelledExamples(Examples(("x",) * len(labels)), np.array(labels, np.int64))
    with pytest.raises(InvalidData, match=f"client-3: {said}; examples of at least two classes"):
        check_trainable(data, LABELS, where="client-3")
    check_trainable(LabelledExamples(Examples(("x", "y")), np.array([0, 1])), LABELS, where="client-3")


@pytest.mark.parametrize("pairs", [None, ("a", 'b "c"')])
def test_written_examples_are_read_back(tmp_path: Path, pairs: tuple[str, str] | None) -> None:
    data = LabelledExamples(Examples(("naïve ☕", "two\nlines\u2028three"), pairs), np.array([1, 0]))
    write_jsonl(tmp_path / "a.jsonl", data, LABELS)
    back = read(tmp_path / "a.jsonl", LABELS)
    assert back.examples == data.examples
    np.testing.assert_array_equal(back.labels, data.labels)


def test_a_dataset_of_the_hub_gives_the_same_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is replaced by a data set that is made here."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["dog", "cat"])})
    table = datasets.table.InMemoryTable.from_pydict({"text": ["meow", "woof, woof"], "label": [1, 0]})
    made = datasets.Dataset(
        table.cast(features.arrow_schema), info=datasets.DatasetInfo(features=features), fingerprint="made"
    )
    asked: list[tuple[str, str | None, str]] = []

    def load(name: str, config: str | None, split: str) -> object:
        asked.append((name, config, split))
        return made

    monkeypatch.setattr(datasets, "load_dataset", load)
    data = read("owner/pets:small@validation", LABELS)
    assert data.examples.texts == ("meow", "woof, woof")
    # By name: the hub counts its classes in another order.
    np.testing.assert_array_equal(data.labels, [0, 1])
    read("pets", LABELS)
    assert asked == [("owner/pets", "small", "validation"), ("pets", None, "train")]


def test_an_unknown_dataset_may_be_a_mistyped_path(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def load(name: str, config: str | None, split: str) -> object:
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(InvalidData, match=r"data/trec: no such file, and no such dataset .*: no route to the hub"):
        read("data/trec", LABELS)


@pytest.mark.parametrize(("module", "source"), [("pyarrow", "a.parquet"), ("datasets", "owner/name")])
def test_a_missing_extra_says_how_to_get_it(module: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InvalidInput, match=rf"{source}: {module} is not installed; pip install 'fedbbpt\[data\]'"):
        read(source, LABELS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_classes_in_the_order_of_its_data_set(write: Write, name: str) -> None:
    """Files of these data sets hold indices. Every class has a different count here, so that no two can be swapped."""
    published = PUBLISHED[name.removesuffix("-plain")]
    assert tuple(PRESETS[name]) == published
    rows = [
        {"text": f"{label} {row}", "label": index} for index, label in enumerate(published) for row in range(index + 1)
    ]
    data = read(write("dev.jsonl.gz", lines(*rows)), tuple(PRESETS[name]))
    np.testing.assert_array_equal(np.bincount(data.labels), np.arange(len(published)) + 1)


def test_pairs_of_a_compressed_file_are_read(write: Write) -> None:
    texts, pairs = ("It rains.", "It snows.", "Rome is big."), ("It is wet.", "It is hot.", "Rome is not small.")
    rows = [
        {"text": text, "text_pair": pair, "label": row % 2}
        for row, (text, pair) in enumerate(zip(texts, pairs, strict=True))
    ]
    data = read(write("rte.jsonl.gz", lines(*rows)), ("entailment", "not_entailment"))
    assert data.examples == Examples(texts, pairs)
    np.testing.assert_array_equal(data.labels, [0, 1, 0])
