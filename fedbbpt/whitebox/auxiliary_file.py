"""An auxiliary model as one safetensors file: weights, and in its metadata all that else is needed to train it.

That is the full model's configuration, the layers that were taken, and the tokenizer's files: whoever gets it needs
nothing of the full model.
"""

import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import transformers
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedbbpt.errors import InvalidInput
from fedbbpt.whitebox.auxiliary import LayerRange, load_weights, untrained_auxiliary, weights

_CONFIG = "config.json"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")


def pack(model: Any, layers: LayerRange, folder: Path) -> bytes:
    """`folder` is the full model's checkpoint."""
    files = {name: (folder / name).read_text("utf-8") for name in (_CONFIG, *_TOKENIZER) if (folder / name).exists()}
    return save(dict(weights(model)), metadata={"layers": json.dumps(asdict(layers)), "files": json.dumps(files)})


def read(path: Path) -> tuple[Any, Any, int]:
    """The model, its tokenizer and the most tokens that it takes. Raises InvalidInput naming the file."""
    try:
        with safe_open(path, framework="numpy") as file, TemporaryDirectory() as folder:
            about = file.metadata() or {}
            for name, text in json.loads(about["files"]).items():
                if name not in (_CONFIG, *_TOKENIZER):
                    raise InvalidInput(f"an unknown file {name!r} in it", where=str(path))
                Path(folder, name).write_text(text, "utf-8")
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            model = untrained_auxiliary(config, LayerRange(**json.loads(about["layers"])))
            load_weights(model, {name: file.get_tensor(name) for name in file.keys()})
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        fix = "the file that `fedbbpt owner auxiliary` wrote"
        raise InvalidInput(f"no auxiliary model: {error}", where=str(path), fix=fix) from None
    return model, tokenizer, config.max_position_embeddings
