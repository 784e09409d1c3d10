"""The text tower of CLIP, for class texts with a soft prompt: the context vectors of CoOp (arXiv 2109.01134).

The prompt's vectors are inserted among the word embeddings, after the token that begins a text. transformers' own
forward pass takes tokens only, so this module runs the tower's parts, and compares them with it at the start.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fedbbpt.errors import InvalidInput
from fedbbpt.ptm.models.accelerate.latent_projection import LatentProjector
from fedbbpt.ptm.models.accelerate.packed_linear import pack
from fedbbpt.ptm.models.checkpoint import Checkpoint
from fedbbpt.ptm.models.text.agreement import difference
from fedbbpt.ptm.models.text.transformer import copies_to_fill
from fedbbpt.types import LatentPrompts, Prompts, SoftPrompts

Ids: TypeAlias = tuple[int, ...]

HIGHEST_ID_ENDS = 2
"""The `eos_token_id` in the configurations of older CLIPs, whose last token is in truth the one with the highest id."""
PROBES = ("a", "a photo of the good place")


class ClipText:
    """Embeds class texts, each at its own length, so that none is padded."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Raises InvalidInput if the parts of the tower do not give what the whole gives."""
        self._model, self._tokenizer = checkpoint.model, checkpoint.tokenizer
        self._tower = self._model.text_model
        self._words = self._tower.embeddings.token_embedding
        self.max_tokens = checkpoint.max_tokens
        self.width = int(self._words.embedding_dim)
        """D, the width of word embeddings."""
        self._special = frozenset(self._tokenizer.all_special_ids)
        self._no_prompt = torch.empty(1, 0, self.width)
        with torch.inference_mode():
            texts = [self.ids(text) for text in PROBES]
            wanted = torch.cat([self._tower(input_ids=torch.tensor([ids])).pooler_output for ids in texts])
            wanted = self._model.text_projection(wanted)
            pack(self._tower)
            self._project = LatentProjector(self._words)
            found = self.embed(texts, self._no_prompt)[0]
        if (gap := difference(found, unit(wanted))) is not None:
            what = f"the parts of its text tower embed texts differently from the whole model ({gap})"
            raise InvalidInput(what, where=checkpoint.name, fix="another model")

    def ids(self, text: str) -> Ids:
        """Returns the tokens of a text, with those that begin and end it."""
        return tuple(self._tokenizer(text)["input_ids"])

    def embed_text(self, text: str) -> Tensor:
        """Returns the unit vector `[E]` of a text without a prompt."""
        with torch.inference_mode():
            return self.embed([self.ids(text)], self._no_prompt)[0, 0]

    def vectors(self, prompts: Prompts) -> Tensor:
        """Returns the vectors `[P, L, D]` of soft or latent prompts. Raises UnsupportedPrompt for others."""
        match prompts:
            case SoftPrompts():
                return torch.tensor(prompts.embeddings)
            case LatentPrompts():
                projection = prompts.projection
                initial = torch.zeros(projection.tokens, self.width)
                own = self._tokenizer(projection.initial_text, add_special_tokens=False)["input_ids"]
                if own:
                    initial = self._words(torch.tensor(np.resize(own, projection.tokens)))
                return self._project(projection, prompts.z, initial)
        raise prompts.unsupported()

    def embed(self, texts: Sequence[Ids], prompts: Tensor) -> Tensor:
        """Returns the unit vectors `[P, K, E]` of K texts with each of the prompts `[P, L, D]`."""
        return torch.stack([self._embed_one(ids, prompts) for ids in texts], dim=1)

    def _embed_one(self, ids: Ids, prompts: Tensor) -> Tensor:
        count, length, _ = prompts.shape
        front = int(ids[0] in self._special)
        words = self._words(torch.tensor(ids)).expand(count, -1, -1)
        inputs = torch.cat([words[:, :front], prompts, words[:, front:]], dim=1)
        tokens = inputs.shape[1]
        # A pair's scores must not depend on the other pairs of the call; see `text.transformer` on copies.
        hidden: Any = self._tower.embeddings(inputs_embeds=inputs.repeat(copies_to_fill(count * tokens), 1, 1))
        mask = torch.full((1, 1, tokens, tokens), torch.finfo(hidden.dtype).min).triu(1)  # causal
        hidden = self._tower.encoder(inputs_embeds=hidden, attention_mask=mask, is_causal=True).last_hidden_state
        end = self._end(ids)
        pooled = self._tower.final_layer_norm(hidden)[:count, end + length * (end >= front)]
        return unit(self._model.text_projection(pooled.repeat(copies_to_fill(count), 1))[:count])

    def _end(self, ids: Ids) -> int:
        """Returns the position at which the text is read, as the model's own forward pass finds it."""
        eos = self._tower.eos_token_id
        if eos == HIGHEST_ID_ENDS:
            return int(np.argmax(ids))
        return ids.index(eos) if eos in ids else 0


def unit(vectors: Tensor) -> Tensor:
    """Scales vectors `[..., E]` to length 1."""
    scaled: Tensor = vectors / vectors.norm(dim=-1, keepdim=True)
    return scaled
