"""The web application that classifies texts with a tuned prompt."""

import asyncio
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, StringConstraints
from starlette.exceptions import HTTPException
from starlette.responses import Response

from fedbbpt.data.inputs import predicted
from fedbbpt.errors import (
    BudgetSpent,
    Exhausted,
    FedbbptError,
    InvalidInput,
    InvalidRequest,
    MessageTooLarge,
    NotFound,
    RateLimited,
    Unavailable,
)
from fedbbpt.limits import MAX_DATA_CHARACTERS
from fedbbpt.types import Examples
from fedbbpt.web.classify.batching import Batcher
from fedbbpt.web.guard import error_response

MAX_TEXTS = 1024
"""Texts of one request."""
ANSWER_SECONDS = 60.0
"""How long a request may take."""
HEALTH = "/health"
_STATUSES = (
    (MessageTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (InvalidInput, HTTPStatus.BAD_REQUEST),
    (NotFound, HTTPStatus.NOT_FOUND),
    (Exhausted, HTTPStatus.SERVICE_UNAVAILABLE),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
)
"""Any other error is one of the service behind this one: 502."""

Text = Annotated[str, StringConstraints(max_length=MAX_DATA_CHARACTERS, pattern=r"\S")]


class Inputs(BaseModel):
    """Either `text`, or `texts`. A task on pairs of texts needs `text_pair`, or `text_pairs`, as well."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: Text | None = None
    text_pair: Text | None = None
    texts: list[Text] | None = None
    text_pairs: list[Text] | None = None

    def examples(self, *, pairs: bool) -> Examples:
        """Returns the inputs. Raises InvalidRequest unless they have second texts exactly if `pairs` is set."""
        one, many = (self.text, self.text_pair), (self.texts, self.text_pairs)
        if (one == (None, None)) == (many == (None, None)):
            what, fix = "neither one text nor many, or both", '{"text": "..."} or {"texts": ["...", "..."]}'
            raise InvalidRequest(what, where="text, texts", fix=fix)
        texts = [self.text] if self.text is not None else self.texts
        seconds = [self.text_pair] if self.text_pair is not None else self.text_pairs
        if not texts or len(texts) > MAX_TEXTS:
            raise InvalidRequest(f"{len(texts or ())} texts", where="texts", fix=f"1 to {MAX_TEXTS}")
        if not pairs and seconds is not None:
            raise InvalidRequest("the prompt's task has no second texts", where="text_pairs", fix="texts only")
        if pairs and len(seconds or ()) != len(texts):
            what, fix = f"{len(seconds or ())} second texts for {len(texts)} texts", "one second text for each text"
            raise InvalidRequest(what, where="text_pairs", fix=fix)
        return Examples(tuple(texts), tuple(seconds or ()) or None)


class Prediction(BaseModel):
    """The likeliest class of a text, and the probability of each class."""

    label: str
    probability: float
    probabilities: dict[str, float]


class Predictions(BaseModel):
    """A prediction for each text, in the order of the request."""

    predictions: list[Prediction]


class Refusal(BaseModel):
    """Why a request was not answered: what is wrong, where, and what would be right."""

    error: str
    what: str
    where: str
    fix: str


class Health(BaseModel):
    """Says that the server answers; it does not ask the model."""

    status: str = "ok"


@dataclass(frozen=True, slots=True)
class Served:
    """What is known of the prompt that classifies."""

    labels: Sequence[str]
    """The classes, in the order of the probabilities."""
    model: str
    """The model's name, for people."""
    pairs: bool
    """Whether an input has two texts."""


def classifier(served: Served, batcher: Batcher, answer_seconds: float = ANSWER_SECONDS) -> FastAPI:
    """Returns the application.

    Args:
        served: The prompt.
        batcher: Asks the model.
        answer_seconds: How long a request may take.
    """
    app = FastAPI(
        title="fedbbpt serve-prompt",
        description=f"Classifies texts into {', '.join(served.labels)} with a tuned prompt of {served.model}.",
        docs_url=None,  # FastAPI's own pages load scripts from elsewhere
        redoc_url=None,
        responses={status.value: {"model": Refusal} for status in (*dict(_STATUSES).values(), HTTPStatus.BAD_GATEWAY)},
        exception_handlers={
            FedbbptError: _refused,
            RequestValidationError: _invalid,
            HTTPException: _unknown,
        },
    )

    @app.post("/classify")
    async def classify(inputs: Inputs) -> Predictions:
        """Classifies one text or many."""
        examples = inputs.examples(pairs=served.pairs)
        try:
            async with asyncio.timeout(answer_seconds):
                likely = await asyncio.wrap_future(batcher.ask(examples))
        except TimeoutError:
            what = f"the model did not answer in {answer_seconds:g} s"
            raise Unavailable(what, where="classify", fix="fewer texts, or try again later") from None
        found = predicted([{}] * len(examples), likely, served.labels)
        return Predictions(predictions=[Prediction.model_construct(**one) for one in found])

    @app.get(HEALTH)
    async def health() -> Health:
        """Says that the server answers."""
        return Health()

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(_page(served))

    return app


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, FedbbptError), "the handler of such errors"
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), HTTPStatus.BAD_GATEWAY)
    response = error_response(error, status)
    if status is HTTPStatus.SERVICE_UNAVAILABLE and not isinstance(error, BudgetSpent):
        response.headers["retry-after"] = str(math.ceil(error.seconds if isinstance(error, RateLimited) else 1.0))
    return response


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError), "the handler of such errors"
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))[:100]
    blank = first["type"] == "string_pattern_mismatch"
    what = "the text is empty" if blank else first["msg"][:200]
    fix = "some text" if blank else 'JSON such as {"texts": ["...", "..."]}, as /openapi.json describes it'
    return error_response(InvalidRequest(what[:1].lower() + what[1:], where=where, fix=fix), HTTPStatus.BAD_REQUEST)


async def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "the handler of such errors"
    fix = "POST /classify, GET /health, GET /openapi.json or GET /"
    where = f"{request.method} {request.url.path}"[:100]
    status = HTTPStatus(error.status_code)
    if status is HTTPStatus.BAD_REQUEST:  # a body that is no text
        return error_response(InvalidRequest("the body cannot be read", where="body", fix="JSON in UTF-8"), status)
    return error_response(NotFound(error.detail.lower(), where=where, fix=fix), status)


def _page(served: Served) -> str:
    """How to call the application, as HTML that loads nothing."""
    second = ', "text_pairs": ["and a second text"]' if served.pairs else ""
    body = f'{{"texts": ["a text to classify"]{second}}}'
    call = f"curl -H 'content-type: application/json' -d '{body}' ADDRESS/classify"
    labels = "".join(f"<li>{html.escape(label)}</li>" for label in served.labels)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>fedbbpt serve-prompt</title></head><body>
<h1>Classify texts</h1>
<p>A tuned prompt of {html.escape(served.model)} answers at this address. <code>POST /classify</code> takes up to
{MAX_TEXTS} texts:</p>
<pre>{html.escape(call)}</pre>
<p>The answer has a prediction for each text: its <code>label</code>, that label's <code>probability</code>, and the
<code>probabilities</code> of all classes:</p>
<ul>{labels}</ul>
<p><a href="/openapi.json">/openapi.json</a> describes the requests and answers. <a href="/health">/health</a> says that
the server runs.</p>
</body></html>
"""
