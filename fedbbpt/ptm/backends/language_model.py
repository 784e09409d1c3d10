"""What masked and causal language models share: label words, and a head that knows no others."""

from torch import Tensor, nn

from fedbbpt.errors import InvalidInput
from fedbbpt.ptm.backends.checkpoint import Checkpoint
from fedbbpt.ptm.backends.transformer import Transformer
from fedbbpt.types import TaskSpec


class LanguageModel(Transformer[None]):
    """A class scores by the logit of its label word, which must be one token.

    The head runs on the one hidden state that is read, and its decoder has the rows of the label words only.
    """

    def __init__(self, checkpoint: Checkpoint, *, threads: int = 0, token_budget: int = 1024) -> None:
        decoder = checkpoint.model.get_output_embeddings()
        if not isinstance(decoder, nn.Linear):
            what = f"{type(checkpoint.model).__name__} has no linear decoder"
            raise InvalidInput(what, where=checkpoint.name, fix="another model")
        self._decoder = decoder
        super().__init__(checkpoint, threads=threads, token_budget=token_budget)

    def _columns(self, task: TaskSpec) -> None:
        """The columns are in the head itself, from here to the next task."""
        self._cut_decoder(self._encoder.label_ids(task))

    def _probe_columns(self) -> None:
        self._cut_decoder((0, 1))

    def _cut_decoder(self, ids: tuple[int, ...]) -> None:
        weight, bias = self._decoder.weight, self._decoder.bias
        cut = nn.Linear(weight.shape[1], len(ids), bias=bias is not None)
        cut.weight = nn.Parameter(weight[list(ids)], requires_grad=False)
        if bias is not None:
            cut.bias = nn.Parameter(bias[list(ids)], requires_grad=False)
        self._head.set_output_embeddings(cut)

    def _read(self, hidden: Tensor, position: int, columns: None) -> Tensor:
        logits: Tensor = self._head(inputs_embeds=hidden[None, position : position + 1]).logits
        return logits[0, 0]
