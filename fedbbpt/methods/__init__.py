"""One file = one paper: its config, what its clients must know, and its two halves.

The halves meet only through Task and Update.
"""

from collections.abc import Mapping

from fedbbpt.errors import InvalidInput
from fedbbpt.interfaces import ClientHalf, Objectives, RunSettings, WhiteBox
from fedbbpt.methods import fed_bbpt, fed_bpt, fed_cma, fed_sp, fedavg_bbt
from fedbbpt.methods.method import Method

METHODS: Mapping[str, Method] = {
    "fed-cma": fed_cma.METHOD,
    "fed-bpt": fed_bpt.METHOD,
    "fed-bbpt": fed_bbpt.METHOD,
    "fed-sp": fed_sp.METHOD,
    "fedavg-bbt": fedavg_bbt.METHOD,
}


def _method(settings: RunSettings) -> Method:
    return next(method for method in METHODS.values() if isinstance(settings.method, method.settings_type))


def white_box(settings: RunSettings) -> bool:
    """Whether the run's clients train a model of their own."""
    return _method(settings).white_box


def needs_scores(settings: RunSettings) -> bool:
    """Whether the run's clients need a score for each class, and not only losses."""
    return _method(settings).needs_scores(settings.method)


def client_half(settings: RunSettings, asked: Objectives | WhiteBox) -> ClientHalf:
    """The client's half of whatever method the run has: `asked` is a white box where the method wants one."""
    return _method(settings).client(settings.method, settings.space, asked)


def owner_half(settings: RunSettings, model: WhiteBox) -> ClientHalf:
    """The half of the model's owner. Raises InvalidInput where the run's method has none."""
    method = _method(settings)
    if method.owner is None:
        raise InvalidInput(f"{method.name} gives the model's owner nothing to do", where="method", fix="fed-sp")
    return method.owner(settings.method, settings.space, model)
