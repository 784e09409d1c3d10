"""A run that begins at the prompt of another one."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidInput
from fedbbpt.federation.prompt_file import read_prompt
from fedbbpt.job.config import Job
from fedbbpt.prompts import without_readout
from fedbbpt.prompts.readout import ReadoutSpace


def starting_prompt(path: Path, job: Job) -> npt.NDArray[np.float32]:
    """Returns the prompt of a file as the first z `[n]` of a job's run, with a readout of zeros if the job has one.

    Raises:
        InvalidInput: The file is not a prompt, or its z has another meaning than the job's.
    """
    z, card = read_prompt(path)
    space = job.space()
    wanted, given = without_readout(space), without_readout(card.space)
    if given != wanted:
        what, fix = f"a prompt in another space: {given}", f"one that was tuned in the job's, {wanted}"
        raise InvalidInput(what, where=path.name, fix=fix)
    prompt = z[: wanted.dim]
    return space.join(prompt, np.zeros((space.classes, space.width + 1))) if isinstance(space, ReadoutSpace) else prompt
