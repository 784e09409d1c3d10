"""The kit passes services that keep the contract, and names the cases that a broken service fails."""

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias
from xml.etree import ElementTree

import numpy as np
import pytest

from fedbbpt import cli
from fedbbpt.conformance import report
from fedbbpt.conformance.ptm.cases import Case, profiles, read
from fedbbpt.conformance.ptm.relations import RELATIONS
from fedbbpt.conformance.ptm.suite import open_service, run
from fedbbpt.conformance.results import Outcome, Result
from fedbbpt.errors import InvalidInput, PtmUnavailable, Unauthenticated
from fedbbpt.interfaces import Backend
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.models.loading import load
from fedbbpt.ptm.tenants.tenants_file import read_tenants
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.v1 import tensor_pb2
from fedbbpt.wire.tensors import from_message, to_message
from tests.checkpoints import WORDS, save_checkpoint
from tests.relay import Break, Forward, Relay
from tests.slow import slow_except

ROOT = Path(__file__).parents[2]
CASES = {case.name: case for case in read(profiles())}
SLOW = {"core/message-limit"}
PRICE = 'currency = "EUR"\nmicros_per_query = 7\nmicros_per_cached_query = 2\nmicros_per_thousand_tokens = 900\n'
Start: TypeAlias = Callable[..., int]


@pytest.fixture
def start(ptm_servers: Any, tmp_path: Path) -> Start:
    """Starts a service with a tenant for each output. A tenant's name and token are the name of its output."""

    def begin(
        model: str | Backend[Any], outputs: Sequence[str] = ("label-logits", "loss-only"), terms: str = ""
    ) -> int:
        tenants = tmp_path / "tenants.toml"
        digests = {output: hashlib.sha256(output.encode()).hexdigest() for output in outputs}
        tables = [f'[[tenant]]\nname = "{o}"\noutput = "{o}"\ntoken_sha256 = "{d}"\n' for o, d in digests.items()]
        tenants.write_text("\n".join(f"{table}max_queries = 50_000\n{PRICE}{terms}" for table in tables))
        backend = load(model, threads=1) if isinstance(model, str) else model
        engine = Engine(backend, time.monotonic)
        return int(ptm_servers.start(engine, tenants=read_tenants(tenants)))

    return begin


@pytest.fixture
def relay() -> Iterator[Callable[..., int]]:
    relays: list[Relay] = []

    def begin(port: int, broken: Break, **options: Any) -> int:
        relays.append(Relay(port, broken, **options))
        return relays[-1].port

    yield begin
    for one in relays:
        one.stop()


def outcomes(
    port: int, names: Sequence[str] | None = None, outputs: Sequence[str] = ("label-logits", "loss-only")
) -> dict[str, Result]:
    """Returns the results of the named cases, or of all that apply to the card, by their names."""
    with open_service(f"127.0.0.1:{port}", token=outputs[0], other_token=outputs[1]) as service:
        chosen = read(service.profiles()) if names is None else [CASES[name] for name in names]
        return {result.case.name: result for result in run(service, chosen, frozenset(), lambda result: None)}


def failed(results: dict[str, Result]) -> dict[str, str]:
    return {name: result.detail for name, result in results.items() if result.outcome is Outcome.FAILED}


def honest(rpc: str, request: Any, forward: Forward) -> Any:
    return forward(request)


# Services that keep the contract


def test_the_fake_model_passes_all_cases_that_apply(start: Start, relay: Callable[..., int]) -> None:
    results = outcomes(relay(start("fake"), honest))
    assert failed(results) == {}
    passed = {name for name, result in results.items() if result.outcome is Outcome.PASSED}
    assert {"core/message-limit", "core/outputs-agree", "soft/projection-is-the-protocols"} <= passed
    for name in results.keys() - passed:
        case = CASES[name]
        left_out = "label-logits" not in case.outputs or case.inputs == "image" or "labels" in case.needs
        left_out |= name == "soft/zero-in-the-classes-is-their-text"
        assert left_out or case.injections == "unoffered", name


@pytest.mark.parametrize(
    "outputs", [("loss-only", "label-logprobs"), ("label-argmax", "label-logits"), ("label-logprobs", "label-argmax")]
)
def test_services_pass_with_every_output(start: Start, outputs: Sequence[str]) -> None:
    names = [name for name, case in CASES.items() if case.profile == "core" and name not in SLOW]
    results = outcomes(start("fake", outputs), names, outputs)
    assert failed(results) == {}
    assert results["core/outputs-agree"].outcome is Outcome.PASSED


@pytest.mark.parametrize("name", slow_except(["bert-mlm", "bert-classifier", "gpt2", "clip"], "gpt2"))
def test_models_of_several_families_pass(checkpoint: Callable[[str], Path], start: Start, name: str) -> None:
    profile = "vision" if name == "clip" else "soft"
    names = [name for name, case in CASES.items() if case.profile in ("core", profile) and name not in SLOW]
    results = outcomes(start(str(checkpoint(name))), names)
    assert failed(results) == {}
    ours = [result.outcome for result in results.values() if result.case.profile == profile]
    assert ours.count(Outcome.PASSED) > len(ours) / 2


@pytest.mark.parametrize("name", ["bert-encoder", "clip"])
def test_models_that_compare_embeddings_take_prompts_in_the_class_texts(
    checkpoint: Callable[[str], Path], start: Start, name: str
) -> None:
    """Only for tenants whose label tokens are not limited."""
    names = [name for name, case in CASES.items() if case.profile == "soft"]
    results = outcomes(start(str(checkpoint(name)), terms='label_tokens = "all"'), names)
    assert failed(results) == {}
    assert results["soft/zero-in-the-classes-is-their-text"].outcome is Outcome.PASSED
    limited = outcomes(start(str(checkpoint(name))), ["soft/zero-in-the-classes-is-their-text"])
    assert limited["soft/zero-in-the-classes-is-their-text"].outcome is Outcome.SKIPPED


def test_a_service_in_front_of_another_server_passes(tmp_path: Path, start: Start) -> None:
    """The backend asks a real server of OpenAI's protocol over HTTP."""
    pytest.importorskip("torch")
    pytest.importorskip("httpx2")
    from fedbbpt.ptm.models.openai.backend import connect
    from fedbbpt.ptm.models.openai.self_test import WORDS as PROBES
    from tests.openai_server import OpenAIServer

    words = f"{WORDS} {' '.join(PROBES)}"
    server = OpenAIServer(save_checkpoint("gpt2", tmp_path / "gpt2", words=words, max_tokens=96))
    backend = connect(server.name, "", threads=2)
    try:
        names = [name for name, case in CASES.items() if case.profile in ("core", "discrete") and name not in SLOW]
        results = outcomes(start(backend), names)
    finally:
        backend.close()
        server.stop()
    assert failed(results) == {}
    assert results["discrete/prompt-alone"].outcome is Outcome.PASSED


# Services that break it


def floats(message: tensor_pb2.Tensor) -> np.ndarray:
    return np.frombuffer(message.data, "<f4").reshape(tuple(message.shape))


def depends_on_batch(rpc: str, request: Any, forward: Forward) -> Any:
    """Adds a number to the scores that depends on how many prompts a call has."""
    response = forward(request)
    if rpc == "Score":
        scores = from_message(response.scores, where="scores")
        response.scores.CopyFrom(to_message(scores + np.float32(1e-3 * len(scores))))
    return response


def without_key(rpc: str, request: Any, forward: Forward) -> Any:
    if rpc == "Score":
        request.idempotency_key = ""
    return forward(request)


def nan_is_zero(rpc: str, request: Any, forward: Forward) -> Any:
    if rpc == "Score" and request.WhichOneof("prompts") == "soft":
        request.soft.embeddings.data = np.nan_to_num(floats(request.soft.embeddings), posinf=0.0).tobytes()
    return forward(request)


def counts_prompts(rpc: str, request: Any, forward: Forward) -> Any:
    response = forward(request)
    if rpc == "Score":
        response.usage.queries = response.scores.shape[0]
    return response


def bills_wrongly(rpc: str, request: Any, forward: Forward) -> Any:
    response = forward(request)
    if rpc == "Score":
        response.usage.cost_micros *= 2
    return response


def old_budget(rpc: str, request: Any, forward: Forward) -> Any:
    response = forward(request)
    if rpc == "Score":
        response.budget.queries += response.usage.queries
    return response


def other_revision(rpc: str, request: Any, forward: Forward) -> Any:
    response = forward(request)
    if rpc == "Score":
        response.revision = "of yesterday"
    return response


def sorts_classes(rpc: str, request: Any, forward: Forward) -> Any:
    response = forward(request)
    if rpc == "Score":
        response.scores.data = np.sort(floats(response.scores), axis=2).tobytes()
    return response


def sums_losses(rpc: str, request: Any, forward: Forward) -> Any:
    response = forward(request)
    if rpc == "Score" and response.WhichOneof("answer") == "losses":
        response.losses.data = (16 * np.frombuffer(response.losses.data, "<f8")).tobytes()
    return response


def one_seed(rpc: str, request: Any, forward: Forward) -> Any:
    if rpc == "Score" and request.WhichOneof("prompts") == "latent":
        request.latent.projection.seed = 7
    return forward(request)


def no_initial_text(rpc: str, request: Any, forward: Forward) -> Any:
    if rpc == "Score" and request.WhichOneof("prompts") == "latent":
        request.latent.projection.initial_text = ""
    return forward(request)


def ignores_texts(rpc: str, request: Any, forward: Forward) -> Any:
    if rpc == "Score" and request.WhichOneof("prompts") == "text":
        request.text.texts[:] = ["so"] * len(request.text.texts)
    return forward(request)


def ignores_vectors(rpc: str, request: Any, forward: Forward) -> Any:
    if rpc == "Score" and request.WhichOneof("prompts") == "soft":
        request.soft.embeddings.data = bytes(len(request.soft.embeddings.data))
    return forward(request)


def ignores_examples(rpc: str, request: Any, forward: Forward) -> Any:
    response = forward(request)
    if rpc == "Score" and response.WhichOneof("answer") == "scores":
        scores = floats(response.scores)
        response.scores.data = np.repeat(scores[:, :1], scores.shape[1], axis=1).tobytes()
    return response


def never_forgets(rpc: str, request: Any, forward: Forward) -> Any:
    return pb.ReleaseResponse() if rpc == "Release" else forward(request)


def takes_labels(rpc: str, request: Any, forward: Forward) -> Any:
    if rpc == "RegisterExamples":
        for example in request.examples.examples:
            example.ClearField("label")
    return forward(request)


def names_no_handle(rpc: str, request: Any, forward: Forward) -> Any:
    response = forward(request)
    if rpc == "Score":
        response.examples_id = ""
    return response


def never_perturbs(rpc: str, request: Any, forward: Forward) -> Any:
    if rpc == "RegisterExamples":
        request.examples.ClearField("perturbation")
    return forward(request)


def low_limits(rpc: str, request: Any, forward: Forward) -> Any:
    """Reports lower limits than the service enforces."""
    response = forward(request)
    if rpc == "Describe":
        response.max_prompts, response.max_examples, response.max_message_bytes = 9, 40, 4096
    return response


def no_revision(rpc: str, request: Any, forward: Forward) -> Any:
    """Reports a card without a revision."""
    response = forward(request)
    if rpc == "Describe":
        response.revision = ""
    return response


def one_delta(rpc: str, request: Any, forward: Forward) -> Any:
    """Applies the delta of the first image to all images."""
    if rpc == "Score" and request.image.deltas.shape[1:2] not in ([], [1]):
        request.image.deltas.CopyFrom(to_message(floats(request.image.deltas)[:, :1]))
    return forward(request)


def hides_bounds(rpc: str, request: Any, forward: Forward) -> Any:
    """Marks scores as bounds that its usage does not count."""
    response = forward(request)
    if rpc == "Score" and response.HasField("scores"):
        response.bounds.CopyFrom(to_message(np.ones(tuple(response.scores.shape), np.uint8)))
    return response


BROKEN: dict[Break, set[str]] = {
    depends_on_batch: {
        f"core/{name}" for name in ("prompt-alone", "split-prompts", "repeated-prompts", "noise-is-told")
    },
    without_key: {"core/key-gives-the-first-answer", "core/key-of-another-request", "core/key-too-long"},
    nan_is_zero: {"core/tensor-not-finite"},
    counts_prompts: {"core/usage-adds-up", "core/tasks-have-their-own-usage"},
    bills_wrongly: {"core/cost-is-by-the-price", "core/usage-adds-up"},
    old_budget: {"core/budget-is-told"},
    other_revision: {"core/same-revision"},
    sorts_classes: {"core/turned-classes"},
    sums_losses: {"core/outputs-agree"},
    hides_bounds: {"core/bounds-are-counted"},
    one_seed: {"soft/seed-and-z-matter", "soft/projection-is-the-protocols"},
    no_initial_text: {"soft/zero-is-the-text"},
    ignores_texts: {"core/prompts-matter"},
    ignores_vectors: {"core/prompts-matter"},
    ignores_examples: {"core/examples-matter", "core/row-alone"},
    never_forgets: {"core/released-handle", "core/handles-are-counted"},
    takes_labels: {"core/labels-stay-with-the-caller"},
    names_no_handle: {"core/inline-is-handle"},
    never_perturbs: {"core/perturbed"},
    low_limits: {"core/too-many-prompts", "core/too-many-examples", "core/message-limit"},
    no_revision: {"core/card-is-complete", "core/same-revision"},
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_claim_is_caught(start: Start, relay: Callable[..., int], broken: Break) -> None:
    names = sorted(BROKEN[broken])
    found = failed(outcomes(relay(start("fake"), broken), [*names, "core/repeatable"]))
    assert sorted(found) == names


def test_one_delta_for_all_is_caught(start: Start, relay: Callable[..., int], image_classifier: Path) -> None:
    names = [name for name in CASES if name.startswith("vision/")]
    port = start(str(image_classifier))
    assert failed(outcomes(port, names)) == {}
    assert failed(outcomes(relay(port, one_delta), names)).keys() == {"vision/each-example-has-its-delta"}


def test_errors_without_reasons_are_caught(start: Start, relay: Callable[..., int]) -> None:
    names = ["core/unknown-handle", "core/task-of-one-class", "core/no-prompts", "core/tensor-bytes"]
    found = failed(outcomes(relay(start("fake"), honest, plain=True), names))
    assert sorted(found) == sorted(names)
    assert "NOT_FOUND with reason ''" in found["core/unknown-handle"] and "'UnknownExamples'" in found[names[0]]


def test_a_service_that_treats_all_callers_alike_is_caught(start: Start, relay: Callable[..., int]) -> None:
    names = ["core/no-token", "core/examples-are-the-tenants-own", "core/usage-is-the-tenants-own"]
    found = failed(outcomes(relay(start("fake"), honest, token="label-logits"), names))
    assert sorted(found) == sorted(names)
    assert "another tenant can score these examples" in found[names[1]]


def test_the_kit_retries_after_the_delay_that_the_service_asks_for(ptm_servers: Any, tmp_path: Path) -> None:
    clock, pauses = [0.0], list[float]()
    digest = hashlib.sha256(b"token").hexdigest()
    rate = "queries_per_second = 50\nburst_queries = 20"
    (tmp_path / "tenants.toml").write_text(f'[[tenant]]\nname = "slow"\ntoken_sha256 = "{digest}"\n{rate}\n')
    engine = Engine(load("fake"), lambda: clock[0])
    port = ptm_servers.start(engine, tenants=read_tenants(tmp_path / "tenants.toml"))

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        clock[0] += seconds

    with open_service(f"127.0.0.1:{port}", token="token", pause=pause) as service:
        (result,) = run(service, [CASES["core/row-alone"]], frozenset(), lambda result: None)
    assert result.outcome is Outcome.PASSED and pauses and min(pauses) > 0


def test_the_kit_releases_its_handles(start: Start) -> None:
    port = start("fake")
    names = ["core/row-alone", "core/inline-is-handle", "core/released-handle", "core/outputs-agree"]
    assert failed(outcomes(port, names)) == {}
    with open_service(f"127.0.0.1:{port}", token="label-logits", other_token="loss-only") as service:
        assert service.me.target.call("GetUsage", pb.GetUsageRequest()).handles == 0
        assert service.callers["other"].call("GetUsage", pb.GetUsageRequest()).handles == 0


# Services that cannot be tested


def test_an_address_without_a_service_is_unavailable() -> None:
    with pytest.raises(PtmUnavailable, match=r"127\.0\.0\.1:1: connection refused"):
        with open_service("127.0.0.1:1", patience_seconds=0.2):
            pass


def test_a_wrong_token_is_rejected(start: Start) -> None:
    with pytest.raises(Unauthenticated, match="--ptm-token-file"):
        with open_service(f"127.0.0.1:{start('fake')}", token="wrong"):
            pass


def test_a_card_without_prompts_is_rejected(start: Start, relay: Callable[..., int]) -> None:
    def empty(rpc: str, request: Any, forward: Forward) -> Any:
        response = forward(request)
        del response.prompt_kinds[:]
        return response

    with pytest.raises(InvalidInput, match="prompt_kinds: the card lists no kinds of prompts"):
        outcomes(relay(start("fake"), empty), [])


# Cases


def test_cases_name_all_relations_and_no_others() -> None:
    named = {case.relation for case in CASES.values() if case.relation}
    assert named == RELATIONS.keys()
    assert all(case.claim.endswith(".") for case in CASES.values())


def test_cases_on_the_page_equal_the_files() -> None:
    page = (ROOT / "docs/conformance.md").read_text()
    shown = re.findall(r"^```text\n(\[[\w-]+\]\n.*?)^```$", page, re.DOTALL | re.MULTILINE)
    files = [file.read_text() for file in (ROOT / "fedbbpt/conformance/ptm/cases").iterdir()]
    files += [file.read_text() for file in (ROOT / "fedbbpt/conformance/client/cases").iterdir()]
    assert [sum(table in file for file in files) for table in shown] == [1, 1, 1]
    page = page.partition("## Clients")[0]
    named = set(re.findall(rf"\b(?:{'|'.join(profiles())})/[\w-]+", page))
    assert named and named <= CASES.keys()


def test_an_unknown_profile_is_rejected() -> None:
    with pytest.raises(InvalidInput, match="unknown profile 'hard'; one of core, discrete, soft, vision"):
        read(["core", "hard"])


def test_a_case_has_calls_or_a_relation() -> None:
    with pytest.raises(ValueError, match="either calls or a relation"):
        Case(name="core/empty", profile="core", claim="Nothing.")


# Reports


@pytest.fixture
def command(
    start: Start, relay: Callable[..., int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> Callable[..., tuple[int, str]]:
    """Runs `fedbbpt conformance ptm` on a service whose scores depend on the batch.

    Returns its exit code and its standard output.
    """
    port = relay(start("fake"), depends_on_batch)
    (tmp_path / "token").write_text("label-logits\n")

    def ended(*words: str) -> tuple[int, str]:
        service = ("--ptm", f"127.0.0.1:{port}", "--ptm-token-file", str(tmp_path / "token"))
        monkeypatch.setattr(sys, "argv", ["fedbbpt", "conformance", "ptm", *service, "--profile", "discrete", *words])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        return int(exit.value.code or 0), capsys.readouterr().out

    return ended


BAD = ("discrete/prompt-alone", "discrete/split-prompts", "discrete/repeated-prompts")


def test_failures_are_printed_with_their_claims(command: Callable[..., tuple[int, str]]) -> None:
    code, out = command()
    assert code == 8 and "passed   discrete/permuted-prompts" in out
    assert "failed   discrete/prompt-alone: prompt 0 alone and among 4: label-logits differ by up to 0.003" in out
    assert CASES["discrete/prompt-alone"].claim in out
    assert out.splitlines()[-1] == "5 passed, 3 failed"


def test_known_failures_do_not_fail_the_run(command: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text("# batch norm\n\n" + "\n".join(f"{name}  # at work on it" for name in BAD))
    code, out = command("--known-failing", str(known))
    assert code == 0 and out.splitlines()[-1] == "5 passed, 3 failed: known"
    known.write_text("\n".join([*BAD, "discrete/too-long"]))
    code, out = command("--known-failing", str(known))
    assert code == 8 and "passed: unexpected discrete/too-long" in out
    known.write_text("discrete/to-long")
    assert command("--known-failing", str(known))[0] == 3


def test_results_are_written_as_json_and_junit(command: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    junit, known = tmp_path / "junit.xml", tmp_path / "known"
    known.write_text(f"{BAD[0]}\ndiscrete/too-long\n")
    code, out = command("--json", "--junit", str(junit), "--known-failing", str(known))
    told = json.loads(out)
    by_name = {case["name"]: case["outcome"] for case in told["cases"]}
    assert code == 8 and told["conforms"] is False and told["queries"] > 0 and told["profiles"] == ["discrete"]
    assert by_name[BAD[0]] == "failed: known" and by_name[BAD[1]] == "failed"
    (suite,) = ElementTree.parse(junit).getroot()
    assert {key: suite.get(key) for key in ("tests", "failures", "skipped")} == {
        "tests": str(len(by_name)),
        "failures": "3",
        "skipped": "1",
    }
    elements = {case.get("name"): case for case in suite}
    assert elements.keys() == by_name.keys()
    assert elements[BAD[0]].find("skipped") is not None
    assert "differ by up to" in str(elements[BAD[1]].find("failure").get("message"))  # type: ignore[union-attr]  # it failed
    assert elements["discrete/too-long"].find("failure") is not None


def test_the_list_has_the_cases_of_the_profile(command: Callable[..., tuple[int, str]]) -> None:
    code, out = command("--list", "--json")
    assert code == 0
    assert {case["name"] for case in json.loads(out)["cases"]} == {n for n in CASES if n.startswith("discrete/")}
    assert "discrete/unknown-token" in command("--list")[1]


def test_a_summary_counts_the_outcomes() -> None:
    case = CASES["core/healthy"]
    found = [Result(case, outcome, "", 0.0) for outcome in (*Outcome, Outcome.PASSED)]
    assert report.summary(found) == "2 passed, 1 skipped, 1 failed, 1 failed: known, 1 passed: unexpected"
