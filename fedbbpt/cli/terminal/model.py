"""Opens the model that a prompt's card or a job names: on a PTM service, or loaded into this process."""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from fedbbpt.api.ptm import open_ptm
from fedbbpt.cli.terminal.bundles import PtmAccess
from fedbbpt.cli.terminal.model_options import ModelOptions
from fedbbpt.errors import InvalidInput
from fedbbpt.federation.prompt_file import PromptCard
from fedbbpt.interfaces import Ptm
from fedbbpt.job.config import Job

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""How long to retry a service that does not answer, while a person waits."""


@contextmanager
def open_card(
    card: PromptCard, service: PtmAccess, options: ModelOptions, named: str = "", *, send_labels: bool = False
) -> Iterator[Ptm]:
    """Opens the service, or the card's model loaded as the run had it, except for the options that are given.

    Args:
        card: The card of a prompt.
        service: The service to ask in place of a model that is loaded here.
        options: How to load the model.
        named: The model that the user names; "" takes the card's, if it is on this machine.
        send_labels: Whether labels may go to the service.

    Raises:
        InvalidInput: The card's model is on another server, and the user has not named it.
    """
    options.check_loaded_here(service)
    given = options.given()
    try:
        model = "" if service.ptm else card.model(named)
    except InvalidInput as error:
        raise InvalidInput(error.what, where="--model, --ptm", fix=error.fix) from None
    opened = open_ptm(
        model,
        address=service.ptm,
        revision=service.revision or ("" if given else card.ptm_revision),
        tls=service.tls(),
        token=service.token(),
        patience_seconds=PATIENCE_SECONDS,
        send_labels=send_labels,
        **{**card.model_options(), **given},
    )
    with opened as ptm:
        if service.ptm and not card.ptm_revision:
            found = ptm.describe()
            log.warning(
                "the card names no revision of %s, so nothing says whether the prompt was tuned for %s (%s)",
                card.ptm,
                found.model,
                found.revision,
            )
        if given and (revision := ptm.describe().revision) != card.ptm_revision:
            log.warning("the prompt was tuned for revision %s, and %s scores now", card.ptm_revision, revision)
        yield ptm


def open_job(
    job: Job, service: PtmAccess, options: ModelOptions, *, send_labels: bool = False
) -> AbstractContextManager[Ptm]:
    """Opens the service, or the job's own, or its model loaded into this process with the given options."""
    options.check_loaded_here(service)
    section = options.apply(job).ptm
    return open_ptm(
        section.model,
        address=service.ptm or section.address,
        revision=service.revision or section.revision,
        threads=section.threads,
        tls=service.tls(),
        token=service.token(),
        patience_seconds=PATIENCE_SECONDS,
        send_labels=section.send_labels or send_labels,
        **section.options(),
    )
