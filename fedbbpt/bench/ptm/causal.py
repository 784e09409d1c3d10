"""Causal models: what keeping the keys and values of texts and prompts gains over full passes."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedbbpt.bench.ptm.by_hand import ByHand
from fedbbpt.bench.ptm.figures import Bar, Figure
from fedbbpt.bench.ptm.service import service
from fedbbpt.bench.ptm.turns import Note, Way, take_turns
from fedbbpt.bench.ptm.workload import WORDS, Workload
from fedbbpt.types import Injection, TaskSpec

PART = "causal"
CLASSES = "bad", "great"
TASKS: Mapping[str, TaskSpec] = {
    "input first": TaskSpec("{text} {prompt} {mask}", CLASSES),
    "prompt first": TaskSpec("{prompt} {text} {mask}", CLASSES),
}
BARS = {"input first": Bar(2.5)}


def texts_of(workload: Workload, words: int) -> Workload:
    """The same with texts of one length."""
    return replace(workload, shortest=words, longest=words, injection=Injection.PLACE)


def measure(model: str, folder: Path, threads: int, workload: Workload, repeats: int, note: Note) -> tuple[Figure, ...]:
    """`model` is a causal language model; empty: a random one, which is made in `folder`."""
    model = model or str(random_model(folder / "model"))
    with service(folder, model, threads) as started:
        ways: dict[str, Way] = {}
        for order, task in TASKS.items():
            ways[order] = started.way(task, workload)
            ways[f"{order}, new texts"] = started.anew(task, replace(workload, series="new texts"))
            ways[f"{order}, full passes"] = ByHand(model, "causal-lm", task, workload, threads=threads).ideal
        turns = take_turns(ways, workload, repeats, note)
    figures = [Figure(PART, name, rates, "pairs/s") for name, rates in turns.rates.items()]
    for order in TASKS:
        full = f"{order}, full passes"
        figures += [
            Figure(PART, f"{order} / full passes", turns.ratios(order, full), "x", BARS.get(order)),
            Figure(PART, f"{order} / full passes, new texts", turns.ratios(f"{order}, new texts", full), "x"),
            Figure(PART, f"{order}: scores apart", (turns.apart(order, full),)),
        ]
    return tuple(figures)


def random_model(folder: Path) -> Path:
    """A Llama of 6 layers and width 384 that knows `WORDS`, and nothing of what they mean."""
    import tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed
    from transformers.utils import logging

    names = {"unk_token": "<unk>", "eos_token": "</s>"}
    vocabulary = {word: i for i, word in enumerate((*names.values(), *WORDS, *CLASSES))}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=names["unk_token"]))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=12,
        max_position_embeddings=2048,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=1,
    )
    set_seed(0)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # says nothing of its types
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer: Any = PreTrainedTokenizerFast
    tokenizer(tokenizer_object=words, model_max_length=2048, **names).save_pretrained(folder)
    return folder
