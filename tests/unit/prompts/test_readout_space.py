"""A readout as the last part of z: columns to class scores."""

import numpy as np
import pytest

from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.types import Examples, LatentPrompts, Projection, ProjectionKind

LATENT = LatentSpace(6, Projection(ProjectionKind.RADEMACHER, 11, 3, 1.0, ""))
CLASSES, COLUMNS, EXAMPLES = 2, 5, 7
PROMPTED = ReadoutSpace(LATENT, ("", "It was"), 4, CLASSES, COLUMNS)
PLAIN = ReadoutSpace(NoPrompt(), ("", "It was"), 4, CLASSES, COLUMNS)
TEXTS = Examples(("good", "bad"))


def scores(columns: int, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(0, 1, (1, EXAMPLES, columns)).astype(np.float32)


@pytest.mark.parametrize("space", [PROMPTED, PLAIN])
def test_zero_is_the_plain_template(space: ReadoutSpace) -> None:
    columns = scores(space.width)
    np.testing.assert_array_equal(space.shifted(columns, np.zeros((1, space.dim))), columns[:, :, :CLASSES])


@pytest.mark.parametrize("space", [PROMPTED, PLAIN])
def test_shifted_is_the_linear_map_of_the_documentation(space: ReadoutSpace) -> None:
    rng, columns = np.random.default_rng(1), scores(space.width)
    own, bias = rng.normal(0, 1, (CLASSES, space.width)), rng.normal(0, 1, (CLASSES, 1))
    z = space.join(rng.normal(0, 1, space.prompt.dim), np.concatenate([own, bias], axis=1))
    right = columns[0] @ (own + np.eye(CLASSES, space.width)).T + bias.T
    np.testing.assert_allclose(space.shifted(columns, z[None])[0], right, rtol=1e-5, atol=1e-5)


def test_a_readout_that_does_not_use_the_prompt_asks_for_none() -> None:
    readout = np.zeros((CLASSES, PROMPTED.width + 1))
    readout[:, : 2 * COLUMNS], readout[:, -1] = 0.5, 1.0
    z = PROMPTED.join(np.ones(6), readout)
    assert PROMPTED.prompts(z[None], TEXTS) is None
    both = scores(PROMPTED.width)
    fixed = PROMPTED.shifted(both[:, :, : 2 * COLUMNS], z[None])
    np.testing.assert_allclose(fixed, PROMPTED.shifted(both, z[None]), rtol=1e-6, atol=1e-6)
    readout[0, -2] = 0.1
    asked = PROMPTED.prompts(PROMPTED.join(np.ones(6), readout)[None], TEXTS)
    assert isinstance(asked, LatentPrompts) and asked.z.tolist() == [[1.0] * 6]
