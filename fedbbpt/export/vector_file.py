"""A tuned prompt's vectors as a file of tensors: for plain transformers, and for vLLM's `prompt_embeds`."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from fedbbpt.errors import UnsupportedPrompt
from fedbbpt.export.plain_inputs import probes
from fedbbpt.export.plain_model import PlainModel, read_back

NAME = "prompt.safetensors"


def write_vectors(plain: PlainModel, folder: Path) -> dict[str, Any]:
    """Writes the prompt, reads it again and compares the scores. Returns the further keys for readout.json.

    The tensor is `prompt` `[L, D]`, or `prefix` `[layers, 2, heads, L, width]`. There is no file if the result uses no
    prompt, or one in words, which is part of the inputs then.

    Raises:
        UnsupportedPrompt: transformers computes other scores with it.
    """
    prompt = torch.zeros(0, 0)
    if plain.prompt.size:
        name = "prefix" if plain.deep else "prompt"
        save_file({name: torch.from_numpy(plain.prompt).contiguous()}, folder / NAME)
        prompt = load_file(folder / NAME)[name]
    plain.check(read_back(plain, prompt), "transformers")
    return {}


def write_prompt_embeds(plain: PlainModel, folder: Path) -> dict[str, Any]:
    """Writes the vectors with which vLLM's inputs begin, `prompt_embeds` `[N, D]`. Returns keys for readout.json.

    They are the word vectors of what is the same at the beginning of all inputs, and the prompt.

    Raises:
        UnsupportedPrompt: The model or the prompt has no such vectors, or its readout needs further inputs.
    """
    where = plain.tuned.card.ptm
    if not plain.causal:
        raise UnsupportedPrompt("vLLM continues texts, and this model fills masks", where=where, fix="--to peft or hf")
    if plain.deep or not plain.prompt.size:
        what = "vLLM takes prompts of vectors, and this result has none"
        raise UnsupportedPrompt(what, where=where, fix="--to peft or hf" if plain.deep else "--to text")
    each = plain.inputs[-1]
    starts = {
        tuple(plain.ids(each, text, pair)[: each.at]) for text, pair in probes(plain.tuned.card.task()).text_pairs
    }
    if len(starts) > 1:
        raise UnsupportedPrompt("the prompt stands after a text", where="task.template", fix="--to hf")
    with torch.inference_mode():
        before = plain.word_vectors(starts.pop())[0]
        whole = torch.cat([before, torch.from_numpy(plain.prompt)])
        save_file({"prompt_embeds": whole.contiguous()}, folder / NAME)
        read = load_file(folder / NAME)["prompt_embeds"]
    plain.check(read_back(plain, read[len(before) :]), "transformers")
    return {"skip": len(before)}
