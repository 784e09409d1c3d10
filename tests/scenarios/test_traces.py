"""One trace of each round across coordinator, clients and PTM, each a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedbbpt.job.job_file import job_text
from fedbbpt.wire import tracing
from tests.otlp_collector import attributes, collector
from tests.tiny_run import CLIENTS, job, write_data

ROUNDS = 2


@pytest.mark.slow
def test_a_round_is_one_trace_of_three_roles(tmp_path: Path) -> None:
    text = job_text(job(write_data(tmp_path / "data"), rounds=ROUNDS))
    with collector() as found:
        (tmp_path / "job.toml").write_text(text.replace('otlp = ""', f'otlp = "{found.url}"'))
        command = [sys.executable, "-m", "fedbbpt", "run", str(tmp_path / "job.toml"), "--out", str(tmp_path / "run")]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=200)
        spans = found.spans
        # The sink has told the figures of the same run.
        assert found.values("fedbbpt.round.round")[-1] == ROUNDS
        assert found.values("fedbbpt.summary.clients") == [CLIENTS]
    roots = [span for service, span in spans if span.name == "round" and service == "fedbbpt-coordinator"]
    assert [attributes(span)["fedbbpt.round"] for span in roots] == [str(number) for number in range(ROUNDS + 1)]
    assert len({span.trace_id for span in roots}) == len(roots)
    for root in roots:
        trace = [(service, span) for service, span in spans if span.trace_id == root.trace_id]
        assert {service for service, _ in trace} == {"fedbbpt-coordinator", "fedbbpt-client", "fedbbpt-ptm"}
        tasks = [span for service, span in trace if (service, span.name) == ("fedbbpt-client", "task")]
        assert len({attributes(task)["fedbbpt.client"] for task in tasks}) == CLIENTS
        assert all(task.parent_span_id == root.span_id for task in tasks)
        known = {span.span_id: span.name for _, span in trace}
        answers = [span for service, span in trace if service == "fedbbpt-ptm"]
        assert answers and all(known[span.parent_span_id] == "ask the PTM" for span in answers)
        assert "Score" in {span.name for span in answers}


def test_nothing_is_imported_or_sent_without_a_collector() -> None:
    tracing.start("client")()
    assert not tracing.recording()
    assert tracing.metadata() is None
    code = (
        "import sys, fedbbpt.cli, fedbbpt.client.agent, fedbbpt.server.service, fedbbpt.ptm.server\n"
        "from fedbbpt.wire import tracing\n"
        "tracing.start('client')\n"
        "with tracing.span('task'): pass\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    environment = {name: value for name, value in os.environ.items() if name != tracing.ENDPOINT}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def test_a_malformed_traceparent_begins_a_trace_of_its_own() -> None:
    with collector() as found:
        stop = tracing.start("client", found.url)
        for parent in ("nonsense", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", "x" * 10_000):
            with tracing.span("task", parent):
                assert tracing.metadata() is not None
        stop()
        assert len({span.trace_id for _, span in found.spans}) == 3
