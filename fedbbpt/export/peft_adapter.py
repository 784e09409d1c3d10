"""A tuned prompt as an adapter of PEFT: prompt tuning for vectors, prefix tuning for keys and values.

PEFT puts its vectors before all tokens of an input. fedbbpt's stand after what is the same in every input (a special
token, words of the template), so that the adapter begins with the word vectors of that, and inputs leave it out.
"""

import warnings
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor

from fedbbpt.errors import UnsupportedPrompt, first_line
from fedbbpt.export.plain_inputs import PlainInput, probes
from fedbbpt.export.plain_model import PlainModel


def write_adapter(plain: PlainModel, folder: Path) -> dict[str, Any]:
    """Writes the adapter, loads it again and compares its scores. Returns the keys for readout.json.

    Raises:
        UnsupportedPrompt: PEFT does not take this prompt or this model, or computes other scores with it.
    """
    each = plain.inputs[-1]
    if not each.prompted:
        what = "the result uses no prompt of vectors, so there is nothing for PEFT to add"
        raise UnsupportedPrompt(
            what, where=plain.tuned.card.ptm, fix="--to hf, which writes the inputs and the readout"
        )
    before = _before(plain, each)
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT warns of how it calls transformers, which no user can change
            adapted = peft.get_peft_model(plain.model, _configuration(plain, len(before)))
            vectors = _as_peft_stores(plain, before)
            adapted.prompt_encoder["default"].embedding.weight.copy_(vectors)
            adapted.save_pretrained(folder, safe_serialization=True)
            loaded = peft.PeftModel.from_pretrained(adapted.get_base_model(), folder)
            columns = _columns(plain, loaded.eval(), len(before))
    except UnsupportedPrompt:
        raise
    except Exception as error:  # each architecture that PEFT does not support fails in its own way
        what = f"PEFT cannot compute this model with a prompt: {type(error).__name__}: {first_line(error)}"
        raise UnsupportedPrompt(what, where=plain.tuned.card.ptm, fix="--to hf") from None
    plain.check(columns, "PEFT")
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's form of a model card, with nothing filled in
    return {"virtual_tokens": len(vectors), "skip": len(before)}


def _before(plain: PlainModel, each: PlainInput) -> list[int]:
    """Returns the tokens before the prompt, which the adapter contains: none for keys and values.

    Raises:
        UnsupportedPrompt: They differ from input to input, or the scored token is among them.
    """
    if plain.deep:
        return []
    every = [plain.ids(each, text, pair) for text, pair in probes(plain.tuned.card.task()).text_pairs]
    if len({tuple(ids[: each.at]) for ids in every}) > 1 or any(plain.position(ids) < each.at for ids in every):
        what = "the prompt stands after a text or after the mask, and PEFT only puts prompts before everything"
        raise UnsupportedPrompt(what, where="task.template", fix="--to hf, or a template that begins with {prompt}")
    return every[0][: each.at]


def _configuration(plain: PlainModel, before: int) -> Any:
    task = peft.TaskType.CAUSAL_LM if plain.causal else peft.TaskType.FEATURE_EXTRACTION
    named: dict[str, Any] = {"task_type": task, "inference_mode": True, "base_model_name_or_path": plain.tuned.card.ptm}
    if not plain.deep:
        config = plain.model.config.get_text_config()
        return peft.PromptTuningConfig(
            num_virtual_tokens=before + len(plain.prompt),
            num_layers=config.num_hidden_layers,
            token_dim=plain.prompt.shape[1],
            num_attention_heads=config.num_attention_heads,
            **named,
        )
    layers, _, heads, tokens, width = plain.prompt.shape
    return peft.PrefixTuningConfig(
        num_virtual_tokens=tokens, num_layers=layers, token_dim=heads * width, num_attention_heads=heads, **named
    )


def _as_peft_stores(plain: PlainModel, before: list[int]) -> Tensor:
    """Returns the adapter's weights: vectors `[L, D]`, or `[L, layers x 2 x heads x width]` of keys and values."""
    prompt = torch.from_numpy(plain.prompt)
    if plain.deep:
        return prompt.permute(3, 0, 1, 2, 4).reshape(prompt.shape[3], -1)
    return torch.cat([plain.word_vectors(before)[0], prompt])


def _columns(plain: PlainModel, adapted: Any, skip: int) -> list[Tensor]:
    """Returns the scores `[C]` of the probes: those of the prompt by the adapted model, the others without it."""
    found = []
    for text, pair in probes(plain.tuned.card.task()).text_pairs:
        scores = []
        for each in plain.inputs:
            ids = plain.ids(each, text, pair)
            reader = adapted if each.prompted else adapted.get_base_model()
            output = reader(input_ids=torch.tensor([ids[skip:] if each.prompted else ids]))
            from_end = plain.position(ids) - len(ids)
            scores.append(output.logits[0, from_end, list(plain.label_tokens)])
        found.append(torch.cat(scores))
    return found
