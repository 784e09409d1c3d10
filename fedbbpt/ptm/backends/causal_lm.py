"""Causal language models (GPT-2, Llama and their like): the label words' logits behind the last position."""

from fedbbpt.errors import InvalidTask
from fedbbpt.ptm.backends.language_model import LanguageModel
from fedbbpt.ptm.template import Place, parse
from fedbbpt.types import TaskSpec


class CausalLM(LanguageModel):
    """For example "{prompt} {text} Sentiment: {mask}" with the classes "negative" and "positive".

    {mask} is the end, and may be left out; the white space before it belongs to the label words (" positive").
    """

    family = "causal-lm"
    causal = True

    def check(self, task: TaskSpec) -> None:
        if any(piece.place is Place.MASK for piece in parse(task)[:-1]):
            raise InvalidTask("{mask} before the end", where="template", fix='"{prompt} {text} Sentiment: {mask}"')
        self._encoder.label_ids(task)
