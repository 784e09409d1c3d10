"""Tiny random models of any type that transformers knows, made from the default config of the type.

The sizes of a config are replaced by their names (`SIZES`), its lists of layers are cut to one layer of each kind, and
what a type needs in addition stands in `TWEAKS`.
"""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto import modeling_auto

from fedbbpt.errors import first_line
from tests.checkpoints import WORDS, make_tokenizer

POSITIONS = 64
"""Longest input of each model, in tokens."""
LABELS = ("bad", "fine", "great")
"""The labels of each sequence classifier."""

_MASKED = dict(modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES)
TYPES: Mapping[str, tuple[str, ...]] = {
    "masked-lm": tuple(sorted(_MASKED)),
    "causal-lm": tuple(sorted(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)),
    "seq2seq-lm": tuple(sorted(modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)),
    "sequence-classifier": tuple(sorted(modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)),
    "dual-encoder": tuple(sorted(_MASKED | dict(modeling_auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES))),
}
"""The model types of each family, by the classes that transformers has for them."""
_AUTO_CLASSES: Mapping[str, Any] = {
    "masked-lm": transformers.AutoModelForMaskedLM,
    "causal-lm": transformers.AutoModelForCausalLM,
    "seq2seq-lm": transformers.AutoModelForSeq2SeqLM,
    "sequence-classifier": transformers.AutoModelForSequenceClassification,
    "dual-encoder": transformers.AutoModel,
}

_SIZES: Sequence[tuple[Any, str]] = (
    # Widths.
    (
        32,
        "hidden_size d_model n_embd emb_dim dim embedding_size word_embed_proj_dim input_embedding_size lru_width "
        "output_embedding_size pooler_hidden_size entity_emb_size prediction_head_size projection_dim embedding_rank "
        "backbone_hidden_size attention_hidden_size router_hidden_size hidden_size_per_layer_input "
        "moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size "
        "moe_shared_expert_intermediate_size shared_experts_intermediate_size",
    ),
    (
        64,
        "intermediate_size encoder_ffn_dim decoder_ffn_dim d_ff dff dim_ff d_inner hidden_dim ffn_dim ffn_hidden_size "
        "expert_ffn_hidden_size feed_forward_size intermediate_size_mlp dense_intermediate_size",
    ),
    # Depth.
    (
        2,
        "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_decoder_layers "
        "num_encoder_layers linear_num_key_heads num_key_value_heads num_kv_heads swa_num_key_value_heads "
        "num_experts_per_tok num_experts_per_token moe_topk moe_k",
    ),
    (
        1,
        "num_sparse_encoder_layers num_sparse_decoder_layers max_window_layers n_group topk_group num_expert_group "
        "o_groups first_k_dense_replace",
    ),
    # Numbers of heads and experts.
    (
        4,
        "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads attention_heads "
        "num_encoder_attention_heads num_decoder_attention_heads swa_num_attention_heads linear_num_heads "
        "linear_num_value_heads index_n_heads num_experts "
        "num_local_experts n_routed_experts moe_num_experts zero_expert_num",
    ),
    # Widths of heads, ranks, states, and windows, which are shorter than an input.
    (
        8,
        "head_dim d_kv dim_head d_head swa_head_dim v_head_dim global_head_dim linear_head_dim linear_key_head_dim "
        "linear_value_head_dim attention_head_size qk_nope_head_dim qk_rope_head_dim index_head_dim rotary_dim "
        "attention_head_dim kv_lora_rank q_lora_rank o_lora_rank gated_norm_rank laurel_rank d_rel hc_lowrank "
        "loop_gate_rank adapter_rank state_size mamba_d_state ssm_state_size time_step_rank mamba_dt_rank "
        "mamba_n_heads mamba_num_heads n_mamba_heads mamba_d_head mamba_head_dim mamba_headdim sliding_window "
        "sliding_window_size attention_window_size attention_chunk_size window_size index_topk keep_window_size "
        "rel_extent local_attention local_attn_chunk_length lsh_attn_chunk_length attention_window num_landmarks "
        "segment_means_seq_len",
    ),
    (16, "qk_head_dim chunk_size mamba_chunk_size"),
    (
        POSITIONS,
        "max_position_embeddings n_positions n_ctx max_seq_len context_length max_encoder_position_embeddings "
        "max_decoder_position_embeddings max_target_positions max_source_positions max_2d_position_embeddings",
    ),
    (0.3, "initializer_range init_std"),
)
SIZES: Mapping[str, Any] = {name: size for size, names in _SIZES for name in names.split()}
VOCABULARIES = ("vocab_size", "src_vocab_size", "tgt_vocab_size", "decoder_vocab_size", "vocab_size_per_layer_input")
LAYER_LISTS = ("layer_types", "mlp_layer_types", "layers_block_type", "attn_layers", "block_types", "indexer_types")
"""Lists with one entry for each layer."""
REQUIRED = ("head_dim", "num_key_value_heads")
"""Sizes that some types need although their default is None."""

_ATTENTION = ("sliding_attention", "full_attention")
_BERT = {
    "vocab_size": 700,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": POSITIONS,
}
TWEAKS: Mapping[str, Mapping[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "big_bird": {"block_size": 4, "num_random_blocks": 1},
    "bigbird_pegasus": {"block_size": 4, "num_random_blocks": 1},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in _ATTENTION},
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 4, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dory": {
        "n_input_layers": 1,
        "n_recurrent_layers": 1,
        "n_output_layers": 1,
        "num_hidden_layers": 3,
        "layer_types": ["full_attention"] * 3,
    },
    "dots1": {"n_shared_experts": 1, "n_routed_experts": 4, "num_experts_per_tok": 2},
    "encoder-decoder": {
        "encoder": {"model_type": "bert", **_BERT},
        "decoder": {"model_type": "bert", "is_decoder": True, "add_cross_attention": True, **_BERT},
        "pad_token_id": 1,
    },
    "esmc": {"num_key_value_heads": 4},
    "falcon_h1": {"mamba_d_ssm": 64},
    "funnel": {"architectures": ["FunnelModel"], "block_sizes": [1, 1]},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "attention_layers": ["global", "local"]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "inkling2_loop_text": {
        "num_hidden_layers": 4,
        "layer_types": ["hybrid", "hybrid_sliding"] * 2,
        "loop_layer_index_start": 1,
        "loop_layer_index_end": 2,
        "unpadded_vocab_size": 400,
        "n_layers_per_attn_res_block": 1,
    },
    "inkling2_text": {"unpadded_vocab_size": 400},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "layoutlmv3": {"coordinate_size": 4, "shape_size": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "lilt": {"hidden_size": 48},
    "longt5": {"local_radius": 3, "global_block_size": 4},
    "luke": {"entity_vocab_size": 20},
    "mamba2": {"num_heads": 8},
    "mistral4": {"head_dim": 16, "qk_head_dim": 16},
    "neomme": {"head_dim": 16, "num_attention_heads": 2, "num_key_value_heads": 2},
    "perceiver": {
        "num_latents": 8,
        "d_latents": 32,
        "num_self_attends_per_block": 2,
        "num_self_attention_heads": 4,
        "num_cross_attention_heads": 4,
    },
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 16,
        "indexer_compress_ratio": 4,
    },
    "reformer": {"axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 8]},
    "roc_bert": {
        "pronunciation_vocab_size": 20,
        "shape_vocab_size": 20,
        "pronunciation_embed_dim": 32,
        "shape_embed_dim": 32,
    },
    "xlstm": {"hidden_size": 256, "num_blocks": 2},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "n_mamba_heads": 2,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
    },
    "zamba2": {
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
    },
    "t5gemma": {"decoder_start_token_id": 0},  # it ignores padding, with which answers of T5 start
    "t5gemma2": {"decoder_start_token_id": 0},
    "zaya": {"num_experts_per_tok": 1},
}


def auto_class(family: str, model_type: str) -> Any:
    """Returns transformers' class that loads a type with the head of a family."""
    encoder = modeling_auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES.get(model_type, "")
    if family == "dual-encoder" and encoder.endswith("EncoderModel"):  # one part of an encoder-decoder
        return transformers.AutoModelForTextEncoding
    return _AUTO_CLASSES[family]


class NotBuilt(Exception):
    """No tiny model of this type can be made, for the stated reason."""


def save_tiny_model(family: str, model_type: str, folder: Path) -> None:
    """Saves a tiny random model of a type, with the head of a family, and a tiny tokenizer.

    Raises:
        NotBuilt: The type cannot be made small, or needs a library that is not installed.
    """
    tokenizer = make_tokenizer("gpt" if family == "causal-lm" else "roberta", WORDS, POSITIONS)
    names = [f"{name}_token_id" for name in ("pad", "bos", "eos", "cls", "sep", "mask", "unk")]
    tokens = {name: token for name in names if (token := getattr(tokenizer, name)) is not None}
    try:
        config_class = transformers.CONFIG_MAPPING[model_type]
        arguments = small_arguments(config_class(), len(tokenizer), tokens)
        if family == "sequence-classifier":
            arguments |= {"id2label": dict(enumerate(LABELS)), "label2id": {n: i for i, n in enumerate(LABELS)}}
        if (
            family == "causal-lm"
            and model_type in _MASKED
            and "is_decoder" in inspect.signature(config_class).parameters
        ):
            arguments["is_decoder"] = True
        torch.manual_seed(0)
        model = auto_class(family, model_type).from_config(config_class(**arguments))
        randomise(model)
        model.save_pretrained(folder)
    except Exception as error:  # transformers raises errors of many kinds for sizes that do not fit together
        raise NotBuilt(f"{type(error).__name__}: {first_line(error)}") from error
    if not (getattr(model.config, "type_vocab_size", 0) > 1 and "token_type_ids" in _parameters(model.forward)):
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder)


def small_arguments(default: Any, vocabulary: int, tokens: Mapping[str, int]) -> dict[str, Any]:
    """Returns the arguments that make a config as small as possible.

    Args:
        default: The config of the type with its own sizes.
        vocabulary: Size of the vocabulary.
        tokens: Special tokens by their names in configs, such as "pad_token_id".
    """
    found: dict[str, Any] = {}
    stated = default.to_dict()
    for name, value in stated.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if name in SIZES and (number or (value is None and name in REQUIRED)):
            found[name] = SIZES[name]
        elif name in VOCABULARIES:
            found[name] = vocabulary
        elif name == "decoder_start_token_id":
            found[name] = tokens["pad_token_id"] if value is None else tokens["eos_token_id"]
        elif name in tokens:
            found[name] = tokens[name]
        elif name.endswith(("token_id", "token_index")) and number and value >= vocabulary:
            found[name] = vocabulary - 1 - len(found) % 8
    lists = {name: stated[name] for name in LAYER_LISTS if isinstance(stated.get(name), list) and stated[name]}
    layers = max([2, *(len(set(kinds)) for kinds in lists.values())])
    found |= {name: _cut(kinds, layers) for name, kinds in lists.items()}
    if "num_hidden_layers" in found:
        found["num_hidden_layers"] = layers
    if "kv_lora_rank" in found and "num_key_value_heads" in found:  # latent attention has as many as attention heads
        found["num_key_value_heads"] = found["num_attention_heads"]
    for name in getattr(default, "sub_configs", {}):
        part = getattr(default, name, None)
        if isinstance(part, transformers.PreTrainedConfig):
            found[name] = {**small_arguments(part, vocabulary, tokens), "model_type": part.model_type}
    if default.to_dict().get("is_encoder_decoder"):
        found.setdefault("decoder_start_token_id", tokens["pad_token_id"])
    return {**found, **TWEAKS.get(default.model_type, {})}


def _cut(kinds: list[Any], layers: int) -> list[Any]:
    """Returns the kinds of the first layers, such that each kind occurs as long as there is room."""
    distinct = list(dict.fromkeys(kinds))[:layers]
    return (distinct + kinds * layers)[:layers]


def randomise(model: Any) -> None:
    """Gives each weight values that differ and that matter, so that a wrong computation shows in the scores."""
    draw = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        noise = torch.randn(weight.shape, generator=draw)
        with torch.no_grad():
            if weight.ndim >= 2 and weight.std() < 0.15:
                weight.copy_(0.3 * noise)
            elif weight.numel() > 1 and weight.std() == 0:
                weight.add_(0.1 * noise)


def _parameters(function: Any) -> Mapping[str, Any]:
    return inspect.signature(function).parameters
