"""A crafted space or z is refused in words, and what passes can be used: nothing in between."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from fedbbpt.errors import InvalidInput
from fedbbpt.prompts import Space
from fedbbpt.prompts.checks import check_space, check_z
from fedbbpt.prompts.deep import DeepSpace
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.prompts.text import TextSpace
from fedbbpt.prompts.visual import ImageSpace
from fedbbpt.types import Examples, Projection, ProjectionKind

LATENT = LatentSpace(3, Projection(ProjectionKind.NORMAL, 1, 4, 0.5, ""))
OFFSETS = LatentSpace(5, Projection(ProjectionKind.NORMAL, 1, 4, 0.5, ""), offsets=2)
WORDS = TextSpace(2, ("red", "office"), 8)
SPACES: dict[str, Space] = {
    "latent": LATENT,
    "offsets": OFFSETS,
    "text": WORDS,
    "image": ImageSpace((1, 8, 8), pooled=1, grid=2, widths=(2, 2), strength=0.5, seed=5),
    "deep": DeepSpace(2, 2, 3, 2, 7, 0.02, first_layer=1),
    "none": NoPrompt(4),
    "readout": ReadoutSpace(WORDS, ("", "it is"), 4, 2, 5),
}
K = 2
NUMBERS = (-1, 0, 1, 2, 3, 5, 2**16 + 1, 2**31, 2**62, 1e300, -0.5)


def changed(value: Any) -> Iterator[Any]:
    """Yields copies of a JSON value with one number, list or text in it replaced."""
    if isinstance(value, dict):
        for key, entry in value.items():
            for new in changed(entry):
                yield value | {key: new}
    elif isinstance(value, list):
        yield []
        yield value * 2
        for index, entry in enumerate(value):
            for new in changed(entry):
                yield [*value[:index], new, *value[index + 1 :]]
    elif isinstance(value, int | float):
        yield from NUMBERS


@pytest.mark.parametrize("kind", SPACES)
def test_every_changed_number_is_refused_or_can_be_used(kind: str) -> None:
    """Kills: IndexError, a division by zero or a terabyte of memory from a file."""
    adapter: TypeAdapter[Space] = TypeAdapter(Space)
    check_space(SPACES[kind], K)
    refused = 0
    for each in changed(json.loads(adapter.dump_json(SPACES[kind]))):
        try:
            space = adapter.validate_json(json.dumps(each))
            check_space(space, K)
        except (ValidationError, InvalidInput):
            refused += 1
            continue
        if space.dim > 100_000:
            continue  # a file cannot have this number without as long a z
        z = np.zeros((1, space.dim), np.float32)
        check_z(space, z[0])
        examples = Examples(("a",))
        if isinstance(space, ImageSpace):
            examples = Examples(images=np.zeros((1, *space.image), np.uint8))
        space.prompts(z, examples)
        assert str(space)
    assert refused


@pytest.mark.parametrize(
    ("space", "z", "what"),
    [
        (WORDS, [0, 2], "names candidate 2, and the space has 2"),
        (WORDS, [-1, 0], "names candidate -1"),
        (WORDS, [0.5, 0], "names candidate 0.5"),
        (SPACES["readout"], [0, 7, *[0.0] * (SPACES["readout"].dim - 2)], "names candidate 7"),
        (LATENT, [0, 0, 1e20], "an entry of 1e\\+20"),
    ],
)
def test_z_out_of_range_is_refused(space: Space, z: list[float], what: str) -> None:
    with pytest.raises(InvalidInput, match=what):
        check_z(space, np.array(z, np.float32))
