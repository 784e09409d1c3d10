"""The demo's jobs: one for each model in a package, and none for others."""

import pytest

from fedbbpt.cli.demo_jobs import DEMO, MODELS, demo_job
from fedbbpt.errors import InvalidInput
from fedbbpt.federation.splits import prepare


@pytest.mark.parametrize("model", MODELS)
def test_each_job_fits_the_demos_questions(model: str) -> None:
    job = prepare(demo_job(model, "")).job
    assert job.ptm.model == model
    assert len(job.task.classes) == len(job.task.labels) == 7


def test_the_labels_of_other_data_are_the_label_words() -> None:
    job = demo_job("SmolLM2-135M-Instruct", "my.csv")
    assert (job.task.labels, job.task.classes) == ((), ())
    assert job.task.template.endswith("{mask}")


def test_other_models_are_refused_with_a_way_out() -> None:
    with pytest.raises(InvalidInput, match=r"the demo has no job for 'gpt2'; .*`fedbbpt init` and `fedbbpt run`"):
        demo_job("gpt2", "")
    assert demo_job("all-MiniLM-L6-v2", "") == DEMO


@pytest.mark.parametrize("model", MODELS)
def test_demo_pins_its_precision(model: str) -> None:
    """Kills: a demo whose result depends on the machine."""
    assert demo_job(model, "").ptm.precision.value == "float32"


@pytest.mark.parametrize("model", MODELS)
def test_demo_has_a_readout(model: str) -> None:
    assert demo_job(model, "").task.columns == demo_job(model, "my.csv").task.columns == "general"
