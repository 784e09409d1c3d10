"""Opens the model of a prompt or of a job, for commands that a person waits for."""

from contextlib import AbstractContextManager

from fedbbpt.api.ptm import open_ptm
from fedbbpt.cli.terminal.bundles import PtmAccess
from fedbbpt.federation.prompt_file import PromptCard
from fedbbpt.interfaces import Ptm
from fedbbpt.job.sections import PtmSection

_PATIENCE_SECONDS = 5.0
"""How long to retry a service that does not answer, while a person waits."""


def open_card(card: PromptCard, service: PtmAccess) -> AbstractContextManager[Ptm]:
    """Opens the service, or the card's model loaded as the run had it."""
    return open_ptm(
        card.ptm,
        address=service.ptm,
        revision=card.ptm_revision,
        precision=card.ptm_precision,
        tls=service.tls(),
        token=service.token(),
        patience_seconds=_PATIENCE_SECONDS,
    )


def open_section(section: PtmSection, service: PtmAccess) -> AbstractContextManager[Ptm]:
    """Opens the service, or else that of a job, or else the job's model in this process."""
    return open_ptm(
        section.model,
        address=service.ptm or section.address,
        revision=section.revision,
        threads=section.threads,
        precision=section.precision,
        tls=service.tls(),
        token=service.token(),
        patience_seconds=_PATIENCE_SECONDS,
    )
