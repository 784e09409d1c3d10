"""Runs `fedbbpt bench ptm` as a user does, on tiny models, and checks what it measures, never how fast it is."""

import json
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt import cli
from fedbbpt.bench.page import marks
from fedbbpt.bench.ptm.figures import Bar, Figure
from fedbbpt.bench.ptm.workload import TASKS, Workload
from fedbbpt.ptm.models.loading import load
from fedbbpt.types import Injection, Precision, Runtime, TaskSpec
from tests.tenants import local_ptm

SMALL = """--threads 2 --repeats 2 --prompts 3 --examples 4 --prompt-tokens 4 --dim 6 --shortest 2 --longest 5 \
--probes 5 --jobs 8 --causal-words 20 --device cpu --shape tiny"""


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["fedbbpt", "bench", "ptm", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def measured(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    figures = json.loads(capsys.readouterr().out)["figures"]
    return {f"{figure['part']}: {figure['name']}": figure["values"] for figure in figures}


@pytest.mark.slow
@pytest.mark.timeout(600)  # it starts a service for each part, two of them on Ray
def test_one_command_measures_all_parts(
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from fedbbpt.bench.ptm.measurements import precision

    monkeypatch.setattr(precision, "ALL", ((Runtime.TORCH, Precision.BFLOAT16),))
    page = tmp_path / "page.md"
    first, last = marks("fedbbpt bench ptm")
    page.write_text(f"Before.\n\n{first}\nold\n{last}\n\nAfter.\n")
    words = ("--model", str(checkpoint("bert-encoder")), *SMALL.split(), "--page", str(page), "--json")
    assert command(monkeypatch, *words) == 0
    found = measured(capsys)

    assert found["throughput: scores: apart from the ideal loop's"] == [0]
    assert 0 < found["throughput: scores: apart from those padded"][0] < 1e-4
    ours, ideal = found["throughput: through gRPC"], found["throughput: ideal loop"]
    assert found["throughput: through gRPC / ideal loop"] == [a / b for a, b in zip(ours, ideal, strict=True)]
    assert min(*ours, *ideal) > 0
    assert 0 < found["health: median while scoring"][0] <= found["health: longest while scoring"][0]
    assert found["health: jobs meanwhile"][0] >= 2 and found["memory: jobs"] == [8]
    assert 1e-4 < found["precision: torch bfloat16: scores apart"][0] < 1
    assert max(found["causal: input first: scores apart"] + found["causal: prompt first: scores apart"]) < 1e-5
    if find_spec("ray"):
        one, two = found["replicas: one replica"], found["replicas: two replicas"]
        assert found["replicas: two replicas / one replica"] == [b / a for a, b in zip(one, two, strict=True)]
        assert min(*one, *two) > 0
    assert min(found["device: tiny: jobs of 150 tokens"] + found["device: tiny: matrix products"]) > 0

    text = page.read_text()
    assert text.startswith("Before.\n\n") and text.endswith("\n\nAfter.\n") and "old" not in text
    assert "\n| throughput | median |" in text and "$ fedbbpt bench ptm --model" in text


@pytest.mark.parametrize(
    ("name", "family"), [("bert-encoder", "dual-encoder"), ("roberta-mlm", "masked-lm"), ("llama", "causal-lm")]
)
@pytest.mark.parametrize("injection", [Injection.PREFIX, Injection.PLACE])
def test_reference_loops_score_as_the_engine_does(
    name: str, family: str, injection: Injection, checkpoint: Callable[[str], Path]
) -> None:
    """Kills: a loop that is fast because it computes something else."""
    pytest.importorskip("torch")
    from fedbbpt.bench.ptm.loops.reference_loops import ReferenceLoops

    folder, workload = str(checkpoint(name)), Workload(3, 4, 4, 6, shortest=1, longest=5, injection=injection)
    task = TASKS.get(family, TaskSpec("{text} {prompt} It was {mask}", ("bad", "great")))
    loops = ReferenceLoops(folder, family, task, workload, 2)
    ptm = local_ptm(load(folder, threads=2), time.monotonic)
    handle = ptm.register_examples(ptm.register_task(task), workload.texts(), workload.prompt_tokens)
    prompts = workload.latent(1)
    ours = ptm.score(handle.id, prompts).scores
    assert np.abs(loops.ideal(prompts)() - ours).max() < 1e-5
    assert np.abs(loops.padded(prompts)() - ours).max() < 1e-4


def test_figures_without_a_device_have_no_values(tmp_path: Path) -> None:
    from fedbbpt.bench.ptm.measurements import device

    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    figures = device.measure("", "roberta-large", tmp_path, Workload(), 3, lambda text: None)
    assert {figure.cells()[1:] for figure in figures if figure.bar} == {
        ("not measured", "", "≥ 0.6", ""),
        ("not measured", "", "≥ 5", ""),
    }


def test_the_median_meets_the_bar() -> None:
    assert Figure("a", "b", (1.0, 0.96, 0.5), "x", Bar(0.95)).cells() == ("b", "0.96 x", "0.5 to 1", "≥ 0.95", "yes")
    assert Figure("a", "b", (25.0,), "ms", Bar(20, at_most=True)).met is False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--part", "speed"), "unknown value 'speed'"),
        (("--shortest", "9", "--longest", "3"), "9 to 3 words"),
        (("--page", "nowhere.md"), "nowhere.md"),
        (("--model", "fake", "--part", "throughput"), "the family fake is not measured"),
    ],
)
def test_bad_input_is_rejected(
    words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    assert command(monkeypatch, *words) == 3
    assert message in capsys.readouterr().err
