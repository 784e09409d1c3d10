"""The parts of a method: each paper's file defines a `Method` under the name METHOD."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeAlias, TypeVar

from pydantic import Field

from fedbbpt.interfaces import ClientHalf, Objectives, PromptSpace, Replay, ServerHalf, WhiteBox
from fedbbpt.limits import MAX_ROUNDS
from fedbbpt.methods.update_rules import UpdateRules
from fedbbpt.tasks.readout_fit import RIDGES
from fedbbpt.toml.section import Section
from fedbbpt.types import Arrays, MethodSettings


class ReadoutConfig(Section):
    """The table `[method.readout]` of a job, for tasks that have views."""

    ridges: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(
        RIDGES,
        min_length=1,
        max_length=64,
        description="Penalties of the readouts. All are fitted at once, and the dev examples choose one. The larger, "
        "the closer is the readout to the plain class scores with offsets.",
    )
    rounds: int = Field(20, ge=2, le=MAX_ROUNDS, description="Most rounds of a fit, which ends sooner if it converges.")
    every: int = Field(5, ge=1, le=MAX_ROUNDS, description="With a search: rounds of the search between two fits.")


class MethodConfig(Section):
    """A method's table `[method]` in a job file. A subclass adds the method's keys."""

    name: str
    batch_examples: int = Field(
        0,
        ge=0,
        lt=2**31,
        description="Most examples of each client that score a generation, or measure a prompt in a round; drawn by "
        "the seed. 0: all.",
    )
    dev_every: int = Field(
        1, ge=1, le=MAX_ROUNDS, description="Prompts are measured on dev examples every so many rounds."
    )
    readout: ReadoutConfig = ReadoutConfig()


C = TypeVar("C", bound=MethodConfig)
S = TypeVar("S", bound=MethodSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method(Generic[C, S]):
    """One paper: its config `C`, its settings `S`, and its two halves.

    The config is the method's table in a job file. The settings are the part of it that clients receive when they join,
    and hold only values that clients need. Either `client` or `white_box_client` is given.
    """

    name: str
    """The value of `method.name` in a job. Lower case, with hyphens."""
    version: str = "1"
    """Version of the settings and of the arrays in broadcasts and updates.

    A client that has another version of a plug-in is refused. Built-in methods are covered by the protocol's version.
    """
    config: type[C]
    settings_type: type[S]
    """A frozen dataclass. The fields of a plug-in's settings are int, float, bool, str or NumPy arrays."""
    settings: Callable[[C], S]
    """Returns the settings that clients receive for a config."""
    server: Callable[[C, PromptSpace], ServerHalf[Any]]
    """Makes the server's half."""
    client: Callable[[S, PromptSpace, Objectives], ClientHalf] | None = None
    """Makes the half of a client that queries the PTM."""
    white_box_client: Callable[[S, PromptSpace, WhiteBox], ClientHalf] | None = None
    """Makes the half of a client that trains a model of its own instead."""
    spaces: Callable[[C], frozenset[str]] = lambda config: frozenset({"latent"})
    """Returns the kinds of `task.prompt` that a config can search over."""
    needs_scores: Callable[[S], bool] = lambda settings: False
    """Returns whether clients need a score for each class, and not only losses."""
    replay: Callable[[S, PromptSpace], Replay[Any] | None] = lambda settings, space: None
    """Returns how clients replay the server's steps; None if all of them get each broadcast whole."""
    sums: Callable[[S, PromptSpace], Mapping[str, tuple[int, ...]] | None] = lambda settings, space: None
    """Returns the shapes of the arrays of an update, by name, for relays, which sum the updates of a site.

    None if the server needs more than the sum. Updates of rounds that fit a readout always add, and are not meant.
    """
    rules: Callable[[S], UpdateRules] = lambda settings: UpdateRules()
    """Returns what every honest update satisfies. Rounds that fit a readout have rules of their own."""
    point: Callable[[S], str] = lambda settings: ""
    """Returns the name of the point that clients search from: a field of the server's state and of the broadcast.

    "" if there is none. Broadcasts of a point can be encoded.
    """
    uplink: Callable[[S], str] = lambda settings: "float32"
    """Returns the codec of updates where a job leaves the choice, for runs without a readout."""
    downlink: str = "float32"
    """The codec of broadcasts where a job leaves the choice. float32 sends them whole."""
    essential: Callable[[Arrays], Arrays] | None = None
    """Returns the part of an update's arrays that the server's steps use: a linear projection, with zeros elsewhere.

    Runs with a privacy budget release noisy sums of nothing else. None: the method has no such runs.
    """
    stale: Callable[[C], str] = lambda config: "its updates are about the candidates of one round"
    """Returns why an update cannot count in a later round than its own; "" if it can: asynchronous runs need that.

    The server's half is then an `interfaces.MovesUpdates`.
    """
    undefended: Callable[[C, str], str] = lambda config, rule: ""
    """Returns why a rule of `cohort.robust` cannot combine the updates; "" if it can."""
    owner: Callable[[S, PromptSpace, WhiteBox], ClientHalf] | None = None
    """Makes the half of the model owner, for methods in which the owner takes a turn between two client rounds."""
    owner_takes_part: Callable[[C], bool] = lambda config: False
    """Returns whether the owner takes these turns."""

    def __post_init__(self) -> None:
        if (self.client is None) == (self.white_box_client is None):
            raise ValueError(f"method {self.name!r} needs either a client or a white_box_client")

    @property
    def white_box(self) -> bool:
        """Whether clients train a model of their own instead of querying the PTM."""
        return self.white_box_client is not None


AnyMethod: TypeAlias = Method[Any, Any]
