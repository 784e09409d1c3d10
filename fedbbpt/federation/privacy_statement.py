"""What a run says about its differential privacy: in its summary, and in its prompt's card."""

from typing import Literal

from fedbbpt.job.privacy_section import PrivacySection
from fedbbpt.toml.section import Section

COVERS = {
    "client": "all training examples of each client together: whoever sees the released rounds, reports and prompts "
    "learns little that would differ if the client had sent zeros instead",
    "example": "each training example: whoever sees the released rounds, reports and prompts learns little that would "
    "differ if the example had added zeros instead",
}
"""What the guarantee says, by level."""
OMITS = (
    "dev examples, the figures measured on them, and the choice of the best round by these figures",
    "who takes part, when, and with how many examples",
    "what the PTM service reads",
    "other runs on the same examples, whose epsilons add up",
    "baselines that `fedbbpt run` and `simulate` fit to the training examples for comparison",
)
"""What the guarantee does not cover."""
OMITS_OF = {
    "plain": "what the coordinator itself sees and keeps in its store",
    "secure": "clients that reveal the noise that they added, or add none: each of n takes 1 / n of the noise away",
}
"""What else it does not cover, by aggregation."""


class PrivacyStatement(Section):
    """The privacy that a run has spent, and what its guarantee covers."""

    level: Literal["client", "example"]
    epsilon: float
    """The smallest epsilon that holds for everything that the run has released."""
    epsilon_limit: float
    delta: float
    clip_norm: float
    covers: str
    does_not_cover: tuple[str, ...]


def statement(section: PrivacySection, spent: float | None) -> PrivacyStatement | None:
    """Returns the statement of a run that has spent so much of its budget; None if it adds no noise."""
    if not section.epsilon:
        return None
    return PrivacyStatement(
        level=section.level,
        epsilon=spent or 0.0,
        epsilon_limit=section.epsilon,
        delta=section.delta,
        clip_norm=section.clip_norm,
        covers=COVERS[section.level],
        does_not_cover=(*OMITS, OMITS_OF[section.aggregation]),
    )
