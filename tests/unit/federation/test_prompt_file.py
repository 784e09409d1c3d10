"""The file of a tuned prompt is read back with its card, and any other file is rejected."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from fedbbpt.errors import InvalidInput
from fedbbpt.federation.prompt_file import PromptCard, read_prompt, write_prompt
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.prompts.text import TextSpace
from fedbbpt.prompts.visual import ImageSpace
from fedbbpt.types import Injection, Projection, ProjectionKind

CARD = PromptCard(
    run="r",
    method="fed-cma",
    ptm="fake",
    ptm_revision="fake-2",
    template="{prompt} {text}",
    labels=("visits", "billing"),
    classes=("visiting hours", "charges | payments"),
    space=LatentSpace(3, Projection(ProjectionKind.NORMAL, 2**64 - 1, 4, 0.5, "", Injection.ADD)),
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


def test_z_and_card_are_read_back(tmp_path: Path) -> None:
    write_prompt(tmp_path / "prompt.safetensors", Z, CARD)
    z, card = read_prompt(tmp_path / "prompt.safetensors")
    assert z.tobytes() == Z.tobytes()
    assert card == CARD
    assert isinstance(card.space, LatentSpace) and card.space.projection.seed == 2**64 - 1


@pytest.mark.parametrize("ptm", ["openai:m@http://elsewhere.org", "openai-chat:m@https://a.org/v1", "plug-in:m"])
def test_model_on_another_server_is_used_only_if_the_user_names_it(ptm: str) -> None:
    """Kills: a prompt file whose card sends the user's texts to its author."""
    card = CARD.model_copy(update={"ptm": ptm})
    with pytest.raises(InvalidInput, match=r"names a model on another server, .* would get the texts"):
        card.model()
    assert card.model(ptm) == ptm and card.model("fake") == "fake" and CARD.model() == "fake"


def test_page_names_the_model_that_the_prompt_fits(tmp_path: Path) -> None:
    write_prompt(tmp_path / "prompt.safetensors", Z, CARD)
    page = (tmp_path / "prompt.md").read_text()
    for fact in ("fake", "fake-2", "round 8", "0.875", "{prompt} {text}", "**visits**: visiting hours"):
        assert fact in page


def test_an_unknown_accuracy_is_read_back_as_none(tmp_path: Path) -> None:
    card = CARD.model_copy(update={"dev_accuracy": None})
    write_prompt(tmp_path / "prompt.safetensors", Z, card)
    assert read_prompt(tmp_path / "prompt.safetensors")[1] == card
    assert "| dev accuracy | - (loss 0.2500)" in (tmp_path / "prompt.md").read_text()


def test_text_prompt_is_read_back_and_stands_on_its_page(tmp_path: Path) -> None:
    card = CARD.model_copy(update={"space": TextSpace(3, ("new york", "red", "office"), 24)})
    write_prompt(tmp_path / "prompt.safetensors", np.array([2, 0, 2], np.float32), card)
    z, read = read_prompt(tmp_path / "prompt.safetensors")
    assert (z.tolist(), read) == ([2, 0, 2], card)
    assert "3 of 3 candidate words: office new york office |" in (tmp_path / "prompt.md").read_text()


def test_image_prompt_is_read_back_and_its_page_describes_the_network(tmp_path: Path) -> None:
    space = ImageSpace((1, 2, 2), pooled=1, grid=1, widths=(2,), strength=0.5, seed=2**64 - 1)
    card = CARD.model_copy(update={"space": space})
    z = np.arange(space.dim, dtype=np.float32)
    write_prompt(tmp_path / "prompt.safetensors", z, card)
    again, read = read_prompt(tmp_path / "prompt.safetensors")
    assert (again.tolist(), read) == (z.tolist(), card)
    assert "channels 2 -> 1, from 1 x 1 to 2 x 2" in (tmp_path / "prompt.md").read_text()


def card_text(**changes: Any) -> dict[str, str]:
    return {"card": CARD.model_copy(update=changes).model_dump_json()}


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
    "labels without texts": (save({"z": Z}, metadata=card_text(labels=("a",))), "1 labels for 2 class texts"),
    "no classes": (save({"z": Z}, metadata=card_text(labels=(), classes=())), "0 labels for 0 class texts"),
    "a wrong space": (
        save({"z": Z}, metadata=card_text(space=TextSpace(3, (), 4))),
        "the prompt space's candidates is 0",
    ),
    "a wrong index": (save({"z": Z}, metadata=card_text(space=TextSpace(3, ("a",), 4))), "z names candidate 1.5"),
    "NaN": (save({"z": np.full(3, np.nan, np.float32)}, metadata=CARD_TEXT), "z is float32 (3,)"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_file_is_rejected_by_name(case: str, tmp_path: Path) -> None:
    data, what = BROKEN[case]
    path = tmp_path / "prompt.safetensors"
    path.write_bytes(data)
    with pytest.raises(InvalidInput) as caught:
        read_prompt(path)
    assert caught.value.what.startswith(what)
    assert caught.value.where == str(path)
    assert caught.value.fix


def test_the_folder_of_a_run_is_rejected_with_its_prompt(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="a folder, not a prompt") as caught:
        read_prompt(tmp_path)
    assert caught.value.fix == str(tmp_path / "prompt.safetensors")


def test_missing_file_is_rejected_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_prompt(tmp_path / "gone")
    assert caught.value.where == str(tmp_path / "gone")
