"""The seams of the framework. READ THIS FIRST.

One equation explains the methods: `loss = criterion(ptm.score(prompt(z), x), y)`. Clients search over z, or over what
makes z; only arrays shaped like z, or scalars, reach the coordinator; only prompts and inputs reach the PTM, and only
label scores come back.

Whatever implements one of these Protocols passes its conformance suite (tests/conformance) and knows no clock, socket
or disk, except `Store`, `Link` and the remote `Ptm`, whose business they are. States are values: what returns a new
one leaves the old one as it was.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from fedbbpt.types import (
    Arrays,
    Examples,
    Losses,
    Metrics,
    ModelCard,
    Perturbation,
    Population,
    Prompts,
    Receipt,
    RunSettings,
    Scored,
    Scores,
    Task,
    TaskId,
    TaskSpec,
    Update,
    Usage,
)

R = TypeVar("R")
S = TypeVar("S")

Objective: TypeAlias = Callable[[Population], Losses]
"""float64 `[P, n]` -> float64 `[P]`; lower is better. NaN counts as +inf."""


class Optimizer(Protocol[S]):
    """Search as a conversation: no clock, no model, no generator of its own.

    Law: `ask` and `tell` change neither `state` nor their other arguments; after any told losses, NaN and infinite ones
    among them, `ask` still gives finite candidates.
    """

    def init(self, mean: npt.NDArray[np.float64]) -> S: ...

    def ask(self, state: S, seed: int) -> Population:
        """The generation's candidates `[P, n]`, a pure function of state and seed."""
        ...

    def tell(self, state: S, population: Population, losses: Losses) -> S: ...


class ServerHalf(Protocol[S]):
    """One paper's server. S is a frozen dataclass of arrays and numbers, so that `types.pack` can store it.

    Law: where `linear` is true, `step(s, us, seed) == step(s, [merge(us)], seed)`.
    """

    linear: bool

    def init(self, seed: int) -> S: ...

    def broadcast(self, state: S, seed: int) -> Arrays:
        """What a round's tasks carry, in the types in which it travels: server and client see the same numbers."""
        ...

    def step(self, state: S, updates: Sequence[Update], seed: int) -> tuple[S, Metrics]:
        """The next state, and what the round measured (`train_loss`).

        `seed` is that of the round's tasks; updates come sorted by client id.
        """
        ...

    def prompt(self, state: S) -> npt.NDArray[np.float32]:
        """The z `[n]` that the state stands for, the same that a client reads from its broadcast."""
        ...

    def expected(self) -> Mapping[str, tuple[int, ...]]:
        """Name and shape of every array of an update; what differs is refused before it is stored."""
        ...

    def restore(self, arrays: Arrays) -> S:
        """The inverse of `types.pack`."""
        ...


class ClientHalf(Protocol):
    """One paper's client; what it needs comes by constructor, and it keeps nothing from task to task.

    Law: `update` is a pure function of the task and the objective.
    """

    def update(self, task: Task) -> Update: ...

    def prompt(self, arrays: Arrays) -> npt.NDArray[np.float32]:
        """The z `[n]` that a broadcast stands for: what is measured on dev data and kept in the end."""
        ...


class Objectives(Protocol):
    """What a client half may ask: the local loss, with or without perturbed inputs, and its weight."""

    @property
    def weight(self) -> float:
        """The number of local training examples n_k."""
        ...

    def loss(self, population: Population) -> Losses:
        """Mean criterion over the local training examples, `[P, n]` -> `[P]`."""
        ...

    def perturbed(self, perturbation: Perturbation) -> Objective:
        """The same loss on perturbed inputs (arXiv 2310.01467, equation 7)."""
        ...


class Codec(Protocol):
    """Arrays <-> fewer bytes.

    Law: `decode(encode(x))` is x within the codec's stated error; where `additive` is true,
    `decode(sum(encode(x))) ~ sum(decode(encode(x)))`.
    """

    name: str
    additive: bool

    def encode(self, arrays: Arrays, rng: np.random.Generator) -> Arrays: ...

    def decode(self, arrays: Arrays) -> Arrays: ...


class Backend(Protocol[R]):
    """A model: scores, never gradients, never hidden states. R is a tokenised input.

    Law: a pair's scores do not depend on the pairs beside it.
    """

    def describe(self) -> ModelCard: ...

    def check(self, task: TaskSpec) -> None:
        """Raises InvalidTask where the model cannot score the task."""
        ...

    def prepare(
        self, task: TaskSpec, examples: Examples, prompt_tokens: int, perturbation: Perturbation | None
    ) -> Sequence[R]:
        """Tokenises each example once, and cuts the ends off texts that leave no room for `prompt_tokens`.

        Raises PromptTooLong where not one token of a text would be left, InvalidExamples where the template and the
        examples do not agree on second texts.
        """
        ...

    def tokens(self, row: R) -> int:
        """The length of a prepared example, without its prompt."""
        ...

    def score(
        self, task: TaskSpec, prompts: Prompts, rows: Sequence[R], check: Callable[[], None]
    ) -> tuple[Scores, int]:
        """float32 `[P, B, K]` and the tokens that it took.

        Calls `check` between micro-batches; what it raises stops the work.
        """
        ...


@dataclass(frozen=True, slots=True)
class ExamplesHandle:
    """Names examples that the PTM service keeps."""

    id: str
    count: int
    tokens: int


class Ptm(Protocol):
    """The black box as a client sees it: in this process, or behind gRPC."""

    def describe(self) -> ModelCard: ...

    def register_task(self, task: TaskSpec) -> str: ...

    def register_examples(
        self, task_id: str, examples: Examples, prompt_tokens: int, perturbation: Perturbation | None = None
    ) -> ExamplesHandle: ...

    def score(self, examples_id: str, prompts: Prompts) -> Scored: ...

    def release(self, examples_id: str) -> None: ...

    def usage(self) -> Usage: ...


@dataclass(frozen=True, slots=True)
class Member:
    """A client as the store knows it: part of every cohort from round `since` to before round `until`."""

    client_id: str
    client_key: str
    examples: int
    since: int
    until: int | None = None
    counted: int | None = None
    """The last closed round that counted its update: an answer to that one is a duplicate, not late."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a closed round measured; its prompt is the one that the round began with."""

    round: int
    clients: int
    dev_loss: float
    dev_accuracy: float
    train_loss: float | None
    queries: int
    seconds: float
    bytes_up: int | None = None
    bytes_down: int | None = None

    @property
    def rank(self) -> tuple[float, float]:
        """The best prompt has the highest: the lowest dev loss, which is steadier on few examples than accuracy."""
        return -self.dev_loss, self.dev_accuracy


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The durable truth between two rounds: `round` stands open, `state` is the method's before it."""

    round: int
    state: Arrays
    best: Report | None = None
    best_z: npt.NDArray[np.float32] | None = None
    queries: int = 0
    stopped_after: int | None = None
    """The last round of a run that an operator stopped."""
    reports: tuple[Report, ...] = field(default=())


class Store(Protocol):
    """The durable truth of one run. Each call is one transaction: done when it returns, or not done at all.

    Every failure is a StoreError, and leaves what was stored before untouched.
    """

    def load(self) -> Snapshot | None: ...

    def members(self) -> Mapping[str, Member]: ...

    def put_member(self, member: Member) -> None: ...

    def put_update(self, task_id: TaskId, update: Update) -> None:
        """Idempotent: what stands already under `task_id` stays."""
        ...

    def updates(self, round: int) -> Mapping[str, Update]:
        """The stored updates of a round by client id."""
        ...

    def commit(self, snapshot: Snapshot, members: Sequence[Member] = ()) -> None:
        """Method state, round number, reports and changed members together; updates of earlier rounds are forgotten."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Hello:
    """How a client enters a run."""

    client_id: str
    client_key: str
    """Random, made once and kept; tells a client that comes back from another that took its name."""
    examples: int
    codecs: frozenset[str]


class Link(Protocol):
    """What an agent sees of a coordinator. Broken lines are the link's own business: it joins again and goes on."""

    def join(self, hello: Hello) -> RunSettings: ...

    def tasks(self) -> Iterator[Task]:
        """The tasks as they come up; ends when the run is finished."""
        ...

    def submit(self, task_id: TaskId, update: Update) -> Receipt: ...

    def leave(self) -> None: ...
