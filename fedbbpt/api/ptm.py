"""Opens a PTM: a model in this process, or a running service. Asks it about texts."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fedbbpt.client.asking import PromptScorer
from fedbbpt.errors import InvalidInput, PtmUnavailable, RevisionChanged
from fedbbpt.interfaces import Backend, Ptm
from fedbbpt.prompts.text import TextSpace
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.local import LocalPtm
from fedbbpt.ptm.models.loading import load
from fedbbpt.ptm.tenants.state import NO_LIMITS
from fedbbpt.ptm.tenants.tenant import IN_PROCESS
from fedbbpt.types import Examples, LabelledExamples, ModelCard, Precision, PrecisionChoice, Scores, TaskSpec

if TYPE_CHECKING:
    from fedbbpt.wire.tls import ClientTls

PROMPT_TOKENS = 64
"""Tokens that texts leave free for a prompt in words."""


@contextmanager
def open_ptm(
    model: str | Backend[Any] = "",
    *,
    address: str = "",
    revision: str = "",
    threads: int = 0,
    family: str = "",
    device: str = "cpu",
    precision: Precision | PrecisionChoice = Precision.FLOAT32,
    max_length: int = 0,
    tls: "ClientTls | None" = None,
    token: str = "",
    patience_seconds: float = 60.0,
    send_labels: bool = False,
) -> Iterator[Ptm]:
    """Opens a PTM for the duration of a `with` block: a model in this process or, with an address, a running service.

    >>> with open_ptm("fake") as ptm:
    ...     print(ptm.describe().model)
    fake

    Args:
        model: The model to load into this process, as in `ptm.model` of a job, or a backend of your own.
        address: HOST:PORT of a PTM service, or several with commas; `model` is not used then.
        revision: The only revision of the model to accept; empty accepts any.
        threads: Threads of a model in this process; 0 takes all cores.
        family: How to score with a checkpoint; empty: as its architecture suggests. This and the next three are for a
            model in this process.
        device: A device that torch knows, such as "cuda".
        precision: Precision of the layers; "auto" takes bfloat16 where a measurement says so.
        max_length: The most tokens of an input, prompt included; 0: as many as the model takes.
        tls: The certificates to connect to a service with.
        token: The tenant's token.
        patience_seconds: How long to repeat calls to a service that does not answer.
        send_labels: Whether labels may go to a service. Only one that returns losses needs them.

    Raises:
        PtmUnavailable: The service does not answer.
        RevisionChanged: The model has another revision.
        InvalidInput: The model cannot be loaded.
    """
    if not address:
        if isinstance(model, str):
            backend = load(
                model, threads=threads, family=family, device=device, precision=precision, max_length=max_length
            )
        else:
            backend = model
        _check_revision(backend.describe(), revision)
        # The closed-form model computes a score in less time than a cache takes to find it.
        quotas = replace(NO_LIMITS, cache_bytes=0) if model == "fake" else NO_LIMITS
        yield LocalPtm(Engine(backend, time.monotonic, quotas), IN_PROCESS)
        return
    # Imported here, so that a model in this process needs no gRPC.
    from fedbbpt.ptm.remote import RemotePtm
    from fedbbpt.wire.channel import connect
    from fedbbpt.wire.peers import PTM

    with connect(address, tls, token, peer=PTM, where="address") as channel:
        try:
            service = RemotePtm(channel, revision, patience_seconds=patience_seconds, send_labels=send_labels)
        except PtmUnavailable as error:
            fix = error.fix or "the address that `fedbbpt ptm serve` printed"
            raise PtmUnavailable(f"no answer ({error.what})", where=address, fix=fix) from None
        yield service


def _check_revision(card: ModelCard, revision: str) -> None:
    if revision and card.revision != revision:
        what = f"the model has revision {card.revision} ({card.precision}, {card.max_tokens} tokens), not {revision}"
        fix = "the same files, family, precision, device and max_length as where the revision was recorded"
        raise RevisionChanged(what, where=card.model, fix=fix)


def text_list(texts: Sequence[str], where: str) -> tuple[str, ...]:
    """Returns the texts as a tuple. Raises InvalidInput for a single text, which would be read as its characters."""
    if isinstance(texts, str):
        raise InvalidInput("one text in place of a list", where=where, fix="a list, as in [text]")
    return tuple(texts)


def ask(
    ptm: Ptm,
    texts: Sequence[str],
    classes: Sequence[str],
    *,
    prompt: str = "",
    template: str = "{prompt} {text}",
) -> Scores:
    """Returns the PTM's scores `[B, K]` of each text for each class, under one prompt in words.

    >>> with open_ptm("fake") as ptm:
    ...     scores = ask(ptm, ["how many are there", "in which city"], ["a number", "a place"])
    >>> scores.shape
    (2, 2)

    Args:
        texts: The B inputs.
        classes: The K label words or descriptions.
        prompt: The prompt's text.
        template: The input, with {prompt} and {text}.

    Raises:
        OutputWithheld: The PTM gives no scores.
        InvalidTask: The PTM cannot score these classes.
        InvalidInput: One text is given in place of a list.
    """
    inputs, names = text_list(texts, "texts"), text_list(classes, "classes")
    space = TextSpace(1, (prompt,), PROMPT_TOKENS)
    data = LabelledExamples(Examples(inputs), np.zeros(len(inputs), np.int64))  # the labels are not used
    scorer = PromptScorer(ptm, TaskSpec(template, names), space)
    return np.asarray(scorer.scores(data, np.zeros((1, 1), np.float32), use_labels=False)[0])
