"""FedSP's models: the sizes of the paper, sharing, distillation, and stages that train their own part only."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from fedbbpt.errors import InvalidInput  # noqa: E402
from fedbbpt.prompts.deep import DeepSpace  # noqa: E402
from fedbbpt.ptm.models.text.encoding import ExampleEncoder  # noqa: E402
from fedbbpt.types import Examples, LabelledExamples, Stage, TaskSpec  # noqa: E402
from fedbbpt.whitebox import auxiliary_file  # noqa: E402
from fedbbpt.whitebox.auxiliary import (  # noqa: E402
    LayerRange,
    extract_auxiliary,
    layer_list,
    untrained_auxiliary,
    weights,
)
from fedbbpt.whitebox.distillation import distil, hidden_state_error  # noqa: E402
from fedbbpt.whitebox.roles import client_white_box, make_auxiliary, owner_white_box  # noqa: E402
from fedbbpt.whitebox.sequences import answered_examples, draw_batches, pad_batch  # noqa: E402

TASK = TaskSpec("{text} it is a {mask}", ("number", "place name"))
DATA = LabelledExamples(
    Examples(("how many people", "how many long films", "which place", "where is paris", "who wrote two", "in what")),
    np.array([0, 0, 1, 1, 0, 1]),
)
SPACES = {
    "llama": DeepSpace(layers=2, heads=2, width=8, tokens=3, seed=1, std=0.1),
    "gpt2": DeepSpace(layers=2, heads=4, width=8, tokens=3, seed=1, std=0.1),
    "opt": DeepSpace(layers=2, heads=4, width=8, tokens=3, seed=1, std=0.1),
}
STAGE = Stage(steps=4, batch_size=4, learning_rate=0.01, weight_decay=0.01, epsilon=1e-8, warmup=0.25)
GPT2_XL: dict[str, Any] = {"n_embd": 1600, "n_layer": 48, "n_head": 25}
OPT_1_3B: dict[str, Any] = {
    "hidden_size": 2048,
    "num_hidden_layers": 24,
    "num_attention_heads": 32,
    "ffn_dim": 8192,
    "word_embed_proj_dim": 2048,
}

each_family = pytest.mark.parametrize("name", SPACES)


def full(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


def parameter_count(model: Any) -> int:
    """Returns the number of a model's weights; a shared weight counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture
def auxiliary(checkpoint: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """Makes the file of an auxiliary model of a tiny checkpoint."""

    def make(name: str, mode: Literal["share", "drop"] = "share", start: int = 0) -> Path:
        layers, stage = LayerRange(start, 1, mode), Stage(0, 4, 5e-3, 0.01, 1e-8, 0.1)
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(make_auxiliary(str(checkpoint(name)), layers, stage, TASK, SPACES[name], DATA, seed=0))
        return path

    return make


@pytest.mark.parametrize(
    ("config", "whole", "shared", "prefix"),
    [
        (transformers.GPT2Config(**GPT2_XL), 1_557_611_200, 112_793_600, DeepSpace(48, 25, 64, 40, 0, 0.02)),
        (transformers.OPTConfig(**OPT_1_3B), 1_315_758_080, 157_517_824, DeepSpace(24, 32, 64, 40, 0, 0.02)),
    ],
    ids=["gpt2-xl", "opt-1.3b"],
)
def test_parameter_counts_are_those_of_the_paper(config: Any, whole: int, shared: int, prefix: DeepSpace) -> None:
    """The models are on the meta device, without weights."""
    with torch.device("meta"):
        assert parameter_count(untrained_auxiliary(config, LayerRange(0, config.num_hidden_layers, "share"))) == whole
        model = untrained_auxiliary(config, LayerRange(0, 1, "share"))
        assert parameter_count(model) == shared
        assert len(layer_list(model)[1]) == config.num_hidden_layers
        assert parameter_count(untrained_auxiliary(config, LayerRange(0, 1, "drop"))) == shared
    assert prefix.dim == {112_793_600: 6_144_000, 157_517_824: 3_932_160}[shared]


@each_family
def test_shared_layer_has_the_same_parameters_at_all_depths(checkpoint: Callable[[str], Path], name: str) -> None:
    """Kills: copies of the parameters; one layer that writes the same keys and values at all depths."""
    teacher = full(checkpoint(name))
    model = extract_auxiliary(teacher, LayerRange(1, 1, "share"))
    first, second = layer_list(model)[1]
    assert [id(p) for p in first.parameters()] == [id(p) for p in second.parameters()]
    taken = layer_list(teacher)[1][1]
    for ours, theirs in zip(first.parameters(), taken.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    cache = model(torch.tensor([[5, 6, 7]]), use_cache=True).cache
    assert [layer.keys.shape[2] for layer in cache.layers] == [3, 3]


@each_family
def test_cell_of_all_layers_is_the_full_model(checkpoint: Callable[[str], Path], name: str) -> None:
    teacher = full(checkpoint(name))
    model = extract_auxiliary(teacher, LayerRange(0, 2, "share")).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    assert torch.equal(model(ids).logits, teacher(ids).logits)
    assert parameter_count(model) == parameter_count(teacher)


def test_drop_mode_keeps_the_cell_only(checkpoint: Callable[[str], Path]) -> None:
    model = extract_auxiliary(full(checkpoint("llama")), LayerRange(1, 1, "drop"))
    assert len(layer_list(model)[1]) == model.config.num_hidden_layers == 1


def test_bottom_and_cell_of_all_layers_are_the_full_model(checkpoint: Callable[[str], Path]) -> None:
    """Kills: a bottom with the weights of other layers."""
    teacher = full(checkpoint("llama"))
    model = extract_auxiliary(teacher, LayerRange(1, 1, "drop", bottom=1)).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    assert torch.equal(model(ids).logits, teacher(ids).logits)


@pytest.mark.parametrize("layers", [LayerRange(0, 1, "drop", 1), LayerRange(1, 1, "share", 1)])
def test_bottom_that_is_not_below_a_cell_is_refused(checkpoint: Callable[[str], Path], layers: LayerRange) -> None:
    with pytest.raises(InvalidInput, match=r"method\.bottom: 1 layers below a cell"):
        extract_auxiliary(full(checkpoint("llama")), layers)


@pytest.mark.parametrize("layers", [LayerRange(2, 1, "share"), LayerRange(0, 3, "share"), LayerRange(1, 2, "drop")])
def test_cell_outside_the_model_is_refused(checkpoint: Callable[[str], Path], layers: LayerRange) -> None:
    with pytest.raises(InvalidInput, match="of 2"):
        extract_auxiliary(full(checkpoint("llama")), layers)


@each_family
def test_distillation_brings_the_last_hidden_states_nearer(checkpoint: Callable[[str], Path], name: str) -> None:
    folder = checkpoint(name)
    teacher = full(folder)
    student = extract_auxiliary(teacher, LayerRange(0, 1, "share"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    sequences = answered_examples(ExampleEncoder(tokenizer, 48, vectors=len(tokenizer), causal=True), TASK, DATA, 0)
    whole = pad_batch(sequences)
    before = float(hidden_state_error(teacher, student.eval(), whole).detach())
    distil(teacher, student, sequences, Stage(30, 6, 3e-3, 0.01, 1e-8, 0.1), seed=0)
    assert float(hidden_state_error(teacher, student.eval(), whole).detach()) < before / 2


def test_padding_does_not_change_the_loss(checkpoint: Callable[[str], Path]) -> None:
    """Kills: a loss over padding."""
    folder = checkpoint("llama")
    teacher, tokenizer = full(folder), transformers.AutoTokenizer.from_pretrained(folder)
    student = extract_auxiliary(teacher, LayerRange(0, 1, "share")).eval()
    sequences = answered_examples(ExampleEncoder(tokenizer, 48, vectors=len(tokenizer), causal=True), TASK, DATA, 0)
    errors = [
        float(hidden_state_error(teacher, student, pad_batch([one])).detach()) * len(one.ids) for one in sequences
    ]
    together = float(hidden_state_error(teacher, student, pad_batch(sequences)).detach())
    assert together == pytest.approx(sum(errors) / sum(len(one.ids) for one in sequences), rel=1e-4)


@each_family
def test_file_restores_model_and_tokenizer(
    checkpoint: Callable[[str], Path], auxiliary: Callable[..., Path], name: str
) -> None:
    read = auxiliary_file.read(auxiliary(name))
    expected = weights(extract_auxiliary(full(checkpoint(name)), LayerRange(0, 1, "share")))
    found = weights(read.model)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[each], expected[each]) for each in found)
    theirs = transformers.AutoTokenizer.from_pretrained(checkpoint(name))
    assert read.tokenizer("who wrote this book")["input_ids"] == theirs("who wrote this book")["input_ids"]
    assert read.max_tokens == 48 and read.layers == LayerRange(0, 1, "share")


def test_file_contains_a_vocabulary_of_several_files(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """Kills: an auxiliary model whose tokenizer is left behind, so that clients train on other tokens."""
    folder = tmp_path / "gpt2"
    shutil.copytree(checkpoint("gpt2"), folder)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(vocabulary["vocab"]))
    (folder / "merges.txt").write_text("\n".join(" ".join(merge) for merge in vocabulary["merges"]))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer", "model_max_length": 48}')
    layers = LayerRange(0, 1, "share")
    path = tmp_path / "auxiliary.safetensors"
    path.write_bytes(auxiliary_file.pack(extract_auxiliary(full(folder), layers), layers, folder))
    tokenizer = auxiliary_file.read(path).tokenizer
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer("who wrote this book")["input_ids"] == theirs("who wrote this book")["input_ids"]


def test_file_without_an_auxiliary_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InvalidInput, match="not an auxiliary model"):
        auxiliary_file.read(path)


@each_family
def test_each_stage_changes_its_own_part(auxiliary: Callable[..., Path], name: str) -> None:
    space = SPACES[name]
    box = client_white_box(auxiliary(name), space, TASK, DATA)
    z = np.zeros(space.dim, np.float32)
    aligned = box.align({}, z, STAGE, seed=1)
    again = box.align(aligned, z, STAGE, seed=2)
    assert all(not np.array_equal(aligned[each], again[each]) for each in aligned)
    tuned, loss = box.tune(aligned, z, STAGE, seed=3)
    assert np.isfinite(loss) and np.abs(tuned).max() > 1e-3
    # Tuning leaves the weights as they were: one step with almost no learning rate returns them.
    still = box.align(aligned, tuned, Stage(1, 4, 0.0 + 1e-30, 0.0, 1e-8, 0.0), seed=4)
    assert all(np.array_equal(aligned[each], still[each]) for each in aligned)


def test_stages_are_pure_functions_of_their_arguments(auxiliary: Callable[..., Path]) -> None:
    """Kills: weights that remain in the model from an earlier call; numbers from torch's global generator."""
    path, z = auxiliary("gpt2"), np.full(SPACES["gpt2"].dim, 0.1, np.float32)  # which has dropout
    one, other = (client_white_box(path, SPACES["gpt2"], TASK, DATA) for _ in range(2))
    drifted = one.align({}, z, STAGE, seed=1)
    one.tune(drifted, z, STAGE, seed=2)
    torch.manual_seed(5)
    for initial in ({}, drifted):
        a, b = one.align(initial, z, STAGE, seed=3), other.align(initial, z, STAGE, seed=3)
        assert all(np.array_equal(a[each], b[each]) for each in a)
        (c, loss), (d, same) = one.tune(initial, z, STAGE, seed=3), other.tune(initial, z, STAGE, seed=3)
        assert np.array_equal(c, d) and loss == same


def test_shallower_model_tunes_the_prefixes_of_its_own_layers(auxiliary: Callable[..., Path]) -> None:
    """Kills: a prefix that reaches layers with other weights than those it was tuned with."""
    space = SPACES["llama"]
    before = np.full(space.dim, 0.1, np.float32)
    for start in (0, 1):
        box = client_white_box(auxiliary("llama", "drop", start), space, TASK, DATA)
        tuned, _ = box.tune({}, before, STAGE, seed=1)
        moved = np.abs(space.prefixes(tuned[None]) - space.prefixes(before[None]))[0].max(axis=(1, 2, 3, 4))
        assert moved[start] > 1e-3 and moved[1 - start] == 0


def test_layers_below_the_first_tuned_one_keep_the_initial_prefix(checkpoint: Callable[[str], Path]) -> None:
    space = replace(SPACES["llama"], first_layer=1)
    assert space.dim == SPACES["llama"].dim // 2
    tuned, _ = owner_white_box(str(checkpoint("llama")), space, TASK, DATA).tune(
        {}, np.zeros(space.dim, np.float32), STAGE, seed=1
    )
    moved = np.abs(space.prefixes(tuned[None]) - space.prefixes(np.zeros((1, space.dim))))[0].max(axis=(1, 2, 3, 4))
    assert moved[1] > 1e-3 and moved[0] == 0


@each_family
def test_stitch_gives_the_cell_the_states_of_the_full_model(
    checkpoint: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    """Kills: a map fitted to another layer, or one that the file does not carry."""
    folder, layers, space = checkpoint(name), LayerRange(1, 1, "drop", stitched=True), SPACES[name]
    stage = Stage(0, 4, 5e-3, 0.01, 1e-8, 0.1)
    path = tmp_path / "auxiliary.safetensors"
    path.write_bytes(make_auxiliary(str(folder), layers, stage, TASK, space, DATA, seed=0))
    stitched, plain = auxiliary_file.read(path).model, extract_auxiliary(full(folder), replace(layers, stitched=False))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    sequences = answered_examples(ExampleEncoder(tokenizer, 48, vectors=len(tokenizer), causal=True), TASK, DATA, 0)
    before, after = (
        float(hidden_state_error(full(folder), model.eval(), pad_batch(sequences)).detach())
        for model in (plain, stitched)
    )
    assert after < 0.8 * before


def test_stitch_for_prefixes_of_another_shape_is_refused(checkpoint: Callable[[str], Path]) -> None:
    layers, stage = LayerRange(1, 1, "drop", stitched=True), Stage(0, 4, 5e-3, 0.01, 1e-8, 0.1)
    with pytest.raises(InvalidInput, match="2 layers, 2 heads and width 8"):
        make_auxiliary(str(checkpoint("llama")), layers, stage, TASK, SPACES["gpt2"], DATA, seed=0)


def test_stitch_of_shared_layers_is_refused(checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(InvalidInput, match=r"method\.stitch: a stitch below layers that are repeated"):
        extract_auxiliary(full(checkpoint("llama")), LayerRange(1, 1, "share", stitched=True))


def test_auxiliary_model_without_a_tuned_layer_is_refused(auxiliary: Callable[..., Path]) -> None:
    with pytest.raises(InvalidInput, match=r"task\.prompt\.first_layer: 1, and the highest layer of the auxiliary"):
        client_white_box(auxiliary("llama", "drop"), replace(SPACES["llama"], first_layer=1), TASK, DATA)


def test_tuning_a_prefix_lowers_the_loss_of_the_full_model(checkpoint: Callable[[str], Path]) -> None:
    space = SPACES["llama"]
    box = owner_white_box(str(checkpoint("llama")), space, TASK, DATA)
    z, losses = np.zeros(space.dim, np.float32), []
    for seed in range(4):
        z, loss = box.tune({}, z, Stage(20, 6, 0.2, 0.01, 1e-8, 0.1), seed)
        losses.append(loss)
    assert losses[-1] < 0.7 * losses[0]


def test_prefix_of_another_shape_is_refused(checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(InvalidInput, match="2 layers, 2 heads and width 8"):
        owner_white_box(str(checkpoint("llama")), SPACES["gpt2"], TASK, DATA)


@pytest.mark.parametrize("size", [1, 4, 6, 10])
def test_batches_use_all_sequences_before_one_repeats(checkpoint: Callable[[str], Path], size: int) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint("llama"))
    sequences = answered_examples(ExampleEncoder(tokenizer, 48, vectors=len(tokenizer), causal=True), TASK, DATA, 0)
    drawn = draw_batches(sequences, size, seed=3)
    taken: list[tuple[int, ...]] = []
    for _ in range(6):
        each = next(drawn)
        assert len(each.ids) == min(size, 6)
        taken += [tuple(ids[there].tolist()) for ids, there in zip(each.ids, each.valid, strict=True)]
    counts = {one.ids: taken.count(one.ids) for one in sequences}
    assert max(counts.values()) - min(counts.values()) <= 1
