"""Images as examples: reading and writing .npz files, and resizing to the shape that a model takes.

A file has `x`, uint8 `[N, H, W]`, `[N, H, W, C]` or `[N, C, H, W]` with C = 1, 3 or 4, and `y` `[N]`, the class of each
image by number or name.
"""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidData, InvalidInput, first_line
from fedbbpt.types import Array, Examples, LabelledExamples

CHANNELS = (1, 3, 4)
SUFFIX = "npz"

Pixels = npt.NDArray[np.uint8]


def read_npz(path: Path) -> tuple[Pixels, tuple[str, ...]]:
    """Returns the images `[N, C, H, W]` of a file and their labels as text. Raises InvalidData."""
    x, labels = _arrays(path, "x", "y")
    images = _channels_first(x, path)
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iuU":
        what = f"y is {labels.dtype} {list(labels.shape)} for {len(images)} images"
        raise InvalidData(what, where=str(path), fix="the number or the name of each image's class")
    return images, tuple(str(label).strip() for label in labels)


def read_unlabelled(path: Path) -> Examples:
    """Returns the images of a file, which need not have labels. Raises InvalidData."""
    (x,) = _arrays(path, "x")
    return Examples(images=_channels_first(x, path))


def _arrays(path: Path, *names: str) -> list[Array]:
    try:
        # Pickles are refused, because loading one can run code.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return [file[name] for name in names]
    except KeyError as error:
        raise InvalidData(str(error), where=str(path), fix=f"the arrays {' and '.join(names)}") from None
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise InvalidData(
            f"cannot be read: {first_line(error)}", where=str(path), fix="a file written by numpy.savez"
        ) from None


def _channels_first(x: Array, path: Path) -> Pixels:
    if x.dtype == np.uint8 and x.size:
        if x.ndim == 3:
            return np.asarray(x[:, None])
        if x.ndim == 4 and x.shape[1] in CHANNELS:
            return np.asarray(x)
        if x.ndim == 4 and x.shape[3] in CHANNELS:
            return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    fix = "uint8 of shape [N, H, W], [N, H, W, C] or [N, C, H, W], not empty"
    raise InvalidData(f"x is {x.dtype} {list(x.shape)}", where=str(path), fix=fix)


def write_npz(path: Path, data: LabelledExamples, labels: Sequence[str]) -> None:
    """Writes images with the names of their labels, in a form that `read_npz` can read."""
    np.savez_compressed(path, x=data.examples.pixels(), y=np.array([labels[index] for index in data.labels]))


def fit(examples: Examples, shape: tuple[int, int, int] | None) -> Examples:
    """Returns the examples in the shape (C, H, W) that a model takes; unchanged if they are texts or `shape` is None.

    Images are resized bilinearly. A single channel is repeated, and the fourth channel, opacity, is dropped.
    Raises InvalidInput if the model takes fewer colour channels than the images have.
    """
    if examples.image_shape is None or shape is None or examples.image_shape == shape:
        return examples
    images, (channels, height, width) = examples.pixels(), shape
    if images.shape[1] == 4 and channels < 4:
        images = images[:, :3]
    if images.shape[1] not in (1, channels):
        what = f"images with {images.shape[1]} channels for a model that takes {channels}"
        raise InvalidInput(what, where="examples", fix="images of the model's kind")
    images = _stretch(_stretch(images, 2, height), 3, width)
    return Examples(images=np.repeat(images, channels // images.shape[1], axis=1))


def _stretch(images: Pixels, axis: int, size: int) -> Pixels:
    """Resizes one axis to `size` pixels, each interpolated between its two neighbours, without antialiasing."""
    before = images.shape[axis]
    if before == size:
        return images
    places = np.clip((np.arange(size) + 0.5) * before / size - 0.5, 0, before - 1)
    left = places.astype(np.int64)
    right = np.minimum(left + 1, before - 1)
    share = (places - left).reshape([-1 if each == axis else 1 for each in range(4)])
    mixed = images.take(left, axis) * (1 - share) + images.take(right, axis) * share
    stretched: Pixels = np.rint(mixed).astype(np.uint8)
    return stretched
