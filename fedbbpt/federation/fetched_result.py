"""The result of a run, fetched from its coordinator into a prompt file."""

from pathlib import Path

from pydantic import ValidationError

from fedbbpt.errors import InvalidRequest, NoResultYet
from fedbbpt.federation.prompt_file import PromptCard, write_prompt
from fedbbpt.server.remote import RemoteRun
from fedbbpt.types import PtmIdentity


def save_result(run: RemoteRun, path: Path, ptm: PtmIdentity | None = None) -> PromptCard:
    """Writes the best prompt of a run so far to `path`, with its card, which it returns.

    Args:
        run: The run.
        path: The file to write, atomically; the card for people goes next to it.
        ptm: The PTM that this client asks. The card then names this one, since that is where the prompt will be used.

    Raises:
        NoResultYet: No round has been measured, or the coordinator has no card.
        InvalidRequest: The coordinator sent a card that cannot be read.
    """
    result, text = run.result_with_card()
    if not text:
        raise NoResultYet("the coordinator has no card of the prompt", fix="a coordinator that was started with a job")
    try:
        card = PromptCard.model_validate_json(text)
    except ValidationError as error:
        fix = "the same version of fedbbpt at both sides"
        raise InvalidRequest(f"the card cannot be read: {error}", where="card", fix=fix) from None
    if ptm is not None:
        changes = {"ptm": ptm.model, "ptm_revision": ptm.revision, "ptm_precision": ptm.precision}
        card = card.model_copy(update=changes)
    write_prompt(path, result.z, card)
    return card
