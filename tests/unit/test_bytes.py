"""What an update and a task weigh: the README's table, and what codecs make of it."""

import re
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.codecs import CODECS
from fedbbpt.config import Job
from fedbbpt.methods import METHODS
from fedbbpt.wire.tensors import bundle

README = (Path(__file__).parents[2] / "README.md").read_text()


def weigh(method: str, codec: str = "float32") -> tuple[int, int]:
    """Bytes of arrays up and down, of one client and round with the default settings."""
    job = Job.model_validate({"method": {"name": method}})
    server = job.entry().server(job.method, job.space())
    update = {name: np.ones(shape) for name, shape in server.expected().items()}
    announced_up, _ = bundle(CODECS[codec].encode(update, np.random.default_rng(0)))
    announced_down, _ = bundle(server.broadcast(server.init(0), 0))
    return announced_up.total_bytes, announced_down.total_bytes


@pytest.mark.parametrize("method", METHODS)
def test_the_table_of_the_readme(method: str) -> None:
    row = next(line for line in README.splitlines() if line.startswith(f"| `{method}`"))
    told = re.search(r"\| (\d+) / (\d+) \|$", row)
    assert told is not None
    assert (int(told[1]), int(told[2])) == weigh(method)


@pytest.mark.parametrize("method", METHODS)
def test_codecs_shorten_the_way_up(method: str) -> None:
    (full, _), (half, _), (quarter, _) = (weigh(method, codec) for codec in ("float32", "float16", "int8"))
    arrays = len(METHODS[method].server(METHODS[method].config(name=method), Job().space()).expected())
    assert half == full / 2
    assert quarter == full / 4 + 4 * arrays
