"""The two loops that the service is compared with: the same model in this process, called directly.

The ideal loop scores groups of inputs of exactly one length, one group on each thread. The padded loop scores one batch
for each prompt, padded to its longest text, on torch's own threads. Neither checks, meters, plans or sends anything,
and both project the prompts before the clock starts.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fedbbpt.bench.ptm.loops.plain_model import Pairs, PlainModel
from fedbbpt.bench.ptm.workload import Workload
from fedbbpt.types import LatentPrompts, Precision, Scores, TaskSpec

TOKEN_BUDGET = 1024
"""Most tokens in a batch of the ideal loop."""


class ReferenceLoops:
    """Two scorers (`comparison.Scorer`) of one model and one workload: `ideal` and `padded`."""

    def __init__(
        self,
        model: str,
        family: str,
        task: TaskSpec,
        workload: Workload,
        threads: int,
        precision: Precision = Precision.FLOAT32,
        *,
        packed: bool = True,
    ) -> None:
        """Loads the model; the arguments are those of `PlainModel`."""
        torch.set_num_threads(1)  # as in the service: sums over several threads may round differently
        self._model = PlainModel(model, family, task, workload, precision, packed=packed)
        self._threads = threads

    def ideal(self, prompts: LatentPrompts) -> Callable[[], Scores]:
        """Prepares the ideal loop on these prompts."""
        return partial(self._ideal, self._model.vectors(prompts))

    def padded(self, prompts: LatentPrompts) -> Callable[[], Scores]:
        """Prepares the padded loop on these prompts."""
        return partial(self._padded, self._model.vectors(prompts))

    def _ideal(self, vectors: Sequence[Tensor]) -> Scores:
        by_length: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for b, length in enumerate(self._model.lengths):
            by_length[length] += [(p, b) for p in range(len(vectors))]
        batches: list[Pairs] = []
        for length, pairs in sorted(by_length.items()):
            count = -(-len(pairs) // max(1, TOKEN_BUDGET // length))
            batches += [[pairs[i] for i in part] for part in np.array_split(np.arange(len(pairs)), count)]

        def score(pairs: Pairs) -> Tensor:
            with torch.inference_mode():
                return self._model.scores(torch.stack(self._model.inputs(vectors, pairs)), pairs)

        torch.set_num_threads(1)
        # New threads for each job: torch remembers the number of threads for each thread that calls it.
        with ThreadPoolExecutor(self._threads) as pool:
            return _in_order(batches, list(pool.map(score, batches)))

    def _padded(self, vectors: Sequence[Tensor]) -> Scores:
        torch.set_num_threads(self._threads)
        batches = [[(p, b) for b in range(len(self._model.lengths))] for p in range(len(vectors))]
        found = []
        with torch.inference_mode():
            for pairs in batches:
                inputs = self._model.inputs(vectors, pairs)
                mask = pad_sequence([one.new_ones(len(one)) for one in inputs], batch_first=True)
                found.append(self._model.scores(pad_sequence(inputs, batch_first=True), pairs, mask))
        return _in_order(batches, found)


def _in_order(batches: Sequence[Pairs], found: Sequence[Tensor]) -> Scores:
    """Puts the scores of all batches in the order `[P, B, K]`."""
    by_pair = dict(zip(chain.from_iterable(batches), torch.cat(list(found)).numpy(), strict=True))
    last_prompt, last_text = max(by_pair)
    return np.array([[by_pair[p, b] for b in range(last_text + 1)] for p in range(last_prompt + 1)])
