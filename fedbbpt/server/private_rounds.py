"""The rounds of a run with a privacy budget: what each client adds is bounded, and only noisy sums reach the method.

At the level "client", the coordinator replaces each update by its mean over the client's examples, clipped, so that
every client counts the same whatever the number of its examples. At the level "example", clients have clipped what each
example adds. Either way the numbers that a sum is divided by, of clients or of examples, get no noise: the guarantee is
about what is in the examples, and not about who takes part, or with how many.

The noise of a round is drawn when the round closes. The next round's tasks, the reports and the account are committed
together, before any of them leaves the coordinator, so the noise of a round that a crash repeats was never seen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedbbpt.methods.readout_rounds import CLIP_NORM
from fedbbpt.privacy import accountant
from fedbbpt.privacy.release import check_clipped, clipped, noised, sensitivity
from fedbbpt.types import Arrays, PrivacyAccount, PrivacyBudget, PrivacySpent, Update, merge


@dataclass(frozen=True, slots=True)
class PrivateRounds:
    """What a coordinator does with the updates of rounds that search."""

    budget: PrivacyBudget
    essential: Callable[[Arrays], Arrays]
    """Returns the part of an update's arrays that the method's steps use (`Method.essential`)."""

    def opened(self, rounds: int) -> PrivacyAccount:
        """Returns the account of a new run with so many rounds. Raises InvalidInput without dp-accounting."""
        return PrivacyAccount(accountant.noise_multiplier(self.budget.epsilon, self.budget.delta, rounds))

    def most_rounds(self, account: PrivacyAccount) -> int:
        """Returns the number of rounds that the budget pays for in all."""
        return accountant.most_rounds(account.noise_multiplier, self.budget.epsilon, self.budget.delta)

    def bounded(self, update: Update) -> Update:
        """Returns what a client's decoded update adds to the sum.

        Raises:
            InvalidUpdate: The client has not clipped what its examples add.
        """
        arrays = self.essential(update.arrays)
        if self.budget.level == "client":
            mean = {name: array / update.weight for name, array in arrays.items()}
            return replace(update, arrays=clipped(mean, self.budget.clip_norm), weight=1.0)
        found = replace(update, arrays=arrays)
        check_clipped(found, self.budget.clip_norm)
        return found

    def released(self, account: PrivacyAccount, updates: Sequence[Update]) -> tuple[Update, PrivacyAccount]:
        """Returns the noisy sum of a round's bounded updates, and the account after it."""
        total, most = merge(updates), self.budget.clip_norm
        if self.budget.level == "example":
            most = sensitivity(most, total.weight)  # a client has no more examples than all of them together
        arrays = self.essential(noised(total.arrays, account.noise_multiplier * most))
        arrays = {**arrays, CLIP_NORM: np.array([self.budget.clip_norm])}
        return replace(total, arrays=arrays), replace(account, rounds=account.rounds + 1)

    def spent(self, account: PrivacyAccount) -> PrivacySpent:
        """Returns what the rounds so far have spent."""
        epsilon = accountant.spent(account.noise_multiplier, account.rounds, self.budget.delta)
        return PrivacySpent(self.budget, epsilon, account.noise_multiplier)
