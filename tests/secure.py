"""Drives the state machines of secure aggregation against each other, without any transport."""

from collections.abc import Callable, Collection, Mapping

import numpy as np
import numpy.typing as npt

from fedbbpt.secure.client import SecureClient
from fedbbpt.secure.graph import LEAST_CLIENTS
from fedbbpt.secure.messages import FromServer, Keys, Masked
from fedbbpt.secure.server import SecureServer, Step

THRESHOLD = 0.67

Vectors = Mapping[str, npt.NDArray[np.uint64]]
Forge = Callable[[str, FromServer], FromServer]
"""What a coordinator that lies sends to a client in place of a message."""


def vectors(clients: int, length: int = 5, seed: int = 0) -> Vectors:
    """Returns a vector for each client, of which the last number is 1."""
    rng = np.random.default_rng(seed)
    found = {f"client-{index:04d}": rng.integers(0, 2**64, length, np.uint64) for index in range(clients)}
    for vector in found.values():
        vector[-1] = 1
    return found


class Parties:
    """The clients of one epoch and their coordinator."""

    def __init__(
        self,
        names: Collection[str],
        epoch: int = 7,
        forge: Forge = lambda name, message: message,
        least: int = LEAST_CLIENTS,
    ) -> None:
        self.clients = {name: SecureClient(name, THRESHOLD, least) for name in names}
        self.forge = forge
        self.open(epoch, {name: client.keys for name, client in self.clients.items()})

    def open(self, epoch: int, keys: Mapping[str, Keys]) -> None:
        """Begins an epoch with these clients."""
        self.server = SecureServer(epoch, keys, THRESHOLD)
        self._read = dict.fromkeys(self.clients, 0)

    def answer(self, answers: Vectors, round: int = 0) -> None:
        """Gives these clients their answers to a round."""
        for name, vector in answers.items():
            for reply in self.clients[name].answer(round, vector):
                self.server.take(name, reply)

    def deliver(self, dead: Collection[str] = ()) -> None:
        """Delivers messages both ways until nothing more is due, except to and from the dead."""
        moved = True
        while moved:
            moved = False
            for name, client in self.clients.items():
                due = self.server.sent.get(name, [])
                # An attempt replaces the messages of the one before.
                self._read[name] = min(self._read[name], len(due))
                for message in due[self._read[name] :] if name not in dead else []:
                    self._read[name] += 1
                    moved = True
                    for reply in client.take(self.forge(name, message)):
                        self.server.take(name, reply)

    def attempt(
        self, answers: Vectors, masking: Collection[str] = (), later: Collection[str] = (), round: int = 0
    ) -> None:
        """Begins an attempt. The clients `masking` die before their masked answers, and those of `later` after them."""
        if self.server.step is Step.SHARES:
            self.deliver()
        length = len(next(iter(answers.values())))
        self.server.begin(round, length)
        self._read = {name: min(number, 2) for name, number in self._read.items()}
        self.answer({name: vector for name, vector in answers.items() if name not in masking}, round)
        if masking or later:
            self.deliver_masked(masking)
            if self.server.step is Step.MASKED and self.server.viable:
                self.server.freeze()
        self.deliver({*masking, *later})

    def deliver_masked(self, dead: Collection[str]) -> None:
        """Delivers the attempt to all but the dead, and their masked answers to the coordinator."""
        for name, client in self.clients.items():
            if name not in dead:
                message = self.server.sent[name][2]
                self._read[name] = 3
                for reply in client.take(self.forge(name, message)):
                    assert isinstance(reply, Masked)
                    self.server.take(name, reply)
