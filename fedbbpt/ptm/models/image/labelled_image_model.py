"""Base of image models that give a logit for each label that they were trained with."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence

from fedbbpt.errors import InvalidTask
from fedbbpt.ptm.models.image.image_model import ImageModel, Pixels
from fedbbpt.ptm.models.template import forbid_mask, parse
from fedbbpt.types import Scores, TaskSpec


class LabelledImageModel(ImageModel[list[int]]):
    """The classes of a task are labels of the model, by name, in any order."""

    family = "image-classifier"

    def __init__(
        self, name: str, revision: str, shape: tuple[int, int, int], labels: tuple[str, ...], *, threads: int = 0
    ) -> None:
        """Measures the noise of scores, so subclasses call this after they have set what `_logits` needs."""
        self._numbers = {label: number for number, label in enumerate(labels)}
        super().__init__(name, revision, shape, labels=labels, threads=threads)

    @abstractmethod
    def _logits(self, image: Pixels) -> Scores:
        """Returns the logits `[labels]` of an image `[C, H, W]`."""

    def check(self, task: TaskSpec) -> None:
        """Checks the template as well, although images do not fill it."""
        forbid_mask(parse(task))
        if unknown := [label for label in task.classes if label not in self._numbers]:
            known = ", ".join(list(self._numbers)[:20])
            raise InvalidTask(f"the model has no labels {unknown[:5]}", where="classes", fix=f"labels among {known}")

    def _columns(self, task: TaskSpec) -> list[int]:
        return [self._numbers[label] for label in task.classes]

    def _probe_columns(self) -> list[int]:
        return list(self._numbers.values())

    def _score_image(self, image: Pixels, columns: list[int]) -> Scores:
        return self._logits(image)[columns]


def unique_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Appends the number of a label to labels that occur twice: ImageNet has two cranes, a bird and a machine."""
    times = Counter(labels)
    return tuple(label if times[label] == 1 else f"{label} ({number})" for number, label in enumerate(labels))
