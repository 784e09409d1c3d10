"""Finding and loading checkpoints, and the refusal of unsuitable ones."""

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from fedbbpt.errors import InvalidInput
from fedbbpt.ptm.models.loading import load

pytest.importorskip("transformers")
from fedbbpt.ptm.models import sources

Checkpoint = Callable[[str], Path]


def copied(folder: Path, to: Path) -> Path:
    """Copies a checkpoint, to damage it."""
    return Path(shutil.copytree(folder, to / "copy"))


def install(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Puts a package with MiniLM's name on the path."""
    package = folder / sources.MINILM_PACKAGE
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('must never be imported')")
    monkeypatch.setattr(sys, "path", [str(folder)])
    importlib.invalidate_caches()


def test_minilm_with_other_weights_is_refused_and_never_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, tmp_path)
    weights = tmp_path / sources.MINILM_PACKAGE / "model" / "model.safetensors"
    with pytest.raises(InvalidInput, match="No such file"):
        sources.locate("all-MiniLM-L6-v2")
    weights.write_bytes(b"other weights")
    with pytest.raises(InvalidInput, match="not those of the published model"):
        sources.locate("all-MiniLM-L6-v2")


def test_minilm_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    importlib.invalidate_caches()
    with pytest.raises(InvalidInput, match=r"pip install 'fedbbpt\[demo\]'"):
        sources.locate("all-MiniLM-L6-v2")


def test_without_torch_only_the_fake_model_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    missing: dict[str, ModuleType | None] = {"torch": None, "transformers": None}
    for name, module in missing.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "fedbbpt.ptm.models.families", raising=False)
    assert load("fake").describe().model == "fake"
    with pytest.raises(InvalidInput, match=r"pip install 'fedbbpt\[ptm\]'"):
        load("all-MiniLM-L6-v2")


def test_pickled_weights_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    for file in checkpoint("bert-mlm").iterdir():
        if file.suffix == ".json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"anything")
    with pytest.raises(InvalidInput, match=r"neither model.safetensors"):
        load(str(tmp_path))


def test_truncated_file_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    for file in checkpoint("bert-mlm").iterdir():
        (tmp_path / file.name).write_bytes(
            file.read_bytes()[:2000] if file.suffix == ".safetensors" else file.read_bytes()
        )
    with pytest.raises(InvalidInput, match="the weights are damaged or incomplete"):
        load(str(tmp_path))


def test_weights_with_nan_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = copied(checkpoint("bert-mlm"), tmp_path)
    weights = load_file(folder / "model.safetensors")
    next(tensor for name, tensor in weights.items() if "intermediate" in name).fill_(float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidInput, match="the model answers with NaN"):
        load(str(folder))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"hidden_size": 48}, "weights have another shape than config.json states"),
        ({"hidden_size": "big"}, r"config\.json: Field 'hidden_size' expected int, got str"),
        ({"hidden_act": "gelux"}, "transformers does not know, or does not find, 'gelux'"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    folder = copied(checkpoint("bert-mlm"), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changed))
    with pytest.raises(InvalidInput, match=message):
        load(str(folder))


def test_a_config_that_is_no_json_is_refused_with_its_line(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = copied(checkpoint("bert-mlm"), tmp_path)
    (folder / "config.json").write_text('{"model_type": "bert",\n "hidden')
    with pytest.raises(InvalidInput, match=r"config\.json: not JSON: .*line 2"):
        load(str(folder))


def test_a_checkpoint_without_its_tokenizer_says_so(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """transformers makes a tokenizer without words in this case."""
    folder = copied(checkpoint("bert-mlm"), tmp_path)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(InvalidInput, match="the tokenizer cannot be read"):
        load(str(folder))
    for file in folder.iterdir():
        if not file.name.startswith(("config", "model")):
            file.unlink()
    with pytest.raises(InvalidInput, match="the tokenizer has no vocabulary"):
        load(str(folder))


def test_an_adapter_without_a_config_says_so(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(InvalidInput, match="merge the adapter into its base model"):
        load(str(tmp_path))


def test_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"config\.json"):
        load(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["BertForTokenClassification"]}')
    with pytest.raises(InvalidInput, match="no family is known"):
        load(str(tmp_path))
    with pytest.raises(InvalidInput, match="unknown family"):
        load(str(tmp_path), family="oracle")


def test_code_in_a_checkpoint_never_runs(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}')
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(InvalidInput):
        load(str(tmp_path))


def test_revision_depends_on_weights_configuration_and_family_but_not_on_the_folder(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = checkpoint("bert-mlm")
    revisions = {load(str(folder), threads=1).describe().revision}
    revisions.add(load(str(folder), family="dual-encoder", threads=1).describe().revision)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert load(str(tmp_path), threads=1).describe().revision in revisions
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"layer_norm_eps": 1e-12', '"layer_norm_eps": 1e-05'))
    revisions.add(load(str(tmp_path), threads=1).describe().revision)
    assert len(revisions) == 3


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"quantization_config": {"quant_method": "mine"}}, "quantised by 'mine', which transformers does not know"),
        ({"quantization_config": "int8"}, r"config\.json"),
        ({"intermediate_size": 65}, "weights have another shape than config.json states: .*mlp"),
        ({"architectures": [3]}, "no family is known"),
        ({"max_position_embeddings": 2}, "states 2 tokens as the longest input"),
        ({"num_hidden_layers": 3}, "the weights lack model.layers.2"),
    ],
)
def test_config_that_does_not_fit_the_weights_is_refused(
    changed: dict[str, object], said: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(checkpoint("llama"), folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(InvalidInput, match=said):
        load(str(folder), threads=1)


@pytest.mark.parametrize(("content", "said"), [('{"cut": ', "not JSON"), ("[]", "not a JSON object")])
def test_damaged_generation_settings_are_refused(
    content: str, said: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Kills: transformers' defaults in place of a generation_config.json that cannot be read."""
    folder = tmp_path / "damaged"
    shutil.copytree(checkpoint("bart"), folder)
    (folder / "generation_config.json").write_text(content)
    with pytest.raises(InvalidInput, match=rf"generation_config.json: {said}"):
        load(str(folder), threads=1)
