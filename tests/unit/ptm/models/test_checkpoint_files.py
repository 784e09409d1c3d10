"""The revision covers every file of a checkpoint that a loader may read, and the hub is asked for the same files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.errors import InvalidInput
from fedbbpt.ptm.models.loading import load
from fedbbpt.types import Examples, Scores, TaskSpec, TextPrompts
from tests.jobs import score

pytest.importorskip("transformers")
from huggingface_hub.utils._paths import filter_repo_objects

from fedbbpt.ptm.models.checkpoint_files import DOWNLOAD_EXCEPT, check_weights, digest_files

Checkpoint = Callable[[str], Path]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = "the film was very good bad dull great who wrote this book it".split()
READ = [
    *("config.json", "generation_config.json", "preprocessor_config.json", "model.safetensors", "chat_template.jinja"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "normalizer.json"),
    *(
        "vocab.txt",
        "vocab.json",
        "merges.txt",
        "spiece.model",
        "tokenizer.model",
        "spm.model",
        "source.spm",
        "dict.txt",
    ),
    *(
        "bpe.codes",
        "prophetnet.tokenizer",
        "tiktoken.model",
        "tekken.json",
        "modules.json",
        "sentence_bert_config.json",
    ),
    *("1_Pooling/config.json", "2_Dense/model.safetensors", "shards/a.safetensors"),
]
NOT_READ = [
    *("README.md", "LICENSE", ".gitattributes", "logo.png", "modeling.py", "pytorch_model.bin", "tf_model.h5"),
    *("flax_model.msgpack", "model.onnx", "training_args.bin", "1_Pooling/README.md", "onnx/model_config.json"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a sentence encoder's modules, whose weights are in two shards."""
    (tmp_path / "modules.json").write_text(json.dumps([{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Dense"}]))
    shards = {"weight_map": {"a": "shards/a.safetensors", "b": "model.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(shards))
    for name in (*READ, *NOT_READ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if not (tmp_path / name).exists():
            (tmp_path / name).write_text("{}")
    return tmp_path


@pytest.mark.parametrize("name", READ)
def test_every_file_that_a_loader_may_read_changes_the_digests(folder: Path, name: str) -> None:
    before = digest_files(folder)
    (folder / name).write_text((folder / name).read_text() + " ")
    assert digest_files(folder) != before


@pytest.mark.parametrize("name", NOT_READ)
def test_other_files_do_not_change_the_digests(folder: Path, name: str) -> None:
    before = digest_files(folder)
    (folder / name).write_text("changed")
    assert digest_files(folder) == before


def test_the_hub_sends_what_makes_up_the_digests(folder: Path) -> None:
    """A downloaded model and a clone of its repository have one revision."""
    sent = set(filter_repo_objects([*READ, *NOT_READ], ignore_patterns=list(DOWNLOAD_EXCEPT)))
    assert sent == set(READ)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/hostname"])
def test_shards_and_modules_outside_the_folder_are_refused(folder: Path, name: str) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(InvalidInput, match="outside the checkpoint"):
        digest_files(folder)
    (folder / "model.safetensors.index.json").unlink()
    (folder / "modules.json").write_text(json.dumps([{"path": name}]))
    with pytest.raises(InvalidInput, match="outside the checkpoint"):
        digest_files(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / "shards/a.safetensors").unlink()
    with pytest.raises(InvalidInput, match=r"a\.safetensors: No such file"):
        digest_files(folder)


def test_an_adapter_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere"}')
    with pytest.raises(InvalidInput, match="merge the adapter into its base model"):
        check_weights(folder)


def ask(folder: Path) -> tuple[str, Scores]:
    backend, task = load(str(folder), threads=1), TaskSpec("{prompt} {text} it was {mask}", ("bad", "great"))
    rows = backend.prepare(task, Examples(("the film was very good",)), 0, None)
    return backend.describe().revision, score(backend, task, TextPrompts(("",)), rows)


def test_checkpoints_with_other_vocabularies_have_other_revisions(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Here the vocabulary is in vocab.txt alone: there is no tokenizer.json."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, words in zip(folders, (WORDS, WORDS[::-1]), strict=True):
        shutil.copytree(checkpoint("bert-mlm"), folder)
        for name in ("tokenizer.json", "special_tokens_map.json"):
            (folder / name).unlink(missing_ok=True)
        config = {"tokenizer_class": "BertTokenizer", "model_max_length": 48, "do_lower_case": True}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        (folder / "vocab.txt").write_text("\n".join(SPECIAL + words) + "\n")
    (revision, scores), (other_revision, other_scores) = map(ask, folders)
    assert not np.allclose(scores, other_scores)
    assert revision != other_revision
