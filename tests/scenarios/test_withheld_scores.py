"""Federations whose PTM returns no scores: clients search with losses or classes, or fail at once."""

import hashlib
from pathlib import Path
from typing import Any

import grpc
import pytest

from fedbbpt.errors import OutputWithheld
from fedbbpt.federation.simulation import simulate
from fedbbpt.federation.splits import prepare
from fedbbpt.job.config import Job
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.ptm.tenants.registry import Tenants
from fedbbpt.ptm.tenants.tenants_file import read_tenants
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.types import Output
from fedbbpt.wire.channel import connect
from tests.reports import dev_losses
from tests.tenants import local_ptm, ptm_of
from tests.tiny_run import job

TOKEN = "clinic's"


class Seen(grpc.UnaryUnaryClientInterceptor):
    """Records the kinds of answers that the service sends."""

    def __init__(self) -> None:
        self.answers: set[str | None] = set()

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        call = continuation(client_call_details, request)
        if isinstance(response := call.result(), pb.ScoreResponse):
            self.answers.add(response.WhichOneof("answer"))
        return call


def tenants(folder: Path, output: Output) -> Tenants:
    path = folder / "tenants.toml"
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    path.write_text(f'[[tenant]]\nname = "clinic"\ntoken_sha256 = "{digest}"\noutput = "{output}"\n')
    return read_tenants(path)


@pytest.mark.parametrize(("output", "answer"), [(Output.LOSS_ONLY, "losses"), (Output.LABEL_ARGMAX, "choices")])
def test_loss_falls_though_the_service_sends_no_scores(
    output: Output, answer: str, ptm_servers: Any, data: Path, tmp_path: Path
) -> None:
    port, seen = ptm_servers.start(Engine(Fake(), lambda: 0.0), tenants=tenants(tmp_path, output)), Seen()
    ptm = RemotePtm(grpc.intercept_channel(connect(f"127.0.0.1:{port}", token=TOKEN), seen), send_labels=True)
    result, reports = simulate(prepare(job(data, rounds=10)), ptm, lambda status: None)
    assert seen.answers == {answer}
    assert dev_losses([result.measured])[0] < 0.9 * dev_losses(reports)[0]
    known = [report.dev_accuracy is not None for report in reports]
    assert all(known) if output is Output.LABEL_ARGMAX else not any(known)


def test_losses_lead_to_the_same_prompt_as_scores(data: Path) -> None:
    splits = prepare(job(data))
    by_scores, _ = simulate(splits, local_ptm(Fake()), lambda status: None)
    by_losses, _ = simulate(splits, ptm_of(Fake(), output=Output.LOSS_ONLY), lambda status: None)
    assert by_losses.z.tolist() == pytest.approx(by_scores.z.tolist(), rel=1e-4)


def needing_scores(data: Path) -> list[Job]:
    sections = [job(data, method=method).model_dump() for method in ("fed-cma", "fed-bpt", "fed-cma")]
    sections[0]["method"]["step"] = "newton"
    sections[1]["method"]["perturb_rate"] = 0.5
    sections[2]["task"]["prompt"]["offsets"] = True
    return [Job.model_validate(one) for one in sections]


@pytest.mark.parametrize("index", range(3), ids=["newton", "perturbation", "offsets"])
def test_method_that_needs_scores_fails_at_the_start(index: int, data: Path) -> None:
    with pytest.raises(OutputWithheld, match="the PTM gives loss-only"):
        simulate(prepare(needing_scores(data)[index]), ptm_of(Fake(), output=Output.LOSS_ONLY), lambda status: None)
