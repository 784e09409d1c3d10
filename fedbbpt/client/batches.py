"""A client's examples, divided into the batches on which a run scores its candidates and measures its prompts."""

import math
from collections.abc import Iterator

import numpy as np

from fedbbpt import seeds
from fedbbpt.client.asking import PromptScorer, RegisteredPart
from fedbbpt.errors import InvalidData
from fedbbpt.types import LabelledExamples, Output, Perturbation, Sampling

ALL_EXAMPLES = Sampling()
"""Every generation and every measurement uses all examples."""


class Batches:
    """Labelled examples in batches of equal size, to within one example, and of at most `sampling.batch_examples`.

    The division is made once, by the run's seed, so that two batches share no example. Only the batch that was asked
    for last is registered with the PTM, together with its latest perturbed copy. So a client with any number of
    examples has a few handles; if all examples are one batch, it stays registered.
    """

    def __init__(self, scorer: PromptScorer, data: LabelledExamples, sampling: Sampling, name: str) -> None:
        """Divides the examples, and shows all of them to the PTM once, which rejects unsuitable ones before the run.

        Args:
            scorer: The model and the task.
            data: The examples.
            sampling: The size of a batch, and the seed of the division.
            name: What the examples are, for messages.

        Raises:
            InvalidData: The PTM gives losses only, and over more different examples than a batch has.
        """
        self._scorer, self._data = scorer, data
        size = sampling.batch_examples or max(len(data), 1)
        order = seeds.rng(sampling.seed, "batches").permutation(len(data))
        self._rows = [np.sort(rows) for rows in np.array_split(order, max(1, math.ceil(len(data) / size)))]
        self._current: int | None = None
        """The registered batch."""
        self._parts: list[RegisteredPart] = []
        self._perturbation: Perturbation | None = None
        """The perturbation of the registered copy."""
        self._perturbed: list[RegisteredPart] = []
        if scorer.card.output is Output.LOSS_ONLY:
            self._check_sizes(name)
        for _ in self.whole():
            pass

    def __len__(self) -> int:
        """Returns the number of batches."""
        return len(self._rows)

    def drawn(self, draw: int, perturbation: Perturbation | None = None) -> list[RegisteredPart]:
        """Returns the batch that a seed draws, in parts that fit the PTM, if wanted perturbed."""
        return self.batch(seeds.derive(draw, "batch") % len(self), perturbation)

    def batch(self, index: int, perturbation: Perturbation | None = None) -> list[RegisteredPart]:
        """Returns a batch, counted from 0, in parts that fit the PTM, if wanted perturbed."""
        if index != self._current:
            self._release()
            self._parts = [self._scorer.register(part) for part in self._parts_of(index)]
            self._current = index
        if perturbation is None:
            return self._parts
        if perturbation != self._perturbation:
            self._release_perturbed()
            self._perturbed = [self._scorer.perturbed(part, perturbation) for part in self._parts]
            self._perturbation = perturbation
        return self._perturbed

    def whole(self) -> Iterator[RegisteredPart]:
        """Yields all examples in parts that fit the PTM, each registered until the next one is asked for.

        If the PTM gives losses only, the parts are those of the batches: it may reject sets of examples that overlap.
        """
        if len(self) == 1:
            yield from self.batch(0)
            return
        batches = range(len(self)) if self._scorer.card.output is Output.LOSS_ONLY else ()
        for part in [part for index in batches for part in self._parts_of(index)] or self._scorer.parts(self._data):
            registered = self._scorer.register(part)
            try:
                yield registered
            finally:
                self._scorer.release([registered])

    def _parts_of(self, index: int) -> list[LabelledExamples]:
        return self._scorer.parts(self._data if len(self) == 1 else self._data.take(self._rows[index]))

    def _release(self) -> None:
        # Forgets the batch first: a call that fails is not made again, and the examples expire.
        parts, self._parts, self._current = self._parts, [], None
        self._release_perturbed()
        self._scorer.release(parts)

    def _release_perturbed(self) -> None:
        parts, self._perturbed, self._perturbation = self._perturbed, [], None
        self._scorer.release(parts)

    def _check_sizes(self, name: str) -> None:
        parts = [part for index in range(len(self)) for part in self._parts_of(index)]
        fewest, wanted = min(len(set(part.examples.digests())) for part in parts), self._scorer.card.min_examples
        if fewest >= wanted:
            return
        why = "the PTM gives only mean losses, over at least that many"
        if len(self) == 1:
            raise InvalidData(f"{fewest} different ones", where=name, fix=f"at least {wanted}: {why}")
        fix = f"a larger method.batch_examples, so that each has at least {wanted}: {why}"
        raise InvalidData(f"{fewest} different ones in a batch", where=name, fix=fix)
