"""Models with random weights that know the words of the workload, and nothing of what they mean. Needs torch."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed
from transformers.utils import logging

from fedbbpt.bench.ptm.workload import WORDS

CLASSES = "bad", "great"
MAX_TOKENS = 512


def tokenizer(*, mask: bool) -> Any:
    """Each of the words is one token."""
    names = {"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "</s>"} | (
        {"mask_token": "<mask>"} if mask else {}
    )
    vocabulary = {word: i for i, word in enumerate((*names.values(), *WORDS, *CLASSES))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token=names["unk_token"]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made: Any = PreTrainedTokenizerFast
    return made(tokenizer_object=words, model_max_length=MAX_TOKENS, **names)


def save_llama(folder: Path) -> Path:
    """Of 6 layers and width 384."""
    words = tokenizer(mask=False)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=12,
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=words.pad_token_id,
        bos_token_id=None,
        eos_token_id=words.eos_token_id,
    )
    set_seed(0)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # says nothing of its types
    LlamaForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
