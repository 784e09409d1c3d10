"""The same job as real processes, over gRPC, and in one process without a network: the same prompt, bit for bit."""

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedbbpt.codecs import CODECS
from fedbbpt.federation.run_folder import METRICS, PROMPT, SUMMARY
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.job.config import Job
from fedbbpt.job.job_file import job_text
from fedbbpt.methods import METHODS
from fedbbpt.methods.fed_bpt import FedBptConfig
from fedbbpt.methods.fed_cma import FedCmaConfig
from tests.federation import AdvancingLoop, OverGrpc
from tests.slow import slow_except
from tests.tiny_run import CLIENTS, Course, fake_ptm, job, job_of_prefixes, job_of_words, secure, undisturbed

BLACK_BOX = [name for name, method in METHODS.items() if not method.white_box]
COMBINATIONS = [(m, c) for m in BLACK_BOX for c in CODECS if m != "fed-readout" or c == "float32"]
"""All methods with all codecs that they can be used with."""
EACH_ONCE = [
    *zip(itertools.cycle([name for name in BLACK_BOX if name != "fed-readout"]), CODECS),
    ("fed-readout", "float32"),
]
"""Each method, and each codec, with one of the others."""
TIMED = {"seconds", "bytes_up", "bytes_down", "bytes_up_per_client_round", "bytes_down_per_client_round"}


@pytest.mark.parametrize(("method", "codec"), slow_except(COMBINATIONS, *EACH_ONCE))
def test_clients_over_grpc_end_with_the_simulated_prompt(
    data: Path, tmp_path: Path, server_loop: AdvancingLoop, method: str, codec: str
) -> None:
    splits = prepare(job(data, method=method, codec=codec))
    assert course_over_grpc(splits, tmp_path, server_loop) == undisturbed(splits)


@pytest.mark.parametrize("method", ["fed-cma", "fed-readout"])
def test_sums_of_masked_updates_over_grpc_lead_to_the_simulated_prompt(
    data: Path, tmp_path: Path, server_loop: AdvancingLoop, method: str
) -> None:
    splits = prepare(secure(job(data, method=method)))
    course = course_over_grpc(splits, tmp_path, server_loop)
    assert course == undisturbed(splits)
    plain = undisturbed(prepare(job(data, method=method)))
    for report, other in zip(course.reports, plain.reports, strict=True):
        assert report.train_loss == pytest.approx(other.train_loss, abs=1e-6)
        assert (report.queries, report.dev_examples) == (other.queries, other.dev_examples)


@pytest.mark.parametrize(("method", "rule"), [("fed-cma", "clip"), ("fedavg-bbt", "trimmed"), ("fedavg-bbt", "median")])
def test_updates_that_a_rule_combines_lead_to_the_simulated_prompt(
    data: Path, tmp_path: Path, server_loop: AdvancingLoop, method: str, rule: str
) -> None:
    """Clients of fed-cma replay the step, whose news follow from the combined update."""
    tiny = job(data, method=method).model_dump()
    tiny["cohort"] |= {"robust": rule, "adversaries": 1, "quorum": 1.0}
    splits = prepare(Job.model_validate(tiny))
    assert course_over_grpc(splits, tmp_path, server_loop) == undisturbed(splits)


@pytest.mark.parametrize(("method", "codec"), [("fed-bpt", "topk+int8"), ("fedavg-bbt", "topk+float16")])
def test_sparse_updates_and_broadcasts_over_grpc_lead_to_the_simulated_prompt(
    data: Path, tmp_path: Path, server_loop: AdvancingLoop, method: str, codec: str
) -> None:
    sections = job(data, method=method).model_dump() | {"codec": {"uplink": codec, "downlink": codec, "kept": 0.4}}
    splits = prepare(Job.model_validate(sections))
    assert course_over_grpc(splits, tmp_path, server_loop) == undisturbed(splits)


@pytest.mark.parametrize("codec", slow_except(CODECS, "int8"))
def test_orders_over_grpc_lead_to_the_simulated_prompt(
    data: Path, tmp_path: Path, server_loop: AdvancingLoop, codec: str
) -> None:
    ranks = FedBptConfig(local_iterations=2, sigma=0.5, local_covariance="diagonal", uplink="ranks", norm_limit=1.0)
    splits = prepare(job(data, codec=codec).model_copy(update={"method": ranks}))
    assert course_over_grpc(splits, tmp_path, server_loop) == undisturbed(splits)


@pytest.mark.parametrize("codec", slow_except(CODECS, "int8"))
def test_newton_steps_over_grpc_lead_to_the_simulated_prompt(
    data: Path, tmp_path: Path, server_loop: AdvancingLoop, codec: str
) -> None:
    plain = job(data, codec=codec)
    task = plain.task.model_copy(update={"prompt": plain.task.prompt.model_copy(update={"offsets": True})})
    newton = FedCmaConfig(step="newton", population=4, sigma=0.5)
    splits = prepare(plain.model_copy(update={"task": task, "method": newton}))
    assert course_over_grpc(splits, tmp_path, server_loop) == undisturbed(splits)


@pytest.mark.parametrize("method", slow_except(["fed-cma", "fed-bpt", "fed-bbpt"], "fed-cma"))
def test_searches_with_a_readout_over_grpc_lead_to_the_simulated_prompt(
    data: Path, tmp_path: Path, server_loop: AdvancingLoop, method: str
) -> None:
    sections = job(data, rounds=12, method=method).model_dump()
    sections["task"] |= {"columns": ("person", "thing"), "views": ("", "In short:")}
    sections["method"] |= {"readout": {"rounds": 4, "every": 2}}
    splits = prepare(Job.model_validate(sections))
    course = course_over_grpc(splits, tmp_path, server_loop)
    assert course == undisturbed(splits)
    assert len({report.dev_loss for report in course.reports}) > 3


@pytest.mark.parametrize(("codec", "size"), [("float32", 0), ("float16", 1), ("rotate+int8", 2)])
def test_words_over_grpc_lead_to_the_simulated_prompt(
    data: Path, tmp_path: Path, server_loop: AdvancingLoop, codec: str, size: int
) -> None:
    splits = prepare(job_of_words(job(data, codec=codec), size=size))
    assert course_over_grpc(splits, tmp_path, server_loop) == undisturbed(splits)


@pytest.mark.parametrize("codec", slow_except(CODECS, "int8"))
def test_batches_over_grpc_lead_to_the_simulated_prompt(
    data: Path, tmp_path: Path, server_loop: AdvancingLoop, codec: str
) -> None:
    """With samples of the dev examples in every other round, two clients in a round, and all of them in the last."""
    plain = job(data, codec=codec, rounds=6)
    method = plain.method.model_copy(update={"batch_examples": 4, "dev_every": 2})
    cohort = plain.cohort.model_copy(update={"size": 2})
    splits = prepare(plain.model_copy(update={"method": method, "cohort": cohort}))
    course = course_over_grpc(splits, tmp_path, server_loop)
    assert course == undisturbed(splits)
    assert course.clients == [2] * 6 + [CLIENTS]
    assert [report.dev_examples for report in course.reports] == [8, 0, 8, 0, 8, 0, 30]


def course_over_grpc(splits: Splits, tmp_path: Path, server_loop: AdvancingLoop) -> Course:
    federation = OverGrpc(splits, tmp_path / "run.db", server_loop)

    def work(index: int) -> None:
        client = federation.client(index, ptm=fake_ptm())
        client.agent.run(client.link, wait=lambda: None)

    with ThreadPoolExecutor(CLIENTS) as threads:
        list(threads.map(work, range(CLIENTS)))
    course = federation.course()
    federation.close()
    return course


@pytest.mark.parametrize(("method", "codec"), slow_except(EACH_ONCE, EACH_ONCE[0]))
def test_processes_end_with_the_simulated_prompt(data: Path, tmp_path: Path, method: str, codec: str) -> None:
    check_processes(job(data, method=method, codec=codec), tmp_path)


@pytest.mark.slow
def test_processes_with_one_client_a_round_find_the_simulated_words(data: Path, tmp_path: Path) -> None:
    check_processes(job_of_words(job(data), size=1), tmp_path)


@pytest.mark.slow
def test_processes_that_train_models_end_with_the_simulated_prompt(
    data: Path, tmp_path: Path, checkpoint: Callable[[str], Path]
) -> None:
    check_processes(job_of_prefixes(job(data, rounds=1, clients=1), checkpoint("llama")), tmp_path)


def check_processes(job: Job, tmp_path: Path) -> None:
    """Both commands leave the same files, except for times and bytes."""
    job_file = tmp_path / "job.toml"
    job_file.write_text(job_text(job))
    for command in ("run", "simulate"):
        arguments = [command, str(job_file), "--out", str(tmp_path / command), "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "fedbbpt", *arguments], capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == json.loads((tmp_path / command / SUMMARY).read_text())
    run, simulated = tmp_path / "run", tmp_path / "simulate"
    assert (run / PROMPT).read_bytes() == (simulated / PROMPT).read_bytes()
    for name in (SUMMARY, METRICS):
        assert _timeless(run / name) == _timeless(simulated / name)


def _timeless(path: Path) -> list[dict[str, object]]:
    text = path.read_text()
    objects = map(json.loads, text.splitlines() if path.suffix == ".jsonl" else [text])
    return [{name: value for name, value in each.items() if name not in TIMED} for each in objects]
