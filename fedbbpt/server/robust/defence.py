"""What the coordinator does to the updates of a round before its method steps, if some of the clients may lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from fedbbpt.methods.update_rules import UpdateRules
from fedbbpt.server.robust.clip import Clip
from fedbbpt.server.robust.krum import Krum
from fedbbpt.server.robust.measurements import limited
from fedbbpt.server.robust.median import Median
from fedbbpt.server.robust.ranks import losses_in_order, ranks
from fedbbpt.server.robust.rule import Rule, Stack, Stacks
from fedbbpt.server.robust.trimmed import Trimmed
from fedbbpt.types import Arrays, Measurement, Phase, Update

RuleName: TypeAlias = Literal["clip", "median", "trimmed", "krum"]

RULES: Mapping[RuleName, Rule] = {"clip": Clip(), "median": Median(), "trimmed": Trimmed(), "krum": Krum()}
"""The rules by their names in a job."""


KRUM_CLIENTS = 1000
"""Most clients in a round with Krum, which compares each pair of them."""


@dataclass(frozen=True, slots=True)
class Defence:
    """A rule, and the number of adversaries that it assumes. A pure function of the updates, and so of their order."""

    rule: Rule
    adversaries: int

    def applied(
        self, updates: Sequence[Update], broadcast: Arrays, rules: UpdateRules, phase: Phase, *, linear: bool
    ) -> list[Update]:
        """Returns updates in place of those of a round's clients, from which its method can step.

        Args:
            updates: The decoded updates, sorted by client id.
            broadcast: The arrays that they answer.
            rules: What every honest update to them satisfies.
            phase: The phase of the round; only an UPDATE has arrays.
            linear: Whether the method needs one update only. Otherwise it gets those of the clients that Krum chooses.
        """
        measured = limited([update.measurement for update in updates], self.adversaries)
        found = [replace(update, measurement=each) for update, each in zip(updates, measured, strict=True)]
        if phase is not Phase.UPDATE:
            places = zip(*(update.finalists for update in updates), strict=True)
            by_place = [limited(each, self.adversaries) for each in places]
            return [
                replace(update, finalists=tuple(each[index] for each in by_place)) for index, update in enumerate(found)
            ]
        total = sum(measured, Measurement())
        starts = _starts(updates[0], broadcast)
        stacks = _stacks(updates, starts, rules.ranked)
        if not linear:
            return self._chosen(found, stacks, total)
        weights = np.array([update.weight for update in updates])
        combined = dict(self.rule.combine(stacks, weights, self.adversaries))
        if rules.ranked:
            losses = np.stack([update.arrays[rules.ranked] / update.weight for update in updates])
            combined[rules.ranked] = losses_in_order(combined[rules.ranked], losses)
        weight = float(weights.sum())
        return [
            Update({name: weight * (array + starts.get(name, 0.0)) for name, array in combined.items()}, weight, total)
        ]

    def _chosen(self, updates: Sequence[Update], stacks: Stacks, total: Measurement) -> list[Update]:
        """Returns the updates that Krum chooses. The measurements of all clients count."""
        assert isinstance(self.rule, Krum), "the job refuses other rules"
        first, *others = (updates[index] for index in self.rule.chosen(stacks, self.adversaries))
        return [replace(first, measurement=total), *(replace(each, measurement=Measurement()) for each in others)]


def _stacks(updates: Sequence[Update], starts: Stacks, ranked: str) -> dict[str, Stack]:
    """Returns the arrays of all clients for one example, as differences to `starts`, and ranks in place of losses."""
    found = {}
    for name in updates[0].arrays:
        stack = np.stack([update.arrays[name] / update.weight for update in updates])
        found[name] = ranks(stack) if name == ranked else stack - starts.get(name, 0.0)
    return found


def _starts(update: Update, broadcast: Arrays) -> dict[str, Stack]:
    """Returns the arrays of a broadcast that have the name and the shape of one in the update: searches began there."""
    return {
        name: broadcast[name].astype(np.float64)
        for name, array in update.arrays.items()
        if name in broadcast and broadcast[name].shape == array.shape
    }
