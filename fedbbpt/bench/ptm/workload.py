"""Texts and prompts drawn from seeds, the same for everything that is compared."""

from dataclasses import dataclass

import numpy as np

from fedbbpt import seeds
from fedbbpt.errors import InvalidInput
from fedbbpt.types import Examples, Injection, LatentPrompts, Projection, ProjectionKind, TaskSpec

WORDS = (
    "a an the it was is who what where when which kind of question film story this good fine dull long very not so how "
    "many people live in paris wrote book number person place word one two old new house water day night year".split()
)
"""Words that are one token each to most models."""

TASKS = {
    "dual-encoder": TaskSpec("{prompt} {text}", ("a bad film", "a great film")),
    "masked-lm": TaskSpec("{prompt} {text} It was {mask}.", ("bad", "great")),
}
"""The task to score, by the model's family."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Jobs of P prompts and B texts each. The defaults make 320 pairs of 78 tokens on average."""

    prompts: int = 20
    examples: int = 16
    prompt_tokens: int = 50
    dim: int = 500
    """Length n of z."""
    shortest: int = 9
    """Fewest words of a text."""
    longest: int = 40
    """Most words of a text."""
    injection: Injection = Injection.PREFIX
    series: str = ""
    """Seeds the texts and prompts. Each measurement has its own series, so that no cache knows its prompts."""

    @property
    def pairs(self) -> int:
        """The number of (prompt, text) pairs of one job."""
        return self.prompts * self.examples

    def texts(self) -> Examples:
        """Returns B texts. Their lengths are uniform between `shortest` and `longest` words."""
        rng = seeds.rng(0, "bench", "texts", self.series)
        counts = rng.integers(self.shortest, self.longest + 1, self.examples)
        return Examples(tuple(" ".join(rng.choice(WORDS, count)) for count in counts))

    def latent(self, job: int) -> LatentPrompts:
        """Returns the P prompts of one job. No two jobs share a prompt."""
        z = seeds.rng(job, "bench", "prompts", self.series).standard_normal((self.prompts, self.dim)).astype(np.float32)
        return LatentPrompts(z, Projection(ProjectionKind.RADEMACHER, 1, self.prompt_tokens, 1.0, "", self.injection))


def task_for(family: str, model: str) -> TaskSpec:
    """Returns the task for a model's family. Raises InvalidInput if that family is not measured."""
    if family not in TASKS:
        fix = f"a model of the families {', '.join(TASKS)}; for causal-lm, use --causal-model"
        raise InvalidInput(f"a model of the family {family} is not measured", where=model, fix=fix)
    return TASKS[family]
