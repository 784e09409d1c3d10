"""Measures runs of fed-sp on test examples: the full model without a prefix, with the initial and with the tuned one.

Usage: python experiments/fed_sp_held_out.py JOB.toml RUN_FOLDER... [--data FOLDER] [--rows N] [--auxiliary]

The runs differ in their seeds or in the owner's shard, and have the job's model and task. The loss is that which FedSP
minimises: the mean of -log p(token) over the answers' tokens, in nats. The accuracy compares the label words, and is
given if each has one token. With `--rows`, N test examples are drawn by seed 0. `--auxiliary` adds the job's auxiliary
model as its clients receive it.

The layers below the first one that is tuned have the same states with the initial and with the tuned prefix, so they
run once for both.
"""

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from fedbbpt import seeds
from fedbbpt.federation import assemble
from fedbbpt.federation.prompt_file import read_prompt
from fedbbpt.federation.run_folder import AUXILIARY
from fedbbpt.federation.splits import prepare
from fedbbpt.job.config import read_job
from fedbbpt.job.settings import task_spec
from fedbbpt.prompts.deep import DeepSpace
from fedbbpt.ptm.models.sources import locate
from fedbbpt.ptm.models.text.encoding import ExampleEncoder
from fedbbpt.whitebox import auxiliary_file
from fedbbpt.whitebox.auxiliary import layer_list
from fedbbpt.whitebox.prefix import prefix_cache
from fedbbpt.whitebox.sequences import Batch, answered_examples, pad_batch

BATCH = 25


@dataclass(frozen=True)
class Result:
    """Sums over examples, of the losses of their answers' tokens and of right answers."""

    loss: float = 0.0
    tokens: int = 0
    right: int = 0
    examples: int = 0

    def __add__(self, other: "Result") -> "Result":
        return Result(
            self.loss + other.loss,
            self.tokens + other.tokens,
            self.right + other.right,
            self.examples + other.examples,
        )

    def __str__(self) -> str:
        accuracy = f"{self.right / self.examples:8.1%}" if single else "       -"
        return f"{self.loss / self.tokens:8.4f} {accuracy}"


def judge(model: Any, hidden: Tensor, batch: Batch) -> Result:
    """Judges a model's last hidden states `[N, T, D]` of a batch."""
    is_answer = batch.answer[:, 1:]
    log_p = model.lm_head(hidden[:, :-1][is_answer]).log_softmax(-1)
    loss = -log_p.gather(1, batch.ids[:, 1:][is_answer][:, None]).sum()
    right = 0
    if single:
        answers = torch.tensor(single)[log_p[:, single].argmax(1)]
        right = int((answers == batch.ids[:, 1:][is_answer]).sum())
    return Result(float(loss), len(log_p), right, len(batch.ids))


@torch.no_grad()
def measure(model: Any, prefixes: Tensor, first: int) -> list[Result]:
    """Returns the result of each prefix `[P, layers, 2, heads, L, width]`; they are the same below layer `first`."""
    _, layers = layer_list(model)
    results = [Result()] * len(prefixes)
    for start in range(0, len(test), BATCH):
        batch = pad_batch(test[start : start + BATCH])
        count, captured = len(batch.ids), {}

        def capture(layer: Any, inputs: Any, options: Any, captured: dict[str, Any] = captured) -> None:
            captured["inputs"], captured["options"] = inputs, options

        mask = torch.cat([torch.ones(count, prefixes.shape[4], dtype=torch.long), batch.valid.long()], dim=1)
        hook = layers[first].register_forward_pre_hook(capture, with_kwargs=True)
        hidden = model.base_model(
            input_ids=batch.ids, attention_mask=mask, cache=prefix_cache(prefixes[0], count), use_cache=True
        ).last_hidden_state
        hook.remove()
        results[0] += judge(model, hidden, batch)
        key = next((name for name in ("cache", "past_key_values") if name in captured["options"]), "cache")
        for index, prefix in enumerate(prefixes[1:], 1):
            options = captured["options"] | {key: prefix_cache(prefix, count)}
            hidden = captured["inputs"][0]
            for layer in layers[first:]:
                hidden = layer(hidden, **options)
            results[index] += judge(model, model.base_model.norm(hidden), batch)
    return results


parser = argparse.ArgumentParser()
parser.add_argument("job", type=Path)
parser.add_argument("runs", type=Path, nargs="+")
parser.add_argument("--data", default="")
parser.add_argument("--rows", type=int, default=0)
parser.add_argument("--auxiliary", action="store_true")
arguments = parser.parse_args()

torch.set_num_threads(1)
job = read_job(arguments.job)
if arguments.data:
    job = job.model_copy(update={"data": job.data.model_copy(update={"source": arguments.data})})
splits = prepare(job)
task, space = task_spec(splits.job), job.space()
assert isinstance(space, DeepSpace)
full = transformers.AutoModelForCausalLM.from_pretrained(locate(job.ptm.model)).eval()
tokenizer = transformers.AutoTokenizer.from_pretrained(locate(job.ptm.model))
encoder = ExampleEncoder(
    tokenizer, full.config.max_position_embeddings, vectors=full.get_input_embeddings().num_embeddings, causal=True
)
words = encoder.label_words(task)
single = [word[0] for word in words] if all(len(word) == 1 for word in words) else []
data = splits.test
if arguments.rows:
    data = data.take(seeds.rng(0, "test rows").permutation(len(data))[: arguments.rows])
test = sorted(answered_examples(encoder, task, data, space.tokens), key=lambda example: len(example.ids))

print(f"{len(test)} test examples\n{'':40s}    loss accuracy")
nothing = torch.zeros(1, *space.shape)[:, :, :, :, :0]
print(f"{'no prefix':40s}{measure(full, nothing, space.first_layer)[0]}", flush=True)
if arguments.auxiliary:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, AUXILIARY)
        assemble.make_auxiliary(splits.job, splits.server, path)
        small = auxiliary_file.read(path).model.eval()
    depth = small.config.num_hidden_layers
    print(f"{'auxiliary model, no prefix':40s}{measure(small, nothing[:, :depth], 0)[0]}", flush=True)
tuned: dict[DeepSpace, list[tuple[str, np.ndarray[Any, Any]]]] = {}
for run in arguments.runs:
    z, card = read_prompt(run / "prompt.safetensors")
    assert isinstance(card.space, DeepSpace) and (card.template, card.classes) == (task.template, task.classes)
    assert replace(card.space, seed=0) == replace(space, seed=0)
    tuned.setdefault(card.space, []).append((run.name, z))
for drawn, found in tuned.items():
    prefixes = drawn.prefixes(np.stack([np.zeros(drawn.dim, np.float32), *(z for _, z in found)]))
    names = ["initial prefix", *(name for name, _ in found)]
    for name, result in zip(names, measure(full, torch.from_numpy(prefixes), drawn.first_layer), strict=True):
        print(f"{name:40s}{result}", flush=True)
