"""Scores reveal the width of a model's last layer, unless a budget limits the label tokens.

Logits are W h, where h is as wide as the model. Over more columns than that, logits have no more directions than h has.
The singular values of many logits therefore drop sharply at the model's width, and reveal W except for one square
matrix (Carlini et al. 2024, arXiv 2403.06634; Finlayson et al. 2024, arXiv 2403.09539).
"""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fedbbpt.errors import BudgetSpent
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.models.loading import load
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.ptm.tenants.registry import Tenants
from fedbbpt.ptm.tenants.tenant import Tenant
from fedbbpt.types import Examples, SoftPrompts, TaskSpec
from fedbbpt.wire.channel import connect
from tests.checkpoints import WORDS

PAGE = (Path(__file__).parents[2] / "docs/threat-model.md").read_text()
HIDDEN = 32
QUERIES = 80
CLIFF = 100.0
"""A ratio of neighbouring singular values. Random columns of this size have none above 10."""


@pytest.fixture(scope="module")
def backend(checkpoint: Callable[[str], Path]) -> Any:
    return load(str(checkpoint("llama")), threads=1)


@pytest.fixture
def attack(backend: Any, ptm_servers: Any) -> Iterator[Callable[[Tenant], npt.NDArray[np.float64]]]:
    """Returns the singular values of all logits that a tenant gets for as many label words as it may have."""

    def columns(ptm: RemotePtm) -> Iterator[npt.NDArray[np.float64]]:
        prompts = np.random.default_rng(0).normal(0, 1, (QUERIES, 2, HIDDEN)).astype(np.float32)
        words = sorted(set(WORDS.split()))
        for pair in zip(words[::2], words[1::2], strict=False):
            try:
                task_id = ptm.register_task(TaskSpec("{prompt} {text}: {mask}", pair))
            except BudgetSpent:
                return
            handle = ptm.register_examples(task_id, Examples(("who wrote it",)), 2)
            yield ptm.score(handle.id, SoftPrompts(prompts)).scores[:, 0].astype(np.float64)

    def attacked(tenant: Tenant) -> npt.NDArray[np.float64]:
        tenants = Tenants.anyone(tenant)
        port = ptm_servers.start(Engine(backend, time.monotonic, tenants=tenants), tenants=tenants)
        with connect(f"127.0.0.1:{port}") as channel:
            logits = np.concatenate(list(columns(RemotePtm(channel, call_seconds=60.0))), axis=1)
        values: npt.NDArray[np.float64] = np.linalg.svd(logits, compute_uv=False)
        return values

    yield attacked


def told(budget: str) -> tuple[int, float, str]:
    """Returns the page's figures: columns, the largest drop, and after which singular value."""
    row = re.search(rf"^\| {budget} \| (\d+) \| \w+ than ([\d,]+) times \| ([^|]+) \|$", PAGE, re.MULTILINE)
    assert row is not None
    return int(row[1]), float(row[2].replace(",", "")), row[3]


def test_without_a_budget_singular_values_reveal_the_width(attack: Callable[[Tenant], Any]) -> None:
    values = attack(Tenant(name="thief", label_tokens="all"))
    falls = values[:-1] / values[1:]
    assert len(values) > HIDDEN and falls.argmax() + 1 == HIDDEN and falls.max() > CLIFF
    columns, fall, place = told('`"all"`')
    assert columns == len(values) and falls.max() > fall and place == f"{HIDDEN}: the width"


def test_with_the_budget_singular_values_do_not_drop(attack: Callable[[Tenant], Any]) -> None:
    values = attack(Tenant(name="thief"))
    assert 2 <= len(values) < HIDDEN / 4
    assert (values[:-1] / values[1:]).max() < CLIFF
    columns, fall, _ = told("the default")
    assert columns == len(values) and (values[:-1] / values[1:]).max() < fall
