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
    with pytest.raises(InvalidInput, match="masked-lm"):
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
