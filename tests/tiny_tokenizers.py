"""Tiny tokenizers of the kinds that published models have. They differ in how they treat spaces and first words."""

from collections.abc import Callable, Mapping
from typing import Any

LINES = (
    "the film was very good",
    "it was great .",
    "it was bad .",
    "who wrote this book ?",
    "what kind of question is this ( really )",
    "Sentiment : it was dull",
    "a story of 12 or 3.5 people , not so long",
    "question : {text}",
)
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ROBERTA = {
    "cls_token": "<s>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
"""The special tokens of RoBERTa's kind."""
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def _fast(
    backend: Any, names: dict[str, str], single: str = "", pair: str = "", *, lstrip: tuple[str, ...] = ()
) -> Any:
    """Adds special tokens, and a processor that puts them around texts."""
    from tokenizers import AddedToken, processors
    from transformers import PreTrainedTokenizerFast

    tokens = [AddedToken(name, special=True, normalized=False, lstrip=name in lstrip) for name in names.values()]
    backend.add_special_tokens(tokens)
    if single:
        ids = [(name, backend.token_to_id(name)) for name in names.values()]
        options = {"pair": pair} if pair else {}
        backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids, **options)
    fast: Any = PreTrainedTokenizerFast
    inputs = ["input_ids", "token_type_ids", "attention_mask"] if ":1" in pair else ["input_ids", "attention_mask"]
    return fast(tokenizer_object=backend, model_max_length=256, model_input_names=inputs, **names)


def _trained(model: Any, trainer: Any, pre_tokenizer: Any, normalizer: Any = None) -> Any:
    from tokenizers import Tokenizer

    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.train_from_iterator(LINES * 30, trainer)
    return backend


def wordpiece() -> Any:
    """BERT: lower case, accents stripped, spaces left out, "##" within words, and segments."""
    from tokenizers import models, normalizers, pre_tokenizers, trainers

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special)
    backend = _trained(
        models.WordPiece(unk_token="[UNK]"),
        trainer,
        pre_tokenizers.BertPreTokenizer(),
        normalizers.BertNormalizer(strip_accents=True),
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    return _fast(backend, names, "[CLS] $A [SEP]", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1")


def _byte_level(pre_tokenizer: Any, names: dict[str, str], *around: str, lstrip: tuple[str, ...] = ()) -> Any:
    from tokenizers import models, pre_tokenizers, trainers

    trainer: Any = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=list(dict.fromkeys(names.values())),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    return _fast(_trained(models.BPE(), trainer, pre_tokenizer), names, *around, lstrip=lstrip)


def gpt2() -> Any:
    """Byte-level BPE that writes the space before a word into its token, without special tokens around a text."""
    from tokenizers import pre_tokenizers

    return _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), {"unk_token": "<|endoftext|>"})


def qwen() -> Any:
    """Byte-level BPE that joins line ends with the punctuation before them."""
    from tokenizers import Regex, pre_tokenizers

    steps = [
        pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    return _byte_level(pre_tokenizers.Sequence(steps), {"eos_token": "<|im_end|>", "bos_token": "<|im_start|>"})


def roberta() -> Any:
    """Byte-level BPE with <s> and </s> around a text, </s></s> between two, and a mask that takes the space before."""
    from tokenizers import pre_tokenizers

    around = "<s> $A </s>", "<s> $A </s> </s> $B:0 </s>:0"
    return _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), ROBERTA, *around, lstrip=("<mask>",))


def roberta_with_prefix_space() -> Any:
    """The same, with a space before the first word of a text."""
    from tokenizers import pre_tokenizers

    return _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True), ROBERTA, "<s> $A </s>", lstrip=("<mask>",))


def _llama(normalizer: Any, pre_tokenizer: Any) -> Any:
    """BPE with bytes for unknown characters, and <s> before a text."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=["<unk>", "<s>", "</s>", *BYTES])
    trained = _trained(models.BPE(unk_token="<unk>"), trainer, pre_tokenizers.Metaspace())
    vocabulary: dict[str, int] = json.loads(trained.to_str())["model"]["vocab"]
    merges = [tuple(merge) for merge in json.loads(trained.to_str())["model"]["merges"]]
    vocabulary["▁▁"] = len(vocabulary)  # published models have tokens of several spaces
    model: Any = models.BPE(
        vocab=vocabulary, merges=[("▁", "▁"), *merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True
    )
    backend = Tokenizer(model)
    if normalizer is not None:
        backend.normalizer = normalizer
    if pre_tokenizer is not None:
        backend.pre_tokenizer = pre_tokenizer
    return _fast(backend, {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}, "<s> $A")


def llama2() -> Any:
    """A sign for a space before the first word of a text only."""
    from tokenizers import pre_tokenizers

    return _llama(None, pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False))


def legacy_llama2() -> Any:
    """The same by a normaliser, also after each special token."""
    from tokenizers import normalizers

    return _llama(normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None)


def gemma() -> Any:
    """No sign before the first word."""
    from tokenizers import normalizers

    return _llama(normalizers.Replace(" ", "▁"), None)


def _unigram(normalizer: Any, names: dict[str, str], *around: str, scheme: str = "always") -> Any:
    from tokenizers import models, pre_tokenizers, trainers

    special = list(names.values())
    trainer = trainers.UnigramTrainer(vocab_size=220, special_tokens=special, unk_token=names["unk_token"])
    pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    return _fast(_trained(models.Unigram(), trainer, pre_tokenizer, normalizer), names, *around)


def t5() -> Any:
    """Unigram with a sign for the space before each word, and </s> after a text."""
    from tokenizers import normalizers

    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    return _unigram(normalizer, {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}, "$A </s>")


def albert() -> Any:
    """Unigram with lower case, accents stripped, and segments."""
    from tokenizers import normalizers

    names = {
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()])
    return _unigram(normalizer, names, "[CLS] $A [SEP]", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1")


def words() -> Any:
    """One token for each word between spaces."""
    from tokenizers import models, pre_tokenizers, trainers

    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    trainer = trainers.WordLevelTrainer(special_tokens=list(names.values()))
    return _fast(_trained(models.WordLevel(unk_token="<unk>"), trainer, pre_tokenizers.WhitespaceSplit()), names)


def byt5() -> Any:
    """A tokenizer in Python, of bytes."""
    import transformers

    return transformers.ByT5Tokenizer(model_max_length=256)


TOKENIZERS: Mapping[str, Callable[[], Any]] = {
    make.__name__: make
    for make in (
        *(wordpiece, gpt2, qwen, roberta, roberta_with_prefix_space, llama2, legacy_llama2, gemma, t5, albert),
        *(words, byt5),
    )
}
