"""What a right answer is made of, and what is known when a client is judged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbbpt.conformance.client import draws, numbers
from fedbbpt.conformance.client.black_box import BlackBox
from fedbbpt.conformance.client.material import TRAIN
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
    indices: Mapping[str, npt.NDArray[np.uint8]] = field(default_factory=dict)
    """Arrays that are sent as they are."""
    free: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The shapes of arrays whose numbers depend on the client's own draws."""


@dataclass(frozen=True)
class Asked:
    """A task, and what the client has asked the PTM about it."""

    run: pb.JoinResponse
    task: pb.TaskHeader
    arrays: Mapping[str, npt.NDArray[Any]]
    """The arrays of the task."""
    box: BlackBox
    labels: Mapping[str, int]
    """The class of each text."""
    examples: int
    """JoinRequest.examples."""
    client_id: str
    dev_given: bool = False
    """Whether the client was given a file with dev examples."""

    @property
    def offsets(self) -> int:
        """The number of entries of z that are offsets."""
        return self.run.task.latent.offsets

    @property
    def point(self) -> npt.NDArray[np.float32]:
        """The broadcast prompt z `[n]`."""
        if "theta" in self.arrays:
            return self.generated(self.arrays["theta"].astype(np.float64))
        mean: npt.NDArray[np.float32] = self.arrays["mean"]
        return mean

    def generated(self, theta: Vector) -> npt.NDArray[np.float32]:
        """Returns the z of a generator's weights: z = W2 tanh(W1 e + b1) + b2."""
        settings = self.run.method.fed_bbpt
        code, hidden = settings.code, settings.hidden
        e = draws.normals(draws.derive(settings.generator_seed, "generator", "code"), (code,))
        sizes = [hidden * code, hidden, self.run.task.latent.dim * hidden]
        w1, b1, w2, b2 = np.split(theta, np.cumsum(sizes))
        z = w2.reshape(-1, hidden) @ np.tanh(w1.reshape(hidden, code) @ e + b1) + b2
        return np.asarray(z.astype(np.float32))

    @property
    def fixed_columns(self) -> int:
        """m V, the number of columns under views."""
        return len(self.run.task.views) * len(self._names)

    @property
    def _names(self) -> list[str]:
        return [*self.run.task.classes, *self.run.task.columns]

    def prompt(self, z: npt.NDArray[np.float32]) -> bytes:
        """Returns the prompt of z as the black box sees it."""
        if self.run.task.views:
            return z[: self.run.task.latent.dim].tobytes()
        return z[: len(z) - self.offsets].tobytes()

    def scores(self, z: npt.NDArray[np.float32], texts: Sequence[str]) -> npt.NDArray[np.floating]:
        """Returns the scores `[B, K]` of z, with its offsets or its readout."""
        if not self.run.task.views:
            return numbers.shifted(self.box.scores(self.prompt(z), list(texts)), z[len(z) - self.offsets :])
        readout = self.readout(z)
        columns = self.columns(z, texts, prompted=bool(self.run.task.latent.dim))
        own: npt.NDArray[np.float64] = columns[:, : len(readout)]
        return own + columns @ readout[:, :-1].T + readout[:, -1]

    def readout(self, z: npt.NDArray[np.float32]) -> Vector:
        """Returns the readout of z `[K, C + 1]`."""
        classes = len(self.run.task.classes)
        return z[self.run.task.latent.dim :].astype(np.float64).reshape(classes, -1)

    def columns(self, z: npt.NDArray[np.float32], texts: Sequence[str], *, prompted: bool) -> Vector:
        """Returns the columns `[B, C]` of examples, or those under the views only."""
        prompts = [view.encode() for view in self.run.task.views] + ([self.prompt(z)] if prompted else [])
        found = [self.box.scores(each, list(texts), self._names).astype(np.float64) for each in prompts]
        return np.concatenate(found, axis=1)

    def require_columns(self, z: npt.NDArray[np.float32], texts: Sequence[str], *, prompted: bool) -> None:
        """Raises Broken if the client has not asked for all columns of the texts."""
        prompts = {view.encode(): f"the view {view!r}" for view in self.run.task.views}
        if prompted:
            prompts[self.prompt(z)] = "the prompt of the broadcast mean"
        for prompt, what in prompts.items():
            missing = [text for text in texts if text not in self.box.ever.get(prompt, ())]
            if missing:
                raise Broken(f"{what} was not scored on {missing[0]!r}")

    def parts(self) -> tuple[list[str], list[str]]:
        """Returns the training and the dev examples of a client that asks the same of both.

        They are the two files, if the client was given both, or else the handle that has as many examples as the client
        joined with, and the others. Raises Broken if there is no such handle.
        """
        texts = list(self.labels)
        if self.dev_given:
            return texts[:TRAIN], texts[TRAIN:]
        handles = self.box.handles()
        train = next((each for each in handles if len(each) == self.examples), None)
        if train is None:
            raise Broken(f"no handle has {self.examples} examples, as many as JoinRequest says")
        return train, sorted({text for each in handles for text in each} - set(train), key=texts.index)

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
        known = {self.prompt(self.point)}
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
