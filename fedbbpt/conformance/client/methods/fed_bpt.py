"""fed-bpt with a diagonal or an identity covariance: the prescribed search, from the losses of the black box."""

import math
from dataclasses import dataclass

import numpy as np

from fedbbpt.conformance.client import draws
from fedbbpt.conformance.client.methods.answer import Answer, Asked
from fedbbpt.conformance.client.numbers import Vector
from fedbbpt.v1 import method_pb2

NOISE = 1e-9
"""Relative differences grow with the generations of a search."""


@dataclass
class Search:
    """The search of docs/protocol.md, "fed-bpt", in its letters."""

    mean: Vector
    sigma: float
    count: int
    """lambda"""
    diagonal: bool

    def __post_init__(self) -> None:
        n, count = len(self.mean), self.count
        mu = count // 2
        raw = [math.log((count + 1) / 2) - math.log(i) for i in range(1, mu + 1)]
        self._w = [each / math.fsum(raw) for each in raw]
        m = self._m = 1 / math.fsum(each * each for each in self._w)
        self._a = (m + 2) / (n + m + 5)
        self._d = 1 + 2 * max(0.0, math.sqrt((m - 1) / (n + 1)) - 1) + self._a
        self._e = math.sqrt(2) * math.exp(math.lgamma((n + 1) / 2) - math.lgamma(n / 2))
        self._b = (4 + m / n) / (n + 4 + 2 * m / n)
        self._u = min(1.0, (n + 2) / 3 * 2 / ((n + 1.3) ** 2 + m))
        self._v = min(1 - self._u, (n + 2) / 3 * 2 * (m + 1 / m - 1.75) / ((n + 2) ** 2 + m))
        self.c, self._p, self._q, self._g = np.ones(n), np.zeros(n), np.zeros(n), 0

    def drawn(self, seed: int) -> Vector:
        """Returns the candidates of the next generation `[lambda, n]`, not yet limited or rounded."""
        shape = (self.count, len(self.mean))
        return self.mean + self.sigma * np.sqrt(self.c) * draws.normals(
            draws.derive(seed, "generation", self._g), shape
        )

    def step(self, best: Vector) -> None:
        """Makes a step from the mu best candidates `[mu, n]`, best first."""
        n, a, b, m = len(self.mean), self._a, self._b, self._m
        steps = [(x - self.mean) / self.sigma for x in best]
        y = sum((w * step for w, step in zip(self._w, steps, strict=True)), np.zeros(n))
        self.mean = self.mean + self.sigma * y
        self._p = (1 - a) * self._p + math.sqrt(a * (2 - a) * m) * y / np.sqrt(self.c)
        length = math.sqrt(math.fsum(self._p**2))
        self.sigma = self.sigma * math.exp(min(1.0, a / self._d * (length / self._e - 1)))
        if self.diagonal:
            short = length / math.sqrt(1 - (1 - a) ** (2 * (self._g + 1))) < (1.4 + 2 / (n + 1)) * self._e
            h = 1.0 if short else 0.0
            self._q = (1 - b) * self._q + h * math.sqrt(b * (2 - b) * m) * y
            spread = sum((w * step**2 for w, step in zip(self._w, steps, strict=True)), np.zeros(n))
            kept = 1 - self._u - self._v + self._u * (1 - h) * b * (2 - b)
            self.c = kept * self.c + self._u * self._q**2 + self._v * spread
        self._g += 1


def limited(points: Vector, limit: float | None) -> Vector:
    """Returns points `[..., n]`, those that are longer than the limit scaled down to it."""
    if limit is None:
        return points
    lengths = np.sqrt((points**2).sum(axis=-1, keepdims=True))
    shortened: Vector = points / np.maximum(lengths / limit, 1.0)
    return shortened


def answer(asked: Asked) -> Answer:
    """Returns the arrays of a right update."""
    settings, arrays = asked.run.method.fed_bpt, asked.arrays
    limit = float(arrays["limit"][0]) if "limit" in arrays else None
    seed = asked.task.seed if settings.common_seed else draws.derive(asked.task.seed, asked.client_id)
    diagonal = settings.local_covariance == method_pb2.FedBptSettings.COVARIANCE_DIAGONAL
    start, sigma = arrays["mean"].astype(np.float64), float(arrays["sigma"][0])
    search = Search(start, sigma, settings.local_population, diagonal)
    train: list[str] = []
    sigmas, orders = [], []
    for generation in range(settings.local_iterations):
        sigmas.append(search.sigma)
        population = limited(search.drawn(seed), limit).astype(np.float32)
        train = train or asked.texts_of(population[-1], f"candidate {len(population) - 1} of the first generation")
        for index, z in enumerate(population):
            asked.require_scored(z, train, f"candidate {index} of generation {generation}")
        losses = [float(asked.losses(z, train).mean()) for z in population]
        order = sorted(range(len(losses)), key=lambda i: losses[i])[: len(losses) // 2]
        orders.append(order)
        search.step(population[order].astype(np.float64))
    final = limited(search.mean, limit)
    asked.require_scored(final.astype(np.float32), train, "the final mean")
    loss = np.array([asked.losses(final.astype(np.float32), train).mean()])
    if settings.orders_sent:
        return Answer({"loss": loss}, train, 1.0, {}, {"orders": np.array(orders, np.uint8)})
    found = {"mean": final, "loss": loss, "sigmas": np.array(sigmas)}
    return Answer(found, train, 1.0, {"mean": NOISE, "sigmas": NOISE})
