"""Writes scikit-learn's digits, 1,797 images of 8 x 8, as FOLDER/train.npz, dev.npz and test.npz.

Usage: python experiments/digits.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

SIZES = {"train": 1200, "dev": 200, "test": 397}


def main(folder: Path) -> None:
    """Writes the three files into a folder."""
    digits = load_digits()
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.split(np.random.default_rng(0).permutation(len(digits.target)), np.cumsum(list(SIZES.values()))[:-1])
    for name, mine in zip(SIZES, rows, strict=True):
        # Grey levels go from 0 to 16.
        images = np.rint(digits.images[mine] * (255 / 16)).astype(np.uint8)
        np.savez_compressed(folder / f"{name}.npz", x=images, y=digits.target[mine])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
