"""Differential privacy as a run's parties know it: the budget, and the account of what was released."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

PrivacyLevel: TypeAlias = Literal["client", "example"]
"""What a guarantee protects: all training examples of one client together, or each training example."""


@dataclass(frozen=True, slots=True)
class PrivacyBudget:
    """The most that a run may reveal."""

    level: PrivacyLevel
    epsilon: float
    """Above 0."""
    delta: float
    """Between 0 and 1."""
    clip_norm: float
    """C, the largest Euclidean norm of what one client, or one example, adds to a round's sum."""


@dataclass(frozen=True, slots=True)
class NoiseShare:
    """The noise that each client of a run with secure aggregation adds to its own answers, before they are masked."""

    deviation: int
    """The parameter sigma of the discrete Gaussian on each number, in units of fixed point."""
    clients: int
    """The smallest number of clients in a sum. The noise of so many together is what the account counts on."""
    clip_norm: float
    """The largest norm of a client's mean update; 0 if clients clip what each example adds."""


@dataclass(frozen=True, slots=True)
class PrivacyAccount:
    """What a run has released so far: the sums of some rounds, each with Gaussian noise of the same size."""

    noise_multiplier: float
    """The standard deviation of the noise on each number of a sum, divided by the clip norm."""
    rounds: int = 0
    """The number of rounds whose sums were released."""


@dataclass(frozen=True, slots=True)
class PrivacySpent:
    """What a run has spent of its budget."""

    budget: PrivacyBudget
    epsilon: float
    """The smallest epsilon that holds for everything released so far, with the budget's delta."""
    noise_multiplier: float
    """The standard deviation of the noise on each number of a sum, divided by the clip norm."""

    def __str__(self) -> str:
        budget = self.budget
        return (
            f"epsilon {self.epsilon:.4g} of {budget.epsilon:g} spent, delta {budget.delta:g}, for each {budget.level}; "
            f"noise of {self.noise_multiplier:.4g} times the clip norm {budget.clip_norm:g}"
        )
