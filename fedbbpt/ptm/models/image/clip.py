"""CLIP (arXiv 2103.00020): a class scores by the cosine between its description and the image.

A prompt is a picture that is added to the images, or vectors in the class texts.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbbpt.errors import InvalidTask
from fedbbpt.interfaces import ScoringJob
from fedbbpt.ptm.models.accelerate.packed_linear import pack
from fedbbpt.ptm.models.checkpoint import Checkpoint
from fedbbpt.ptm.models.class_prompts import ClassPromptJob, Indices, check_class_lengths
from fedbbpt.ptm.models.embedding_cache import EmbeddingCache, Vectors
from fedbbpt.ptm.models.image.clip_text import ClipText, Ids, unit
from fedbbpt.ptm.models.image.image_model import Image, ImageModel, Pixels, as_pixels
from fedbbpt.ptm.models.image.preprocessor import read_preprocessor
from fedbbpt.ptm.models.template import forbid_mask, parse
from fedbbpt.ptm.models.text.transformer import CPU_TOKENS
from fedbbpt.types import Injection, PromptKind, Prompts, Scores, TaskSpec

CACHED_TEXTS = 8192
"""Size of the cache for vectors of class descriptions."""


class Clip(ImageModel[Tensor]):
    """score = exp(logit_scale) x cosine(image, class text), for example "a photo of a cat".

    Pixels are normalised by the mean and deviation in the checkpoint's preprocessor file. Images must have the model's
    size: they are not resized.
    """

    family = "clip"

    def __init__(self, checkpoint: Checkpoint, *, threads: int = 0) -> None:
        torch.set_num_threads(1)
        self._model, self._text = checkpoint.model, ClipText(checkpoint)
        pack(self._model.vision_model)
        side = int(self._model.config.vision_config.image_size)
        self._preprocess = read_preprocessor(checkpoint.folder)
        # The cache holds texts, not tasks: a task that recombines known descriptions computes none of them again.
        self._encode = lru_cache(maxsize=CACHED_TEXTS)(self._text.embed_text)
        self._embeddings = EmbeddingCache()
        revision = hashlib.sha256(f"{checkpoint.revision} {self._preprocess}".encode()).hexdigest()[:32]
        super().__init__(checkpoint.name, revision, (3, side, side), threads=threads)
        self._card = replace(
            self._card,
            prompt_kinds=self._card.prompt_kinds | {PromptKind.LATENT, PromptKind.SOFT},
            injections=frozenset({Injection.CLASS}),
            embedding_width=self._text.width,
        )
        self.hidden_size = int(self._model.config.projection_dim)

    def check(self, task: TaskSpec) -> None:
        """Checks the template as well, although images do not fill it."""
        forbid_mask(parse(task))
        for text in task.classes:
            tokens = len(self._text.ids(text))
            if tokens > self._text.max_tokens:
                raise InvalidTask(
                    f"a description of {tokens} tokens", where="classes", fix=f"at most {self._text.max_tokens}"
                )

    def columns(self, task: TaskSpec) -> tuple[tuple[str, ...], ...]:
        """Names each description by its token ids, so that descriptions that the model reads alike count as one."""
        return tuple((" ".join(map(str, self._text.ids(text))),) for text in task.classes)

    def job(self, task: TaskSpec, prompts: Prompts, rows: Sequence[Image], wanted: npt.NDArray[np.bool_]) -> ScoringJob:
        if not prompts.in_classes:
            return super().job(task, prompts, rows, wanted)
        with torch.inference_mode():
            vectors, texts = self._text.vectors(prompts), [self._text.ids(text) for text in task.classes]
        length = vectors.shape[1]
        check_class_lengths(task, list(map(len, texts)), length, self._text.max_tokens)
        return ClassPromptJob(
            _Embeddings(self, self._text, texts, vectors, rows),
            task,
            prompts,
            wanted,
            prompt_tokens=sum(map(len, texts)) + length * len(texts),
            row_tokens=[self.tokens(row) for row in rows],
            owners=rows,
            cache=self._embeddings,
            scale=float(self._model.logit_scale.exp()),
            token_budget=CPU_TOKENS,
        )

    def embed_image(self, image: Pixels) -> Tensor:
        """Returns the unit vector `[E]` of an image."""
        pooled = self._model.vision_model(pixel_values=self._preprocess(image)).pooler_output[0]
        return unit(self._model.visual_projection(pooled))

    def _columns(self, task: TaskSpec) -> Tensor:
        return torch.stack([self._encode(text) for text in task.classes])

    def _probe_columns(self) -> Tensor:
        return torch.stack([self._text.embed_text(text) for text in ("a", "b")])

    def _score_image(self, image: Pixels, columns: Tensor) -> Scores:
        with torch.inference_mode():
            similar = (columns * self.embed_image(image)).sum(-1)
            scores: Scores = (self._model.logit_scale.exp() * similar).numpy()
            return scores


@dataclass(frozen=True, slots=True)
class _Embeddings:
    """Implements `class_prompts.Embeddings` for a call's prompts `[P, L, D]`, class texts and images."""

    model: Clip
    text: ClipText
    texts: Sequence[Ids]
    prompts: Tensor
    images: Sequence[Image]

    def of_classes(self, prompts: Indices) -> Vectors:
        with torch.inference_mode():
            found: Vectors = self.text.embed(self.texts, self.prompts[torch.from_numpy(prompts)]).numpy()
            return found

    def of_inputs(self, rows: Indices) -> Vectors:
        with torch.inference_mode():
            found: Vectors = torch.stack([self.model.embed_image(as_pixels(self.images[row])) for row in rows]).numpy()
            return found
