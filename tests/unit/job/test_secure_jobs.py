"""Jobs with secure aggregation: what cannot be summed is refused when the job is read, with the reason."""

import pytest

from fedbbpt.errors import InvalidJob
from fedbbpt.job.config import parse_job
from fedbbpt.job.settings import run_settings

SECURE = '[privacy]\naggregation = "secure"\n'
TASK = '[task]\nlabels = ["a", "b"]\n'


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ('[method]\nname = "fed-bpt"\n', "fed-bpt cannot use secure aggregation: its server needs each client's mean"),
        ('[method]\nname = "fed-bbpt"\nuplink = "scalars"\n', "fed-bbpt cannot use secure aggregation"),
        ('[method]\nname = "fed-sp"\n', "fed-sp cannot use secure aggregation: the model's owner"),
        ("[cohort]\nclients = 2\nquorum = 1.0\n", r"cohort.clients: a sum of 2 client\(s\)"),
        ("[cohort]\nclients = 8\nsize = 2\n", r"cohort.size: a sum of 2 client\(s\)"),
        ("[cohort]\nclients = 4096\n", "exceeds the 63 bits of a sum; at most 4095"),
        ("[cohort]\nclients = 8\nsize = 4\nover_sample = 2.0\n", "cohort.over_sample: clients whose answers"),
        ('[codec]\nuplink = "int8"\n', 'codec.uplink: "int8" has no effect'),
        ('[codec]\nuplink = "topk+int8"\n', "a sparse codec sends each client's largest"),
        (
            '[method]\nname = "fedavg-bbt"\n[cohort]\nclients = 8\nmode = "async"\nbuffer = 4\n',
            "cohort.mode: all clients of a sum answer the same round",
        ),
    ],
)
def test_jobs_that_cannot_be_summed_are_refused(tables: str, message: str) -> None:
    with pytest.raises(InvalidJob, match=message):
        parse_job(SECURE + TASK + tables)


@pytest.mark.parametrize("method", ["fed-cma", "fed-readout", "fedavg-bbt"])
def test_linear_methods_are_summed_without_a_codec(method: str) -> None:
    job = parse_job(SECURE.replace("\n", "\nthreshold = 0.75\n", 1) + TASK + f'[method]\nname = "{method}"\n')
    settings = run_settings(job, "run-1")
    assert (settings.secure_threshold, settings.codec) == (0.75, "float32")


@pytest.mark.parametrize("threshold", ["0.5", "1.5"])
def test_a_threshold_is_more_than_half(threshold: str) -> None:
    with pytest.raises(InvalidJob, match="threshold"):
        parse_job(f"{SECURE}threshold = {threshold}\n")
