"""The codecs of a job: the method's choice, and codecs that its broadcasts cannot have."""

from typing import Any

import pytest

from fedbbpt.errors import InvalidJob
from fedbbpt.job.config import Job
from fedbbpt.job.sections import CodecSection
from fedbbpt.job.settings import run_settings

LABELS = {"labels": ["a", "b"]}


def downlink(method: dict[str, Any], task: dict[str, Any] | None = None, **codec: str) -> str:
    job = Job.model_validate({"method": method, "task": LABELS | (task or {}), "codec": codec})
    return run_settings(job, "run-1").downlink


@pytest.mark.parametrize(
    ("method", "chosen"),
    [
        ({"name": "fed-cma"}, "float32"),
        ({"name": "fed-bpt"}, "float16"),
        ({"name": "fed-bbpt"}, "int8"),
        ({"name": "fedavg-bbt"}, "float16"),
    ],
)
def test_a_method_chooses_the_codec_of_its_broadcasts(method: dict[str, Any], chosen: str) -> None:
    assert downlink(method) == chosen
    assert downlink(method, downlink="float32") == "float32"


def test_a_search_with_a_readout_sends_broadcasts_whole() -> None:
    assert downlink({"name": "fed-bpt"}, {"columns": ["c"]}) == "float32"


@pytest.mark.parametrize(
    ("method", "task", "chosen"),
    [
        ({"name": "fed-cma"}, {}, "float16"),
        ({"name": "fed-cma"}, {"columns": ["c"]}, "float32"),
        ({"name": "fed-cma", "step": "ranks"}, {}, "float32"),
        ({"name": "fed-bpt"}, {}, "float32"),
    ],
)
def test_a_method_chooses_the_codec_of_its_updates(method: dict[str, Any], task: dict[str, Any], chosen: str) -> None:
    job = Job.model_validate({"method": method, "task": LABELS | task})
    assert run_settings(job, "run-1").codec == chosen
    assert run_settings(job.model_copy(update={"codec": CodecSection(uplink="int4")}), "run-1").codec == "int4"


@pytest.mark.parametrize("task", [{}, {"columns": ["c"]}])
def test_a_codec_that_broadcasts_cannot_have_is_refused(task: dict[str, Any]) -> None:
    method = {"name": "fed-bpt"} if task else {"name": "fed-cma"}
    with pytest.raises(InvalidJob, match=r'codec\.downlink: broadcasts of .* are not encoded .*; "auto"'):
        downlink(method, task, downlink="int8")
