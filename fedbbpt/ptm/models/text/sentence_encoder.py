"""Reads the folder of a sentence-transformers model: what its transformer reads, and how its hidden states are pooled.

What this project does not support is refused. Otherwise the scores would be those of another model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from fedbbpt.errors import InvalidInput
from fedbbpt.ptm.models.checkpoint_files import MODULES, inside, read_json
from fedbbpt.ptm.models.text.pooling import Normalize, Pooling
from fedbbpt.ptm.models.text.sentence_modules import (
    MODULES_AFTER_POOLING,
    read_pooling,
    read_settings,
    refuse_setting,
)

SETTINGS = "config_sentence_transformers.json"
KIND = "SentenceTransformer"
TRANSFORMER_SETTINGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Names of the file with the transformer's settings. Older versions used the architecture's."""
_EXPECTED = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}
_IRRELEVANT = {"unpad_inputs", "query_length", "document_length"}
_MODEL_ARGUMENTS = frozenset({"torch_dtype", "dtype", "attn_implementation", "use_safetensors", "trust_remote_code"})
_TOKENIZER_ARGUMENTS = frozenset({"model_max_length", "padding_side", "use_fast", "trust_remote_code"})
_CONFIG_ARGUMENTS = frozenset({"trust_remote_code"})
_ARGUMENTS_WITHOUT_EFFECT = {
    "model_args": _MODEL_ARGUMENTS,
    "model_kwargs": _MODEL_ARGUMENTS,
    "tokenizer_args": _TOKENIZER_ARGUMENTS,
    "processor_kwargs": _TOKENIZER_ARGUMENTS,
    "config_args": _CONFIG_ARGUMENTS,
    "config_kwargs": _CONFIG_ARGUMENTS,
}
"""Arguments of transformers that change no score, and the length, which is read: the service has a precision of its
own and pads nothing."""


@dataclass(frozen=True, slots=True)
class SentenceEncoder:
    """What a sentence encoder has besides the transformer's checkpoint. By default, the mean of the hidden states."""

    folder: Path
    """The transformer's checkpoint."""
    pooling: Pooling = field(default_factory=Pooling)
    modules: Sequence[nn.Module] = ()
    """Modules after the pooling, except a normalisation at the end: the cosine does not depend on it."""
    prompt: str = ""
    """Text in front of every input and every description."""
    max_tokens: int = 0
    """The longest input for which the encoder is meant; 0: the longest that the transformer takes."""
    lower_case: bool = False
    """Whether texts are put in lower case first."""
    dimensions: int | None = None
    """How many of the embedding's components count, from the first one; None: all."""


def is_sentence_encoder(folder: Path) -> bool:
    """Tells whether a folder is a sentence encoder, from whatever architecture its transformer was made.

    Cross-encoders and sparse encoders have a modules.json, too.
    """
    return (folder / MODULES).is_file() and _kind(folder) == KIND


def read_sentence_encoder(folder: Path) -> SentenceEncoder:
    """Reads modules.json and the files of its modules.

    Raises:
        InvalidInput: A file is broken or asks for what is not supported.
    """
    index = folder / MODULES
    if not index.is_file():
        return SentenceEncoder(folder)
    if (kind := _kind(folder)) != KIND:
        raise InvalidInput(f"a {kind} is no dual encoder", where=str(folder / SETTINGS), fix="another --family")
    listed = _listed_modules(index)
    kinds = [kind for kind, _ in listed]
    if unknown := [kind for kind in kinds if kind not in ("Transformer", "Pooling", *MODULES_AFTER_POOLING)]:
        fix = f"an encoder of Transformer, Pooling, {', '.join(MODULES_AFTER_POOLING)}"
        raise InvalidInput(f"the module {unknown[0]} is not supported", where=str(index), fix=fix)
    if kinds[:2] != ["Transformer", "Pooling"] or not {"Transformer", "Pooling"}.isdisjoint(kinds[2:]):
        what = f"the modules {', '.join(kinds)} are not supported in this order"
        raise InvalidInput(what, where=str(index), fix="a Transformer, a Pooling, and others after these")
    pooling, includes_prompt = read_pooling(listed[1][1])
    found = [MODULES_AFTER_POOLING[kind](path) for kind, path in listed[2:]]
    modules = [module for module in found if module is not None]
    normalised = bool(modules) and isinstance(modules[-1], Normalize)
    while modules and isinstance(modules[-1], Normalize):
        modules.pop()
    prompt, dimensions = _read_own_prompt(folder / SETTINGS, normalised, includes_prompt)
    max_tokens, lower_case = _read_transformer_settings(listed[0][1])
    return SentenceEncoder(listed[0][1], pooling, modules, prompt, max_tokens, lower_case, dimensions)


def _kind(folder: Path) -> str:
    path = folder / SETTINGS
    content = read_json(path) if path.is_file() else {}
    return str(content.get("model_type", KIND)) if isinstance(content, dict) else ""


def _listed_modules(index: Path) -> list[tuple[str, Path]]:
    """Returns the class and the folder of each module. A class of another package keeps its package in its name."""
    content: Any = read_json(index)
    try:
        listed = [(str(module["type"]), module["path"]) for module in content]
    except (TypeError, KeyError):
        raise InvalidInput("not a list of modules", where=str(index), fix='objects with "type" and "path"') from None
    own = "sentence_transformers."
    return [
        (name.rpartition(".")[2] if name.startswith(own) else name, inside(index.parent, path, index))
        for name, path in listed
    ]


def _read_own_prompt(path: Path, normalised: bool, includes_prompt: bool) -> tuple[str, int | None]:
    """Returns the prompt that every text gets, and the number of components that count.

    `normalised`: embeddings have length 1, so that their dot product is their cosine.
    """
    content = read_json(path) if path.is_file() else {}
    settings: dict[str, Any] = content if isinstance(content, dict) else {}
    dimensions = settings.get("truncate_dim")
    similarity = settings.get("similarity_fn_name") or "cosine"
    if similarity != "cosine" and not (similarity == "dot" and normalised and dimensions is None):
        fix = "an encoder whose embeddings are compared by their cosine"
        refuse_setting(path, "similarity_fn_name", similarity, fix)
    name = settings.get("default_prompt_name")
    prompt = (settings.get("prompts") or {}).get(name) or ""
    if prompt and not includes_prompt:
        refuse_setting(path, "default_prompt_name", name, "a pooling with include_prompt = true")
    return prompt, dimensions


def _read_transformer_settings(folder: Path) -> tuple[int, bool]:
    """Returns the length of the longest input, 0 if it is not stated, and whether texts are put in lower case."""
    path = next((folder / name for name in TRANSFORMER_SETTINGS if (folder / name).is_file()), None)
    if path is None:
        return 0, False
    known = {"max_seq_length", "do_lower_case", *_IRRELEVANT, *_EXPECTED, *_ARGUMENTS_WITHOUT_EFFECT}
    settings = read_settings(path, known)
    max_tokens = settings.get("max_seq_length") or 0
    for name, value in settings.items():
        if name in _EXPECTED and value != _EXPECTED[name]:
            refuse_setting(path, name, value, str(_EXPECTED[name]))
        for argument in value or () if name in _ARGUMENTS_WITHOUT_EFFECT else ():
            if argument not in _ARGUMENTS_WITHOUT_EFFECT[name]:
                refuse_setting(path, f"{name}.{argument}", value[argument], "an encoder without this setting")
            max_tokens = value[argument] if argument == "model_max_length" else max_tokens
    return int(max_tokens), bool(settings.get("do_lower_case"))
