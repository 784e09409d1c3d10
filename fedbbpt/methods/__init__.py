"""The federated tuning methods, one file for each paper: its config, the
settings that its clients receive, and its two halves.

The halves of a method meet only through the `Task` and the `Update`. Other packages add methods through the entry-point
group "fedbbpt.methods"; docs/guides/own-method.md shows how.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedbbpt.codecs import SPARSE, codec_of
from fedbbpt.errors import InvalidInput, InvalidJob, InvalidPlugin
from fedbbpt.host.plugins import load_plugin, plugin_names
from fedbbpt.interfaces import ClientHalf, Objectives, PromptSpace, Replay, ServerHalf, WhiteBox
from fedbbpt.methods import fed_bbpt, fed_bpt, fed_cma, fed_readout, fed_sp, fedavg_bbt, readout_rounds
from fedbbpt.methods.alternating import AlternatingClient, AlternatingServer, alternating_space
from fedbbpt.methods.coded_downlink import CodedReplay, CodedServer
from fedbbpt.methods.extension import extension_settings, plugin_settings
from fedbbpt.methods.method import AnyMethod, Method, MethodConfig
from fedbbpt.methods.update_rules import UpdateRules
from fedbbpt.prompts import space_of
from fedbbpt.types import Arrays, ExtensionSettings, MethodSettings, RunSettings

AUTO, WHOLE = "auto", "float32"
"""Names of codecs in a job: one that leaves the choice to the method, and one with which broadcasts travel whole."""
GROUP = "fedbbpt.methods"
"""The entry-point group of plug-in methods."""

METHODS: Mapping[str, AnyMethod] = {
    "fed-cma": fed_cma.METHOD,
    "fed-bpt": fed_bpt.METHOD,
    "fed-bbpt": fed_bbpt.METHOD,
    "fed-sp": fed_sp.METHOD,
    "fedavg-bbt": fedavg_bbt.METHOD,
    "fed-readout": fed_readout.METHOD,
}
"""The built-in methods by name."""
SETTINGS: Mapping[str, type[MethodSettings]] = {name: method.settings_type for name, method in METHODS.items()}
"""The type of each built-in method's settings, for `wire.messages.coordinator_messages`."""


def method_names(own: Sequence[AnyMethod] = ()) -> list[str]:
    """Returns the names of all methods that a job can use, sorted: built-in, the caller's own, and installed."""
    return sorted({*METHODS, *(method.name for method in own), *plugin_names(GROUP)})


def find_method(name: str, own: Sequence[AnyMethod] = ()) -> AnyMethod | None:
    """Returns the method of that name, or None where there is none.

    Args:
        own: Methods that the caller defines itself, without installing them.

    Raises:
        InvalidPlugin: The plug-in does not load, or its name is taken.
    """
    mine = [method for method in own if method.name == name]
    if mine and METHODS.get(name, mine[0]) is not mine[0]:
        raise InvalidPlugin(f"{name!r} is built into fedbbpt", where="methods", fix="another name for the own method")
    if mine:
        return mine[0]
    plugin = load_plugin(GROUP, name, METHODS)
    if plugin is None:
        return METHODS.get(name)
    if not isinstance(plugin, Method) or plugin.name != name:
        raise InvalidPlugin(f"entry point {name!r} is {plugin!r}", where=GROUP, fix=f"a Method with the name {name!r}")
    return plugin


def told_settings(method: AnyMethod, config: MethodConfig) -> MethodSettings:
    """Returns the settings that clients receive for a config, in the form in which they travel.

    Raises:
        InvalidPlugin: A field of the plug-in's settings has a type that does not travel.
    """
    settings: MethodSettings = method.settings(config)
    return settings if METHODS.get(method.name) is method else extension_settings(method, settings)


def server_half(
    method: AnyMethod, config: MethodConfig, space: PromptSpace, downlink: str = WHOLE, kept: float = 1.0
) -> ServerHalf[Any]:
    """Returns the server's half of a run's method, which fits a readout in some rounds if the space has one.

    Args:
        method: The method.
        config: Its table of the job.
        space: The space of z.
        downlink: The codec of the broadcasts, as `downlink_codec` gives it.
        kept: The share of the numbers that a sparse codec sends.
    """
    alternating = alternating_space(space)
    if alternating is None:
        half = method.server(config, space)
        if downlink == WHOLE:
            return half
        point = method.point(method.settings(config))
        return CodedServer(half, point, codec_of(downlink, kept=kept, point=point))
    return AlternatingServer(method.server(config, alternating.prompt), config.readout, alternating)


@dataclass(frozen=True, slots=True)
class ClientMethod:
    """A method as the clients and the model owner of one run use it, with the settings that they were told."""

    method: AnyMethod
    settings: MethodSettings
    space: PromptSpace
    downlink: str = WHOLE
    """The codec of the broadcasts."""
    kept: float = 1.0
    """The share of the numbers that sparse codecs send."""

    @property
    def white_box(self) -> bool:
        """Whether the run's clients train a model of their own."""
        return self.method.white_box

    @property
    def needs_scores(self) -> bool:
        """Whether the run's clients need a score for each class, and not only losses."""
        return self.method.needs_scores(self.settings)

    @property
    def replay(self) -> Replay[Any] | None:
        """How a client replays the server's steps; None if it gets each broadcast whole."""
        return replay_of(self.method, self.settings, self.space, self.downlink, self.kept)

    @property
    def point(self) -> str:
        """The name of the point that clients search from; "" if there is none."""
        return point_of(self.method, self.settings, self.space)

    @property
    def linear(self) -> bool:
        """Whether the server needs only the sum of the updates, so that a relay can add those of its site."""
        return self._sums is not None

    def sums(self, broadcast: Arrays) -> Mapping[str, tuple[int, ...]]:
        """Returns the shapes of the arrays of an update to a broadcast of a linear method, by name."""
        return readout_rounds.sums(broadcast) if readout_rounds.fits(broadcast) else self._sums or {}

    def rules(self, broadcast: Arrays) -> UpdateRules:
        """Returns what every honest update to a broadcast satisfies."""
        return readout_rounds.rules(broadcast) if readout_rounds.fits(broadcast) else self.method.rules(self.settings)

    def essential(self, arrays: Arrays) -> Arrays:
        """Returns the part of an update's arrays that the server's steps use. Raises InvalidInput where it is unknown.

        Runs with a privacy budget have methods that say it.
        """
        if self.method.essential is None:
            what = f"it is not known what part of an update {self.method.name} uses"
            raise InvalidInput(what, where="method", fix="a method with `essential`")
        return essential(self.method, arrays)

    @property
    def _sums(self) -> Mapping[str, tuple[int, ...]] | None:
        alternating = alternating_space(self.space)
        return self.method.sums(self.settings, self.space if alternating is None else alternating.prompt)

    def half(self, objectives: Objectives) -> ClientHalf:
        """Returns the half of a client that queries the PTM. Raises InvalidInput for a white-box method."""
        if self.method.client is None:
            raise InvalidInput(f"{self.method.name} trains a model on the client", where="method", fix="a white box")
        make, settings, alternating = self.method.client, self.settings, alternating_space(self.space)
        if alternating is None:
            return make(settings, self.space, objectives)
        prompts = alternating.prompt
        return AlternatingClient(lambda through: make(settings, prompts, through), alternating, objectives)

    def white_box_half(self, model: WhiteBox) -> ClientHalf:
        """Returns the half of a client that trains `model`. Raises InvalidInput for a black-box method."""
        if self.method.white_box_client is None:
            raise InvalidInput(f"{self.method.name} queries the PTM", where="method", fix="objectives")
        return self.method.white_box_client(self.settings, self.space, model)

    def owner_half(self, model: WhiteBox) -> ClientHalf:
        """Returns the half of the model owner. Raises InvalidInput where the owner takes no part in the method."""
        if self.method.owner is None:
            what = f"the model owner takes no part in {self.method.name}"
            raise InvalidInput(what, where="method", fix="fed-sp")
        return self.method.owner(self.settings, self.space, model)


def essential(method: AnyMethod, arrays: Arrays) -> Arrays:
    """Returns the part of an update's arrays that the server's steps use, be it of a search or of a readout's fit.

    Only for methods that have an `essential` of their own.
    """
    if readout_rounds.of_fit(arrays):
        return readout_rounds.essential(arrays)
    assert method.essential is not None, "runs with a privacy budget have such a method"
    return method.essential(arrays)


def uplink_codec(method: AnyMethod, config: MethodConfig, space: PromptSpace, chosen: str) -> str:
    """Returns the codec of a run's updates.

    Args:
        method: The method.
        config: Its table of the job.
        space: The space of z.
        chosen: The codec that the job names, or "auto" for the method's own.

    Raises:
        InvalidJob: The job names a codec that the method's updates do not suit.
    """
    if chosen in SPARSE:
        point, half = point_of(method, method.settings(config), space), method.server(config, space)
        if not point or point not in half.expected(half.init(0)):
            what = f"updates of {method.name} are new in each round, so numbers that do not travel would be lost"
            raise InvalidJob(what, where="codec.uplink", fix=f'"{AUTO}", or "rotate+int8"')
    if chosen != AUTO:
        return chosen
    return WHOLE if space.views else method.uplink(method.settings(config))


def downlink_codec(method: AnyMethod, config: MethodConfig, space: PromptSpace, chosen: str) -> str:
    """Returns the codec of a run's broadcasts, `float32` if they travel whole.

    Args:
        method: The method.
        config: Its table of the job.
        space: The space of z.
        chosen: The codec that the job names, or "auto" for the method's own.

    Raises:
        InvalidJob: The job names a codec, and the method's broadcasts cannot be encoded.
    """
    point = point_of(method, method.settings(config), space)
    if chosen not in (AUTO, WHOLE) and not point:
        what = f"broadcasts of {method.name} are not encoded with these settings"
        raise InvalidJob(what, where="codec.downlink", fix=f'"{AUTO}"')
    if chosen == AUTO:
        return method.downlink if point else WHOLE
    return chosen


def point_of(method: AnyMethod, settings: MethodSettings, space: PromptSpace) -> str:
    """Returns the name of the point that the clients of a run search from; "" if there is none."""
    return "" if alternating_space(space) else method.point(settings)


def replay_of(
    method: AnyMethod, settings: MethodSettings, space: PromptSpace, downlink: str = WHOLE, kept: float = 1.0
) -> Replay[Any] | None:
    """Returns how the clients of a run replay its steps; None for searches with a readout, which they do not."""
    if downlink != WHOLE:
        point = method.point(settings)
        return CodedReplay(point, codec_of(downlink, kept=kept, point=point))
    return None if alternating_space(space) else method.replay(settings, space)


def client_method(settings: RunSettings, own: Sequence[AnyMethod] = ()) -> ClientMethod:
    """Returns the method of a run that a client has joined.

    Args:
        own: Methods that the caller defines itself, without installing them.

    Raises:
        PluginMissing: The run uses a plug-in that is not installed here, or another version of it.
        InvalidPlugin: The plug-in does not load.
    """
    told = settings.method
    if isinstance(told, ExtensionSettings):
        found = find_method(told.name, own)
        method_settings = plugin_settings(found, told, method_names(own))
        assert found is not None, "plugin_settings raises where there is no such method"
        return ClientMethod(found, method_settings, space_of(settings.space), settings.downlink, settings.kept)
    method = next(method for method in METHODS.values() if isinstance(told, method.settings_type))
    return ClientMethod(method, told, space_of(settings.space), settings.downlink, settings.kept)
