"""The seams of the framework. READ THIS FIRST.

One equation explains the methods: `loss = criterion(ptm.score(prompt(z), x), y)`. Clients search over z, or over what
makes z; only arrays shaped like z, or scalars, reach the coordinator; only prompts and inputs reach the PTM, and only
label scores come back.

Whatever implements one of these Protocols passes its conformance suite (tests/conformance) and knows no clock, socket
or disk, except `Store`, `Link` and the remote `Ptm`, whose business they are. States are values: what returns a new
one leaves the old one as it was.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from fedbbpt.types import (
    Arrays,
    Examples,
    ExamplesHandle,
    Expansion,
    Hello,
    Losses,
    Member,
    Metrics,
    MicroBatch,
    ModelCard,
    Orders,
    Perturbation,
    Population,
    Prompts,
    Receipt,
    RunSettings,
    Scored,
    Scores,
    Snapshot,
    Stage,
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


class PromptSpace(Protocol):
    """Where z lives, `[dim]`, and what it stands for: a prompt, and perhaps offsets of the classes' scores."""

    @property
    def dim(self) -> int:
        """n, the length of z."""
        ...

    @property
    def prompt_tokens(self) -> int:
        """The room that texts must leave for a prompt."""
        ...

    def prompts(self, z: npt.NDArray[np.floating], examples: Examples) -> Prompts:
        """Of each z `[P, dim]`, for these examples."""
        ...

    @property
    def offsets(self) -> int:
        """How many of z's last entries are offsets: they only shift scores, so that another value costs no query."""
        ...

    def shifted(self, scores: Scores, z: npt.NDArray[np.floating]) -> Scores:
        """The scores `[P, B, K]` of those prompts with each z's offsets added."""
        ...


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

        `seed` is that of the round's tasks; updates come sorted by client id, and say whose they are.
        """
        ...

    def prompt(self, state: S) -> npt.NDArray[np.float32]:
        """The z `[n]` that the state stands for, the same that a client reads from its broadcast."""
        ...

    def expected(self) -> Mapping[str, tuple[int, ...] | Orders]:
        """Every array of an update by name: the shape of finite numbers, or `Orders`.

        What differs is refused before it is stored.
        """
        ...

    def restore(self, arrays: Arrays) -> S:
        """The inverse of `types.pack`."""
        ...


class ClientHalf(Protocol):
    """One paper's client; what it needs comes by constructor, and it keeps nothing from task to task by itself.

    Law: `update` is a pure function of the task, the objective and `private`.
    """

    def update(self, task: Task, private: Arrays) -> tuple[Update, Arrays]:
        """The answer, and what this client alone keeps for its next task, if the answer is counted.

        `private` is empty at first. What a method does not have to keep it does not keep: most return it empty.
        """
        ...

    def prompt(self, arrays: Arrays) -> npt.NDArray[np.float32]:
        """The z `[n]` that a broadcast stands for: what is measured on dev data and kept in the end."""
        ...


class Objectives(Protocol):
    """What a client half may ask: its losses, with or without perturbed inputs, and its weight."""

    @property
    def weight(self) -> float:
        """The number of local training examples n_k."""
        ...

    def loss(self, population: Population) -> Losses:
        """Mean criterion over the local training examples, `[P, n]` -> `[P]`."""
        ...

    def each(self, population: Population, perturbation: Perturbation | None = None) -> npt.NDArray[np.float64]:
        """The criterion on each local training example, `[P, n]` -> `[P, B]`, with perturbed inputs where asked for."""
        ...

    def expansion(self, population: Population) -> Expansion:
        """The mean criterion as scores move from the first candidate's to the others', `[1 + P, n]` -> N = P + offsets.

        F(a) = criterion(S_0 + sum_i a_i (S_i - S_0) + the change by a step of a_(P + j) in offset j), S_i being the
        scores of candidate i. Where a candidate has none, its part of the gradient is NaN; where S_0 is none, all is.
        """
        ...


class WhiteBox(Protocol):
    """A model that is trained where it stands, for methods whose clients hold one instead of asking the PTM.

    Law: `align` and `tune` are pure functions of their arguments. Empty `weights` are those that the model began with.
    """

    @property
    def weight(self) -> float:
        """The number of local training examples n_k."""
        ...

    def align(self, weights: Arrays, z: npt.NDArray[np.float32], stage: Stage, seed: int) -> Arrays:
        """The weights after training all of them, with the prompt z `[n]` as it is."""
        ...

    def tune(
        self, weights: Arrays, z: npt.NDArray[np.float32], stage: Stage, seed: int
    ) -> tuple[npt.NDArray[np.float32], float]:
        """z `[n]` after training it, with the weights as they are, and the mean loss on the way."""
        ...


class Codec(Protocol):
    """Arrays <-> fewer bytes. Arrays of uint8 are no numbers and travel as they are.

    Law: `decode(encode(x))` is x within the codec's stated error; where `additive` is true,
    `decode(sum(encode(x))) ~ sum(decode(encode(x)))`.
    """

    name: str
    additive: bool

    def encode(self, arrays: Arrays, rng: np.random.Generator) -> Arrays: ...

    def decode(self, arrays: Arrays) -> Arrays: ...


class Job(Protocol):
    """Pairs to be scored, cut into micro-batches. Those may run in any order, and several at a time."""

    @property
    def batches(self) -> Sequence[MicroBatch]:
        """Each wanted pair once."""
        ...

    def run(self, batch: MicroBatch) -> npt.NDArray[np.float32]:
        """The scores `[N, K]` of its pairs."""
        ...


class Backend(Protocol[R]):
    """A model: scores, never gradients, never hidden states. R is a tokenised input.

    Law: a pair's scores do not depend on the pairs beside it.
    """

    @property
    def threads(self) -> int:
        """How many micro-batches are best run at a time."""
        ...

    @property
    def hidden_size(self) -> int:
        """The width of what its last layer reads; 0 where that is no secret, or not known."""
        ...

    def describe(self) -> ModelCard: ...

    def check(self, task: TaskSpec) -> None:
        """Raises InvalidTask where the model cannot score the task."""
        ...

    def columns(self, task: TaskSpec) -> frozenset[str]:
        """What of its last layer the scores of a task show: a name for each label token, or class text."""
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

    def identity(self, row: R) -> bytes:
        """Of what the model reads of a prepared example: texts may differ where this is the same."""
        ...

    def job(self, task: TaskSpec, prompts: Prompts, rows: Sequence[R], wanted: npt.NDArray[np.bool_]) -> Job:
        """Those of the P x B pairs that are `wanted` `[P, B]`.

        Raises PromptTooLong, InvalidTensor, UnsupportedPrompt.
        """
        ...


class Ptm(Protocol):
    """The black box as a client sees it: in this process, or behind gRPC."""

    def describe(self) -> ModelCard: ...

    def register_task(self, task: TaskSpec) -> str: ...

    def register_examples(
        self,
        task_id: str,
        examples: Examples,
        prompt_tokens: int,
        perturbation: Perturbation | None = None,
        labels: npt.NDArray[np.int64] | None = None,
    ) -> ExamplesHandle:
        """`labels` `[B]` where the output is LOSS_ONLY, and nowhere else."""
        ...

    def score(self, examples_id: str, prompts: Prompts) -> Scored: ...

    def release(self, examples_id: str) -> None: ...

    def usage(self) -> Usage: ...


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


class Link(Protocol):
    """What an agent sees of a coordinator. Broken lines are the link's own business: it joins again and goes on."""

    def join(self, hello: Hello) -> RunSettings: ...

    def tasks(self) -> Iterator[Task]:
        """The tasks as they come up; ends when the run is finished."""
        ...

    def submit(self, task_id: TaskId, update: Update) -> Receipt: ...

    def leave(self) -> None: ...
