"""The examples of a client that joins a run."""

import json
from pathlib import Path

import pytest

from fedbbpt.data.columns import Columns
from fedbbpt.errors import InvalidData
from fedbbpt.federation.client_data import ClientData


def write(path: Path, labels: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": f"text {i}", "label": name}) + "\n" for i, name in enumerate(labels)))
    return str(path)


def test_a_quarter_is_held_out_the_same_at_every_start(tmp_path: Path) -> None:
    source = write(tmp_path / "ours.jsonl", ["visits", "billing"] * 8)
    first, second = (
        ClientData(source, "", Columns()).labelled(("visits", "billing"), one_class=False) for _ in range(2)
    )
    assert first[0].examples == second[0].examples and first[1].examples == second[1].examples
    assert (len(first[0]), len(first[1])) == (12, 4)
    assert not {*first[0].examples.texts} & {*first[1].examples.texts}


def test_dev_examples_of_their_own_leave_all_others_for_training(tmp_path: Path) -> None:
    source = write(tmp_path / "ours.jsonl", ["visits", "billing"] * 8)
    dev = write(tmp_path / "dev.jsonl", ["visits"] * 3)
    data = ClientData(source, dev, Columns())
    train, measured = data.labelled(("billing", "visits"), one_class=False)
    assert data.train_size == len(train) == 16
    assert list(measured.labels) == [1, 1, 1]


def test_a_single_class_must_be_allowed(tmp_path: Path) -> None:
    data = ClientData(write(tmp_path / "ours.jsonl", ["visits"] * 8), "", Columns())
    with pytest.raises(InvalidData, match="or --one-class"):
        data.labelled(("billing", "visits"), one_class=False)
    train, _ = data.labelled(("billing", "visits"), one_class=True)
    assert set(train.labels) == {1}


def test_too_few_examples_to_hold_some_out_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="1 examples are too few to hold some out"):
        ClientData(write(tmp_path / "ours.jsonl", ["visits"]), "", Columns())
