"""The section [privacy]: runs whose guarantee would not hold are refused, with what to change."""

from typing import Any

import pytest

from fedbbpt.errors import InvalidJob
from fedbbpt.job.config import parse_job
from fedbbpt.job.settings import run_settings

NOISE = "[privacy]\nepsilon = 2.0\n"
READOUT = '[task]\nlabels = ["a", "b"]\ncolumns = ["c"]\n'

REFUSED = {
    "unused level": ('[privacy]\nlevel = "example"', "privacy.level", "has no effect without noise"),
    "unused clip norm": ("[privacy]\nclip_norm = 2.0", "privacy.clip_norm", "has no effect without noise"),
    "unknown sensitivity": (NOISE + '[method]\nname = "fed-bpt"', "privacy.epsilon", "it is not known by how much"),
    "white box": (NOISE + '[method]\nname = "fed-sp"', "privacy.epsilon", "it is not known by how much"),
    "robust": (
        NOISE + '[cohort]\nquorum = 1.0\nrobust = "median"\nadversaries = 1',
        "cohort.robust",
        "a defence weighs each update",
    ),
    "batches": (
        NOISE + 'level = "example"\n[method]\nname = "fed-cma"\nbatch_examples = 8',
        "method.batch_examples",
        "an example of a batch stands for several",
    ),
    "coarse codec": (
        NOISE + 'level = "example"\n[codec]\nuplink = "float16"',
        "codec.uplink",
        "rounding to float16 after clipping",
    ),
    "several ridges": (NOISE + READOUT, "method.readout.ridges", "the dev examples would choose"),
    "refit": (
        NOISE + READOUT + '[method]\nname = "fed-readout"\n[method.readout]\nridges = [0.01]',
        "method.refit",
        "would reveal them",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_guarantee_that_would_not_hold_is_refused(case: str) -> None:
    text, key, what = REFUSED[case]
    with pytest.raises(InvalidJob) as error:
        parse_job(text)
    assert f"{key}: " in str(error.value) and what in str(error.value)
    assert error.value.fix


def settings(text: str) -> Any:
    return run_settings(parse_job('[task]\nlabels = ["a", "b"]\n' + text), "run-1")


def test_only_clients_of_a_run_that_protects_examples_clip_and_send_whole_numbers() -> None:
    """Kills: float16 updates of a Newton step, whose rounding the noise does not cover."""
    assert settings("").clip_norm == settings(NOISE).clip_norm == 0.0
    example = settings(NOISE + 'level = "example"\nclip_norm = 0.5')
    assert (example.clip_norm, example.codec) == (0.5, "float32")
    assert settings(NOISE).codec == "float16"
