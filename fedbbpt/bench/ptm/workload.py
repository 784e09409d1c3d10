"""What is asked: the same texts and the same prompts for all that is compared, from seeds."""

from dataclasses import dataclass

import numpy as np

from fedbbpt import seeds
from fedbbpt.errors import InvalidInput
from fedbbpt.types import Examples, Injection, LatentPrompts, Projection, ProjectionKind, TaskSpec

WORDS = (
    "a an the it was is who what where when which kind of question film story this good fine dull long very not so how "
    "many people live in paris wrote book number person place word one two old new house water day night year".split()
)
"""Each is one token to most models."""

TASKS = {
    "dual-encoder": TaskSpec("{prompt} {text}", ("a bad film", "a great film")),
    "masked-lm": TaskSpec("{prompt} {text} It was {mask}.", ("bad", "great")),
}
"""By the family of the model."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Jobs of P prompts x B texts: 320 pairs of 78 tokens on average, as they are set."""

    prompts: int = 20
    examples: int = 16
    prompt_tokens: int = 50
    dim: int = 500
    """n, the length of z."""
    shortest: int = 9
    """Words of a text."""
    longest: int = 40
    injection: Injection = Injection.PREFIX
    series: str = ""
    """Other texts and other prompts for each: what one part asked, a service knows in the next."""

    @property
    def pairs(self) -> int:
        return self.prompts * self.examples

    def texts(self) -> Examples:
        """Of any length between the two with equal chances."""
        rng = seeds.rng(0, "bench", "texts", self.series)
        counts = rng.integers(self.shortest, self.longest + 1, self.examples)
        return Examples(tuple(" ".join(rng.choice(WORDS, count)) for count in counts))

    def latent(self, job: int) -> LatentPrompts:
        """The prompts of one job; no two jobs have any in common."""
        z = seeds.rng(job, "bench", "prompts", self.series).standard_normal((self.prompts, self.dim)).astype(np.float32)
        return LatentPrompts(z, Projection(ProjectionKind.RADEMACHER, 1, self.prompt_tokens, 1.0, "", self.injection))


def task_of(family: str, model: str) -> TaskSpec:
    """Raises InvalidInput."""
    if family not in TASKS:
        fix = f"a model of the families {', '.join(TASKS)}; for causal-lm, --causal-model"
        raise InvalidInput(f"a {family} is not measured", where=model, fix=fix)
    return TASKS[family]
