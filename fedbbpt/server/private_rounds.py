"""The rounds of a run with a privacy budget: what each client adds is bounded, and only noisy sums reach the method.

At the level "client", the coordinator replaces each update by its mean over the client's examples, clipped, so that
every client counts the same whatever the number of its examples. At the level "example", clients have clipped what each
example adds. Either way the numbers that a sum is divided by, of clients or of examples, get no noise: the guarantee is
about what is in the examples, and not about who takes part, or with how many.

With secure aggregation, clients bound what they add and add a share of the noise themselves. The coordinator then gets
noisy sums only, and keeps the account of them.

Otherwise the coordinator adds the noise, which is drawn when the round closes. The next round's tasks, the reports and
the account are committed together, before any of them leaves the coordinator, so the noise of a round that a crash
repeats was never seen. Shares of a round that a crash repeats are those of before, since clients keep their answers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedbbpt.methods.readout_rounds import CLIP_NORM
from fedbbpt.privacy import accountant, shares
from fedbbpt.privacy.release import check_clipped, clipped, noised, sensitivity
from fedbbpt.types import Arrays, NoiseShare, PrivacyAccount, PrivacyBudget, PrivacySpent, Update, merge


@dataclass(frozen=True, slots=True)
class PrivateRounds:
    """What a coordinator does with the updates of rounds that search."""

    budget: PrivacyBudget
    essential: Callable[[Arrays], Arrays]
    """Returns the part of an update's arrays that the method's steps use (`Method.essential`)."""
    sharing: int = 0
    """The smallest number of clients in a sum, if each adds a share of its noise; 0: the coordinator adds the noise."""

    def opened(self, rounds: int) -> PrivacyAccount:
        """Returns the account of a new run with so many rounds. Raises InvalidInput without dp-accounting."""
        budget, shared = self.budget, self.sharing > 0
        return PrivacyAccount(accountant.noise_multiplier(budget.epsilon, budget.delta, rounds, shares=shared))

    def share(self, account: PrivacyAccount, numbers: int) -> NoiseShare | None:
        """Returns the noise that each client adds to an update of so many numbers; None if they add none.

        Raises:
            InvalidJob: The clip norm does not suit numbers of fixed point.
        """
        if not self.sharing:
            return None
        return shares.share(self.budget, account.noise_multiplier, self.sharing, numbers)

    def most_rounds(self, account: PrivacyAccount) -> int:
        """Returns the number of rounds that the budget pays for in all."""
        budget, shared = self.budget, self.sharing > 0
        return accountant.most_rounds(account.noise_multiplier, budget.epsilon, budget.delta, shares=shared)

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
        """Returns the noisy sum of a round's updates, and the account after it.

        Args:
            account: The account before the round.
            updates: The bounded updates, or with noise in shares their sum, which is a noisy one already.
        """
        total, most = merge(updates), self.budget.clip_norm
        if self.budget.level == "example":
            most = sensitivity(most, total.weight)  # a client has no more examples than all of them together
        summed = total.arrays if self.sharing else noised(total.arrays, account.noise_multiplier * most)
        arrays = self.essential(summed)
        arrays = {**arrays, CLIP_NORM: np.array([self.budget.clip_norm])}
        return replace(total, arrays=arrays), replace(account, rounds=account.rounds + 1)

    def spent(self, account: PrivacyAccount) -> PrivacySpent:
        """Returns what the rounds so far have spent."""
        shared = self.sharing > 0
        epsilon = accountant.spent(account.noise_multiplier, account.rounds, self.budget.delta, shares=shared)
        return PrivacySpent(self.budget, epsilon, account.noise_multiplier)
