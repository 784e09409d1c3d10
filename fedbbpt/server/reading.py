"""Reads updates as they count in the open round: decodes them, and compares them with what is known of clients."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedbbpt.interfaces import Codec, ServerHalf
from fedbbpt.methods import readout_rounds
from fedbbpt.methods.update_rules import UpdateRules
from fedbbpt.secure import fixed_point
from fedbbpt.server.checks import decode_update, keeps_ranges
from fedbbpt.server.claims import check_claims, known
from fedbbpt.server.private_rounds import PrivateRounds
from fedbbpt.server.round import Key
from fedbbpt.server.staleness import Begun, counted_late
from fedbbpt.types import (
    FINALISTS,
    Arrays,
    Forms,
    Hello,
    Measurement,
    Member,
    Orders,
    Phase,
    RunSettings,
    TaskId,
    Update,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the open round asks of its clients."""

    number: int
    phase: Phase
    state: Any
    """The method's state before the round; None before the run has started."""
    broadcast: Arrays
    begun: Mapping[int, Begun]
    """The earlier rounds whose tasks can still be answered."""

    @property
    def measures(self) -> bool:
        """Whether the round only measures prompts."""
        return self.phase is Phase.EVALUATE


class Reader:
    """Reads the updates of one run. Each is read once, when it arrives or when the process starts."""

    def __init__(
        self,
        method: ServerHalf[Any],
        codec: Codec,
        settings: RunSettings,
        members: Callable[[str], Member],
        *,
        rules: Callable[[Arrays], UpdateRules],
        privacy: PrivateRounds | None,
    ) -> None:
        """
        Args:
            method: the server's half of the run's method.
            codec: the codec of the updates.
            settings: the settings of the run.
            members: returns the member of a name.
            rules: returns what every honest update to a broadcast satisfies.
            privacy: bounds what an update adds to a sum; None without a privacy budget.
        """
        self._method, self._codec, self._settings, self._members = method, codec, settings, members
        self._rules, self._privacy = rules, privacy
        self._relays: set[str] = set()
        self._dev_examples: dict[str, int] = {}
        """The number of dev examples that each client has measured since it joined."""
        self._forms: Forms | None = None
        """The encoded arrays of an update of the open round; None until they are asked for."""
        self._asked: Asked
        self.measured: dict[Key, Measurement] = {}
        """The measurements of the updates of the open round."""

    def open(self, asked: Asked) -> None:
        """Reads the updates of another round from now on."""
        self._asked, self._forms, self.measured = asked, None, {}

    def introduced(self, hello: Hello) -> None:
        """Remembers what a client that has joined says of itself. It may have other dev examples than before."""
        self._dev_examples.pop(hello.client_id, None)
        (self._relays.add if hello.relay else self._relays.discard)(hello.client_id)

    @property
    def forms(self) -> Forms:
        """The types and the shapes of the encoded arrays of an update of the open round."""
        if self._asked.measures:
            return {}
        if self._forms is None:  # it is asked for at each update
            self._forms = self._forms_of(self._method.expected(self._asked.state))
        return self._forms

    def _forms_of(self, expected: Mapping[str, tuple[int, ...] | Orders]) -> Forms:
        orders = {name: form for name, form in expected.items() if isinstance(form, Orders)}
        indices = {name: (np.dtype(np.uint8), (form.rows, form.places)) for name, form in orders.items()}
        return {**self._codec.forms(shapes(expected)), **indices}

    @property
    def layout(self) -> fixed_point.Layout:
        """The form of the open round's vectors in secure aggregation."""
        asked = self._asked
        if asked.measures:
            return fixed_point.Layout({}, self._finalists)
        return fixed_point.Layout(shapes(self._method.expected(asked.state)) if asked.state is not None else {}, 0)

    @property
    def _finalists(self) -> int:
        return len(self._asked.broadcast.get(FINALISTS, ()))

    def read(self, key: Key, update: Update, checked: TaskId | None = None) -> Update:
        """Returns an update as it counts in the open round. `checked` is its task if it has not been stored yet.

        Raises InvalidUpdate, InvalidTensor.
        """
        client_id, number = key
        if self._settings.secure_threshold is not None:
            self.measured[key] = update.measurement
            return replace(update, client_id=client_id)
        asked = self._asked
        begun = asked.begun[number] if number < asked.number else None
        state, broadcast = (asked.state, asked.broadcast) if begun is None else (begun.state, begun.broadcast)
        measures = asked.measures and begun is None
        expected, finalists = ({}, self._finalists) if measures else (self._method.expected(state), 0)
        decoded = decode_update(update, self._codec, expected, broadcast, finalists)
        self._check_claims(checked, decoded, broadcast)
        self.measured[key] = update.measurement
        own = replace(decoded, client_id=client_id)
        if begun is not None:
            return counted_late(self._method, own, begun, asked.state, asked.number - number)
        if self._privacy is not None and asked.phase is Phase.UPDATE:
            return self._privacy.bounded(own)
        return own

    def _check_claims(self, task_id: TaskId | None, update: Update, broadcast: Arrays) -> None:
        """Compares a decoded update with what is known of its client, if it is new. Raises InvalidUpdate."""
        if task_id is None:
            return
        client_id = task_id.client_id
        claimed = known(
            task_id,
            self._rules(broadcast),
            self._settings.sampling,
            fits=readout_rounds.fits(broadcast),
            examples=self._members(client_id).examples,
            relay=client_id in self._relays,
            dev_examples=self._dev_examples.get(client_id),
        )
        check_claims(update, claimed, in_ranges=keeps_ranges(self._settings))
        if claimed.measures:
            self._dev_examples[client_id] = update.measurement.dev_examples


def shapes(expected: Mapping[str, tuple[int, ...] | Orders]) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the arrays of an update that hold numbers, and no orders."""
    return {name: form for name, form in expected.items() if isinstance(form, tuple)}


def numbers(expected: Mapping[str, tuple[int, ...] | Orders]) -> int:
    """Returns how many numbers the arrays of an update hold."""
    return sum(map(math.prod, shapes(expected).values()))
