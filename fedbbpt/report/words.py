"""The words nearest to a soft prompt, from a model that is on this machine. A black box does not tell them."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from fedbbpt.errors import InvalidInput
from fedbbpt.prompts import without_readout
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.ptm.models.loading import load
from fedbbpt.report.run_data import RunData
from fedbbpt.types import Examples, Prompts

WORDS = 6
"""Words for each vector."""


@runtime_checkable
class ShowsWords(Protocol):
    """A backend that knows the vectors of its words."""

    def nearest_words(self, prompts: Prompts, count: int) -> list[list[str]]:
        """Returns for each vector of the first prompt the nearest words."""
        ...


def nearest_words(run: RunData, model: str = "") -> Sequence[Sequence[str]]:
    """Loads a run's model, and returns the words nearest to each vector of its soft prompt.

    Args:
        run: The run.
        model: The model to load; "" takes the one on the prompt's card.

    Raises:
        InvalidInput: The prompt has no vectors among words, the model cannot be loaded, or it shows no word vectors.
    """
    space = run.card.space
    inner = without_readout(space)
    if not isinstance(inner, LatentSpace):
        what = f"the result is no soft prompt: {space}"
        raise InvalidInput(what, where="--words", fix="leave the option out")
    try:
        named = run.card.model(model)
    except InvalidInput as error:
        raise InvalidInput(error.what, where="--words, --model", fix=error.fix) from None
    backend = load(named, **run.card.model_options())
    if not isinstance(backend, ShowsWords):
        what, fix = f"{named} shows no word vectors", "the weights of a text model, by --model"
        raise InvalidInput(what, where="--words", fix=fix)
    return backend.nearest_words(inner.prompts(run.z[: inner.dim][None], Examples()), WORDS)
