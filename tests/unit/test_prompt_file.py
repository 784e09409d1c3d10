"""The tuned prompt comes back from its file with its card; a file that is something else is refused."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from fedbbpt.errors import InvalidInput
from fedbbpt.prompt_file import PromptCard, read_prompt, write_prompt
from fedbbpt.types import ProjectionKind

CARD = PromptCard(
    run="r",
    method="fed-cma",
    ptm="fake",
    ptm_revision="fake-1",
    template="{prompt} {text}",
    labels=("visits", "billing"),
    classes=("visiting hours", "charges | payments"),
    projection=ProjectionKind.NORMAL,
    projection_seed=2**64 - 1,
    tokens=4,
    scale=0.5,
    initial_text="",
    seed=3,
    rounds=9,
    best_round=8,
    clients=4,
    examples=64,
    queries=1000,
    dev_loss=0.25,
    dev_accuracy=0.875,
)
Z = np.array([1.5, -2.0, 0.0], np.float32)


def test_z_and_card_come_back(tmp_path: Path) -> None:
    write_prompt(tmp_path / "prompt.safetensors", Z, CARD)
    z, card = read_prompt(tmp_path / "prompt.safetensors")
    assert z.tobytes() == Z.tobytes()
    assert card == CARD
    assert card.space(3).projection.seed == 2**64 - 1


def test_the_page_for_people_says_what_the_prompt_fits(tmp_path: Path) -> None:
    write_prompt(tmp_path / "prompt.safetensors", Z, CARD)
    page = (tmp_path / "prompt.md").read_text()
    for fact in ("fake", "fake-1", "round 8", "0.875", "{prompt} {text}", "**visits**: visiting hours"):
        assert fact in page


CARD_TEXT = {"card": CARD.model_dump_json()}
BROKEN = {
    "nothing": (b"", "not a prompt"),
    "text": (b"[run]\nseed = 0\n", "not a prompt"),
    "cut off": (save({"z": Z}, metadata=CARD_TEXT)[:-4], "not a prompt"),
    "no card": (save({"z": Z}), "not a prompt"),
    "another's card": (save({"z": Z}, metadata={"card": '{"run": "r"}'}), "not a prompt"),
    "no z": (save({"y": Z}, metadata=CARD_TEXT), "not a prompt"),
    "float64": (save({"z": Z.astype(np.float64)}, metadata=CARD_TEXT), "z is float64 (3,)"),
    "a matrix": (save({"z": Z[None]}, metadata=CARD_TEXT), "z is float32 (1, 3)"),
    "NaN": (save({"z": np.full(3, np.nan, np.float32)}, metadata=CARD_TEXT), "z is float32 (3,)"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused_by_name(case: str, tmp_path: Path) -> None:
    data, what = BROKEN[case]
    path = tmp_path / "prompt.safetensors"
    path.write_bytes(data)
    with pytest.raises(InvalidInput) as caught:
        read_prompt(path)
    assert caught.value.what.startswith(what)
    assert caught.value.where == str(path)
    assert caught.value.fix


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_prompt(tmp_path / "gone")
    assert caught.value.where == str(tmp_path / "gone")
