"""The decoder of image prompts equals the published one, draws the same bits in any batch, and can be searched."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbbpt.errors import UnsupportedPrompt
from fedbbpt.job.prompt_sections import ImagePromptSection
from fedbbpt.methods.fed_bbpt import FedBbptConfig, FedBbptServer
from fedbbpt.optim.spsa import SpsaGc
from fedbbpt.prompts.visual import ImageSpace
from fedbbpt.types import Examples

PUBLISHED = ImagePromptSection().space(seed=0, classes=10)
SMALL = ImageSpace((3, 16, 16), pooled=4, grid=4, widths=(4, 8), strength=0.7, seed=5)


def pictures(count: int, side: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, side, side), np.uint8)


def theirs(space: ImageSpace, z: npt.NDArray[np.float64], images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Returns the pictures `[B, C, H, W]` of the same network in PyTorch, with normalisation over single images."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    channels, height, _ = space.image
    layers: list[object] = []
    for before, after in zip(space.widths, space.widths[1:], strict=False):
        inner = max(before, after)
        layers += [nn.ConvTranspose2d(before, inner, 2, 2, groups=before)]
        layers += [nn.ConvTranspose2d(inner, after, 1, bias=False), nn.BatchNorm2d(after), nn.GELU()]
    body = nn.Sequential(*layers, nn.ConvTranspose2d(space.widths[-1], channels, 2, 2, bias=False)).train()
    weights = torch.from_numpy((space._initial() + z).astype(np.float32))
    trigger = weights[: -sum(p.numel() for p in body.parameters())]
    nn.utils.vector_to_parameters(weights[len(trigger) :], body.parameters())
    drawn = []
    with torch.no_grad():
        for image in torch.from_numpy(images).float() / 255:
            features = nn.functional.avg_pool2d(image, height // space.pooled).flatten()
            source = torch.cat([features, trigger]).reshape(1, space.widths[0], space.grid, space.grid)
            drawn.append(space.strength * body(source)[0])
    result: npt.NDArray[np.float32] = torch.stack(drawn).numpy()
    return result


def test_images_of_another_shape_are_refused_in_the_words_of_the_job() -> None:
    images = Examples(images=pictures(2, 8))
    with pytest.raises(UnsupportedPrompt, match=r"task.prompt.image: .* \[3, 16, 16\] for images of shape \[3, 8, 8\]"):
        SMALL.prompts(np.zeros((1, SMALL.dim)), images)


def test_the_published_decoder_has_9920_weights() -> None:
    """BlackVIP's coordinator: a trigger of 800, and 9,120 in the decoder."""
    assert PUBLISHED.dim == 9920
    assert PUBLISHED._layout()[0].shape == (800,)
    assert PUBLISHED.image == (3, 224, 224)


@pytest.mark.parametrize(("space", "side"), [(PUBLISHED, 224), (SMALL, 16)], ids=["published", "small"])
def test_decoder_computes_the_published_layers(space: ImageSpace, side: int) -> None:
    """Kills: channels in another order; a transposed kernel; a variance over n - 1; the tanh form of GELU."""
    images, z = pictures(2, side), np.random.default_rng(1).normal(0, 0.3, space.dim)
    ours = space.prompts(z[None], Examples(images=images)).deltas[0]
    assert (np.abs(ours) < 1).mean() > 0.5
    np.testing.assert_allclose(ours, np.clip(theirs(space, z, images), -1, 1), rtol=1e-3, atol=2e-5)


@settings(max_examples=20, deadline=None)
@given(candidates=st.integers(1, 4), count=st.integers(1, 5), seed=st.integers(0, 99))
def test_picture_has_the_same_bits_alone_and_in_a_batch(candidates: int, count: int, seed: int) -> None:
    """Kills: one matrix product over all pairs; normalisation over the batch."""
    z = np.random.default_rng(seed).normal(size=(candidates, SMALL.dim))
    images = pictures(count, 16, seed)
    together = SMALL.prompts(z, Examples(images=images)).deltas
    for p, b in np.ndindex(candidates, count):
        alone = SMALL.prompts(z[p : p + 1], Examples(images=images[b : b + 1])).deltas
        assert np.array_equal(alone[0, 0], together[p, b])


def test_picture_depends_on_the_image() -> None:
    deltas = SMALL.prompts(np.zeros((1, SMALL.dim)), Examples(images=pictures(2, 16))).deltas
    assert not np.array_equal(deltas[0, 0], deltas[0, 1])


def test_spsa_finds_weights_that_draw_a_given_colour() -> None:
    """The search starts at random weights."""
    config = FedBbptConfig(generator="visual")
    theta = FedBbptServer(config, SMALL).init(seed=0).theta
    search = SpsaGc(estimates=5, a=0.05, alpha=0.4, o=1.0, c=0.01, gamma=0.1, beta=0.9)
    state, examples = search.init(theta), Examples(images=pictures(2, 16))

    def losses(population: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        wanted = np.array([0.5, -0.5, 0.0], np.float32)[:, None, None]
        missed = SMALL.prompts(population, examples).deltas.astype(np.float64) - wanted
        return np.array([np.square(one).mean() for one in missed])

    first = losses(state.point[None])[0]
    for step in range(60):
        population = search.ask(state, seed=step)
        state = search.tell(state, population, losses(population))
    assert losses(state.point[None])[0] < 0.5 * first
