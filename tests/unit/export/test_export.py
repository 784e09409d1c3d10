"""Exported prompts give the scores of fedbbpt in other programs, and what these cannot express is refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.api.prompts import load_prompt
from fedbbpt.errors import InvalidInput, RevisionChanged, UnsupportedPrompt
from fedbbpt.export.exporting import Target, export
from fedbbpt.federation.prompt_file import read_prompt, write_prompt
from fedbbpt.prompts import Space
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.prompts.text import TextSpace
from fedbbpt.prompts.visual import ImageSpace
from fedbbpt.types import Injection
from tests.command_line import CommandLine
from tests.exports import CAUSAL, MASKED, deep, latent, with_readout, write
from tests.slow import slow_except

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

GUIDE = Path(__file__).parents[3] / "docs/guides/elsewhere.md"
TEXTS = ("a very good film", "what is the place", "Where in “Paris”?")
CAUSAL_MODELS = (
    *("gpt2", "gpt1", "opt", "llama", "llama-by-length", "gemma", "gemma2", "gemma3", "mistral", "biogpt", "xglm"),
    "bert-decoder",
)
HEADS = {"gpt2": 4, "opt": 4, "biogpt": 4, "xglm": 4, "llama": 2, "gemma": 2, "gemma2": 2, "gemma3": 2, "mistral": 2}
"""Numbers of heads of keys and values of the models that take prefixes."""

Checkpoint = Callable[[str], Path]


def classify(heading: str, adapter: Path, model: Path, auto_class: str) -> Callable[[str], dict[str, float]]:
    """Returns the function of the guide's program below a heading, for a model and a folder."""
    section = GUIDE.read_text().partition(f"## {heading}\n")[2]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    code = found[1].replace('"model"', repr(str(model))).replace('"adapter', f'"{adapter}')
    names: dict[str, Any] = {}
    exec(code.replace("AutoModelForCausalLM", auto_class), names)
    function: Callable[[str], dict[str, float]] = names["classify"]
    return function


def assert_predicts_as_fedbbpt(prompt: Path, classify: Callable[[str], dict[str, float]]) -> None:
    for text, ours in zip(TEXTS, load_prompt(prompt).predict(TEXTS), strict=True):
        theirs = classify(text)
        assert list(theirs) == ["no", "yes"]
        np.testing.assert_allclose(list(theirs.values()), ours.probabilities, atol=1e-3)


@pytest.mark.parametrize("space", [latent(), with_readout()], ids=["offsets", "readout"])
@pytest.mark.parametrize(
    ("name", "auto_class", "template"),
    [("gpt2", "AutoModelForCausalLM", CAUSAL), ("bert-mlm", "AutoModelForMaskedLM", MASKED)],
)
@pytest.mark.parametrize(("heading", "target"), [("PEFT", Target.PEFT), ("Plain transformers", Target.HF)])
@pytest.mark.filterwarnings("ignore")  # PEFT warns of how it calls transformers
def test_programs_of_the_guide_predict_as_fedbbpt(
    heading: str,
    target: Target,
    name: str,
    auto_class: str,
    template: str,
    space: Space,
    checkpoint: Checkpoint,
    tmp_path: Path,
) -> None:
    prompt = write(tmp_path, checkpoint(name), space, template)
    export(prompt, target, tmp_path / "out")
    assert_predicts_as_fedbbpt(prompt, classify(heading, tmp_path / "out", checkpoint(name), auto_class))


@pytest.mark.parametrize("target", [Target.PEFT, Target.HF])
@pytest.mark.parametrize(
    ("name", "kind"),
    slow_except(
        [
            (name, kind)
            for name in CAUSAL_MODELS
            for kind in ("prefix", "place", "deep")
            if kind != "deep" or name in HEADS
        ]
        + [(name, kind) for name in ("bert-mlm", "roberta-mlm") for kind in ("prefix", "place")],
        ("llama", "deep"),
        ("roberta-mlm", "place"),
        ("gemma", "prefix"),
    ),
)
def test_every_family_exports(name: str, kind: str, target: Target, checkpoint: Checkpoint, tmp_path: Path) -> None:
    """The export itself compares the scores."""
    space = deep(HEADS[name]) if kind == "deep" else latent(Injection(kind))
    template = MASKED if "mlm" in name else CAUSAL
    files = export(write(tmp_path, checkpoint(name), space, template), target, tmp_path / "out")
    assert ("adapter_model.safetensors" if target is Target.PEFT else "prompt.safetensors") in files


@pytest.mark.parametrize(
    ("name", "space", "template", "target", "message"),
    [
        ("bert-mlm", latent(Injection.ADD), MASKED, Target.PEFT, "add joins the prompt after the embedding block"),
        ("bert-mlm", latent(Injection.CONCAT), MASKED, Target.HF, "concat joins the prompt after the embedding block"),
        ("gpt2", latent(Injection.PLACE), "{text} {prompt} It was {mask}", Target.HF, "joins after a text"),
        ("bert-mlm", latent(Injection.PLACE), "{mask} was {prompt} {text}", Target.PEFT, "after the mask"),
        ("bert-mlm", latent(), MASKED, Target.VLLM, "continues texts"),
        ("llama", deep(2), CAUSAL, Target.VLLM, "prompts of vectors"),
        ("bert-encoder", latent(), "{prompt} {text}", Target.PEFT, "family dual-encoder has no label words"),
        ("gpt2", latent(), CAUSAL, Target.TEXT, "not in words"),
        ("gpt2", latent(), CAUSAL, Target.ONNX, "no visual prompt"),
    ],
)
def test_what_a_program_cannot_express_is_refused(
    name: str, space: Space, template: str, target: Target, message: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    prompt = write(tmp_path, checkpoint(name), space, template)
    with pytest.raises(UnsupportedPrompt, match=message):
        export(prompt, target, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prompt.md", "prompt.safetensors"]


def test_scores_that_differ_are_refused(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedbbpt.ptm.models.text.transformer import Transformer

    honest = Transformer.prompt_vectors
    monkeypatch.setattr(Transformer, "prompt_vectors", lambda self, prompts: 1.1 * honest(self, prompts))
    with pytest.raises(UnsupportedPrompt, match="PEFT computes other scores than fedbbpt, by"):
        export(write(tmp_path, checkpoint("gpt2"), latent(), CAUSAL), Target.PEFT, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_label_words_of_several_tokens_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    prompt = write(tmp_path, checkpoint("gpt2"), latent(), CAUSAL)
    z, card = read_prompt(prompt)
    write_prompt(prompt, z, card.model_copy(update={"classes": ("bad", "unheard of")}))
    with pytest.raises(UnsupportedPrompt, match=r"'unheard of' has [0-9]+ tokens"):
        export(prompt, Target.HF, tmp_path / "out")


def test_another_revision_is_refused_unless_any_will_do(checkpoint: Checkpoint, tmp_path: Path) -> None:
    prompt = write(tmp_path, checkpoint("gpt2"), latent(), CAUSAL)
    z, card = read_prompt(prompt)
    write_prompt(prompt, z, card.model_copy(update={"ptm_revision": "another"}))
    with pytest.raises(RevisionChanged, match=r"tuned for another.*--any-revision"):
        export(prompt, Target.HF, tmp_path / "out")
    assert export(prompt, Target.HF, tmp_path / "out", any_revision=True)


def test_vectors_for_vllm_begin_with_what_all_inputs_begin_with(checkpoint: Checkpoint, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    template = "what kind of {prompt} {text} It was {mask}"
    prompt = write(tmp_path, checkpoint("llama"), latent(Injection.PLACE), template)
    assert export(prompt, Target.VLLM, tmp_path / "out") == ["prompt.safetensors", "readout.json"]
    skip = json.loads((tmp_path / "out/readout.json").read_text())["skip"]
    assert skip > 0
    assert len(load_file(tmp_path / "out/prompt.safetensors")["prompt_embeds"]) == skip + 3


def test_result_without_a_prompt_is_its_views_and_readout(checkpoint: Checkpoint, tmp_path: Path) -> None:
    space = ReadoutSpace(NoPrompt(), ("", "so"), 4, classes=2, columns=4)
    prompt = write(tmp_path, checkpoint("gpt2"), space, CAUSAL)
    assert export(prompt, Target.HF, tmp_path / "out") == ["readout.json"]
    with pytest.raises(UnsupportedPrompt, match="no prompt of vectors"):
        export(prompt, Target.PEFT, tmp_path / "peft")


def test_prompt_in_words_is_a_plain_text(tmp_path: Path) -> None:
    space = TextSpace(2, ("good", "{film}"), 4)
    prompt = write(tmp_path, Path("openai:some@http://127.0.0.1:1/v1"), space, "Say: {prompt} {text} It was {mask}")
    choose_words(prompt)
    export(prompt, Target.TEXT, tmp_path / "out")
    written = (tmp_path / "out/prompt.txt").read_text()
    assert written == "Say: {{film}} good {text} It was {mask}\n"
    assert written.format(text="x", mask="fine") == "Say: {film} good x It was fine\n"
    told = json.loads((tmp_path / "out/readout.json").read_text())
    assert told["inputs"] == [{"template": written.removesuffix("\n")}]
    assert told["weights"] == [[1, 0], [0, 1]]


def choose_words(prompt: Path) -> None:
    """Makes the prompt's z name both of its candidates, the second one first."""
    _, card = read_prompt(prompt)
    write_prompt(prompt, np.array([1, 0], np.float32), card)


@pytest.mark.parametrize("widths", [(4, 8), (8, 4), (6,)])
def test_graph_draws_the_pictures_of_a_visual_prompt(widths: tuple[int, ...], tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from fedbbpt.export.picture_graph import prompted
    from fedbbpt.export.tuned import split

    side = 4 * 2 ** len(widths)
    space = ImageSpace((3, side, side), pooled=4, grid=4, widths=widths, strength=0.7, seed=5)
    prompt = write(tmp_path, Path("vit"), space, "{text}")
    assert export(prompt, Target.ONNX, tmp_path / "out") == ["prompt.onnx", "readout.json"]
    images = np.random.default_rng(2).integers(0, 256, (5, 3, side, side), np.uint8)
    session = runtime.InferenceSession(tmp_path / "out/prompt.onnx")
    (theirs,) = session.run(["prompted"], {"image": images})
    ours = prompted(split(*read_prompt(prompt)), images)
    assert np.abs(ours - images / np.float32(255)).max() > 0.05, "a picture to see"
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_folder_that_exists_is_kept(tmp_path: Path) -> None:
    prompt = write(tmp_path, Path("gpt2"), latent(), CAUSAL)
    with pytest.raises(InvalidInput, match="the folder exists"):
        export(prompt, Target.TEXT, tmp_path)
    assert prompt.exists()


def test_command_says_what_it_wrote(command_line: CommandLine, checkpoint: Checkpoint, tmp_path: Path) -> None:
    prompt = write(tmp_path, checkpoint("gpt2"), latent(), CAUSAL)
    ended = command_line("export", str(prompt), "--to", "peft", "--out", "here", "--json")
    assert ended.code == 0
    assert ended.out.count("\n") == 1
    assert json.loads(ended.out) == {
        "out": "here",
        "files": ["adapter_config.json", "adapter_model.safetensors", "readout.json"],
    }
    refused = command_line("export", str(prompt), "--to", "text", "--out", "there")
    assert refused.code == 8
    assert "the prompt is not in words" in refused.message
