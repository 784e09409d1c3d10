"""The options of a model that a command loads: one meaning on every command, and refused where a service decides."""

import pytest

from fedbbpt.cli.terminal.bundles import PtmAccess
from fedbbpt.cli.terminal.model_options import ModelOptions
from fedbbpt.errors import InvalidInput
from fedbbpt.job.config import Job, parse_job
from fedbbpt.types import PrecisionChoice


def test_given_options_replace_the_jobs_and_others_stay() -> None:
    job = parse_job('[ptm]\nmodel = "folder"\nfamily = "causal-lm"\nmax_length = 64')
    changed = ModelOptions(precision=PrecisionChoice.FLOAT32, max_length=0).apply(job)
    assert changed.ptm.options() == {"family": "causal-lm", "device": "cpu", "precision": "float32", "max_length": 0}
    assert ModelOptions().apply(job) == job


@pytest.mark.parametrize(
    ("options", "name"),
    [(ModelOptions(max_length=64), "--max-length"), (ModelOptions(family="causal-lm"), "--family")],
)
def test_options_that_a_jobs_model_lacks_are_refused(options: ModelOptions, name: str) -> None:
    for table in ({"model": "fake"}, {"address": "127.0.0.1:7001"}):
        with pytest.raises(InvalidInput) as raised:
            options.apply(Job.model_validate({"ptm": table}))
        assert raised.value.where == name


def test_a_running_service_has_decided_them_already() -> None:
    options = ModelOptions(device="cuda", max_length=64)
    with pytest.raises(InvalidInput, match="--device, --max-length: a running service has decided this already"):
        options.check_loaded_here(PtmAccess(ptm="127.0.0.1:7001"))
    options.check_loaded_here(PtmAccess())
