"""Bytes of updates and broadcasts: the table of the README, and the effect of codecs."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.codecs import CODECS, FORMATS
from fedbbpt.codecs.integers import SHORT
from fedbbpt.interfaces import ServerHalf
from fedbbpt.job.config import Job
from fedbbpt.methods import METHODS
from fedbbpt.types import Array, Orders
from fedbbpt.wire.tensors import bundle

README = (Path(__file__).parents[3] / "README.md").read_text()


def blank(form: tuple[int, ...] | Orders) -> Array:
    return np.zeros((form.rows, form.places), np.uint8) if isinstance(form, Orders) else np.ones(form)


def server_of(method: str, dim: int = 100, **options: Any) -> ServerHalf[Any]:
    """Returns the server's half with default settings except for `options`; a readout is one of 6 of 66 columns."""
    task: dict[str, Any] = {"prompt": {"dim": dim}}
    if method == "fed-readout":
        task = {"labels": [f"class {k}" for k in range(6)], "columns": [f"column {c}" for c in range(60)]}
    job = Job.model_validate({"method": {"name": method, **options}, "task": task})
    return job.definition().server(job.method, job.space())


def array_bytes(method: str, codec: str = "float32", dim: int = 100, **options: Any) -> tuple[int, int]:
    """Returns bytes of arrays up and down for one client and round, with default settings except for `options`."""
    server = server_of(method, dim, **options)
    state = server.init(0)
    update = {name: blank(form) for name, form in server.expected(state).items()}
    announced_up, _ = bundle(CODECS[codec].encode(update, np.random.default_rng(0)))
    announced_down, _ = bundle(server.broadcast(state, 0))
    return announced_up.total_bytes, announced_down.total_bytes


BLACK_BOX = [name for name, method in METHODS.items() if not method.white_box]


@pytest.mark.parametrize("method", BLACK_BOX)
def test_bytes_are_those_of_the_readme(method: str) -> None:
    row = next(line for line in README.splitlines() if line.startswith(f"| `{method}`"))
    told = re.search(r"\| (\d+) / (\d+) \|$", row)
    assert told is not None
    assert (int(told[1]), int(told[2])) == array_bytes(method)


@pytest.mark.parametrize("method", BLACK_BOX)
def test_codecs_shrink_updates(method: str) -> None:
    full, half, upper, byte, nibble = (array_bytes(method, format)[0] for format in FORMATS)
    server = server_of(method)
    sizes = [blank(form).size for form in server.expected(server.init(0)).values()]
    long = [size for size in sizes if size >= SHORT]
    assert full == 4 * sum(sizes)
    assert half == upper == 2 * sum(sizes)
    assert byte == full - sum(4 * size - (4 + size) for size in long)
    assert nibble == full - sum(4 * size - (4 + -(-size // 2)) for size in long)


def test_fed_bpt_at_the_size_of_the_paper_sends_two_kilobytes_or_twenty_bytes() -> None:
    ranks = {"uplink": "ranks", "local_covariance": "identity"}
    assert array_bytes("fed-bpt", dim=500) == (4 * (500 + 1 + 8), 4 * (500 + 1))
    assert array_bytes("fed-bpt", dim=500, **ranks) == (8 * 2 + 4, 4 * (500 + 1))
    assert array_bytes("fed-bpt", codec="float16", dim=500, **ranks)[0] == 8 * 2 + 2
