"""Models of a server that speaks OpenAI's protocol: a real one, on loopback, with the logits of a tiny checkpoint."""

import dataclasses
import itertools
import json
import logging
import math
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fedbbpt.errors import (
    BudgetSpent,
    FedbbptError,
    InsecureAddress,
    InvalidExamples,
    InvalidInput,
    InvalidTask,
    PromptTooLong,
    PtmUnavailable,
    RateLimited,
    RevisionChanged,
    ScoreUnavailable,
    Unauthenticated,
    UnsupportedPrompt,
    WrongService,
)
from fedbbpt.federation.column_choice import with_columns
from fedbbpt.job.config import Job
from fedbbpt.job.settings import task_spec
from fedbbpt.ptm.models.loading import load
from fedbbpt.tasks.general_columns import GENERAL_WORDS
from fedbbpt.types import Examples, Perturbation, PromptKind, Scores, SoftPrompts, TaskSpec, TextPrompts
from tests import jobs
from tests.checkpoints import WORDS, save_checkpoint
from tests.tenants import local_ptm

pytest.importorskip("transformers")
pytest.importorskip("httpx2")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fedbbpt.limits import MAX_ANSWER_BYTES
from fedbbpt.ptm.models.openai.backend import OpenAICompatible, connect
from fedbbpt.ptm.models.openai.chat import PROBES as CHAT_PROBES
from fedbbpt.ptm.models.openai.completions import PROBES
from fedbbpt.ptm.models.openai.filled_template import TemplateFiller
from fedbbpt.ptm.models.template import parse
from fedbbpt.wire.addresses import Server
from fedbbpt.wire.proxies import resolves_to_this_machine
from tests.openai_server import Behaviour, OpenAIServer
from tests.slow import slow_except

DIALECTS = ("vllm", "sglang", "llama.cpp", "openai")
PROMPT_FIRST, PROMPT_LAST = "{prompt} {text} It was {mask}", "{text} the {prompt} {mask}"
TASK = TaskSpec("{prompt} {text} It was {mask}", ("bad", "great", "fine"))
TEXTS = ("the film was very good", "dull", "who wrote this long book", "a story", "where is paris")
PROMPTS = TextPrompts(("which kind of story", "so", ""))
KNOWN_WORDS = tuple(word for word in GENERAL_WORDS if word in (*WORDS.split(), *" ".join(PROBES).split()))
"""The general words that the checkpoint has as single tokens."""

Refusal = tuple[int, dict[str, str], bytes]
Start = Callable[..., OpenAICompatible]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = f"{WORDS} {' '.join(PROBES)} {' '.join(' '.join(probe) for probe in CHAT_PROBES)}"
    return save_checkpoint("gpt2", tmp_path_factory.mktemp("openai") / "gpt2", words=words, max_tokens=96)


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[OpenAIServer]:
    server = OpenAIServer(folder)
    yield server
    server.stop()


@pytest.fixture
def server(running: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> OpenAIServer:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    running.behaviour = Behaviour()
    running.requests.clear()
    return running


@pytest.fixture
def pauses() -> list[float]:
    """Collects the seconds of all pauses before retries."""
    return []


@pytest.fixture
def start(server: OpenAIServer, pauses: list[float]) -> Iterator[Start]:
    """Starts backends for the server, after its behaviour is set."""
    started: list[OpenAICompatible] = []

    def begin(key: str = "", threads: int = 2, *, chat: bool = False, **behaviour: Any) -> OpenAICompatible:
        for name, value in behaviour.items():
            setattr(server.behaviour, name, value)
        started.append(connect(server.chat_name if chat else server.name, key, threads=threads, pause=pauses.append))
        server.requests.clear()
        return started[-1]

    yield begin
    for backend in started:
        backend.close()


def ask(backend: Any, task: TaskSpec = TASK, prompts: TextPrompts = PROMPTS) -> Scores:
    backend.check(task)
    return jobs.score(backend, task, prompts, backend.prepare(task, Examples(TEXTS), 8, None))


def softmax(scores: Scores) -> npt.NDArray[np.float64]:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True).astype(np.float64))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def refusal(status: int, error: str = "", **headers: str) -> Refusal:
    return status, headers, json.dumps({"error": {"message": error, "code": error}}).encode()


# Scores


@pytest.mark.parametrize(
    ("dialect", "template"),
    slow_except(
        itertools.product(DIALECTS, (PROMPT_FIRST, PROMPT_LAST)),
        *zip(DIALECTS, (PROMPT_FIRST, PROMPT_LAST) * 2, strict=True),
    ),
)
def test_distribution_over_the_classes_is_that_of_the_model(
    start: Start, folder: Path, dialect: str, template: str
) -> None:
    """Kills: a label without its space; logits of another token; choices out of order; prompts glued to texts."""
    task, prompts = TaskSpec(template, TASK.classes), TextPrompts(("which kind of story", "so"))
    theirs = ask(load(str(folder), threads=1), task, prompts)
    ours = ask(start(dialect=dialect), task, prompts)
    assert np.abs(softmax(ours) - softmax(theirs)).max() < 1e-4
    assert (np.exp(ours).sum(axis=-1) < 1).all(), "measured against the whole vocabulary"


def test_vllm_is_asked_for_label_words_and_others_for_the_likeliest_tokens(start: Start, server: OpenAIServer) -> None:
    ask(start())
    assert all(len(body["logprob_token_ids"]) == 3 and body["logprobs"] == 1 for body in server.completions())
    server.requests.clear()
    ask(start(dialect="openai"))
    assert all("logprob_token_ids" not in body and body["logprobs"] == 1000 for body in server.completions())


def test_pair_scores_the_same_in_any_batch_and_order(start: Start, server: OpenAIServer) -> None:
    backend = start(threads=1)
    assert backend.describe().score_noise == 0.0
    together = ask(backend)
    rows = backend.prepare(TASK, Examples(TEXTS), 8, None)
    for p, b in np.ndindex(together.shape[:2]):
        alone = jobs.score(backend, TASK, TextPrompts(PROMPTS.texts[p : p + 1]), rows[b : b + 1])
        assert np.array_equal(alone[0, 0], together[p, b])
    several = [body for body in server.completions() if isinstance(body["prompt"], list)]
    assert sum(len(body["prompt"]) for body in several) == together.shape[0] * together.shape[1]


def test_pairs_of_one_request_begin_alike(start: Start) -> None:
    backend, wanted = start(threads=1), np.ones((8, 10), bool)
    for template, same in (("{prompt} {text} is {mask}", "prompts"), ("{text} {prompt} is {mask}", "rows")):
        task = TaskSpec(template, TASK.classes)
        rows = backend.prepare(task, Examples(TEXTS * 2), 8, None)
        job = backend.job(task, TextPrompts(tuple("abcdefgh")), rows, wanted)
        inside = sum(len(np.unique(getattr(batch, same))) for batch in job.batches)
        other = {"prompts": "rows", "rows": "prompts"}[same]
        assert inside < sum(len(np.unique(getattr(batch, other))) for batch in job.batches)


def test_server_that_takes_one_text_per_request_gets_one(start: Start, server: OpenAIServer) -> None:
    scores = ask(start())
    alone = start(first_text_only=True)
    assert np.array_equal(ask(alone), scores)
    assert all(isinstance(body["prompt"], str) for body in server.completions()[-len(TEXTS) * 3 :])


def test_only_wanted_pairs_are_requested(start: Start, server: OpenAIServer) -> None:
    backend = start()
    rows = backend.prepare(TASK, Examples(TEXTS), 8, None)
    wanted = np.zeros((3, 5), bool)
    wanted[1, 2] = wanted[2, 4] = True
    scores = jobs.run(backend, backend.job(TASK, PROMPTS, rows, wanted), (3, 5, 3))
    assert np.array_equal(np.isfinite(scores).all(axis=2), wanted)
    assert sorted(body["prompt"] for body in server.completions()) == [
        " where is paris It was",
        "so who wrote this long book It was",
    ]
    nothing = backend.job(TASK, PROMPTS, rows, np.zeros((3, 5), bool))
    assert not nothing.batches


def test_engine_scores_and_caches_pairs_of_the_server(start: Start, server: OpenAIServer) -> None:
    ptm = local_ptm(start())
    handle = ptm.register_examples(ptm.register_task(TASK), Examples(TEXTS), 8)
    first = ptm.score(handle.id, PROMPTS)
    before = len(server.completions())
    again = ptm.score(handle.id, PROMPTS)
    assert np.array_equal(again.scores, first.scores) and np.isfinite(first.scores).all()
    assert (first.usage.queries, again.usage.cached_queries) == (15, 15) and len(server.completions()) == before
    ptm.engine.close()


@pytest.fixture
def told(server: OpenAIServer) -> Callable[..., None]:
    """Lets the server tell the same tokens after every text, by text and log-probability."""

    def tell(texts: int, **tokens: float) -> None:
        listed = [{"token": name.replace("_", " "), "logprob": value} for name, value in tokens.items()]
        choice = {"text": "", "message": {"content": ""}, "logprobs": {"content": [{"top_logprobs": listed}]}}
        choices = [{"index": index, **choice} for index in range(texts)]
        answer = {"model": "tiny", "system_fingerprint": "fp_1", "choices": choices}
        server.behaviour.body = json.dumps(answer).encode()

    return tell


Told = Callable[..., None]


def test_untold_label_word_scores_by_its_bound(
    start: Start, server: OpenAIServer, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    """Kills: a probability of 0; a bound above the rest of the mass, or above the least told token; no mark."""
    ptm = local_ptm(start(dialect="openai", threads=1))
    handle = ptm.register_examples(ptm.register_task(TASK), Examples(TEXTS[:1]), 8)
    told(1, _bad=math.log(0.6), _great=math.log(0.3))
    first = ptm.score(handle.id, TextPrompts(("so",)))
    assert first.bounds is not None and first.bounds.tolist() == [[[False, False, True]]]
    assert np.allclose(np.exp(first.scores[0, 0]), [0.6, 0.3, 0.1], atol=1e-6), "the rest of the mass is smaller"
    told(1, _bad=math.log(0.5), _great=math.log(0.01))
    second = ptm.score(handle.id, TextPrompts(("which",)))
    assert np.allclose(np.exp(second.scores[0, 0]), [0.5, 0.01, 0.01]), "the least told token is smaller"
    cached = ptm.score(handle.id, TextPrompts(("which", "so")))
    assert cached.bounds is not None and cached.bounds[:, 0].tolist() == [[False, False, True]] * 2
    assert cached.usage.cached_queries == 2 and cached.usage.bounded_scores == 2
    assert ptm.usage().bounded_scores == 4
    assert [record.message for record in caplog.records if "only bounds" in record.message] == [
        "1 scores are only bounds so far: the model's server did not tell the label words' probabilities"
    ]
    ptm.engine.close()


def test_call_of_which_nothing_is_known_is_refused(start: Start, told: Told) -> None:
    ptm = local_ptm(start(dialect="openai", threads=1))
    handle = ptm.register_examples(ptm.register_task(TASK), Examples(TEXTS[:1]), 8)
    told(1, _book=math.log(0.5))
    with pytest.raises(ScoreUnavailable, match="only bounds are known of all label words for 1 of 1 pairs"):
        ptm.score(handle.id, TextPrompts(("so",)))
    assert ptm.usage().queries == 1, "the call is charged for"
    ptm.engine.close()


def test_missing_label_word_is_looked_for_deeper(start: Start, server: OpenAIServer) -> None:
    """Kills: a bound where the server would have told the score."""
    exact = ask(start(dialect="llama.cpp"))
    backend = start(dialect="llama.cpp")
    backend._form = dataclasses.replace(backend._form, top_logprobs=2, most_logprobs=1000)
    assert np.array_equal(ask(backend), exact)
    assert {body["logprobs"] for body in server.completions()[-len(TEXTS) * 3 :]} >= {1000}


# Chat completions


def test_chat_scores_are_those_of_the_messages(start: Start, server: OpenAIServer, folder: Path) -> None:
    """Kills: a prompt in the wrong message; a class whose other spellings are left out."""
    task = TaskSpec("{prompt}\n{text} It was {mask}", TASK.classes)
    ours = ask(start(chat=True), task, TextPrompts(("so",)))
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    shown = [tokenizer.decode([token]).strip().casefold() for token in range(model.config.vocab_size)]
    with torch.inference_mode():
        for index, text in enumerate(TEXTS):
            ids = torch.tensor([tokenizer(f" so {text} It was")["input_ids"]])
            likely = model(ids).logits[0, -1].softmax(-1)
            spelled = [np.array([token == word for token in shown]) for word in TASK.classes]
            theirs = [likely.numpy()[mine].sum() for mine in spelled]
            assert np.allclose(np.exp(ours[0, index]), theirs, rtol=1e-4)
    messages = [[(one["role"], one["content"]) for one in body["messages"]] for body in server.completions()]
    assert [("system", "so"), ("user", "dull It was")] in messages


@pytest.mark.parametrize(
    ("template", "prompt", "messages"),
    [
        ("Judge. {prompt}\nReview: {text}", "Be kind.", ("Judge. Be kind.", "Review: dull")),
        ("Judge. {prompt}\nReview: {text}", "", ("Judge.", "Review: dull")),
        ("{prompt} {text}", "", ("", "dull")),
        ("{text} {prompt} {mask}", "Be kind.", ("", "dull Be kind.")),
        ("{text}", "Be kind.", ("Be kind.", "dull")),
    ],
)
def test_template_is_divided_after_the_prompt(template: str, prompt: str, messages: tuple[str, str]) -> None:
    row = TemplateFiller(parse(TaskSpec(template, ("good", "bad"))), len).fill("dull", "", 99, 0)
    assert row.messages(prompt) == messages


def test_spellings_of_a_chat_answer_are_added(start: Start, told: Told) -> None:
    backend = start(chat=True, dialect="openai", threads=1)
    rows = backend.prepare(TASK, Examples(TEXTS[:1]), 8, None)
    told(1, Bad=math.log(0.4), _bad=math.log(0.2), bad=math.log(0.1), great=math.log(0.04), book=math.log(0.001))
    job = backend.job(TASK, TextPrompts(("so",)), rows, np.ones((1, 1), bool))
    found = job.run(job.batches[0])
    assert np.allclose(np.exp(found[0, 0, :2]), [0.7, 0.04], atol=1e-6)
    assert found[0, 1].tolist() == [0, 0, 1], "fine has a bound: four spellings of at most 0.001 each"
    assert np.isclose(np.exp(found[0, 0, 2]), 0.004)


@pytest.mark.parametrize(
    "behaviour",
    [
        {"output_limit": "max_completion_tokens"},
        {"reasons": "unless switched off", "dialect": "vllm"},
    ],
    ids=["max_completion_tokens", "thinks"],
)
def test_chat_variants_score_alike(start: Start, server: OpenAIServer, behaviour: dict[str, Any]) -> None:
    task = TaskSpec("{prompt}\n{text} It was {mask}", TASK.classes)
    plain = ask(start(chat=True, dialect="openai"), task)
    assert np.array_equal(ask(start(chat=True, **behaviour), task), plain)


def test_model_without_system_messages_gets_them_from_the_user(start: Start, server: OpenAIServer) -> None:
    ask(start(chat=True, has_system_role=False), TaskSpec("{prompt}\n{text}", TASK.classes))
    sent = [body["messages"] for body in server.completions()]
    assert [{"role": "user", "content": "so\n\ndull"}] in sent and all(len(messages) == 1 for messages in sent)


def test_model_that_reasons_first_is_refused(start: Start) -> None:
    with pytest.raises(ScoreUnavailable, match=r"reasons before it answers.*without reasoning"):
        start(chat=True, reasons="always")


def test_chat_class_of_two_tokens_or_of_one_spelling_is_refused(start: Start) -> None:
    backend = start(chat=True)
    with pytest.raises(InvalidTask, match="'good film' is not one token"):
        backend.check(TaskSpec("{prompt} {text}", ("bad", "good film")))
    with pytest.raises(InvalidTask, match="two label words are the same"):
        backend.check(TaskSpec("{prompt} {text}", ("bad", "Bad")))
    with pytest.raises(InvalidTask, match=r"before the end.* or none"):
        backend.check(TaskSpec("{prompt} {mask} {text}", ("bad", "good")))


def test_loopback_server_is_never_asked_through_a_proxy(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert np.isfinite(ask(start(key="secret"))).all()


def test_the_name_of_this_machine_leads_to_no_proxy(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    name = socket.gethostname()
    if not resolves_to_this_machine(Server(name, 80)):
        pytest.skip("this machine's name does not lead to loopback alone")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    backend = connect(server.name.replace("127.0.0.1", name), "", threads=1)
    backend.close()


# The card and the limits


def test_card_describes_model_and_server(start: Start, server: OpenAIServer) -> None:
    card = start().describe()
    assert (card.model, card.family, card.prompt_kinds) == ("tiny", "openai-compatible", frozenset({PromptKind.TEXT}))
    assert card.max_tokens == 95 and server.url not in str(card)
    assert start(threads=3).describe() == card
    assert start(fingerprint="fp_2").describe().revision != card.revision
    assert start(max_model_len=None).describe().max_tokens == 2047


def test_long_texts_are_truncated_at_their_end_only(start: Start, server: OpenAIServer) -> None:
    for dialect, least in (("vllm", 80), ("openai", 50)):
        backend = start(dialect=dialect)
        endless = "good story " * 200
        (row,) = backend.prepare(TASK, Examples((endless,)), 5, None)
        text = row.text("")
        assert text.endswith(" It was") and endless.startswith(text.removesuffix(" It was").lstrip())
        assert least <= backend.tokens(row) <= 90
        jobs.score(backend, TASK, TextPrompts(("which kind",)), [row])
        with pytest.raises(PromptTooLong, match="at most 95 together"):
            jobs.score(backend, TASK, TextPrompts(("very " * 40,)), [row])
        with pytest.raises(PromptTooLong, match="leave no room"):
            backend.prepare(TASK, Examples((endless,)), 93, None)
    backend = start(max_model_len=None)
    (row,) = backend.prepare(TASK, Examples((endless,)), 5, None)
    server.behaviour.max_model_len = 96
    with pytest.raises(PromptTooLong, match="maximum context length"):
        jobs.score(backend, TASK, PROMPTS, [row])


def test_micro_batches_count_the_tokens_that_the_server_counts(start: Start, folder: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    backend = start()
    rows = backend.prepare(TASK, Examples(TEXTS), 8, None)
    job = backend.job(TASK, PROMPTS, rows, np.ones((3, 5), bool))
    texts = [row.text(prompt) for row in rows for prompt in PROMPTS.texts]
    assert sum(batch.tokens for batch in job.batches) == sum(len(tokenizer(text)["input_ids"]) for text in texts)


@pytest.mark.parametrize(
    ("task", "text"),
    [
        (TaskSpec("{prompt} {mask} {text}", ("bad", "great")), "before the end"),
        (TaskSpec("{prompt} {text} It was {mask}", ("bad", "great film")), "' great film' is not one token"),
        (TaskSpec("{prompt} {text} A sto{mask}", ("ry", "p")), "'ry' is not one token to the model after ' A sto'"),
        (TaskSpec("{prompt} {text} {mask}", tuple(f"label{i}" for i in range(129))), "at most 128"),
        (TaskSpec("{prompt}", ("bad", "great")), "no {text}"),
    ],
    ids=["mask within", "two tokens", "merged", "many", "no text"],
)
def test_task_that_the_server_cannot_score_is_refused(start: Start, task: TaskSpec, text: str) -> None:
    with pytest.raises(InvalidTask, match=text):
        start().check(task)


def test_unsupported_examples_and_prompts_are_refused(start: Start) -> None:
    backend = start()
    with pytest.raises(InvalidExamples, match="vocabulary"):
        backend.prepare(TASK, Examples(TEXTS), 0, Perturbation(0.5, 1))
    with pytest.raises(InvalidExamples, match="second texts"):
        backend.prepare(TASK, Examples(TEXTS, TEXTS), 0, None)
    rows = backend.prepare(TASK, Examples(TEXTS), 0, None)
    with pytest.raises(UnsupportedPrompt):
        backend.job(TASK, SoftPrompts(np.zeros((1, 2, 4), np.float32)), rows, np.ones((1, 5), bool))


def test_columns_are_the_label_tokens(start: Start) -> None:
    other = TaskSpec("{prompt} {text} This story is {mask}", ("fine", "dull"))
    for dialect in ("vllm", "openai"):
        backend = start(dialect=dialect)
        columns, others = set(backend.columns(TASK)), set(backend.columns(other))
        assert len(columns | others) == 4 and len(columns & others) == 1


# The self-test


@pytest.mark.parametrize(
    ("behaviour", "error", "text"),
    [
        ({"omits_logprobs": True}, ScoreUnavailable, "no log-probabilities"),
        ({"echoes": True}, WrongService, "echoes"),
        ({"ignores_max_tokens": True}, WrongService, "of 4 tokens for the next one"),
        ({"dialect": "openai", "max_logprobs": 5}, ScoreUnavailable, "not among the"),
        ({"dialect": "openai", "max_logprobs": 4}, FedbbptError, "at most 4"),
        ({"dialect": "openai", "strips_spaces": True}, ScoreUnavailable, "not among the"),
        ({"drift": 0.2}, ScoreUnavailable, "scores differently"),
        ({"dialect": "openai", "sharpness": 0.9}, WrongService, "probabilities that sum to"),
        ({"body": b"<html>"}, WrongService, "not a JSON object"),
        ({"body": b"[" * 100_000}, WrongService, "not a JSON object"),
        ({"body": b'{"choices": []}'}, WrongService, "choices .* for 1 texts"),
        ({"body": b" " * (MAX_ANSWER_BYTES + 1)}, WrongService, "more than"),
        ({"refusals": [(307, {"Location": "http://127.0.0.1:9/v1/models"}, b"")]}, WrongService, "redirects"),
        ({"refusals": [refusal(401, "wrong key sk-1")]}, Unauthenticated, "HTTP 401"),
        ({"refusals": [(200, {}, b'{"data": [{"id": "other"}]}')]}, InvalidInput, "no model 'tiny'.*one of other"),
    ],
    ids=[
        "omits log-probabilities", "echoes", "ignores max_tokens", "few likeliest", "too few", "strips spaces",
        "drifts", "no probabilities", "no JSON", "deep JSON", "no choices", "huge", "redirects", "wrong key",
        "no such model",
    ],
)  # fmt: skip
def test_server_that_fails_the_self_test_is_refused(
    start: Start, behaviour: dict[str, Any], error: type[FedbbptError], text: str
) -> None:
    with pytest.raises(error, match=text):
        start(**behaviour)


def test_card_states_the_measured_noise(start: Start) -> None:
    assert 0.001 < start(drift=0.001).describe().score_noise < 0.02


# Failures after the self-test


@pytest.fixture
def later(start: Start, server: OpenAIServer) -> Callable[..., Scores]:
    """Scores with a server that has changed since the self-test."""
    backend = start(threads=1)
    rows = backend.prepare(TASK, Examples(TEXTS[:1]), 8, None)
    backend.check(TASK)
    job = backend.job(TASK, PROMPTS, rows, np.ones((3, 1), bool))

    def ask(**behaviour: Any) -> Scores:
        for name, value in behaviour.items():
            setattr(server.behaviour, name, value)
        return jobs.run(backend, job, (3, 1, 3))

    return ask


def test_busy_server_is_retried_after_the_time_that_it_states(
    later: Callable[..., Scores], pauses: list[float]
) -> None:
    calm = later()
    past = {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}
    busy = [refusal(429, "rate_limit_exceeded", **{"Retry-After": "2.5"}), refusal(503, **past), refusal(500)]
    assert np.array_equal(later(refusals=busy), calm)
    assert pauses[:2] == [2.5, 0.0] and 0 <= pauses[2] <= 2.0


@pytest.mark.parametrize(
    ("behaviour", "error", "text", "waits"),
    [
        ({"refusals": [refusal(503, "loading")], "repeats_last_refusal": True}, PtmUnavailable, "HTTP 503.*loading", 4),
        ({"refusals": [refusal(429, "slow down")], "repeats_last_refusal": True}, RateLimited, "slow down", 4),
        ({"refusals": [refusal(429, "later", **{"Retry-After": "3600"})]}, RateLimited, "later", 0),
        ({"refusals": [refusal(429, "insufficient_quota")]}, BudgetSpent, "the service's account", 0),
        ({"refusals": [refusal(401)]}, PtmUnavailable, "HTTP 401", 0),
        ({"body": b"{"}, PtmUnavailable, "not a JSON object", 0),
        ({"first_text_only": True}, PtmUnavailable, r"choices \['0'\] for 3 texts", 0),
        ({"fingerprint": "fp_2"}, RevisionChanged, "it was tiny fp_1 at the start, and is tiny fp_2", 0),
    ],
    ids=["away", "busy", "busy for long", "spent", "key withdrawn", "no JSON", "wrong count", "another model"],
)
def test_server_that_changes_its_behaviour_fails_the_call(
    later: Callable[..., Scores],
    pauses: list[float],
    server: OpenAIServer,
    behaviour: dict[str, Any],
    error: type[FedbbptError],
    text: str,
    waits: int,
) -> None:
    with pytest.raises(error, match=text) as raised:
        later(**behaviour)
    assert len(pauses) == waits and server.url not in str(raised.value)


def test_unreachable_server_is_retried_and_then_unavailable(pauses: list[float]) -> None:
    with pytest.raises(PtmUnavailable, match=r"/v1/models"):
        connect("openai:tiny@http://127.0.0.1:9/v1", pause=pauses.append)
    assert pauses


# The key


def test_key_is_in_one_header_and_in_no_text(
    start: Start, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment\n")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    server.behaviour.refusals = [refusal(503, "sk-environment is busy")]
    ask(start())
    assert {headers["Authorization"] for _, headers, _ in server.requests} == {"Bearer sk-environment"}
    backend = start(key="sk-argument")
    ask(backend)
    assert {headers["Authorization"] for _, headers, _ in server.requests} == {"Bearer sk-argument"}
    server.behaviour.refusals = [refusal(400, "sk-argument may not ask this")]
    with pytest.raises(FedbbptError, match=r"\*\*\* may not"):
        ask(backend)
    assert "sk-" not in caplog.text and "*** is busy" in caplog.text


@pytest.mark.parametrize("meant", ["", "https://models.example.org/v1", "http://127.0.0.1:9/v1"])
def test_key_of_the_environment_goes_to_its_own_server_only(
    meant: str, start: Start, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Kills: a model's name in somebody else's file that sends the user's key to that somebody."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", meant)
    ask(start())
    assert not any("Authorization" in headers for _, headers, _ in server.requests)
    assert "OPENAI_BASE_URL says which server gets it" in caplog.text and "sk-" not in caplog.text


@pytest.mark.parametrize(
    ("model", "error", "text"),
    [
        ("openai:tiny@http://models.example.org/v1", InsecureAddress, "in clear"),
        ("openai:tiny@https://me:sk-1@models.example.org/v1", InvalidInput, "a name or password"),
        ("openai:tiny@http://127.0.0.1:8000/v1?key=sk-1", InvalidInput, "a query"),
        ("openai:tiny", InvalidInput, "openai:MODEL@http://HOST:PORT/v1"),
        ("openai:@http://127.0.0.1:8000/v1", InvalidInput, "openai:MODEL@http://HOST:PORT/v1"),
    ],
)
def test_address_that_would_disclose_the_key_is_refused(model: str, error: type[FedbbptError], text: str) -> None:
    with pytest.raises(error, match=text) as raised:
        load(model, api_key="secret")
    assert "sk-1" not in str(raised.value)


def test_key_of_several_lines_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no key has"):
        load("openai:tiny@http://127.0.0.1:8000/v1", api_key="one\ntwo")


@pytest.mark.parametrize(
    ("dialect", "known"), [("vllm", KNOWN_WORDS), ("llama.cpp", KNOWN_WORDS), ("openai", GENERAL_WORDS)]
)
def test_general_columns_are_the_words_that_the_servers_tokenizer_has(
    start: Start, dialect: str, known: tuple[str, ...]
) -> None:
    """A server without a tokenizer takes all words, and its scores of unknown ones are bounds."""
    ptm = local_ptm(start(dialect=dialect))
    task = {"labels": ["a", "b"], "classes": ["fine", "dull"], "template": TASK.template, "columns": "general"}
    completed = with_columns(Job.model_validate({"task": task}), ptm)
    assert completed.columns() == known
    handle = ptm.register_examples(ptm.register_task(task_spec(completed)), Examples(TEXTS), 8)
    scored = ptm.score(handle.id, TextPrompts(("",)))
    assert scored.scores.shape == (1, len(TEXTS), 2 + len(known))
    assert (scored.bounds is not None and bool(scored.bounds.any())) == (dialect == "openai")
