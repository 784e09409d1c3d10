"""Gaussian noise from the operating system's generator, which nobody can draw again.

Each number is half the sum of four normal numbers. From one normal number of 64-bit arithmetic an attacker can tell
that some sums without the noise are impossible (Mironov, On Significance of the Least Significant Bits for Differential
Privacy, 2012); finding the four that make up a sum is too expensive (Holohan and Braghin, Secure Random Sampling in
Differential Privacy, 2021). A normal number is below 8.6 in absolute value, which cuts off 10^-17 of the probability.
"""

import os

import numpy as np
import numpy.typing as npt

PARTS = 4
"""The normal numbers in a number of the noise."""


def normals(count: int) -> npt.NDArray[np.float64]:
    """Returns `count` independent numbers of the standard normal distribution."""
    pairs = (PARTS * count + 1) // 2
    words = np.frombuffer(os.urandom(16 * pairs), np.uint64).reshape(2, pairs)
    uniform = ((words >> np.uint64(11)) + 1.0) * 2.0**-53  # above 0, at most 1
    # Box and Muller, A Note on the Generation of Random Normal Deviates, 1958.
    radius, angle = np.sqrt(-2.0 * np.log(uniform[0])), 2.0 * np.pi * uniform[1]
    drawn = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[: PARTS * count]
    found: npt.NDArray[np.float64] = drawn.reshape(PARTS, count).sum(axis=0) / np.sqrt(PARTS)
    return found
