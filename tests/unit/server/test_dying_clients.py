"""A third of the clients dies in every round: all rounds close, and the mean over the clients stays unbiased."""

import math

import numpy as np
import pytest

from tests.coordinators import DEADLINE, Bench

CLIENTS, ROUNDS, DIE = 20, 100, 0.3
VALUES = np.random.default_rng(1).normal(2.0, 1.0, CLIENTS)
"""What each client answers. The estimate of a round is the mean of its answers; the truth is the mean over all."""


class Hospitals:
    """Twenty clients, each of which may die, and later come back with its own name or as a new client."""

    def __init__(self, replaced: bool) -> None:
        self.bench = Bench(clients=CLIENTS, quorum=CLIENTS // 2, rounds=ROUNDS)
        self._replaced, self._joined = replaced, 0
        self._names = [""] * CLIENTS
        self.died: set[int] = set(range(CLIENTS))
        names = [f"client-{place}" for place in range(CLIENTS)]
        self.bench.join(*names)
        self._names = names
        for place in range(CLIENTS):
            self.come_back(place)

    def come_back(self, place: int) -> None:
        if self._replaced:
            self._joined += 1
            self._names[place] = f"newcomer-{self._joined}"
        self.bench.join(self._names[place])
        self.bench.coordinator.connected(self.bench.sessions[self._names[place]])
        self.died.discard(place)

    def die(self, place: int) -> None:
        self.bench.coordinator.disconnected(self.bench.sessions[self._names[place]])
        self.died.add(place)

    def answer(self) -> list[int]:
        """Lets all that live and have a task answer it, while the round is open, and returns their places."""
        number, answered = self.bench.round, list[int]()
        for place in sorted(set(range(CLIENTS)) - self.died):
            if self.bench.round == number and self.bench.task(self._names[place]) is not None:
                self.bench.answer(self._names[place], z=VALUES[place])
                answered.append(place)
        return answered


@pytest.mark.parametrize("replaced", [False, True], ids=["they come back", "others take their places"])
def test_every_round_closes_and_the_estimate_is_unbiased(replaced: bool) -> None:
    """Kills: a round that hangs without its quorum, and returning clients that are asked less often than others."""
    hospitals, draw = Hospitals(replaced), np.random.default_rng(2)
    bench, estimates, asked = hospitals.bench, list[float](), np.zeros(CLIENTS)
    for number in range(ROUNDS):
        for place in range(CLIENTS):
            if draw.random() < DIE and place not in hospitals.died:
                hospitals.die(place)
        answered = hospitals.answer()
        for _ in range(3):  # until the deadline, then with those that wait, then with those that come back
            if bench.round == number:
                bench.wait(DEADLINE)
                answered += hospitals.answer() if bench.round == number else []
            for place in sorted(hospitals.died):
                hospitals.come_back(place)
        assert bench.round == number + 1 and bench.last.clients == len(answered) >= CLIENTS // 2
        asked[answered] += 1
        estimates.append(float(VALUES[answered].mean()))
    # About CLIENTS * (1 - DIE) answers, drawn without replacement.
    deviation = VALUES.std() * math.sqrt(DIE / (1 - DIE) / CLIENTS / ROUNDS)
    assert abs(np.mean(estimates) - VALUES.mean()) < 4 * deviation
    assert asked.min() > ROUNDS / 3
