"""Writes and reads an auxiliary model as one safetensors file, with everything that a client needs to train it.

The metadata contains the full model's configuration, the cell of layers, and the tokenizer's files.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import transformers
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedbbpt.errors import InvalidInput, first_line
from fedbbpt.whitebox.auxiliary import LayerRange, load_weights, untrained_auxiliary, weights

_CONFIG = "config.json"
_VOCABULARY = "tokenizer.json"
_TOKENIZER = (_VOCABULARY, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def pack(model: Any, layers: LayerRange, folder: Path) -> bytes:
    """Returns the file's content for an auxiliary model; `folder` is the full model's checkpoint."""
    files = {_CONFIG: (folder / _CONFIG).read_text("utf-8")} | _tokenizer_files(folder)
    return save(dict(weights(model)), metadata={"layers": json.dumps(asdict(layers)), "files": json.dumps(files)})


def _tokenizer_files(folder: Path) -> dict[str, str]:
    """Returns the texts of a tokenizer's files. A vocabulary in another format becomes a tokenizer.json."""
    if (folder / _VOCABULARY).exists():
        return {name: (folder / name).read_text("utf-8") for name in _TOKENIZER if (folder / name).exists()}
    with TemporaryDirectory() as converted:
        transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        ).save_pretrained(converted)
        if not (Path(converted) / _VOCABULARY).exists():
            what = "the tokenizer cannot be written as a tokenizer.json, which clients need"
            raise InvalidInput(what, where=str(folder), fix="a checkpoint with a fast tokenizer")
        return _tokenizer_files(Path(converted))


@dataclass(frozen=True, slots=True)
class AuxiliaryFile:
    """The content of an auxiliary model's file."""

    model: Any
    tokenizer: Any
    max_tokens: int
    """The number of tokens of the longest input."""
    layers: LayerRange
    """The full model's layers that the model has."""


def read(path: Path) -> AuxiliaryFile:
    """Reads an auxiliary model.

    Raises:
        InvalidInput: The file is not an auxiliary model.
    """
    try:
        with safe_open(path, framework="numpy") as file, TemporaryDirectory() as folder:
            metadata = file.metadata() or {}
            for name, text in json.loads(metadata["files"]).items():
                if name not in (_CONFIG, *_TOKENIZER):
                    raise InvalidInput(f"the file contains an unknown file {name!r}", where=str(path))
                Path(folder, name).write_text(text, "utf-8")
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            layers = LayerRange(**json.loads(metadata["layers"]))
            model = untrained_auxiliary(config, layers)
            load_weights(model, {name: file.get_tensor(name) for name in file.keys()})
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        fix = "the file that `fedbbpt owner auxiliary` wrote"
        raise InvalidInput(f"not an auxiliary model: {first_line(error)}", where=str(path), fix=fix) from None
    return AuxiliaryFile(model, tokenizer, config.max_position_embeddings, layers)
