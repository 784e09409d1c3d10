"""One file = one paper: its config, what its clients must know, and its two halves.

The halves meet only through Task and Update.
"""

from collections.abc import Mapping

from fedbbpt.interfaces import ClientHalf, Objectives
from fedbbpt.methods import fed_bbpt, fed_bpt, fed_cma
from fedbbpt.methods.method import Method
from fedbbpt.types import RunSettings

METHODS: Mapping[str, Method] = {
    "fed-cma": fed_cma.METHOD,
    "fed-bpt": fed_bpt.METHOD,
    "fed-bbpt": fed_bbpt.METHOD,
}


def client_half(settings: RunSettings, objectives: Objectives) -> ClientHalf:
    """The client's half of whatever method the run has."""
    method = next(method for method in METHODS.values() if isinstance(settings.method, method.settings_type))
    return method.client(settings.method, settings.space, objectives)
