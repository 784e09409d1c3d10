"""The jobs of `fedbbpt init`: a readout wherever the method can have one."""

import pytest

from fedbbpt.job.config import Job
from fedbbpt.job.recommended import DEFAULT_METHOD, recommended
from fedbbpt.methods import METHODS
from fedbbpt.tasks.general_views import GENERAL_VIEWS


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"fed-sp"}))
def test_black_box_methods_get_a_readout_and_rounds_for_a_search(method: str) -> None:
    job = recommended(method)
    assert (job.method.name, job.task.columns) == (method, "general")
    assert job.task.views == (GENERAL_VIEWS if method == DEFAULT_METHOD else ("",))
    if job.task.prompt.kind != "none":
        assert job.run.rounds > 2 * (job.method.readout.rounds + job.method.readout.every)


def test_a_method_that_trains_a_model_of_its_own_has_the_defaults() -> None:
    assert recommended("fed-sp") == Job.model_validate({"method": {"name": "fed-sp"}})
