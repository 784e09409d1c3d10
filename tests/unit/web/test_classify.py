"""Classification over HTTP: requests, batches, limits and errors, without sockets."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, wait

import numpy as np
import pytest
from starlette.testclient import TestClient

from fedbbpt.errors import FedbbptError, InvalidExamples, Overloaded, PtmUnavailable, RateLimited, Unauthenticated
from fedbbpt.types import Examples
from fedbbpt.web.classify.app import HEALTH, MAX_TEXTS, Served, classifier
from fedbbpt.web.classify.batching import Batcher, Likely
from fedbbpt.web.guard import Guard

LABELS = ("bill", "lab")


class Model:
    """Likes the first class if a text names it. While `open` is not set, it does not answer."""

    def __init__(self) -> None:
        self.asked = list[Examples]()
        self.begun, self.open = threading.Event(), threading.Event()
        self.open.set()
        self.error: FedbbptError | None = None

    def __call__(self, examples: Examples) -> Likely:
        self.asked.append(examples)
        self.begun.set()
        self.open.wait()
        if self.error is not None:
            raise self.error
        if "bad" in examples.texts:
            raise InvalidExamples("a bad text", where="examples", fix="a good one")
        first = np.array([0.75 if "bill" in text else 0.25 for text in examples.texts])
        return np.stack([first, 1 - first], axis=1)


@pytest.fixture
def model() -> Iterator[Model]:
    made = Model()
    yield made
    made.open.set()


@pytest.fixture
def http(model: Model) -> Iterator[TestClient]:
    with Batcher(model) as batcher:
        app = Guard(classifier(Served(LABELS, "<tiny>", pairs=False), batcher), max_body_bytes=100_000)
        yield TestClient(app, base_url="http://127.0.0.1")


def test_one_text_and_many_are_classified_in_order(http: TestClient) -> None:
    first = {"label": "bill", "probability": 0.75, "probabilities": {"bill": 0.75, "lab": 0.25}}
    second = {"label": "lab", "probability": 0.75, "probabilities": {"bill": 0.25, "lab": 0.75}}
    assert http.post("/classify", json={"text": "my bill"}).json() == {"predictions": [first]}
    assert http.post("/classify", json={"texts": ["x", "a bill"]}).json() == {"predictions": [second, first]}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "neither one text nor many"),
        ({"text": "a", "texts": ["b"]}, "or both"),
        ({"texts": []}, "0 texts"),
        ({"texts": ["a"] * (MAX_TEXTS + 1)}, f"{MAX_TEXTS + 1} texts"),
        ({"texts": ["a", " "]}, "the text is empty"),
        ({"text": 3}, "input should be a valid string"),
        ({"text": "a", "text_pair": "b"}, "the prompt's task has no second texts"),
        ({"txt": "a"}, "extra inputs are not permitted"),
        ({"text": "bad"}, "a bad text"),
        ([], "input should be a valid dictionary"),
    ],
)
def test_invalid_requests_say_what_would_be_right(body: object, said: str, http: TestClient) -> None:
    answer = http.post("/classify", json=body)
    refused = answer.json()
    assert answer.status_code == 400 and said in refused["what"] and refused["where"] and refused["fix"]


def test_bodies_that_are_no_json_or_have_no_unicode_are_refused(http: TestClient) -> None:
    headers = {"content-type": "application/json"}
    for content in (b"{", b"\xff", b'{"text": "\\ud800"}'):
        answer = http.post("/classify", content=content, headers=headers)
        assert answer.status_code == 400 and answer.json()["error"] == "InvalidRequest"
    large = http.post("/classify", content=b" " * 100_001, headers=headers)
    assert large.status_code == 413 and large.json()["error"] == "MessageTooLarge"


def test_second_texts_are_needed_exactly_if_the_task_has_them(model: Model) -> None:
    with Batcher(model) as batcher:
        http = TestClient(classifier(Served(LABELS, "tiny", pairs=True), batcher))
        assert http.post("/classify", json={"text": "a", "text_pair": "b"}).status_code == 200
        assert model.asked == [Examples(("a",), ("b",))]
        refused = http.post("/classify", json={"texts": ["a", "b"], "text_pairs": ["c"]})
    assert refused.status_code == 400 and refused.json()["what"] == "1 second texts for 2 texts"


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (PtmUnavailable("no answer"), 503, "1"),
        (RateLimited("too many", seconds=2.5), 503, "3"),
        (Unauthenticated("no token"), 502, None),
    ],
)
def test_errors_of_the_model_are_typed(
    error: FedbbptError, status: int, retry: str | None, model: Model, http: TestClient
) -> None:
    model.error = error
    answer = http.post("/classify", json={"text": "a"})
    assert (answer.status_code, answer.headers.get("retry-after")) == (status, retry)
    assert answer.json()["error"] == type(error).__name__


def test_a_model_that_does_not_answer_in_time_is_told(model: Model) -> None:
    model.open.clear()
    with Batcher(model) as batcher:
        http = TestClient(classifier(Served(LABELS, "tiny", pairs=False), batcher, answer_seconds=0.0))
        answer = http.post("/classify", json={"text": "a"})
        model.open.set()
    assert answer.status_code == 503 and "did not answer in 0 s" in answer.json()["what"]


def test_the_pages_load_nothing_and_escape_what_they_show(http: TestClient) -> None:
    page = http.get("/")
    assert "&lt;tiny&gt;" in page.text and "<script" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert http.get(HEALTH).json() == {"status": "ok"}
    assert set(http.get("/openapi.json").json()["paths"]) == {"/classify", HEALTH}
    assert http.get("/docs").json()["error"] == "NotFound"


def held(model: Model, batcher: Batcher) -> Future[Likely]:
    """Occupies the model, so that further requests wait."""
    model.open.clear()
    first = batcher.ask(Examples(("first",)))
    model.begun.wait()
    return first


def test_requests_that_wait_are_asked_together_and_bad_ones_fail_alone(model: Model) -> None:
    with Batcher(model, batch_texts=4) as batcher:
        held(model, batcher)
        texts = [("a bill",), ("b", "bad"), ("c",), ("d",)]
        answers = [batcher.ask(Examples(each)) for each in texts]
        cancelled = batcher.ask(Examples(("never",)))
        cancelled.cancel()
        model.open.set()
        wait(answers)
        assert answers[0].result().tolist() == [[0.75, 0.25]]
        with pytest.raises(InvalidExamples, match="a bad text"):
            answers[1].result()
        assert answers[2].result().tolist() == answers[3].result().tolist() == [[0.25, 0.75]]
    together, *rest = [examples.texts for examples in model.asked[1:]]
    assert together == ("a bill", "b", "bad", "c")
    assert rest == [("a bill",), ("b", "bad"), ("c",), ("d",)]


def test_too_many_texts_are_refused_at_once_and_the_rest_is_answered(model: Model) -> None:
    with Batcher(model, waiting_texts=2) as batcher:
        first = held(model, batcher)
        second = batcher.ask(Examples(("a", "b")))
        with pytest.raises(Overloaded, match="2 texts wait already"):
            batcher.ask(Examples(("c",)))
        model.open.set()
        assert len(first.result()) == 1 and len(second.result()) == 2
