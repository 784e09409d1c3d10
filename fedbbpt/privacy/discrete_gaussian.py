"""The discrete Gaussian distribution, sampled exactly from random bytes with integers alone.

N_Z(0, sigma^2) gives an integer x the probability exp(-x^2 / (2 sigma^2)), divided by the sum of that over all
integers. The algorithms are those of Canonne, Kamath and Steinke, The Discrete Gaussian for Differential Privacy,
NeurIPS 2020 (algorithms 1 to 3). No number is rounded, so a sample reveals nothing through its last digits.

docs/protocol.md, "Noise in shares", defines in which order a sample reads its bytes, so that clients in other languages
can be tested with a known stream. In a run the bytes come from the operating system's generator.
"""

import math
import os
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Read = Callable[[int], bytes]
"""Returns so many further bytes of a stream."""

_BUFFER_BYTES = 4096


class _Draws:
    """Uniform integers from a stream of bytes."""

    def __init__(self, read: Read) -> None:
        self._read, self._buffer, self._at = read, b"", 0

    def below(self, limit: int) -> int:
        """Returns a uniform integer from 0 to `limit` - 1.

        It reads as many bytes as `limit` - 1 has, least significant first, and uses as many bits of them. A number that
        is too large is drawn again.
        """
        bits = (limit - 1).bit_length()
        size, mask = (bits + 7) // 8, (1 << bits) - 1
        while True:
            if self._at + size > len(self._buffer):
                rest = self._buffer[self._at :]
                self._buffer, self._at = rest + self._read(max(size, _BUFFER_BYTES)), 0
            found = int.from_bytes(self._buffer[self._at : self._at + size], "little") & mask
            self._at += size
            if found < limit:
                return found

    def below_exp(self, numerator: int, denominator: int) -> bool:
        """Returns True with the probability exp(-numerator / denominator)."""
        while numerator > denominator:
            if not self._below_exp_of_one(1, 1):
                return False
            numerator -= denominator
        return self._below_exp_of_one(numerator, denominator)

    def _below_exp_of_one(self, numerator: int, denominator: int) -> bool:
        """Returns True with the probability exp(-numerator / denominator), of a fraction from 0 to 1."""
        trial = 1
        while self.below(denominator * trial) < numerator:
            trial += 1
        return trial % 2 == 1

    def laplace(self, scale: int) -> int:
        """Returns an integer x with a probability in proportion to exp(-|x| / scale)."""
        while True:
            part = self.below(scale)
            if not self.below_exp(part, scale):
                continue
            whole = 0
            while self.below_exp(1, 1):
                whole += 1
            magnitude, negative = part + scale * whole, self.below(2) == 1
            if magnitude or not negative:  # 0 has one sign
                return -magnitude if negative else magnitude

    def gaussian(self, deviation: int) -> int:
        """Returns a sample of N_Z(0, deviation^2)."""
        scale, square = deviation + 1, deviation**2
        while True:
            found = self.laplace(scale)
            if self.below_exp((abs(found) * scale - square) ** 2, 2 * square * scale**2):
                return found


def samples(count: int, deviation: int, read: Read = os.urandom) -> npt.NDArray[np.int64]:
    """Returns independent samples of N_Z(0, deviation^2), `[count]`.

    Args:
        count: The number of samples.
        deviation: The parameter sigma, at least 1 and below 2^57. The standard deviation is no larger.
        read: The stream of random bytes.
    """
    draws = _Draws(read)
    return np.array([draws.gaussian(deviation) for _ in range(count)], np.int64)


def divergence(clients: int, deviation: float) -> float:
    """Returns tau: the most by which the sum of the clients' samples differs from one sample, in log-probability.

    Kairouz, Liu and Steinke, The Distributed Discrete Gaussian Mechanism for Federated Learning with Secure
    Aggregation, ICML 2021, theorem 1: tau = 10 sum over k < n of exp(-2 pi^2 sigma^2 k / (k + 1)).
    """
    square = 2 * (math.pi * deviation) ** 2
    return 10 * sum(math.exp(-square * k / (k + 1)) for k in range(1, clients))
