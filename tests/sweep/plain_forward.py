"""The plain forward pass of transformers, with the tokenizer's own output: what the product's scores must equal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch import Tensor

from tests.sweep.tiny_models import LABELS, auto_class

Encoded: TypeAlias = dict[str, list[int]]
"""What a tokenizer returns for a text: `input_ids` and others, one number for each token."""


class PlainForward:
    """Scores inputs of a checkpoint, one at a time and never padded."""

    def __init__(self, family: str, folder: Path) -> None:
        """Loads the checkpoint with transformers' class for the family."""
        self.family, self._folder = family, folder
        self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
        self._model = self._load()

    def _load(self) -> Any:
        model_type = transformers.AutoConfig.from_pretrained(self._folder).model_type
        return auto_class(self.family, model_type).from_pretrained(self._folder, dtype=torch.float32).eval()

    def reload(self) -> None:
        """Loads the model anew: some change for good with the first input that they read."""
        self._model = self._load()

    def tokenise(self, text: str) -> list[int]:
        """Returns the tokens of a text without special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def encode(self, text: str, pair: str | None = None) -> Encoded:
        """Returns the tokenizer's output for a text, or for two."""
        return dict(self.tokenizer(text, pair))

    def front_index(self, encoded: Encoded) -> int:
        """Returns the place at which soft prompts join: after the first special token, if there is one."""
        return int(encoded["input_ids"][0] in self.tokenizer.all_special_ids)

    def vectors(self, ids: Sequence[int]) -> Tensor:
        """Returns the word vectors `[T, D]` of tokens, as they enter the model."""
        with torch.no_grad():
            vectors: Tensor = self._model.get_input_embeddings()(torch.tensor([list(ids)]))[0]
        return vectors

    def scores(
        self, encoded: Encoded, classes: Sequence[str], vectors: Tensor | None = None
    ) -> npt.NDArray[np.float32]:
        """Returns the scores `[K]` of an input; `vectors` `[T, D]` replace its word vectors."""
        inputs = {name: torch.tensor([values]) for name, values in encoded.items()}
        ids = inputs["input_ids"][0]
        if vectors is not None:
            inputs["inputs_embeds"] = vectors[None]
            del inputs["input_ids"]
        with torch.no_grad():
            return self._score(inputs, ids, classes).float().numpy()

    def _score(self, inputs: dict[str, Tensor], ids: Tensor, classes: Sequence[str]) -> Tensor:
        if self.family == "dual-encoder":
            theirs = [self._pool({k: torch.tensor([v]) for k, v in self.encode(text).items()}) for text in classes]
            return 20 * torch.stack(theirs) @ self._pool(inputs)
        if self.family == "sequence-classifier":
            logits: Tensor = self._model(**inputs).logits[0]
            return logits[[LABELS.index(name) for name in classes]]
        if self.family == "seq2seq-lm":
            return self._score_answer(inputs, classes)
        words = [self.tokenise(" " + word) for word in classes]
        if self.family == "masked-lm":
            at = int((ids == self.tokenizer.mask_token_id).nonzero()[0, 0])
            logits = self._model(**inputs).logits[0, at]
        elif max(map(len, words)) > 1:
            return torch.stack([self._log_probability(inputs, len(ids), word) for word in words])
        else:
            logits = self._model(**inputs).logits[0, -1]
        return logits[[word[0] for word in words]]

    def _score_answer(self, inputs: dict[str, Tensor], classes: Sequence[str]) -> Tensor:
        """Returns the logits of label words as the answer's first token, or the log-probabilities of longer ones."""
        stated = self._model.generation_config
        forced = getattr(stated, "forced_bos_token_id", None)
        start = [stated.decoder_start_token_id, *([] if forced is None else [forced])]
        words = [self.tokenizer(text_target=word, add_special_tokens=False)["input_ids"] for word in classes]
        if max(map(len, words)) == 1:
            logits: Tensor = self._model(**inputs, decoder_input_ids=torch.tensor([start])).logits[0, -1]
            return logits[[word[0] for word in words]]
        scores = []
        for word in words:
            decoded = (
                self._model(**inputs, decoder_input_ids=torch.tensor([start + word[:-1]])).logits[0].log_softmax(-1)
            )
            scores.append(sum(decoded[len(start) - 1 + place, token] for place, token in enumerate(word)))
        return torch.stack(scores)

    def _pool(self, inputs: dict[str, Tensor]) -> Tensor:
        hidden: Tensor = self._model(**inputs).last_hidden_state[0]
        return torch.nn.functional.normalize(hidden.mean(0), dim=0)

    def _log_probability(self, inputs: dict[str, Tensor], length: int, word: Sequence[int]) -> Tensor:
        """Returns the log-probability of a word of several tokens after an input of `length` tokens."""
        added = {"input_ids": word, "attention_mask": [1] * len(word), "token_type_ids": [0] * len(word)}
        longer = {name: torch.cat([each, torch.tensor([list(added[name])])], 1) for name, each in inputs.items()}
        log_probabilities = self._model(**longer).logits[0].log_softmax(-1)
        return torch.stack([log_probabilities[length - 1 + place, token] for place, token in enumerate(word)]).sum()
