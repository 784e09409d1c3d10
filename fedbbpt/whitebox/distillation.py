"""Distils the full model into the auxiliary one, at the owner, before the first round of FedSP (arXiv 2311.06805).

Student and teacher read the same tokens, both without a prefix. The loss is the mean squared error between their last
hidden states.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fedbbpt import seeds
from fedbbpt.host.progress import progress
from fedbbpt.types import Stage
from fedbbpt.whitebox.optimise import minimise, reproducible
from fedbbpt.whitebox.sequences import AnsweredExample, Batch, draw_batches

_TEXTS_PER_PASS = 16


def hidden_state_error(teacher: Any, student: Any, batch: Batch) -> torch.Tensor:
    """Returns the mean squared error over the batch's tokens, without padding, and over the hidden width."""
    mask = batch.valid.long()
    with torch.no_grad():
        target = teacher.base_model(input_ids=batch.ids, attention_mask=mask, use_cache=False).last_hidden_state
    found = student.base_model(input_ids=batch.ids, attention_mask=mask, use_cache=False).last_hidden_state
    return nn.functional.mse_loss(found[batch.valid], target[batch.valid])


def distil(teacher: Any, student: Any, sequences: Sequence[AnsweredExample], stage: Stage, seed: int) -> list[float]:
    """Trains all of the student's parameters; returns the loss of each step."""
    drawn = draw_batches(sequences, stage.batch_size, seed)
    teacher.eval()
    student.train().requires_grad_(True)
    with reproducible(seed), progress("distilling the auxiliary model", stage.steps, "steps") as advance:

        def loss() -> torch.Tensor:
            advance(1)
            return hidden_state_error(teacher, student, next(drawn))

        return minimise(list(student.parameters()), loss, stage)


def generate_sequences(
    teacher: Any, start: Sequence[int], count: int, tokens: int, seed: int
) -> tuple[AnsweredExample, ...]:
    """Lets the model write `count` sequences of `tokens` tokens, to distil on if its owner has no data."""
    texts = []
    with reproducible(seeds.derive(seed, "written")), torch.inference_mode():
        for _ in range(0, count, _TEXTS_PER_PASS):
            start_ids = torch.tensor([list(start)] * _TEXTS_PER_PASS)
            texts += teacher.generate(
                start_ids,
                attention_mask=torch.ones_like(start_ids),
                do_sample=True,
                top_k=0,
                max_new_tokens=tokens - len(start),
                pad_token_id=0,
                eos_token_id=None,
                use_cache=True,
            ).tolist()
    return tuple(AnsweredExample(tuple(text), len(start)) for text in texts[:count])
