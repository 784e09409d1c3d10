"""Judges the answer to one task: its arrays to the bit, its weight, and its measurements."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fedbbpt.conformance.client import codecs, numbers
from fedbbpt.conformance.client.methods import ANSWERS
from fedbbpt.conformance.client.methods.answer import Answer, Asked
from fedbbpt.conformance.client.updates import Form, Sent
from fedbbpt.conformance.results import Broken
from fedbbpt.ptm.v1 import ptm_pb2 as ptm
from fedbbpt.v1 import coordinator_pb2 as pb


class Judge:
    """Judges the updates of one client, which uses the same dev examples in all rounds."""

    def __init__(self) -> None:
        self._train: set[str] = set()
        self._dev: list[str] | None = None

    def check(self, asked: Asked, sent: Sent, pairs: int | None) -> None:
        """Raises Broken if the update is not the right answer.

        Args:
            asked: The task.
            sent: The update.
            pairs: The number of pairs that the client asked for the task; None if it is not known.
        """
        header = sent.header
        if header.id.phase != asked.task.id.phase:
            raise Broken(f"the update's phase is {header.id.phase}; expected {asked.task.id.phase}")
        if not header.HasField("measurement"):
            raise Broken("the update has no measurement")
        if asked.task.id.phase == pb.PHASE_EVALUATE:
            self._check_weight(header.weight, None)
            sent.arrays({})
        else:
            answer = ANSWERS[asked.run.method.WhichOneof("method") or ""](asked)
            self._train |= set(answer.train)
            self._check_train(asked)
            self._check_weight(header.weight, answer.weight)
            check_arrays(asked, sent, answer)
        self._check_measurements(asked, header)
        if pairs is not None and header.measurement.queries != pairs:
            raise Broken(f"measurement.queries is {header.measurement.queries}, and the PTM scored {pairs} pairs")

    def _check_train(self, asked: Asked) -> None:
        if not asked.run.sampling.batch_examples and len(self._train) != asked.examples:
            what = f"JoinRequest.examples is {asked.examples}, and the client trains on {len(self._train)}"
            raise Broken(what)

    def _check_weight(self, found: float, wanted: float | None) -> None:
        if not found > 0 or (wanted is not None and found != wanted):
            raise Broken(f"the weight is {found!r}; expected {wanted if wanted is not None else 'a number above 0'!r}")

    def _check_measurements(self, asked: Asked, header: pb.UpdateHeader) -> None:
        mean = asked.point
        every = asked.run.sampling.dev_every
        fits = "readouts" in asked.arrays
        if not fits and asked.task.id.phase == pb.PHASE_UPDATE and every and asked.task.id.round % every:
            if header.measurement.dev_examples:
                raise Broken(f"round {asked.task.id.round} measures, and dev_every is {every}")
            return
        if asked.run.task.views:
            dev = asked.parts()[1]
        else:
            scored = asked.texts_of(mean, "the broadcast prompt")
            dev = [text for text in scored if text not in self._train]
        if asked.task.id.phase == pb.PHASE_UPDATE:
            if self._dev is not None and dev != self._dev:
                raise Broken("the dev examples are others than in an earlier round")
            self._dev = dev
        if not dev:
            raise Broken("the broadcast prompt was measured on training examples only")
        _check_measurement("measurement", header.measurement, asked, mean, dev)
        finalists = asked.arrays.get("finalists", np.zeros((0, len(mean)), np.float32))
        if asked.task.id.phase != pb.PHASE_EVALUATE:
            return
        if len(header.finalists) != len(finalists):
            raise Broken(f"the update measures {len(header.finalists)} finalists; expected {len(finalists)}")
        for index, (each, z) in enumerate(zip(header.finalists, finalists, strict=True)):
            if not asked.run.task.views:
                asked.require_scored(z, dev, f"finalist {index}")
            _check_measurement(f"finalists[{index}]", each, asked, z, dev)


def _check_measurement(
    name: str, found: pb.Measurement, asked: Asked, z: npt.NDArray[np.float32], dev: list[str]
) -> None:
    labels = [asked.labels[text] for text in dev]
    scores = asked.scores(z, dev)
    hits = numbers.hits(scores, labels)
    if found.dev_examples != len(dev):
        raise Broken(f"{name}.dev_examples is {found.dev_examples}, and the prompt was scored on {len(dev)}")
    argmax = asked.box.card.output == ptm.OUTPUT_LABEL_ARGMAX
    loss = float(len(dev) - hits) if argmax else float(numbers.losses(scores, labels).sum())
    # The scores of a readout may be computed in float32.
    tolerance = 1e-5 if asked.run.task.views else 1e-9
    numbers.require_close(f"{name}.dev_loss_sum", found.dev_loss_sum, loss, tolerance)
    if not found.HasField("dev_correct") or found.dev_correct != hits:
        told = found.dev_correct if found.HasField("dev_correct") else "absent"
        raise Broken(f"{name}.dev_correct is {told}; expected {hits}")


def check_arrays(asked: Asked, sent: Sent, answer: Answer) -> None:
    """Raises Broken if the arrays of an update are not those of the right answer."""
    unit = numbers.unit(answer.weight)
    codec = [*asked.run.codec]
    forms: dict[str, Form] = {name: codecs.form(codec, array.shape) for name, array in answer.arrays.items()}
    forms |= {name: codecs.form(codec, shape) for name, shape in answer.free.items()}
    forms |= {name: ("|u1", array.shape) for name, array in answer.indices.items()}
    found: dict[str, npt.NDArray[Any]] = sent.arrays(forms)
    for name, indices in answer.indices.items():
        if not np.array_equal(found[name], indices):
            raise Broken(f"{name} is {found[name].tolist()}; expected {indices.tolist()}")
    for name, wanted in answer.arrays.items():
        start = asked.arrays.get(name)
        if start is not None and start.shape == wanted.shape:
            wanted = wanted - start.astype(np.float64)
        noise = answer.noise.get(name, numbers.NOISE)
        codecs.require(codec, name, found[name], wanted * answer.weight / unit, noise)
