"""z as the weights of a small network that draws on each image (BlackVIP, arXiv 2303.14773; Fed-BBPT federates it).

x' = clip(x + strength * dec_z([enc(x); v])), with the trigger v and the decoder's weights in z. As in the
authors' code, [enc(x); v] is reshaped to `[channels, grid, grid]`, and each stage doubles height and width: a depthwise
transposed convolution of 2 x 2 with stride 2, a pointwise convolution, normalisation, GELU. The last stage is one full
transposed convolution. The defaults of a job give the authors' decoder of 9,920 numbers. Two things differ:

- Their enc(x) is a frozen ViT-MAE-base with 768 features. Here it is the image averaged over squares, also
  3 x 16 x 16 = 768 features, so that a client needs no network of its own.
- Their batch normalisation uses the whole batch, so the picture on an image would depend on the other images, and it
  keeps averages that clients would have to share. Here normalisation uses one image at a time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.errors import UnsupportedPrompt
from fedbbpt.prompts.unshifted import Unshifted
from fedbbpt.types import Examples, ImagePrompts, ImageSpaceSettings

Floats: TypeAlias = npt.NDArray[np.float32]

EPSILON = 1e-5
"""Added to the variance in the normalisation."""
TRIGGER_MOST = 0.1
"""The upper bound of the trigger's initial elements; the lower one is 0."""


@dataclass(frozen=True, slots=True)
class Weights:
    """An array of the decoder's weights: its shape, and the range of its initial elements."""

    shape: tuple[int, ...]
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class ImageSpace(Unshifted, ImageSpaceSettings):
    """Makes pictures of z and images: the decoder's weights are the initial ones plus z.

    Implements `interfaces.PromptSpace`.
    """

    @property
    def dim(self) -> int:
        return sum(prod(part.shape) for part in self._layout())

    @property
    def prompt_tokens(self) -> int:
        return 0

    def prompts(self, z: npt.NDArray[np.floating], examples: Examples) -> ImagePrompts:
        """Returns the pictures `[P, B, C, H, W]`. A pair's picture has the same bits in any batch.

        Raises:
            UnsupportedPrompt: The examples have images of another shape.
        """
        if (shape := examples.pixels().shape[1:]) != self.image:
            what = f"pictures of shape {list(self.image)} for images of shape {list(shape)}"
            raise UnsupportedPrompt(what, where="task.prompt.image", fix=f"image = {list(shape)}")
        parts = self.arrays(z)
        drawn = np.float32(self.strength) * _decode(parts, self._source(parts[0], examples.pixels()))
        return ImagePrompts(np.clip(drawn, -1, 1))  # a larger change of a pixel from 0 to 1 has no more effect

    def arrays(self, z: npt.NDArray[np.floating]) -> list[Floats]:
        """Returns the decoder's arrays under z `[P, dim]`, each `[P, ...]`.

        The first is the trigger. Each stage except the last has five: the depthwise convolution and its bias, the
        pointwise one, and scale and shift of the normalisation. The last is the last stage's convolution.
        """
        weights = (self._initial() + z).astype(np.float32)
        cut = zip(self._cut(weights), self._layout(), strict=True)
        return [part.reshape(-1, *place.shape) for part, place in cut]

    def _layout(self) -> list[Weights]:
        """Returns the decoder's arrays: the trigger, five for each stage except the last, and one for the last."""
        channels = self.image[0]
        trigger = self.widths[0] * self.grid**2 - channels * self.pooled**2
        parts = [Weights((trigger,), 0.0, TRIGGER_MOST)]
        for before, after in zip(self.widths, self.widths[1:], strict=False):
            inner = max(before, after)
            parts += [
                _uniform((before, inner // before, 2, 2), 4 * inner // before),
                _uniform((inner,), 4 * inner // before),
                _uniform((inner, after), after),
                Weights((after,), 1.0, 1.0),
                Weights((after,), 0.0, 0.0),
            ]
        return [*parts, _uniform((self.widths[-1], channels, 2, 2), 4 * channels)]

    def _cut(self, weights: Floats) -> list[Floats]:
        """Splits weights `[P, dim]` into the arrays of `_layout`, flat."""
        return np.split(weights, np.cumsum([prod(part.shape) for part in self._layout()])[:-1], axis=1)

    def _initial(self) -> npt.NDArray[np.float64]:
        """Returns the weights at z = 0, drawn from the ranges that the authors' library uses."""
        drawn = seeds.uniforms(seeds.derive(self.seed, "decoder"), self.dim)
        bounds = [np.repeat([[part.least], [part.most]], prod(part.shape), axis=1) for part in self._layout()]
        least, most = np.concatenate(bounds, axis=1)
        initial: npt.NDArray[np.float64] = least + (most - least) * drawn
        return initial

    def _source(self, trigger: Floats, images: npt.NDArray[np.uint8]) -> Floats:
        """Returns [enc(x); v] as `[P, B, grid, grid, channels]`."""
        count, (channels, height, width) = len(images), self.image
        squares = (count, channels, self.pooled, height // self.pooled, self.pooled, width // self.pooled)
        features = (images.reshape(squares).mean(axis=(3, 5)) / 255).astype(np.float32).reshape(1, count, -1)
        whole = np.concatenate(
            [
                np.broadcast_to(features, (len(trigger), *features.shape[1:])),
                np.broadcast_to(trigger[:, None], (len(trigger), count, trigger.shape[1])),
            ],
            axis=2,
        )
        return np.moveaxis(whole.reshape(len(trigger), count, self.widths[0], self.grid, self.grid), 2, -1)

    def __str__(self) -> str:
        stages = " -> ".join(map(str, (*self.widths, self.image[0])))
        return (
            f"a picture added to each image, drawn by a decoder with {self.dim} weights (channels {stages}, from "
            f"{self.grid} x {self.grid} to {self.image[1]} x {self.image[2]}), strength {self.strength}"
        )


def _uniform(shape: tuple[int, ...], fan: int) -> Weights:
    """Returns PyTorch's initial range of a transposed convolution, which counts the fan on the output side."""
    return Weights(shape, -(fan**-0.5), fan**-0.5)


def _decode(parts: Sequence[Floats], x: Floats) -> Floats:
    """Returns the decoder's picture `[P, B, C, H, W]` of its input `[P, B, g, g, channels]`."""
    for each, bias, mixing, scale, shift in _stages(parts):
        x = _grow(x, each) + bias[:, None, None, None]
        p, b, h, w, c = x.shape
        x = np.matmul(x.reshape(p, b, h * w, c), mixing[:, None])
        x = x - x.mean(axis=2, keepdims=True)
        deviation = np.sqrt((x * x).mean(axis=2, keepdims=True) + np.float32(EPSILON))
        x = _gelu(x * (scale[:, None, None] / deviation) + shift[:, None, None]).reshape(p, b, h, w, -1)
    last = parts[-1]  # [P, c, C, 2, 2]
    p, b, h, w, c = x.shape
    flat = np.matmul(x.reshape(p, b, h * w, c), last.reshape(p, 1, c, -1)).reshape(p, b, h, w, -1, 2, 2)
    return np.ascontiguousarray(flat.transpose(0, 1, 4, 2, 5, 3, 6).reshape(p, b, -1, 2 * h, 2 * w))


def _stages(parts: Sequence[Floats]) -> Iterator[Sequence[Floats]]:
    for start in range(1, len(parts) - 1, 5):
        yield parts[start : start + 5]


def _grow(x: Floats, each: Floats) -> Floats:
    """Returns the depthwise transposed convolution of x `[P, B, h, w, c]` by `[P, c, m, 2, 2]`.

    Each number becomes a square of 2 x 2 in m channels.
    """
    p, b, h, w = x.shape[:4]
    square = each.transpose(0, 3, 4, 1, 2)[:, None, None, :, None, :]  # [P, 1, 1, 2, 1, 2, c, m]
    return (x[:, :, :, None, :, None, :, None] * square).reshape(p, b, 2 * h, 2 * w, -1)


def _gelu(x: Floats) -> Floats:
    """Returns x Phi(x), with the error function of Abramowitz and Stegun 7.1.26, which is accurate to 1.5e-7."""
    a = np.abs(x) * np.float32(0.5**0.5)
    t = 1 / (1 + np.float32(0.3275911) * a)
    series = np.zeros_like(t)
    for coefficient in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + np.float32(coefficient)) * t
    erf = np.copysign(1 - series * np.exp(-a * a), x)
    y: Floats = x * (1 + erf) / 2
    return y
