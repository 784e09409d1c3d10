"""CLIP (arXiv 2103.00020): a class scores by the cosine between its description and the image."""

import hashlib
from functools import lru_cache

import torch
from torch import Tensor

from fedbbpt.errors import InvalidTask
from fedbbpt.ptm.models.accelerate.packed_linear import pack
from fedbbpt.ptm.models.checkpoint import Checkpoint
from fedbbpt.ptm.models.image.image_model import ImageModel, Pixels
from fedbbpt.ptm.models.image.preprocessor import read_preprocessor
from fedbbpt.ptm.models.template import forbid_mask, parse
from fedbbpt.types import Scores, TaskSpec

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
        self._model, self._tokenizer = checkpoint.model, checkpoint.tokenizer
        pack(self._model.vision_model)
        side = int(self._model.config.vision_config.image_size)
        self._preprocess = read_preprocessor(checkpoint.folder)
        self._max_tokens = checkpoint.max_tokens
        # The cache holds texts, not tasks: a task that recombines known descriptions computes none of them again.
        self._encode = lru_cache(maxsize=CACHED_TEXTS)(self._encode_text)
        revision = hashlib.sha256(f"{checkpoint.revision} {self._preprocess}".encode()).hexdigest()[:32]
        super().__init__(checkpoint.name, revision, (3, side, side), threads=threads)
        self.hidden_size = int(self._model.config.projection_dim)

    def check(self, task: TaskSpec) -> None:
        """Checks the template as well, although images do not fill it."""
        forbid_mask(parse(task))
        for text in task.classes:
            tokens = len(self._tokenizer(text)["input_ids"])
            if tokens > self._max_tokens:
                raise InvalidTask(
                    f"a description of {tokens} tokens", where="classes", fix=f"at most {self._max_tokens}"
                )

    def columns(self, task: TaskSpec) -> tuple[tuple[str, ...], ...]:
        """Names each description by its token ids, so that descriptions that the model reads alike count as one."""
        return tuple((" ".join(map(str, self._tokenizer(text)["input_ids"])),) for text in task.classes)

    def _columns(self, task: TaskSpec) -> Tensor:
        return torch.stack([self._encode(text) for text in task.classes])

    def _probe_columns(self) -> Tensor:
        return torch.stack([self._encode_text(text) for text in ("a", "b")])

    def _encode_text(self, text: str) -> Tensor:
        """Returns a unit vector `[D]`. Each text runs alone, so that none is padded."""
        with torch.inference_mode():
            ids = torch.tensor([self._tokenizer(text)["input_ids"]])
            return _unit(self._model.text_projection(self._model.text_model(input_ids=ids).pooler_output[0]))

    def _score_image(self, image: Pixels, columns: Tensor) -> Scores:
        with torch.inference_mode():
            pooled = self._model.vision_model(pixel_values=self._preprocess(image)).pooler_output[0]
            similar = (columns * _unit(self._model.visual_projection(pooled))).sum(-1)
            scores: Scores = (self._model.logit_scale.exp() * similar).numpy()
            return scores


def _unit(vector: Tensor) -> Tensor:
    unit: Tensor = vector / vector.norm()
    return unit
