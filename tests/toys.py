"""Toy objectives: a client's losses in closed form, without a model."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.tasks import criterion, readout
from fedbbpt.types import Arrays, Expansion, Losses, Perturbation, Population, ReadoutSums, Scores, Stage


class ToyObjectives:
    """A client's objectives. A subclass defines those that its test uses, most often `loss` alone."""

    weight = 1.0

    def loss(self, population: Population, draw: int) -> Losses:
        """Raises NotImplementedError."""
        raise NotImplementedError

    def each(self, population: Population, perturbation: Perturbation | None, draw: int) -> npt.NDArray[np.float64]:
        """Raises NotImplementedError."""
        raise NotImplementedError

    def expansion(self, population: Population, draw: int) -> Expansion:
        """Raises NotImplementedError."""
        raise NotImplementedError

    def readout(
        self, z: npt.NDArray[np.floating], readouts: npt.NDArray[np.floating], *, whole: bool = False
    ) -> ReadoutSums:
        """Raises NotImplementedError."""
        raise NotImplementedError


class Sphere(ToyObjectives):
    """A client whose loss is lowest at 1. It records what it is asked."""

    def __init__(self, weight: float = 17.0) -> None:
        self.weight = weight
        self.asked: list[Population] = []
        self.perturbations: set[Perturbation] = set()
        self.perturbed = np.array([4.0, 4.0])

    def loss(self, population: Population, draw: int) -> Losses:
        self.asked.append(population)
        losses: Losses = ((population - 1) ** 2).sum(axis=1)
        return losses

    def each(self, population: Population, perturbation: Perturbation | None, draw: int) -> npt.NDArray[np.float64]:
        """Returns the losses of two examples, one three times as large as the other."""
        if perturbation is None:
            losses: npt.NDArray[np.float64] = self.loss(population, draw)[:, None] * [0.5, 1.5]
            return losses
        self.perturbations.add(perturbation)
        return np.tile(self.perturbed, (len(population), 1))


class Absolute(ToyObjectives):
    """A client whose loss is lowest where all of z is `place`. It records what it is asked."""

    def __init__(self, place: float, weight: float) -> None:
        self.place, self.weight = place, weight
        self.asked: list[Population] = []

    def loss(self, population: Population, draw: int) -> Losses:
        self.asked.append(population)
        losses: Losses = np.abs(population - self.place).mean(axis=1)
        return losses


class Ascending(ToyObjectives):
    """A client that prefers the first candidates, wherever they are. It records what it is asked."""

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.asked: list[Population] = []

    def loss(self, population: Population, draw: int) -> Losses:
        self.asked.append(population)
        return np.arange(float(len(population)))


class Linear(ToyObjectives):
    """A client whose loss is linear in the two word indices of a prompt. It records what it is asked."""

    weight = 6.0

    def __init__(self) -> None:
        self.asked: list[Population] = []

    def loss(self, population: Population, draw: int) -> Losses:
        self.asked.append(population)
        losses: Losses = population @ np.array([1.0, -2.0])
        return losses


class Valley(ToyObjectives):
    """A client whose loss is a slanted ellipsoid."""

    def __init__(self, client: int) -> None:
        self.place, self.weight = 0.5 * client, 1.0 + client

    def loss(self, population: Population, draw: int) -> Losses:
        away = population - self.place
        losses: Losses = (away**2 @ np.array([1.0, 2.0, 4.0, 8.0])) + (away.sum(axis=1)) ** 2
        return losses

    def each(self, population: Population, perturbation: Perturbation | None, draw: int) -> npt.NDArray[np.float64]:
        losses = (
            self.loss(population, draw) if perturbation is None else np.full(len(population), 2.0 + perturbation.rate)
        )
        return losses[:, None]


class Rugged(ToyObjectives):
    """Losses without a slope: a few values, so that some are equal, and sometimes NaN."""

    weight = 3.0

    def __init__(self, seed: int, broken: float) -> None:
        self._seed, self._broken = seed, broken

    def loss(self, population: Population, draw: int) -> Losses:
        draws = [seeds.uniforms(seeds.derive(self._seed, candidate.tobytes().hex()), 2) for candidate in population]
        return np.array([np.nan if hole < self._broken else np.floor(4 * value) for value, hole in draws])

    def each(self, population: Population, perturbation: Perturbation | None, draw: int) -> npt.NDArray[np.float64]:
        other = 0.0 if perturbation is None else 1.0 + perturbation.rate
        return self.loss(population + other, draw)[:, None]


class Read(ToyObjectives):
    """A client whose model is linear in the prompt, and whose examples are all of two of the classes.

    Every `broken`-th candidate has a loss of NaN.
    """

    def __init__(self, space: ReadoutSpace, client: int, broken: int = 0) -> None:
        draw = np.random.default_rng(client)
        count, fixed = 8 + 4 * client, len(space.views) * space.columns
        self._space, self._broken, self.weight = space, broken, float(count)
        self._labels = (client + draw.integers(0, 2, count)) % space.classes
        told = np.random.default_rng(99).normal(size=(space.classes, space.width))  # what columns say about classes
        self._fixed = told[self._labels, :fixed] + draw.normal(size=(count, fixed))
        # The prompt's columns tell more about the classes, the closer z is to a place.
        self._place, self._prompted = np.linspace(0.5, 1.0, space.prompt.dim), told[self._labels, fixed:]
        self.asked: list[tuple[str, npt.NDArray[np.floating]]] = []

    def _columns(self, z: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        away = np.square(z - self._place).sum(axis=1) / max(1, self._place.size)
        closeness = 2 * np.exp(-away)[:, None, None]
        fixed = np.broadcast_to(self._fixed, (len(z), *self._fixed.shape))
        return np.concatenate([fixed, closeness * self._prompted], axis=2)

    def _scores(self, population: Population) -> Scores:
        self.asked.append(("search", population))
        columns = self._columns(population[:, : self._space.prompt.dim])
        return self._space.shifted(columns.astype(np.float32), population)

    def loss(self, population: Population, draw: int) -> Losses:
        losses = criterion.cross_entropy(self._scores(population), self._labels)
        if self._broken:
            losses[:: self._broken] = np.nan
        return losses

    def each(self, population: Population, perturbation: Perturbation | None, draw: int) -> npt.NDArray[np.float64]:
        """Returns the losses of the examples; the perturbed loss does not depend on z."""
        if perturbation is not None:
            return np.full((len(population), len(self._labels)), 2.0)
        losses = criterion.cross_entropies(self._scores(population), self._labels)
        if self._broken:
            losses[:: self._broken] = np.nan
        return losses

    def expansion(self, population: Population, draw: int) -> Expansion:
        scores = self._scores(population)
        if self._broken:
            scores[:: self._broken] = np.nan
        return criterion.expansion(scores, np.zeros((0, self._space.classes)), self._labels)

    def readout(
        self, z: npt.NDArray[np.floating], readouts: npt.NDArray[np.floating], *, whole: bool = False
    ) -> ReadoutSums:
        """Returns the sums over the examples, which are dev examples as well."""
        self.asked.append(("readout", z))
        columns = self._columns(z[None])[0][:, : readouts.shape[2] - 1]
        found = readout.sums(columns, self._labels, readouts)
        return replace(found + found if whole else found, dev_loss=found.loss, dev_weight=found.weight)


@dataclass
class Quadratic:
    """A client whose loss is lowest at `target`. Every `broken`-th candidate has a loss of NaN.

    z - target takes the place of scores.
    """

    target: npt.NDArray[np.float64]
    weight: float
    broken: int = 0

    def loss(self, population: Population, draw: int) -> Losses:
        losses: Losses = ((population - self.target) ** 2).mean(axis=1)
        if self.broken:
            losses[:: self.broken] = np.nan
        return losses

    def expansion(self, population: Population, draw: int) -> Expansion:
        base, moved = population[0] - self.target, population[1:] - population[0]
        losses = ((population - self.target) ** 2).mean(axis=1)
        gradient, hessian = 2 * moved @ base / base.size, 2 * moved @ moved.T / base.size
        if self.broken:
            losses[1 :: self.broken] = gradient[:: self.broken] = np.nan
            hessian[:: self.broken] = hessian[:, :: self.broken] = 0.0
        return Expansion(losses, gradient, hessian)

    def each(self, population: Population, perturbation: Perturbation | None, draw: int) -> npt.NDArray[np.float64]:
        """Returns one example's losses. The perturbed loss does not depend on z, so the ratio ranks like the loss."""
        if perturbation is None:
            return self.loss(population, draw)[:, None]
        level = 1.0 + perturbation.rate * float(seeds.uniforms(perturbation.seed, 1)[0])
        return np.full((len(population), 1), level)

    def readout(
        self, z: npt.NDArray[np.floating], readouts: npt.NDArray[np.floating], *, whole: bool = False
    ) -> ReadoutSums:
        """Raises NotImplementedError: there is nothing to read out."""
        raise NotImplementedError

    def align(self, weights: Arrays, z: npt.NDArray[np.float32], stage: Stage, seed: int) -> Arrays:
        """Returns weights that do not depend on z: this model has nothing to train."""
        return {"layer": np.full(2, np.nan if self.broken else 1.0, np.float32)}

    def tune(
        self, weights: Arrays, z: npt.NDArray[np.float32], stage: Stage, seed: int
    ) -> tuple[npt.NDArray[np.float32], float]:
        """Makes gradient steps. A broken client has a loss of NaN, or also a z of NaN."""
        loss = np.nan if self.broken else float(self.loss(z[None].astype(np.float64), draw=0)[0])
        for _ in range(stage.steps):
            z = z - np.float32(stage.learning_rate) * (z - self.target.astype(np.float32))
        return z * np.float32(np.nan if self.broken == 1 else 1.0), loss
