"""The right answers to tasks, computed plainly for each method: what a client must send, from what it was sent."""

from collections.abc import Callable, Mapping

from fedbbpt.conformance.client.methods import fed_cma
from fedbbpt.conformance.client.methods.answer import Answer, Asked

ANSWERS: Mapping[str, Callable[[Asked], Answer]] = {"fed_cma": fed_cma.answer}
"""The answer of each method, by its name in MethodSettings."""
