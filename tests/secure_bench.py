"""A coordinator with secure aggregation and its clients, called as functions, any of which may die after any message.

Client number i answers each round with i + 1 and weight 2, so that the prompt after a round is the mean over those that
it counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from fedbbpt.secure.client import SecureClient
from fedbbpt.secure.fixed_point import encoded
from fedbbpt.secure.messages import FromClient, FromServer, Reveal, Roster, Survivors
from fedbbpt.types import Measurement, Phase, Update
from tests.coordinators import DEADLINE, Bench
from tests.secure import THRESHOLD

NEVER = 1_000_000


class Killed(Exception):
    """The coordinator was killed, and everybody has joined again."""


@dataclass
class SecureBench:
    """A run of `number` clients, with a quorum of `quorum`."""

    number: int
    quorum: int = 3
    rounds: int = 3
    lives: Mapping[str, int] = field(default_factory=dict)
    """How many messages of secure aggregation each client sends before it dies; all if it is not named."""
    killed_after: int = NEVER
    """The number of messages after which the coordinator is killed, once."""

    def __post_init__(self) -> None:
        self.bench = Bench(self.number, self.quorum, rounds=self.rounds, secure_threshold=THRESHOLD)
        self.names = [f"client-{index}" for index in range(self.number)]
        self.target = 0
        """The round that is played."""
        self.dead: set[str] = set()
        self.said = dict.fromkeys(self.names, 0)
        self.messages = 0
        self.clients = {name: SecureClient(name, THRESHOLD) for name in self.names}
        self.revealed: dict[int, set[frozenset[str]]] = {}
        """The sets of survivors that clients have helped to unmask, by round."""
        self.epochs: set[int] = set()
        self._survivors: dict[str, tuple[int, frozenset[str]]] = {}
        self._rosters: dict[str, Roster] = {}
        self._seen: dict[str, list[FromServer]] = {}
        self._asked: dict[str, int] = {}
        self._unfinished(lambda: self._all_join())

    # Deaths and returns

    def _all_join(self) -> None:
        for name in self.names:
            if name not in self.dead:
                self.join(name)

    def join(self, name: str) -> None:
        """Lets a client join, with a new stream."""
        self.bench.join(name)
        self.bench.coordinator.connected(self.bench.sessions[name])
        self._seen[name], self._asked[name] = [], -1
        self._say(name, [self.clients[name].keys])

    def die(self, name: str) -> None:
        """Ends a client's process."""
        self.dead.add(name)
        self.bench.coordinator.disconnected(self.bench.sessions[name])

    def come_back(self, name: str) -> None:
        """Starts a client's process again: it has its update, and no key or secret of before."""
        self.dead.discard(name)
        self.lives = {**self.lives, name: NEVER}
        self.clients[name] = SecureClient(name, THRESHOLD)
        self.join(name)

    def kill(self) -> None:
        """Kills the coordinator and starts it again from its store; all living clients join again."""
        self.bench.restart()
        self._all_join()

    # Messages

    def _say(self, name: str, messages: list[FromClient]) -> None:
        for message in messages:
            if name in self.dead:
                return
            if self.said[name] >= self.lives.get(name, NEVER):
                self.die(name)
                return
            self.said[name] += 1
            if isinstance(message, Reveal):
                round, survivors = self._survivors[name]
                self.revealed.setdefault(round, set()).add(survivors)
            self.bench.coordinator.take_secure(self.bench.sessions[name], message, self.bench.now)
            self.messages += 1
            if self.messages == self.killed_after:
                self.kill()
                raise Killed

    def pump(self) -> None:
        """Delivers tasks and messages until nothing more is due."""
        while self._unfinished(self._deliver_all):
            pass

    def _unfinished(self, work: "object") -> bool:
        try:
            return bool(work())  # type: ignore[operator]  # a function without arguments
        except Killed:
            return True

    def _deliver_all(self) -> bool:
        moved = False
        for name in self.names:
            if name not in self.dead:
                moved |= self._deliver(name)
        return moved

    def _deliver(self, name: str) -> bool:
        coordinator, client, moved = self.bench.coordinator, self.clients[name], False
        if coordinator.state.ended or coordinator.round > self.target:
            return False
        task = self.bench.task(name)
        if task is not None and task.id.round > self._asked[name]:
            self._asked[name], moved = task.id.round, True
            self._say(name, client.answer(task.id.round, self.vector(name, task.id.phase)))
        assert coordinator.secure is not None
        due = list(coordinator.secure.due(name))
        for message in due:
            if name in self.dead or any(message is seen for seen in self._seen[name]):
                continue
            moved = True
            self._seen[name].append(message)
            self._note(name, message)
            self._say(name, client.take(message))
        return moved

    def _note(self, name: str, message: FromServer) -> None:
        if isinstance(message, Roster):
            self._rosters[name] = message
            self.epochs.add(message.epoch)
        elif isinstance(message, Survivors):
            members = [each for each, _ in self._rosters[name].members]
            staying = frozenset(each for index, each in enumerate(members) if index not in message.dropped)
            self._survivors[name] = self._asked[name], staying

    def vector(self, name: str, phase: Phase) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
        """Returns a client's answer to a task."""
        value = self.names.index(name) + 1.0
        arrays = {"found": np.full(2, 2.0 * value)} if phase is Phase.UPDATE else {}
        measured = replace(Measurement(), dev_loss_sum=value, dev_examples=4, dev_correct=2, queries=10)
        return encoded(Update(arrays, 2.0, measured))

    # What came out

    def play(self, round: int, deadlines: int = 6) -> bool:
        """Plays until the round has closed, letting deadlines pass if needed. Returns whether it has closed."""
        self.target = round
        for _ in range(deadlines):
            self.pump()
            if self.bench.coordinator.round > round or self.bench.coordinator.state.ended:
                return True
            self.bench.wait(DEADLINE + 1)
        self.pump()
        return self.bench.coordinator.round > round

    def counted(self, round: int) -> list[str]:
        """Returns the clients whose answers to a round were counted, for the last closed round."""
        members = self.bench.store.members()
        return [name for name in self.names if name in members and members[name].counted == round]

    def check(self, round: int) -> None:
        """Asserts that the prompt is the mean over the counted clients, and that one set was revealed at most."""
        counted = self.counted(round)
        assert len(counted) >= 3
        mean = sum(self.names.index(name) + 1.0 for name in counted) / len(counted)
        np.testing.assert_allclose(self.bench.coordinator.prompt, [mean, mean], rtol=1e-6)
        assert self.bench.coordinator.reports(round)[0].dev_examples == 4 * len(counted)
        self.check_revealed()
        assert self.revealed[round] == {frozenset(counted)}

    def check_revealed(self) -> None:
        """Asserts that clients have helped to unmask at most one set of at least three survivors in each round."""
        for survivors in self.revealed.values():
            assert len(survivors) == 1
            assert all(len(each) >= 3 for each in survivors)
