"""Writes tiny Llamas as GGUF files, as llama.cpp's converter does."""

import json
from pathlib import Path
from typing import Any

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(folder: Path, path: Path, *, quantised: bool = False, **changes: Any) -> Path:
    """Writes the checkpoint of a Llama in `folder` to the file `path`.

    Args:
        folder: The checkpoint; its tokenizer is a byte-level BPE.
        path: The file to write.
        quantised: Whether matrices are quantised to Q8_0.
        changes: `without`: a name that is left out; `more`: further metadata; `tensors`: further tensors;
            `architecture`: the architecture that the file states.
    """
    import gguf
    import numpy as np
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    words = json.loads((folder / "tokenizer.json").read_text())
    architecture, heads = changes.get("architecture", "llama"), config["num_attention_heads"]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_vocab_size(config["vocab_size"])
    ids = {word: number for number, word in enumerate(sorted(words["model"]["vocab"], key=words["model"]["vocab"].get))}
    special = {token["content"] for token in words["added_tokens"]}
    if changes.get("without") != "tokenizer":
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(changes.get("pre", "gpt-2"))
        writer.add_token_list(list(ids))
        writer.add_token_types([3 if word in special else 1 for word in ids])
        writer.add_token_merges([" ".join(merge) for merge in words["model"]["merges"]])
        writer.add_bos_token_id(ids["<s>"])
        writer.add_eos_token_id(ids["</s>"])
        writer.add_unk_token_id(ids["<unk>"])
        writer.add_pad_token_id(ids["<pad>"])
        writer.add_add_bos_token(False)
    for name, value in changes.get("more", {}).items():
        (writer.add_uint32 if isinstance(value, int) else writer.add_string)(name, value)
    for name, weights in {**load_file(folder / "model.safetensors"), **changes.get("tensors", {})}.items():
        if name == changes.get("without"):
            continue
        weights = weights.astype(np.float32)
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            count = heads if "q_proj" in name else config["num_key_value_heads"]
            weights = weights.reshape(count, 2, -1, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)
        if quantised and weights.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(_name(name), gguf.quants.quantize(weights, kind), raw_dtype=kind)
        else:
            writer.add_tensor(_name(name), weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _name(name: str) -> str:
    """Returns llama.cpp's name of a weight."""
    others = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if not name.startswith("model.layers."):
        return others.get(name, name)
    _, _, layer, part = name.split(".", 3)
    return f"blk.{layer}.{NAMES[part.removesuffix('.weight')]}.weight"
