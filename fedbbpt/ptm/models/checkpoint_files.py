"""The files of a checkpoint: those that a loader may read are downloaded and make up the revision.

A loader of transformers finds the tokenizer under any of thirty names, from vocab.txt to bpe.codes, and new
architectures add to them. A list of the names that are read would therefore be incomplete some day, and two models that
score differently would have the same revision. The lists here name what is never read instead: an unknown file changes
the revision although it may be irrelevant, which is the harmless mistake.
"""

import json
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from fedbbpt.errors import InvalidInput
from fedbbpt.host.files import sha256_of_file

NEVER_READ = (
    *(".*", "README*", "LICENSE*", "LICENCE*", "NOTICE*", "*.md", "*.pdf"),
    *("*.png", "*.jpg", "*.jpeg", "*.gif", "*.svg", "*.webp"),
    # Code, which never runs, and weights in formats that are never read.
    *("*.py", "*.pyc", "*.ipynb", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.h5", "*.msgpack"),
    *("*.ot", "*.onnx", "*.onnx_data", "*.tflite", "*.mlmodel", "*.gguf", "*.npz", "*.tar", "*.gz", "*.zip"),
)
"""Names of files that no loader reads."""
FOLDERS_OF_COPIES = ("onnx", "openvino", "coreml", "original", "metal")
"""Folders in which models on the hub keep copies of themselves for other programs."""
DOWNLOAD_EXCEPT = (*NEVER_READ, *(f"*/{name}" for name in NEVER_READ), *(f"{name}/*" for name in FOLDERS_OF_COPIES))
"""Patterns of paths that are not downloaded from the hub."""

WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
MODULES = "modules.json"
"""The list of a sentence encoder's modules, each of which may have a folder."""


def is_read(path: Path) -> bool:
    """Tells whether a loader may read the file."""
    return path.is_file() and not any(fnmatch(path.name, pattern) for pattern in NEVER_READ)


def check_weights(folder: Path) -> None:
    """Raises InvalidInput if a folder has no weights that can be read, or the weights are an adapter of others."""
    check_no_adapter(folder)
    if not any((folder / name).is_file() for name in (WEIGHTS, WEIGHTS_INDEX)):
        what = f"neither {WEIGHTS} nor {WEIGHTS_INDEX}"
        raise InvalidInput(what, where=str(folder), fix="a checkpoint saved as safetensors, with these names")


def check_no_adapter(folder: Path) -> None:
    """Raises InvalidInput if the weights in a folder are an adapter of others."""
    if (folder / "adapter_config.json").exists():
        what = "an adapter, whose base model is elsewhere"
        raise InvalidInput(what, where=str(folder), fix="merge the adapter into its base model and save that")


def check_generation_settings(folder: Path) -> None:
    """Raises InvalidInput if generation_config.json is damaged: transformers would take its defaults instead."""
    path = folder / "generation_config.json"
    if path.is_file() and not isinstance(read_json(path), dict):
        raise InvalidInput("not a JSON object", where=str(path), fix="the file as it was published")


def digest_files(folder: Path) -> list[str]:
    """Returns "NAME SHA-256" of each file that a loader may read, in the order of their names.

    These are the folder's files, those in the folders of a sentence encoder's modules, and shards of the weights.

    Raises:
        InvalidInput: A file cannot be read, or the weights or modules are outside the folder.
    """
    found = {path for each in (folder, *_module_folders(folder)) for path in each.iterdir() if is_read(path)}
    paths = sorted({path.relative_to(folder).as_posix(): path for path in (*found, *_shards(folder))}.items())
    return [f"{name} {sha256(path)}" for name, path in paths]


def sha256(path: Path) -> str:
    """Returns the digest of a file.

    Raises:
        InvalidInput: The file cannot be read.
    """
    try:
        return sha256_of_file(path)
    except OSError as error:
        raise InvalidInput(error.strerror or str(error), where=str(path), fix="a readable file") from None


def read_json(path: Path) -> object:
    """Returns the content of a JSON file.

    Raises:
        InvalidInput: The file cannot be read or is not JSON.
    """
    try:
        content: object = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InvalidInput(error.strerror or str(error), where=str(path), fix="a readable file") from None
    except ValueError as error:
        raise InvalidInput(f"not JSON: {error}", where=str(path), fix="the file as it was published") from None
    return content


def inside(folder: Path, name: object, where: Path) -> Path:
    """Returns the path of a file or folder that another file names, which must be inside the checkpoint.

    Raises:
        InvalidInput: The name is not a relative path inside `folder`.
    """
    parts = Path(name).parts if isinstance(name, str) else ("..",)
    if ".." in parts or Path(*parts).is_absolute():
        raise InvalidInput(f"{name!r} is outside the checkpoint", where=str(where), fix="a path inside its folder")
    return folder.joinpath(*parts)


def _module_folders(folder: Path) -> Iterator[Path]:
    index = folder / MODULES
    modules = read_json(index) if index.is_file() else []
    for module in modules if isinstance(modules, list) else []:
        path = inside(folder, module.get("path", "") if isinstance(module, dict) else "", index)
        if path.is_dir():
            yield path


def _shards(folder: Path) -> Iterator[Path]:
    index = folder / WEIGHTS_INDEX
    content = read_json(index) if index.is_file() else {}
    named = content.get("weight_map", {}) if isinstance(content, dict) else {}
    for name in set(named.values() if isinstance(named, dict) else ()):
        yield inside(folder, name, index)
