"""Measures a run of fed-sp on test examples: the full model with the tuned prefix, and the auxiliary model alone.

Usage: python experiments/fed_sp_held_out.py RUN_FOLDER JOB.toml --data FOLDER_WITH_TRAIN_DEV_TEST

The loss is that which FedSP minimises: the mean of -log p(token) over the answers' tokens, in nats.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from fedbbpt.federation import assemble
from fedbbpt.federation.prompt_file import read_prompt
from fedbbpt.federation.run_folder import AUXILIARY
from fedbbpt.federation.splits import prepare
from fedbbpt.job.config import read_job
from fedbbpt.prompts.deep import DeepSpace
from fedbbpt.ptm.models.sources import locate
from fedbbpt.ptm.models.text.encoding import ExampleEncoder
from fedbbpt.whitebox import auxiliary_file
from fedbbpt.whitebox.model import answer_loss
from fedbbpt.whitebox.sequences import answered_examples, pad_batch

parser = argparse.ArgumentParser()
parser.add_argument("run", type=Path)
parser.add_argument("job", type=Path)
parser.add_argument("--data", default="")
arguments = parser.parse_args()

torch.set_num_threads(1)
job = read_job(arguments.job)
if arguments.data:
    job = job.model_copy(update={"data": job.data.model_copy(update={"source": arguments.data})})
splits = prepare(job)
z, card = read_prompt(arguments.run / "prompt.safetensors")
with tempfile.TemporaryDirectory() as folder:
    path = arguments.run / AUXILIARY
    if not path.exists():
        path = Path(folder, AUXILIARY)
        assemble.make_auxiliary(splits.job, splits.server, path)
    auxiliary = auxiliary_file.read(path)
full = transformers.AutoModelForCausalLM.from_pretrained(locate(job.ptm.model))
space = job.space()
assert isinstance(space, DeepSpace)
small = auxiliary.model
vectors = small.get_input_embeddings().num_embeddings
encoder = ExampleEncoder(auxiliary.tokenizer, auxiliary.max_tokens, vectors=vectors, causal=True)
test = answered_examples(encoder, card.task(), splits.test, space.tokens)


def loss(model: Any, prefix: npt.NDArray[np.float32]) -> float:
    """Returns the mean loss over the answer tokens of all test examples, computed in batches."""
    total, tokens = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(test), 50):
            batch = pad_batch(test[start : start + 50])
            count = int(batch.answer.sum())
            total += count * float(answer_loss(model.eval(), torch.from_numpy(prefix), batch))
            tokens += count
    return total / tokens


initial, tuned = space.prefixes(np.stack([np.zeros_like(z), z]))
nothing = initial[:, :, :, :0]
print(f"full model, no prefix:      {loss(full, nothing):.4f}")
print(f"full model, first prefix:   {loss(full, initial):.4f}")
print(f"full model, tuned prefix:   {loss(full, tuned):.4f}")
if small.config.num_hidden_layers == space.layers:
    print(f"auxiliary model, no prefix: {loss(small, nothing):.4f}")
