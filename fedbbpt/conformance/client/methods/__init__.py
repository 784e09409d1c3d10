"""The right answers to tasks, computed plainly for each method: what a client must send, from what it was sent."""

from collections.abc import Callable, Mapping

from fedbbpt.conformance.client.methods import fed_bbpt, fed_bpt, fed_cma, fed_readout
from fedbbpt.conformance.client.methods.answer import Answer, Asked

ANSWERS: Mapping[str, Callable[[Asked], Answer]] = {
    "fed_bbpt": fed_bbpt.answer,
    "fed_bpt": fed_bpt.answer,
    "fed_cma": fed_cma.answer,
    "fed_readout": fed_readout.answer,
}
"""The answer of each method, by its name in MethodSettings."""
