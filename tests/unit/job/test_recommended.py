"""The jobs of `fedbbpt init`: a readout wherever the method can have one."""

import pytest

from fedbbpt.job.config import Job
from fedbbpt.job.recommended import recommended
from fedbbpt.methods import METHODS


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"fed-sp"}))
def test_black_box_methods_get_a_readout_and_rounds_for_a_search(method: str) -> None:
    job = recommended(method)
    assert (job.method.name, job.task.columns, job.task.views) == (method, "general", ("",))
    if job.task.prompt.kind != "none":
        assert job.run.rounds > 2 * (job.method.readout.rounds + job.method.readout.every)


def test_a_method_that_trains_a_model_of_its_own_has_the_defaults() -> None:
    assert recommended("fed-sp") == Job.model_validate({"method": {"name": "fed-sp"}})
