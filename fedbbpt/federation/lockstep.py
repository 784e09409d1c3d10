"""Many clients in one process that advance together, from one question to the model to the next.

Each client runs in a greenlet, which stops where it asks the model. When all of them wait, their questions are asked
in one call of `LocalPtm.score_all`, which computes those with the same prompts at once. A client's code is the same as
everywhere else, and so are its bits: a pair's scores do not depend on the other pairs of a call.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from greenlet import getcurrent, greenlet

from fedbbpt.interfaces import Ptm
from fedbbpt.ptm.local import LocalPtm
from fedbbpt.types import Prompts, Scored

R = TypeVar("R")


class LockstepPtm(LocalPtm):
    """The same model for clients that `advance_together` runs."""

    def score(self, examples_id: str, prompts: Prompts) -> Scored:
        """Waits for the other clients, and then for the answer. Raises what `LocalPtm.score` raises."""
        waiting = getcurrent()
        if waiting.parent is None:  # called by none of the clients
            return super().score(examples_id, prompts)
        answer: Scored = waiting.parent.switch((examples_id, prompts))
        return answer


def lockstep(ptm: Ptm) -> Ptm:
    """Returns the model for clients that advance together.

    It is the same object if the model is elsewhere, if its scores may depend on the other pairs of a call, or if it is
    of a subclass, which may answer otherwise.
    """
    if type(ptm) is LocalPtm and ptm.describe().score_noise == 0:
        return LockstepPtm(ptm.engine, ptm.tenant)
    return ptm


def advance_together(ptm: Ptm, works: Sequence[Callable[[], R]]) -> list[R]:
    """Returns the result of each client's work, which asks `ptm`, the model that `lockstep` returned.

    Raises the first error of a client.
    """
    if not isinstance(ptm, LockstepPtm):
        return [work() for work in works]
    clients = [greenlet(work) for work in works]
    results = [client.switch() for client in clients]
    while waiting := [place for place, client in enumerate(clients) if not client.dead]:
        answers = ptm.score_all([results[place] for place in waiting])
        for place, answer in zip(waiting, answers, strict=True):
            results[place] = clients[place].switch(answer)
    return results
