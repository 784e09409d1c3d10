"""Tiny random checkpoints of every family, with small vocabularies."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORDS = (
    "a an the it was is who what where when which kind of question film story this good bad great fine dull long "
    "very not so how many people live in paris wrote book number person place word one two negative positive"
)
MAX_TOKENS = 48
IMAGE_CLASSIFIERS = ("vit", "resnet")
"""Checkpoints without a tokenizer."""


def make_tokenizer(style: str, words: str, max_tokens: int) -> Any:
    """Trains a tokenizer: WordPiece with [CLS] and [SEP] ("wordpiece"), or byte-level BPE.

    BPE has <s> and </s> for "roberta" and "clip", </s> for "t5", and neither for "gpt".
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if style == "wordpiece":
        names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        names["mask_token"] = "[MASK]"
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=400, special_tokens=list(names.values()))
        corpus = [words]
        ends = ("[CLS]", "[SEP]")
    else:
        names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
        if style == "clip":  # whose </s> must not be token 2: see `clip_text`
            names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
        if style == "roberta":
            names |= {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        # As in RoBERTa's tokenizer, the mask includes the space before it.
        special = [AddedToken(n, lstrip=n == "<mask>", special=True) for n in dict.fromkeys(names.values())]
        trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special, initial_alphabet=alphabet)
        corpus = [f"{word} {word}" for word in words.split()] * 3
        ends = ("<s>", "</s>")
    tokenizer.train_from_iterator(corpus, trainer)
    if style != "gpt":
        ids = [(token, tokenizer.token_to_id(token)) for token in ends]
        single = f"$A {ends[1]}" if style == "t5" else f"{ends[0]} $A {ends[1]}"
        tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=tokenizer, model_max_length=max_tokens, **names)


def _model(name: str, vocabulary: int, pad: int, max_tokens: int) -> Any:
    import torch
    import transformers as t

    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    shared: dict[str, Any] = {"vocab_size": vocabulary, "initializer_range": 0.3, "pad_token_id": pad}
    labels: dict[str, Any] = {
        "id2label": {0: "bad", 1: "fine", 2: "great"},
        "label2id": {"bad": 0, "fine": 1, "great": 2},
    }
    bert: dict[str, Any] = {**sizes, **shared, "max_position_embeddings": max_tokens}
    roberta: dict[str, Any] = {**sizes, **shared, "max_position_embeddings": max_tokens + pad + 1, "type_vocab_size": 1}
    opt: dict[str, Any] = {"ffn_dim": 64, "max_position_embeddings": max_tokens, "word_embed_proj_dim": 32}
    bart: dict[str, Any] = {
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "max_position_embeddings": max_tokens,
    }
    t5: dict[str, Any] = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    t5 |= {"decoder_start_token_id": pad, "eos_token_id": 2}
    gpt2: dict[str, Any] = {**shared, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": max_tokens}
    llama: dict[str, Any] = {**sizes, **shared, "num_key_value_heads": 2, "max_position_embeddings": max_tokens}
    images: dict[str, Any] = {
        "id2label": {0: "cat", 1: "dog", 2: "ship", 3: "truck"},
        "label2id": {"cat": 0, "dog": 1, "ship": 2, "truck": 3},
    }
    vit: dict[str, Any] = {**sizes, "initializer_range": 0.3, "image_size": 8, "patch_size": 4}
    resnet: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic"}
    side = 224 if name == "clip-224" else 8
    makers: dict[str, Callable[[], Any]] = {
        "bert-encoder": lambda: t.BertModel(t.BertConfig(**bert)),
        "bert-mlm": lambda: t.BertForMaskedLM(t.BertConfig(**bert)),
        "bert-classifier": lambda: t.BertForSequenceClassification(t.BertConfig(**bert, **labels)),
        "roberta-mlm": lambda: t.RobertaForMaskedLM(t.RobertaConfig(**roberta)),
        "roberta-classifier": lambda: t.RobertaForSequenceClassification(t.RobertaConfig(**roberta, **labels)),
        "gpt2": lambda: t.GPT2LMHeadModel(t.GPT2Config(**gpt2)),
        "gpt1": lambda: t.OpenAIGPTLMHeadModel(t.OpenAIGPTConfig(**gpt2)),
        "bert-decoder": lambda: t.BertLMHeadModel(t.BertConfig(**bert, is_decoder=True)),
        "gpt2-classifier": lambda: t.GPT2ForSequenceClassification(t.GPT2Config(**gpt2, **labels)),
        "opt": lambda: t.OPTForCausalLM(t.OPTConfig(**sizes, **shared, **opt)),
        "bart-classifier": lambda: t.BartForSequenceClassification(t.BartConfig(**shared, **bart, **labels)),
        "t5": lambda: t.T5ForConditionalGeneration(t.T5Config(**t5, **shared, feed_forward_proj="gated-gelu")),
        "bart": lambda: t.BartForConditionalGeneration(t.BartConfig(**shared, **bart)),
        "clip": lambda: t.CLIPModel(
            t.CLIPConfig(
                text_config={**bert, "eos_token_id": 1, "bos_token_id": 0},
                vision_config={**sizes, "image_size": side, "patch_size": side // 2},
                projection_dim=16,
            )
        ),
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**llama)),
        "llama-by-length": lambda: t.LlamaForCausalLM(
            t.LlamaConfig(**llama, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4})
        ),
        "vit": lambda: t.ViTForImageClassification(t.ViTConfig(**vit, **images)),
        "resnet": lambda: t.ResNetForImageClassification(t.ResNetConfig(**resnet, **images)),
        "gemma": lambda: t.GemmaForCausalLM(t.GemmaConfig(**llama, head_dim=8)),
        "gemma2": lambda: t.Gemma2ForCausalLM(t.Gemma2Config(**llama, head_dim=8)),
        "gemma3": lambda: t.Gemma3ForCausalLM(t.Gemma3TextConfig(**llama, head_dim=8)),
        "biogpt": lambda: t.BioGptForCausalLM(
            t.BioGptConfig(**sizes, **shared, max_position_embeddings=max_tokens, bos_token_id=0, eos_token_id=2)
        ),
        "xglm": lambda: t.XGLMForCausalLM(
            t.XGLMConfig(
                vocab_size=vocabulary,
                d_model=32,
                num_layers=2,
                attention_heads=4,
                ffn_dim=64,
                init_std=0.3,
                pad_token_id=pad,
                max_position_embeddings=max_tokens,
            )
        ),
        "mistral": lambda: t.MistralForCausalLM(t.MistralConfig(**llama, sliding_window=6)),
    }
    torch.manual_seed(0)
    model = makers["clip" if name == "clip-224" else name]()
    if name == "bart":
        model.generation_config.forced_bos_token_id = 0
    return model


def save_checkpoint(name: str, folder: Path, *, words: str = WORDS, max_tokens: int = MAX_TOKENS) -> Path:
    """Saves a checkpoint such as "bert-mlm" or "gpt2" to the folder; its tokenizer has `words` as single tokens."""
    styles = {"bert": "wordpiece", "bart": "roberta", "roberta": "roberta", "t5": "t5", "clip": "clip"}
    style = styles.get(name.partition("-")[0], "gpt")
    if name in IMAGE_CLASSIFIERS:
        _model(name, 0, 0, 0).save_pretrained(folder)
    else:
        tokenizer = make_tokenizer(style, words, max_tokens)
        tokenizer.save_pretrained(folder)
        _model(name, len(tokenizer), tokenizer.pad_token_id, max_tokens).save_pretrained(folder)
    if name.startswith(("clip", *IMAGE_CLASSIFIERS)):
        pixels = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "size": {"shortest_edge": 8}}
        (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    return folder
