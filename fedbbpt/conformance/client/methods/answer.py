"""What a right answer is made of, and what is known when a client is judged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fedbbpt.conformance.client import numbers
from fedbbpt.conformance.client.black_box import BlackBox
from fedbbpt.conformance.client.numbers import Vector
from fedbbpt.conformance.results import Broken
from fedbbpt.v1 import coordinator_pb2 as pb


@dataclass(frozen=True)
class Answer:
    """The arrays of a right update."""

    arrays: Mapping[str, Vector]
    """As means over the examples: not yet multiplied by the weight."""
    train: Sequence[str]
    """The texts that the client trains on."""
    weight: float
    noise: Mapping[str, float] = field(default_factory=dict)
    """The relative difference that is allowed in an array, if it is more than `numbers.NOISE`."""


@dataclass(frozen=True)
class Asked:
    """A task, and what the client has asked the PTM about it."""

    run: pb.JoinResponse
    task: pb.TaskHeader
    arrays: Mapping[str, npt.NDArray[np.float32]]
    """The arrays of the task."""
    box: BlackBox
    labels: Mapping[str, int]
    """The class of each text."""
    examples: int
    """JoinRequest.examples."""
    client_id: str

    @property
    def offsets(self) -> int:
        """The number of entries of z that are offsets."""
        return self.run.task.latent.offsets

    def prompt(self, z: npt.NDArray[np.float32]) -> bytes:
        """Returns the prompt of z as the black box sees it."""
        return z[: len(z) - self.offsets].tobytes()

    def scores(self, z: npt.NDArray[np.float32], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Returns the scores `[B, K]` of z, offsets included."""
        found = self.box.scores(self.prompt(z), list(texts))
        return numbers.shifted(found, z[len(z) - self.offsets :])

    def losses(self, z: npt.NDArray[np.float32], texts: Sequence[str]) -> Vector:
        """Returns the loss of z on each text."""
        return numbers.losses(self.scores(z, texts), [self.labels[text] for text in texts])

    def texts_of(self, z: npt.NDArray[np.float32], what: str) -> list[str]:
        """Returns the texts on which z was scored since the task. Raises Broken if there are none."""
        prompt = self.prompt(z)
        if prompt not in self.box.asked:
            raise Broken(f"{what} was not scored: z = {_short(z)}; the client asked for {self._asked_for()}")
        return sorted(self.box.asked[prompt], key=list(self.labels).index)

    def _asked_for(self) -> str:
        known = {array[: len(array) - self.offsets].tobytes() for name, array in self.arrays.items() if array.ndim == 1}
        others = [each for each in self.box.order if each not in known]
        return _short(np.frombuffer(others[0], np.float32)) if others else "nothing but the broadcast prompt"

    def require_scored(self, z: npt.NDArray[np.float32], texts: Sequence[str], what: str) -> None:
        """Raises Broken if z was not scored on all of the texts."""
        missing = [text for text in texts if text not in set(self.texts_of(z, what))]
        if missing:
            raise Broken(f"{what} was not scored on {missing[0]!r}, as others were")


def _short(z: npt.NDArray[np.float32]) -> str:
    numbers_ = ", ".join(f"{float(each):.8g}" for each in z[:4])
    return f"[{numbers_}{', ...' if len(z) > 4 else ''}]"
