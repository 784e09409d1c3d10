"""The work of a round: each update is decoded once, and the method's state is restored once."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fedbbpt.codecs import CODECS, LINKS
from fedbbpt.interfaces import Codec, ServerHalf
from fedbbpt.methods import METHODS
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.server.cohort import CohortRules
from fedbbpt.server.coordinator import Coordinator
from fedbbpt.server.memory_store import MemoryStore
from fedbbpt.types import (
    Arrays,
    Forms,
    Hello,
    Measurement,
    Metrics,
    Orders,
    Phase,
    Projection,
    ProjectionKind,
    Receipt,
    RunSettings,
    TaskSpec,
    Update,
)

CLIENTS = ("anna", "berta", "clara")
ROUNDS = 2
METHOD = METHODS["fedavg-bbt"]
CONFIG = METHOD.config(name="fedavg-bbt")
SPACE = LatentSpace(6, Projection(ProjectionKind.RADEMACHER, 1, 2, 1.0, ""))


class CountingCodec:
    """A codec that counts the updates that it decodes."""

    def __init__(self, inner: Codec) -> None:
        self._inner = inner
        self.name, self.additive = inner.name, inner.additive
        self.decoded = 0

    def encode(self, arrays: Arrays, rng: np.random.Generator) -> Arrays:
        return self._inner.encode(arrays, rng)

    def forms(self, shapes: Mapping[str, tuple[int, ...]]) -> Forms:
        return self._inner.forms(shapes)

    def decode(self, arrays: Arrays, shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
        self.decoded += 1
        return self._inner.decode(arrays, shapes)


class CountingServer:
    """A server half that counts how often it restores a state."""

    def __init__(self, inner: ServerHalf[Any]) -> None:
        self._inner = inner
        self.linear = inner.linear
        self.restored = self.steps = 0

    def init(self, seed: int) -> Any:
        return self._inner.init(seed)

    def broadcast(self, state: Any, seed: int) -> Arrays:
        return self._inner.broadcast(state, seed)

    def step(self, state: Any, updates: Sequence[Update], seed: int) -> tuple[Any, Metrics]:
        self.steps += 1
        return self._inner.step(state, updates, seed)

    def prompt(self, state: Any) -> npt.NDArray[np.float32]:
        return self._inner.prompt(state)

    def expected(self, state: Any) -> Mapping[str, tuple[int, ...] | Orders]:
        return self._inner.expected(state)

    def restore(self, arrays: Arrays) -> Any:
        self.restored += 1
        return self._inner.restore(arrays)


class Run:
    """A coordinator on a store in memory, with a codec and a method that count."""

    def __init__(self, rounds: int = ROUNDS) -> None:
        self.store, self.rounds = MemoryStore(), rounds
        self.start()

    def start(self) -> None:
        self.codec, self.method = CountingCodec(CODECS["int8"]), CountingServer(METHOD.server(CONFIG, SPACE))
        task = TaskSpec("{prompt} {text}", ("bad", "good"))
        settings = RunSettings(
            "run-1", task, ("0", "1"), SPACE, METHOD.settings(CONFIG), "int8", self.rounds, "", "", 2**20
        )
        self.coordinator = Coordinator(
            method_name=METHOD.name,
            method=self.method,
            codec=self.codec,
            settings=settings,
            seed=11,
            cohort=CohortRules(clients=3, quorum=3, deadline_seconds=60.0),
            store=self.store,
        )
        self.sessions: dict[str, str] = {}

    def join(self) -> None:
        for client in CLIENTS:
            self.sessions[client], _ = self.coordinator.join(Hello(client, client, 4, LINKS), 0.0)

    def answer(self, client: str) -> None:
        task = self.coordinator.task_for(self.sessions[client])
        assert task is not None
        draw = np.random.default_rng(task.id.round)
        expected = self.method.expected(self.method.init(0))
        shapes = {name: form for name, form in expected.items() if not isinstance(form, Orders)}
        arrays = {name: np.abs(draw.normal(size=shape)) for name, shape in shapes.items()}
        encoded = {} if task.id.phase is Phase.EVALUATE else self.codec.encode(arrays, draw)
        update = Update(encoded, 4.0, Measurement(4.0, 4, 2, 10))
        assert self.coordinator.submit(self.sessions[client], task.id, update, 0.0) is Receipt.COUNTED

    @property
    def counts(self) -> tuple[int, int]:
        """Updates decoded and states restored since the coordinator started."""
        return self.codec.decoded, self.method.restored


@pytest.fixture
def run() -> Run:
    return Run()


def test_a_round_decodes_each_update_once_and_restores_the_state_once(run: Run) -> None:
    """Kills: decoding again when the round closes; restoring the state again for the step or for the best prompt."""
    run.join()
    assert run.counts == (0, 1)
    for round in range(1, ROUNDS + 1):
        for client in CLIENTS:
            run.answer(client)
        assert run.counts == (len(CLIENTS) * round, 1 + round)
    for client in CLIENTS:
        run.answer(client)
    assert run.coordinator.state.ended
    assert run.counts == (len(CLIENTS) * (ROUNDS + 1), 1 + ROUNDS)


def test_a_restarted_coordinator_decodes_the_stored_updates_once(run: Run) -> None:
    """Kills: a restart that forgets the stored updates of the open round, or decodes them again at its close."""
    run.join()
    for client in CLIENTS[:2]:
        run.answer(client)
    run.start()
    assert run.counts == (2, 1)
    run.join()
    run.answer(CLIENTS[2])
    assert run.coordinator.status().round == 1
    assert run.counts == (3, 2)


def test_a_duplicate_is_not_decoded(run: Run) -> None:
    run.join()
    task = run.coordinator.task_for(run.sessions["anna"])
    run.answer("anna")
    assert task is not None
    again = Update({}, 4.0)
    assert run.coordinator.submit(run.sessions["anna"], task.id, again, 0.0) is Receipt.DUPLICATE
    assert run.counts == (1, 1)


def test_a_restart_after_a_thousand_rounds_repeats_none_of_them() -> None:
    """Kills: a recovery that takes longer the more rounds it looks back on."""
    run = Run(rounds=1000)
    run.join()
    for _ in range(1000):
        for client in CLIENTS:
            run.answer(client)
    assert run.method.steps == 1000
    run.start()
    assert len(run.coordinator.reports(0)) == 1000
    assert (run.counts, run.method.steps) == ((0, 1), 0)
