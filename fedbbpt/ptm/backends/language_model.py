"""What masked and causal language models share: label words, and a head that knows no others."""

from typing import TypeAlias

from torch import Tensor, nn

from fedbbpt.errors import InvalidInput
from fedbbpt.ptm.backends.checkpoint import Checkpoint
from fedbbpt.ptm.backends.transformer import Transformer
from fedbbpt.types import TaskSpec

Words: TypeAlias = tuple[tuple[int, ...], ...]
"""The tokens of each class's label word."""


class LanguageModel(Transformer[Words]):
    """A class scores by the logit of its label word, where each is one token.

    The head runs on the one hidden state that is read, and its decoder has the rows of the label words only.
    """

    def __init__(self, checkpoint: Checkpoint, *, threads: int = 0, token_budget: int = 1024) -> None:
        decoder = checkpoint.model.get_output_embeddings()
        if not isinstance(decoder, nn.Linear):
            what = f"{type(checkpoint.model).__name__} has no linear decoder"
            raise InvalidInput(what, where=checkpoint.name, fix="another model")
        self._decoder = decoder
        super().__init__(checkpoint, threads=threads, token_budget=token_budget)

    def _columns(self, task: TaskSpec) -> Words:
        """The columns are in the head itself, from here to the next task."""
        words = self._encoder.label_words(task)
        self._fit_decoder(words)
        return words

    def _probe_columns(self) -> Words:
        self._fit_decoder(((0,), (1,)))
        return (0,), (1,)

    def _fit_decoder(self, words: Words) -> None:
        """Cuts the decoder down to words of one token each; others are measured against the whole vocabulary."""
        decoder = self._decoder
        if all(len(word) == 1 for word in words):
            weight, bias = decoder.weight, decoder.bias
            ids = [word[0] for word in words]
            decoder = nn.Linear(weight.shape[1], len(ids), bias=bias is not None)
            decoder.weight = nn.Parameter(weight[ids], requires_grad=False)
            if bias is not None:
                decoder.bias = nn.Parameter(bias[ids], requires_grad=False)
        self._parts.head.set_output_embeddings(decoder)

    def _read(self, hidden: Tensor, position: int, columns: Words) -> Tensor:
        logits: Tensor = self._parts.head(inputs_embeds=hidden[None, position : position + 1]).logits
        return logits[0, 0]
