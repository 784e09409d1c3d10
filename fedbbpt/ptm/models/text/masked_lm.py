"""Masked language models (BERT, RoBERTa and others): a class scores by its label word's logit at the {mask}."""

from fedbbpt.errors import InvalidTask
from fedbbpt.ptm.models.template import Placeholder, parse
from fedbbpt.ptm.models.text.language_model import LanguageModel
from fedbbpt.types import TaskSpec


class MaskedLM(LanguageModel):
    """Scores for example "{prompt} {text} It was {mask}." with the classes "bad" and "great"."""

    family = "masked-lm"
    _typical_template = "{text} It was {mask}."

    def check(self, task: TaskSpec) -> None:
        if all(piece.placeholder is not Placeholder.MASK for piece in parse(task)):
            raise InvalidTask(
                "the template has no {mask}", where="template", fix='for example "{prompt} {text} It was {mask}."'
            )
        self._encoder.label_words(task)
