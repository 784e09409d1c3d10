"""Reading, writing and resizing images."""

from pathlib import Path

import numpy as np
import pytest

from fedbbpt.data.examples import read, read_table, write
from fedbbpt.data.images import fit, read_unlabelled
from fedbbpt.errors import InvalidData, InvalidInput
from fedbbpt.types import Examples, LabelledExamples

GREY = np.random.default_rng(0).integers(0, 256, (4, 5, 6), np.uint8)
CLASSES = np.array([1, 0, 1, 1])


@pytest.mark.parametrize(
    ("x", "shape"),
    [(GREY, (1, 5, 6)), (GREY[..., None], (1, 5, 6)), (GREY[:, None].repeat(3, axis=1), (3, 5, 6))],
    ids=["grey", "channels last", "channels first"],
)
def test_channels_come_first(tmp_path: Path, x: np.ndarray, shape: tuple[int, ...]) -> None:
    np.savez(tmp_path / "a.npz", x=x, y=CLASSES)
    data = read(tmp_path / "a.npz", ("cat", "dog"))
    assert data.examples.images is not None and data.examples.images.shape[1:] == shape
    assert np.array_equal(data.examples.images[:, 0], GREY) and data.labels.tolist() == [1, 0, 1, 1]
    assert read_unlabelled(tmp_path / "a.npz").images is not None


def test_written_images_are_read_back(tmp_path: Path) -> None:
    data = LabelledExamples(Examples(images=GREY[:, None]), CLASSES)
    path = write(tmp_path / "client.train", data, ("cat", "dog"))
    assert path.name == "client.train.npz" and read_table(path).labels == ("dog", "cat", "dog", "dog")
    again = read(path, ("cat", "dog"))
    assert np.array_equal(again.labels, data.labels)
    assert again.examples.images is not None and np.array_equal(again.examples.images, GREY[:, None])


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    broken: list[dict[str, np.ndarray]] = [
        {"x": GREY},
        {"x": GREY, "y": CLASSES[:3]},
        {"x": GREY, "y": CLASSES.astype(float)},
        {"x": GREY.astype(np.float32), "y": CLASSES},
        {"x": GREY[0], "y": CLASSES},
        {"x": GREY[:0], "y": CLASSES[:0]},
        {"x": GREY[:, :, :, None].repeat(2, axis=3), "y": CLASSES},
        {"x": GREY, "y": np.array([{}, 1, 2, 3], object)},
    ]
    for arrays in broken:
        np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy's own signature has a flag among the names
        with pytest.raises(InvalidData, match=r"a\.npz"):
            read_table(path)
    for content in (b"", b"no zip", path.read_bytes()[:80]):
        path.write_bytes(content)
        with pytest.raises(InvalidData, match=r"a\.npz"):
            read_table(path)
    np.savez(path, x=GREY, y=np.array([0, 1, 2, 1]))
    with pytest.raises(InvalidData, match=r"a\.npz:2"):
        read(path, ("cat", "dog"))


def test_fit_resizes_and_turns_grey_into_colour() -> None:
    ramp = np.array([[[[0, 100]]]], np.uint8)
    fitted = fit(Examples(images=ramp), (3, 1, 4)).images
    assert fitted is not None and fitted.dtype == np.uint8
    np.testing.assert_array_equal(fitted, np.tile([0, 25, 75, 100], (1, 3, 1, 1)))


def test_fit_drops_opacity_and_never_colours() -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, 4, 3, 3), np.uint8)
    fitted = fit(Examples(images=images), (3, 3, 3)).images
    assert fitted is not None and np.array_equal(fitted, images[:, :3])
    with pytest.raises(InvalidInput, match="channels"):
        fit(Examples(images=images[:, :3]), (1, 3, 3))


def test_fit_leaves_texts_and_fitting_images_unchanged() -> None:
    for examples, shape in ((Examples(("a",)), None), (Examples(images=GREY[:, None]), (1, 5, 6))):
        assert fit(examples, shape) is examples
