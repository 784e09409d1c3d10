"""A tuned prompt: saved, loaded, and used to classify inputs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedbbpt.api.ptm import open_ptm, text_list
from fedbbpt.client.asking import PromptScorer
from fedbbpt.data.columns import Columns
from fedbbpt.data.examples import read
from fedbbpt.federation.evaluation import Measured, evaluate
from fedbbpt.federation.prediction import probabilities
from fedbbpt.federation.prompt_file import PromptCard, read_prompt, write_prompt
from fedbbpt.interfaces import Ptm
from fedbbpt.types import Examples, LabelledExamples


@dataclass(frozen=True, slots=True)
class Prediction:
    """The most likely class of one input."""

    label: str
    """Its name in the data, as in `task.labels` of the job."""
    probability: float
    probabilities: tuple[float, ...] = ()
    """The probability of each class, in the order of the card's labels."""


@dataclass(frozen=True, slots=True)
class TunedPrompt:
    """A prompt z `[n]`, and the card that describes it and the model that it fits."""

    z: npt.NDArray[np.float32]
    card: PromptCard

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the prompt to a .safetensors file, with the card inside, and the card as Markdown next to it."""
        write_prompt(Path(path), self.z, self.card)

    def predict(self, inputs: Sequence[str] | Examples, ptm: Ptm | None = None) -> list[Prediction]:
        """Returns a prediction for each input.

        Args:
            inputs: Texts, or examples with second texts or images.
            ptm: The model to query; None loads the card's model into this process.

        Raises:
            OutputWithheld: The PTM gives no scores.
            InvalidInput: One text is given in place of a list.
        """
        examples = inputs if isinstance(inputs, Examples) else Examples(text_list(inputs, "inputs"))
        with self._model(ptm) as model:
            likely = probabilities(self._scorer(model), self.z, examples)
        return [Prediction(self.card.labels[int(p.argmax())], float(p.max()), tuple(p.tolist())) for p in likely]

    def evaluate(
        self, data: LabelledExamples | str | Path, ptm: Ptm | None = None, columns: Columns | None = None
    ) -> Measured:
        """Returns the prompt's accuracy and loss on labelled examples, as far as the PTM's output shows them.

        The result also has the interval of the accuracy and the confusion matrix, from which `fedbbpt.tasks.metrics`
        computes precision, recall and F1.

        Args:
            data: A file, a Hugging Face name, or examples whose labels count as in `card.labels`.
            ptm: The model to query; None loads the card's model into this process.
            columns: The columns of a file; None reads text, label and, if there is one, text_pair.

        Raises:
            InvalidData: The file cannot be read, or has labels that the card does not know.
        """
        if not isinstance(data, LabelledExamples):
            data = read(data, self.card.labels, columns)
        with self._model(ptm) as model:
            return evaluate(self._scorer(model), self.z, data, len(self.card.labels))

    def _scorer(self, ptm: Ptm) -> PromptScorer:
        return PromptScorer(ptm, self.card.task(), self.card.space)

    @contextmanager
    def _model(self, ptm: Ptm | None) -> Iterator[Ptm]:
        if ptm is not None:
            yield ptm
            return
        card = self.card
        with open_ptm(card.model(), revision=card.ptm_revision, **card.model_options()) as opened:
            yield opened


def load_prompt(path: str | PathLike[str]) -> TunedPrompt:
    """Returns the prompt in the file of a finished run. Raises InvalidInput naming the file."""
    return TunedPrompt(*read_prompt(Path(path)))
