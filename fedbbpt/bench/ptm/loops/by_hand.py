"""What a service is compared with: its model in this process, in two loops written by hand. Needs torch.

The ideal one goes over groups of exactly one length, side by side on one thread of torch each; the usual one over a
padded batch with a mask for each prompt, on all of torch's own threads. Neither checks, meters, plans or sends
anything, and prompts are projected before the clock starts.
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

from fedbbpt.bench.ptm.loops.bare_model import BareModel, Pairs
from fedbbpt.bench.ptm.workload import Workload
from fedbbpt.types import LatentPrompts, Precision, Scores, TaskSpec

TOKEN_BUDGET = 1024
"""Of a batch of the ideal loop."""


class ByHand:
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
        torch.set_num_threads(1)  # as the service does: with more, sums may round otherwise
        self._model = BareModel(model, family, task, workload, precision, packed=packed)
        self._threads = threads

    def ideal(self, prompts: LatentPrompts) -> Callable[[], Scores]:
        """A turns.Way."""
        return partial(self._ideal, self._model.vectors(prompts))

    def padded(self, prompts: LatentPrompts) -> Callable[[], Scores]:
        """A turns.Way."""
        return partial(self._padded, self._model.vectors(prompts))

    def _ideal(self, vectors: Sequence[Tensor]) -> Scores:
        of_length: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for b, length in enumerate(self._model.lengths):
            of_length[length] += [(p, b) for p in range(len(vectors))]
        batches: list[Pairs] = []
        for length, pairs in sorted(of_length.items()):
            count = -(-len(pairs) // max(1, TOKEN_BUDGET // length))
            batches += [[pairs[i] for i in part] for part in np.array_split(np.arange(len(pairs)), count)]

        def score(pairs: Pairs) -> Tensor:
            with torch.inference_mode():
                return self._model.scores(self._model.read(torch.stack(self._model.joined(vectors, pairs))), pairs)

        torch.set_num_threads(1)
        with ThreadPoolExecutor(self._threads) as pool:  # new threads each time: torch keeps a number for each
            return _in_order(batches, list(pool.map(score, batches)))

    def _padded(self, vectors: Sequence[Tensor]) -> Scores:
        torch.set_num_threads(self._threads)
        batches = [[(p, b) for b in range(len(self._model.lengths))] for p in range(len(vectors))]
        found = []
        with torch.inference_mode():
            for pairs in batches:
                joined = self._model.joined(vectors, pairs)
                inputs = pad_sequence(joined, batch_first=True)
                mask = pad_sequence([one.new_ones(len(one)) for one in joined], batch_first=True)
                found.append(self._model.scores(self._model.read(inputs, attention_mask=mask.long()), pairs, mask))
        return _in_order(batches, found)


def _in_order(batches: Sequence[Pairs], found: Sequence[Tensor]) -> Scores:
    """`[P, B, K]`"""
    by_pair = dict(zip(chain.from_iterable(batches), torch.cat(list(found)).numpy(), strict=True))
    last_prompt, last_text = max(by_pair)
    return np.array([[by_pair[p, b] for b in range(last_text + 1)] for p in range(last_prompt + 1)])
