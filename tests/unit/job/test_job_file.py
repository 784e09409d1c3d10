"""Job files that are written from a job."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.job.config import Job, parse_job
from fedbbpt.job.job_file import job_text
from fedbbpt.methods import METHODS
from fedbbpt.types import Injection, ProjectionKind

ADDRESSES = st.sampled_from(["", "127.0.0.1:7001", "[::1]:1", " a:1, b:2", "dns:///hub:1"])
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
LABELS = st.lists(TEXT, max_size=4, unique=True)
POSITIVE = st.floats(1e-300, 1e300)
METHOD: Any = st.one_of(
    st.fixed_dictionaries(
        {"name": st.just("fed-cma"), "sigma": POSITIVE, "step": st.just("ranks"), "covariance": st.just("full")}
    ),
    st.fixed_dictionaries({"name": st.just("fed-bpt"), "perturb_rate": st.floats(0, 1), "common_seed": st.booleans()}),
    st.fixed_dictionaries({"name": st.just("fed-bbpt"), "a": POSITIVE, "generator_seed": st.integers(0, 2**64 - 1)}),
)


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    labels = draw(LABELS)
    classes = draw(st.lists(TEXT, min_size=len(labels), max_size=len(labels))) if labels else []
    prompt = {"initial_text": draw(TEXT), "projection": draw(st.sampled_from(ProjectionKind)), "scale": 0.1 + 0.2}
    prompt["injection"] = draw(st.sampled_from(sorted(set(Injection) - {Injection.CLASS})))
    return Job.model_validate(
        {
            "run": {"seed": draw(st.integers(0, 2**63 - 1))},
            "ptm": {"model": draw(TEXT), "address": draw(ADDRESSES)},
            "task": {"labels": labels, "classes": classes, "template": draw(TEXT), "prompt": prompt},
            "data": {"source": draw(TEXT), "alpha": draw(POSITIVE)},
            "method": draw(METHOD),
        }
    )


@given(jobs())
def test_written_job_reads_as_the_same_job(job: Job) -> None:
    """Kills: texts written with repr, floats written with fixed digits, a control character that TOML forbids."""
    assert parse_job(job_text(job)) == job


@pytest.mark.parametrize("name", METHODS)
def test_default_job_of_each_method_is_read_back(name: str) -> None:
    job = Job.model_validate({"method": {"name": name}})
    assert parse_job(job_text(job)) == job


def test_every_key_has_an_explanation_above_it() -> None:
    lines = job_text(Job()).splitlines()
    for above, line in pairwise(lines):
        if " = " in line and not line.startswith("#"):
            assert above.startswith("# ") and len(above) > 10, line


def test_choices_of_a_key_are_listed() -> None:
    assert "One of dirichlet, iid, shards, column." in job_text(Job())
