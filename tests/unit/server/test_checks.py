"""The check of a run's choices at start-up: which updates can be summed, and which methods contradict themselves."""

from collections.abc import Mapping

import pytest

from fedbbpt.codecs import CODECS
from fedbbpt.errors import InvalidPlugin
from fedbbpt.job.config import Job
from fedbbpt.methods.fed_cma import FedCmaConfig, FedCmaServer
from fedbbpt.optim.cmaes import CmaState
from fedbbpt.server.checks import updates_add
from fedbbpt.types import Orders


@pytest.mark.parametrize(
    ("method", "codec", "additive"),
    [
        ({"name": "fed-cma"}, "float32", True),
        ({"name": "fed-cma"}, "int8", False),
        ({"name": "fed-bpt"}, "float32", False),
        ({"name": "fed-bpt", "uplink": "ranks", "local_covariance": "identity"}, "float32", False),
    ],
    ids=str,
)
def test_updates_add_if_method_is_linear_and_codec_is_additive(
    method: dict[str, str], codec: str, additive: bool
) -> None:
    job = Job.model_validate({"method": method})
    assert updates_add(job.definition().server(job.method, job.space()), CODECS[codec]) is additive


class OrdersThatClaimToAdd(FedCmaServer):
    """A server that says it is linear, although its updates hold orders."""

    def expected(self, state: CmaState) -> Mapping[str, tuple[int, ...] | Orders]:  # type: ignore[override]  # wider on purpose
        return {"losses": (20,), "best": Orders(rows=1, places=5, candidates=20)}


def test_linear_method_with_orders_is_refused() -> None:
    server = OrdersThatClaimToAdd(FedCmaConfig(), Job().space())
    with pytest.raises(InvalidPlugin, match=r"OrdersThatClaimToAdd: the method says that it is linear, .* best"):
        updates_add(server, CODECS["float32"])
