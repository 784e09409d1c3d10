"""The interfaces of the framework. Read this first.

One equation explains the methods: `loss = criterion(ptm.score(prompt(z), x), y)`. Clients search over z, or over the
parameters that generate z. Only arrays shaped like z and scalars reach the coordinator, only prompts and inputs reach
the PTM, and only label scores come back.

The interfaces share one file so that they can be read at one sitting. Every implementation of one of these Protocols
passes its suite in tests/conformance. Except for `Store`, `Link` and the remote `Ptm`, implementations use no clock,
socket or disk. States are values: a method that returns a new state leaves the old one unchanged.

A whole method is a `ServerHalf` and a `ClientHalf`. In this one each client tries eight random steps from the broadcast
z and returns the best, and the server averages:

>>> from dataclasses import dataclass
>>> from fedbbpt import seeds
>>> from fedbbpt.types import Phase, Task, TaskId, Update, merge, unpack
>>> @dataclass(frozen=True)
... class State:
...     z: np.ndarray
>>> class Server:
...     linear = True
...     def init(self, seed): return State(np.zeros(2))
...     def broadcast(self, state, seed): return {"z": self.prompt(state)}
...     def step(self, state, updates, seed):
...         total = merge(updates)
...         return State(total.arrays["z"] / total.weight), {}
...     def prompt(self, state): return state.z.astype(np.float32)
...     def expected(self, state): return {"z": (2,)}
...     def restore(self, arrays): return unpack(State, arrays)
>>> class Client:
...     def __init__(self, objectives): self.objectives = objectives
...     def update(self, task, private):
...         steps = seeds.rng(task.seed, task.id.client_id).normal(0, 0.3, (8, 2))
...         population = task.arrays["z"] + steps
...         best = population[self.objectives.loss(population, task.seed).argmin()]
...         return Update({"z": self.objectives.weight * best}, self.objectives.weight), private
...     def prompt(self, arrays): return arrays["z"]

A client's objective is usually the loss on its examples, for which it asks the PTM. For a try, a distance will do:

>>> class Distance:
...     weight = 16
...     def __init__(self, target): self.target = target
...     def loss(self, population, draw): return np.square(population - self.target).sum(axis=1)
>>> server, clients = Server(), {"north": Client(Distance([3, 2])), "south": Client(Distance([3, 0]))}
>>> state = server.init(seed=0)
>>> for round in range(20):
...     arrays = server.broadcast(state, seed=round)
...     tasks = [Task(TaskId("run", round, name, Phase.UPDATE), round, arrays, 60.0) for name in clients]
...     updates = [clients[task.id.client_id].update(task, {})[0] for task in tasks]
...     state, metrics = server.step(state, updates, seed=round)
>>> bool(np.linalg.norm(server.prompt(state) - [3, 1]) < 0.5)
True
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from fedbbpt.types import (
    Arrays,
    Examples,
    ExamplesHandle,
    Expansion,
    Forms,
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
    ReadoutSums,
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
T_contra = TypeVar("T_contra", contravariant=True)

Objective: TypeAlias = Callable[[Population], Losses]
"""A function from candidates `[P, n]` to losses `[P]`, lower is better. NaN counts as +inf."""


class Optimizer(Protocol[S]):
    """A search as ask and tell, without a clock, a model or a random generator of its own.

    Law: `ask` and `tell` change neither `state` nor their other arguments. `ask` returns finite
    candidates after any told losses, also after NaN and infinite ones.
    """

    def init(self, mean: npt.NDArray[np.float64]) -> S:
        """Returns the state of a search that starts at `mean` `[n]`."""
        ...

    def ask(self, state: S, seed: int) -> Population:
        """Returns the generation's candidates `[P, n]`, which depend only on state and seed."""
        ...

    def tell(self, state: S, population: Population, losses: Losses) -> S:
        """Returns the state after the losses `[P]` of the generation's candidates `[P, n]`."""
        ...


class PromptSpace(Protocol):
    """The meaning of z `[dim]`: a prompt, and perhaps offsets of the class scores."""

    @property
    def dim(self) -> int:
        """n, the length of z."""
        ...

    @property
    def prompt_tokens(self) -> int:
        """Number of tokens that texts must leave free for a prompt."""
        ...

    @property
    def views(self) -> tuple[str, ...]:
        """m text prompts that are the same for all z. `shifted` expects their scores before those of z's prompts."""
        ...

    def prompts(self, z: npt.NDArray[np.floating], examples: Examples) -> Prompts | None:
        """Returns the prompts of z `[P, dim]` for these examples; None if `shifted` does not need their scores."""
        ...

    @property
    def offsets(self) -> int:
        """The number of last entries of z that are offsets. They only shift scores, so changing them costs no query."""
        ...

    def shifted(self, scores: Scores, z: npt.NDArray[np.floating]) -> Scores:
        """Returns the class scores `[P, B, K]` under z `[P, dim]`, with the offsets or the readout of each z.

        `scores` are those of z's prompts `[P, B, V]`, or, with views, of all views and then z's prompts,
        `[P, B, (m + 1) V]`; if z needs no prompts, those of the views only. Without a readout V = K.
        """
        ...


class ServerHalf(Protocol[S]):
    """The server's half of a method. S is a frozen dataclass of arrays and numbers, which `types.pack` can store.

    Law: where `linear` is true, `step(s, us, seed) == step(s, [merge(us)], seed)`.
    """

    linear: bool
    """Whether the server needs only the sum of the updates. Secure aggregation works with such methods only."""

    def init(self, seed: int) -> S:
        """Returns the state before the first round."""
        ...

    def broadcast(self, state: S, seed: int) -> Arrays:
        """Returns the arrays of a round's tasks, in the types in which they travel.

        The server computes with these types as well, so that server and clients see the same numbers.
        """
        ...

    def step(self, state: S, updates: Sequence[Update], seed: int) -> tuple[S, Metrics]:
        """Returns the next state, and the measurements of the round (`train_loss`). Changes none of its arguments.

        The coordinator steps again from the same state if it could not store the next one.

        Args:
            state: The state with which the round began.
            updates: The decoded updates, sorted by client id. Each has its client's id.
            seed: The seed of the round's tasks.
        """
        ...

    def prompt(self, state: S) -> npt.NDArray[np.float32]:
        """Returns the z `[n]` of the state, the same that a client reads from its broadcast."""
        ...

    def expected(self, state: S) -> Mapping[str, tuple[int, ...] | Orders]:
        """Returns the arrays of an update to this state's broadcast, by name: the shape of finite numbers, or `Orders`.

        The coordinator rejects every other update before it stores it.
        """
        ...

    def restore(self, arrays: Arrays) -> S:
        """Returns the state that `types.pack` turned into `arrays`."""
        ...


class Replay(Protocol[T_contra]):
    """The part of a method's search that a client can repeat. Both ends make it from the settings of the run.

    Law: if `news` are those of a step from state s to t, `replayed(held(s), news, seed)` is `held(t)`, bit for bit, on
    machines that compute alike. The broadcast of s is `broadcast(held(s))`.
    """

    def held(self, state: T_contra, broadcast: Arrays) -> Arrays:
        """Returns the arrays of a state, with its broadcast, that a client holds in order to replay the next step."""
        ...

    def broadcast(self, held: Arrays) -> Arrays:
        """Returns the arrays of a task for the half of a client that holds these."""
        ...

    def news(self, after: T_contra, broadcast: Arrays, updates: Sequence[Update], seed: int) -> Arrays:
        """Returns the numbers that a step needs.

        Args:
            after: The state after the step.
            broadcast: The broadcast of that state.
            updates: The decoded updates that the step was made of.
            seed: The seed of the tasks that they answered.
        """
        ...

    def draw_ahead(self, broadcast: Arrays, seed: int) -> None:
        """Computes and keeps what the next step needs besides its news, while its round is open.

        Args:
            broadcast: The broadcast of the round.
            seed: The seed of the round's tasks.
        """
        ...

    def replayed(self, held: Arrays, news: Arrays, seed: int) -> Arrays:
        """Returns the arrays that a client holds after a step.

        Args:
            held: The arrays before the step.
            news: What the server learnt.
            seed: The seed of the tasks that the step's updates answered.
        """
        ...


@runtime_checkable
class StartsAnywhere(Protocol[S]):
    """A server's half whose search can begin at any prompt. Every other one begins at its own."""

    def started(self, state: S, z: npt.NDArray[np.float32]) -> S:
        """Returns the state before the first round of a search that begins at z `[n]`, which is then its prompt.

        `state` is what `init` returned.
        """
        ...


@runtime_checkable
class MovesUpdates(Protocol[T_contra]):
    """A server's half that can use an update to an earlier broadcast, in asynchronous runs."""

    def displaced(self, update: Update, before: T_contra, after: T_contra, seed: int) -> Update:
        """Returns an update as if its search had begun elsewhere, in the form that `step` takes.

        Args:
            update: The decoded update to the broadcast of `before`.
            before: The state that it answers.
            after: The state that the next step begins with.
            seed: The seed of the task that it answers.
        """
        ...


class ClientHalf(Protocol):
    """The client's half of a method. Its constructor takes the objectives; between tasks it keeps no state.

    Law: the result of `update` depends only on the task, the objectives and `private`.
    """

    def update(self, task: Task, private: Arrays) -> tuple[Update, Arrays]:
        """Returns the answer to a task, and the arrays to keep for the next task, even if the answer is not counted.

        `private` never leaves the client. It is empty at first, and most methods leave it empty.
        """
        ...

    def prompt(self, arrays: Arrays) -> npt.NDArray[np.float32]:
        """Returns the z `[n]` of a broadcast, which is measured on dev data and is the result of the run."""
        ...


class Objectives(Protocol):
    """The losses on a client's training examples, for its half of a method, with or without perturbed inputs.

    A run may score each generation of a search on some of the examples only. `draw`, any integer, chooses them: calls
    with the same draw use the same examples. So a half takes one draw for all candidates that it compares, and another
    one for its next generation: `seeds.derive(task.seed, task.id.client_id, generation)`.
    """

    @property
    def weight(self) -> float:
        """n_k, the number of local training examples."""
        ...

    def loss(self, population: Population, draw: int) -> Losses:
        """Returns the mean criterion over the drawn examples, `[P]`, of candidates `[P, n]`."""
        ...

    def each(self, population: Population, perturbation: Perturbation | None, draw: int) -> npt.NDArray[np.float64]:
        """Returns the criterion on each drawn example, `[P, B]`, of candidates `[P, n]`, if wanted on perturbed inputs.

        Inputs are perturbed once for successive calls with the same perturbation and draw.
        """
        ...

    def expansion(self, population: Population, draw: int) -> Expansion:
        """Returns the second-order expansion of the mean criterion in mixtures of the candidates' scores.

        With candidates `[1 + P, n]`, scores S_i, and a step of a_(P + j) in offset j, it expands
        F(a) = criterion(S_0 + sum_i a_i (S_i - S_0) + the change by the offsets) in N = P + offsets numbers a.
        A candidate without finite scores has NaN in its part of the gradient; if S_0 is not finite, all of it is NaN.
        """
        ...

    def readout(
        self, z: npt.NDArray[np.floating], readouts: npt.NDArray[np.floating], *, whole: bool = False
    ) -> ReadoutSums:
        """Returns the criterion of readouts on all training and dev examples, and its derivatives, as sums.

        The columns of the examples are asked once and kept for as long as the prompt stays the same.

        Args:
            z: The prompt that the last columns are scored under, `[n]`, without a readout.
            readouts: `[R, K, C + 1]`: D, and in the last column b. If C is m V, the prompt is not asked.
            whole: Whether the dev examples count as training examples too.
        """
        ...


class WhiteBox(Protocol):
    """A model that a client trains itself, for methods whose clients do not ask the PTM for losses.

    Law: `align` and `tune` depend only on their arguments. Empty `weights` stand for the initial ones.
    """

    @property
    def weight(self) -> float:
        """n_k, the number of local training examples."""
        ...

    def align(self, weights: Arrays, z: npt.NDArray[np.float32], stage: Stage, seed: int) -> Arrays:
        """Returns the weights after training all of them, with the prompt z `[n]` fixed."""
        ...

    def tune(
        self, weights: Arrays, z: npt.NDArray[np.float32], stage: Stage, seed: int
    ) -> tuple[npt.NDArray[np.float32], float]:
        """Returns z `[n]` after training it, with the weights fixed, and the mean loss over the steps."""
        ...


class Codec(Protocol):
    """Makes arrays smaller for their way. Arrays of uint8 are indices, and are sent unchanged.

    Law: `decode(encode(x))` is x within the codec's stated error; where `additive` is true,
    `decode(sum(encode(x))) ~ sum(decode(encode(x)))`.
    """

    @property
    def name(self) -> str:
        """The codec's name in a job."""
        ...

    @property
    def additive(self) -> bool:
        """Whether encoded updates can be summed. Secure aggregation works with such codecs only."""
        ...

    def encode(self, arrays: Arrays, rng: np.random.Generator) -> Arrays:
        """Returns the arrays in the form in which they travel, under the same names. `rng` rounds stochastically.

        Raises InvalidTensor if a number is not finite or too large.
        """
        ...

    def forms(self, shapes: Mapping[str, tuple[int, ...]]) -> Forms:
        """Returns the types and the shapes that arrays of numbers of these shapes are encoded to."""
        ...

    def decode(self, arrays: Arrays, shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
        """Returns the arrays that `encode` encoded, up to the codec's error. Raises InvalidTensor.

        `shapes` has the shape of each array before it was encoded.
        """
        ...


class ScoringJob(Protocol):
    """Pairs to score, divided into micro-batches, which may run in any order and several at a time."""

    @property
    def batches(self) -> Sequence[MicroBatch]:
        """The micro-batches. Each wanted pair is in exactly one of them."""
        ...

    def run(self, batch: MicroBatch) -> npt.NDArray[np.float32]:
        """Returns the scores of the micro-batch's pairs, `[N, K]`.

        A backend that cannot measure all of them returns `[N, 2, K]`: scores, and 1 for each that is an upper bound.
        """
        ...


class Backend(Protocol[R]):
    """A model that returns scores, but neither gradients nor hidden states. R is a prepared (tokenised) example.

    Law: a pair's scores do not depend on the other pairs of the call.
    """

    @property
    def threads(self) -> int:
        """How many micro-batches to run at a time."""
        ...

    @property
    def hidden_size(self) -> int:
        """The width of the last layer's input; 0 if it is not secret or not known."""
        ...

    def describe(self) -> ModelCard:
        """Returns the model's card."""
        ...

    def check(self, task: TaskSpec) -> None:
        """Raises InvalidTask if the model cannot score the task."""
        ...

    def columns(self, task: TaskSpec) -> tuple[tuple[str, ...], ...]:
        """Returns the columns of the last layer that each class's score reveals: its label tokens, or its text."""
        ...

    def prepare(
        self, task: TaskSpec, examples: Examples, prompt_tokens: int, perturbation: Perturbation | None
    ) -> Sequence[R]:
        """Tokenises each example once, and truncates texts that leave no room for `prompt_tokens`.

        A row may have an attribute `cut_tokens`, the number of tokens that were cut off. If all rows have it, callers
        are told how many texts were truncated.

        Raises:
            PromptTooLong: No token of a text would be left.
            InvalidExamples: The template has a place for second texts and the examples have none, or vice versa.
        """
        ...

    def tokens(self, row: R) -> int:
        """Returns the length of a prepared example without its prompt, in tokens."""
        ...

    def identity(self, row: R) -> bytes:
        """Returns a digest of the tokens that the model reads. Two different texts may share it."""
        ...

    def job(self, task: TaskSpec, prompts: Prompts, rows: Sequence[R], wanted: npt.NDArray[np.bool_]) -> ScoringJob:
        """Plans the pairs of prompts and rows that are `wanted` `[P, B]`.

        Raises:
            PromptTooLong: A prompt and an example exceed the model together.
            InvalidTensor: A number of a prompt is out of range.
            UnsupportedPrompt: The model does not take such prompts.
        """
        ...


class Ptm(Protocol):
    """The pre-trained model as a client sees it: in this process or over gRPC. ptm.proto describes each call."""

    def describe(self) -> ModelCard:
        """Returns the model's card as this client sees it."""
        ...

    def register_task(self, task: TaskSpec) -> str:
        """Returns the id of the task. Raises InvalidTask, BudgetSpent."""
        ...

    def label_tokens(self, task: TaskSpec) -> tuple[int, ...]:
        """Registers the task, and returns the number of label tokens of each class; () if the service does not tell.

        Raises what `register_task` raises.
        """
        ...

    def register_examples(
        self,
        task_id: str,
        examples: Examples,
        prompt_tokens: int,
        perturbation: Perturbation | None = None,
        labels: npt.NDArray[np.int64] | None = None,
    ) -> ExamplesHandle:
        """Returns a handle of the examples.

        Args:
            task_id: The id of their task.
            examples: The B inputs.
            prompt_tokens: Number of tokens that texts must leave free for prompts.
            perturbation: Replaces tokens of the texts; None leaves them unchanged.
            labels: Indices of classes `[B]` if the card's output is LOSS_ONLY, otherwise None.

        Raises:
            UnknownTask, InvalidExamples, PromptTooLong, PolicyForbids, Overloaded: As ptm.proto says.
        """
        ...

    def score(self, examples_id: str, prompts: Prompts) -> Scored:
        """Scores all pairs of the prompts and the handle's examples. Raises what ptm.proto says."""
        ...

    def release(self, examples_id: str) -> None:
        """Takes back one registration of the examples."""
        ...

    def usage(self) -> Usage:
        """Returns what all calls of this client have used."""
        ...


class Store(Protocol):
    """The durable state of one run. Each call is a transaction: it happens completely or not at all.

    Every failure is a StoreError and leaves the stored state unchanged.
    """

    def load(self) -> Snapshot | None:
        """Returns the latest snapshot, or None before the run starts."""
        ...

    def members(self) -> Mapping[str, Member]:
        """Returns all members by client id."""
        ...

    def put_members(self, members: Sequence[Member]) -> None:
        """Stores new or changed members."""
        ...

    def put_updates(self, updates: Sequence[tuple[TaskId, Update]]) -> None:
        """Stores updates, all or none. Idempotent: an update that is already stored under its task's id stays."""
        ...

    def updates(self, round: int) -> Mapping[str, Update]:
        """Returns the stored updates of a round by client id, sorted. Each may be read when it is asked for."""
        ...

    def commit(self, snapshot: Snapshot, members: Sequence[Member] = ()) -> None:
        """Stores a snapshot and changed members together. If it begins a round, deletes the updates of earlier ones."""
        ...

    def backup(self, path: Path) -> None:
        """Writes all of the store into a new file, from which a coordinator can continue. Raises FileExistsError."""
        ...

    def close(self) -> None:
        """Releases the store. Nothing may be called after it."""
        ...


class Link(Protocol):
    """The coordinator as an agent sees it. A link reconnects by itself: it joins again and continues."""

    def join(self, hello: Hello) -> RunSettings:
        """Enters the run and returns its settings. Raises what coordinator.proto says."""
        ...

    def tasks(self) -> Iterator[Task]:
        """Yields the tasks as they arise, until the run has ended."""
        ...

    def submit(self, task_id: TaskId, update: Update) -> Receipt:
        """Submits an encoded update, and returns what became of it."""
        ...

    def report_trouble(self, text: str) -> None:
        """Tells the coordinator what keeps the client from its task. Does not fail if it cannot be told."""
        ...

    def leave(self) -> None:
        """Leaves the run."""
        ...
