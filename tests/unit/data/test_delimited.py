"""CSV files of spreadsheets: delimiters, headers, encodings, and errors that show no text."""

from pathlib import Path

import pytest

from fedbbpt.data.columns import Columns
from fedbbpt.data.examples import label_names, read_table
from fedbbpt.errors import InvalidData

PRIVATE = "my knee hurts"


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def texts(path: Path, columns: Columns | None = None) -> tuple[str, ...]:
    return read_table(path, columns).examples.texts


def test_quoted_fields_may_hold_delimiters_quotes_and_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text;label\r\n"a; b, c";x\r\n"one\r\ntwo";y\r\n"say ""hi""";x\r\n')
    assert texts(path) == ("a; b, c", "one\r\ntwo", 'say "hi"')


def test_a_header_decides_even_if_the_other_delimiter_is_in_each_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text;label\nwell, no;x\nso, yes;y\n")
    assert texts(path) == ("well, no", "so, yes")


def test_tabs_are_found_where_texts_hold_commas(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "question\ttopic\nwell, no\tx\nso; yes, yes\ty\n")
    assert texts(path, Columns("question", label="topic")) == ("well, no", "so; yes, yes")


@pytest.mark.parametrize(("delimiter", "given"), [("|", "|"), ("\t", "tab"), ("\t", "\\t"), (";", ";"), (":", ":")])
def test_a_delimiter_can_be_given(delimiter: str, given: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", f"text{delimiter}label\nwhere, here{delimiter}x\n")
    assert texts(path, Columns(delimiter=given)) == ("where, here",)


@pytest.mark.parametrize("given", [",,", '"', "\n"])
def test_a_delimiter_is_one_character(given: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="one character, or tab: --delimiter"):
        texts(write(tmp_path / "a.csv", "text,label\na,b\n"), Columns(delimiter=given))


def test_a_named_encoding_is_used_and_an_unnamed_one_is_never_guessed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text;label\nCafé zu?;x\n", "cp1252")
    with pytest.raises(InvalidData, match=r"a\.csv:2: byte 0xe9 at character 4 is not UTF-8; .* often cp1252"):
        texts(path)
    assert texts(path, Columns(encoding="cp1252")) == ("Café zu?",)
    with pytest.raises(InvalidData, match="the encoding 'klingon' is unknown"):
        texts(path, Columns(encoding="klingon"))
    with pytest.raises(InvalidData, match="the encoding 'rot13' is unknown"):
        texts(path, Columns(encoding="rot13"))


def test_a_byte_order_mark_is_stronger_than_a_named_encoding(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\nCafé,x\n", "utf-8-sig")
    assert texts(path, Columns(encoding="cp1252")) == ("Café",)


HEADERLESS = {
    "labels below": f"{PRIVATE},visits\nwhere to park,visits\nwho pays,billing\n",
    "a sentence": f"Is it true that {PRIVATE} a lot because of it?,visits\nwho pays,billing\n",
    "a number": f"17,{PRIVATE},visits\n18,who pays,billing\n",
    "one column": f"{PRIVATE}\nwho pays\n{PRIVATE}\n",
    "semicolons": f"{PRIVATE};visits\nwell, no;visits\n",
}


@pytest.mark.parametrize("kind", HEADERLESS)
def test_a_file_without_header_is_refused_without_showing_it(kind: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidData) as caught:
        texts(write(tmp_path / "a.csv", HEADERLESS[kind]))
    count = 3 if kind == "a number" else 1 if kind == "one column" else 2
    assert f"a.csv:1: the file has no header row: its first row, columns 1 to {count}," in str(caught.value)
    assert "'text' and 'label'" in caught.value.fix
    assert "knee" not in repr(caught.value) + str(caught.value)


def test_a_header_with_other_names_is_shown_with_the_option(tmp_path: Path) -> None:
    with pytest.raises(InvalidData) as caught:
        texts(write(tmp_path / "a.csv", "Question Text;Topic\nwho pays;billing\n"))
    assert caught.value.what == "no column 'text'" and "'Question Text', 'Topic'" in caught.value.fix
    assert "--text-column" in caught.value.fix and "data.text_column" in caught.value.fix


SHORT_CELLS = {
    "texts of one word": ("Where;do\nI;pay\n", 2),
    "a diagnosis": ("HIV;pos\nflu;neg\nTB;unknown\n", 2),
    "one row": ("HIV;pos\n", 2),
    "one column": ("HIV\nflu\n", 1),
    "a few longer texts": ("HIV;pos\nflu;neg\nTB;unclear\nI have had a cough;mild\n", 2),
}


@pytest.mark.parametrize("kind", SHORT_CELLS)
def test_short_cells_that_may_be_data_are_not_shown(kind: str, tmp_path: Path) -> None:
    content, count = SHORT_CELLS[kind]
    with pytest.raises(InvalidData) as caught:
        texts(write(tmp_path / "a.csv", content))
    columns = "1 column, which is not" if count == 1 else f"{count} columns, none of which is"
    assert caught.value.what == f"the file has {columns} called 'text'"
    assert "a first row with the names" in caught.value.fix and "--text-column NAME" in caught.value.fix
    assert not any(f"'{cell}'" in str(caught.value) for cell in content.replace(";", "\n").split("\n"))


@pytest.mark.parametrize(
    "content",
    [
        "Frage;Art\nWo kann ich hier parken?;Besuch\nWer zahlt das?;Rechnung\n",
        "Notes;Code\nacetylsalicylic-acid-500mg;x\n",
        "Comment;Class\nok;x\nno;y\n",
        "Question_1;Art\nok;x\n",
    ],
)
def test_names_above_texts_and_usual_names_are_shown(content: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="no column 'text'") as caught:
        texts(write(tmp_path / "a.csv", content))
    first, second = content.split("\n", 1)[0].split(";")
    assert f"'{first}', '{second}'" in caught.value.fix


@pytest.mark.parametrize(("header", "wanted"), [("Text,label", "text"), ("question,label", "Question")])
def test_a_column_in_another_case_is_named_first(header: str, wanted: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", f"{header}\nok,x\n")
    found = header.split(",")[0]
    with pytest.raises(InvalidData, match=f"no column '{wanted}'") as caught:
        texts(path, Columns(wanted))
    assert caught.value.fix.startswith(f"the column '{found}' differs from it only in case or spaces: --text-column")


def test_a_second_column_that_is_named_must_be_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\na,b\n")
    with pytest.raises(InvalidData, match="no column 'answer'; --pair-column"):
        read_table(path, Columns(pair="answer"))
    assert read_table(path).examples.pairs is None


@pytest.mark.parametrize(
    "content",
    [
        f"text,label\n{PRIVATE},x,y\n",
        f'text,label\n"{PRIVATE},x\n',
        f"text,label\n{PRIVATE}\0,x\n",
        f'text,label\n"{PRIVATE}" and so,x\n',
        f"text,label\n{PRIVATE},\n",
        f"text,label\n{PRIVATE}\n",
    ],
)
def test_no_error_shows_a_text(content: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidData) as caught:
        texts(write(tmp_path / "a.csv", content))
    assert "a.csv:2: " in str(caught.value) and "knee" not in repr(caught.value)


def test_texts_in_the_column_of_labels_are_not_shown_as_classes(tmp_path: Path) -> None:
    rows = "".join(f"x,{PRIVATE} {row}\n" for row in range(30))
    table = read_table(write(tmp_path / "a.csv", f"text,label\n{rows}"))
    with pytest.raises(InvalidData, match=r"30 different labels in 30 rows; .*is it the right column") as caught:
        label_names(table)
    assert "knee" not in repr(caught.value)


def test_keys_of_json_that_look_like_texts_are_not_listed(tmp_path: Path) -> None:
    with pytest.raises(InvalidData) as caught:
        texts(write(tmp_path / "a.jsonl", '{"my knee hurts a lot today, why?": "visits", "id": 3}\n'))
    assert "'id', and 1 more" in caught.value.fix and "knee" not in repr(caught.value)
