"""Codecs that send the largest numbers only are for methods whose updates move a point."""

from typing import Any

import pytest

from fedbbpt.errors import InvalidJob
from fedbbpt.job.config import Job
from fedbbpt.job.settings import run_settings


def settings_of(method: dict[str, Any]) -> str:
    """Returns the codec of a job whose updates are to be sparse."""
    task = {"classes": ["a", "b"], "labels": ["a", "b"]}
    job = Job.model_validate({"method": method, "codec": {"uplink": "topk+int8"}, "task": task})
    return run_settings(job, "run-1").codec


@pytest.mark.parametrize("name", ["fed-bpt", "fed-bbpt", "fedavg-bbt"])
def test_updates_that_move_a_point_may_be_sparse(name: str) -> None:
    assert settings_of({"name": name}) == "topk+int8"


@pytest.mark.parametrize(
    "method",
    [
        {"name": "fed-cma"},
        {"name": "fed-cma", "step": "ranks"},
        {"name": "fed-bpt", "uplink": "ranks", "local_covariance": "identity"},
        {"name": "fed-bbpt", "uplink": "scalars"},
    ],
)
def test_updates_without_a_point_may_not(method: dict[str, Any]) -> None:
    """Kills: losses of which only the largest arrive, which is wrong in silence."""
    what = f"updates of {method['name']} are new in each round, so numbers that do not travel would be lost"
    with pytest.raises(InvalidJob, match=rf'codec.uplink: {what}; "auto", or "rotate\+int8"'):
        settings_of(method)
