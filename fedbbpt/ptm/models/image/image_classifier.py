"""Image classifiers of transformers (ViT, ResNet and their like): the logits of the labels that they have learnt."""

import hashlib

import torch
from torch import nn

from fedbbpt.errors import InvalidInput
from fedbbpt.ptm.models.accelerate.packed_linear import pack
from fedbbpt.ptm.models.checkpoint import Checkpoint
from fedbbpt.ptm.models.image.image_model import Pixels
from fedbbpt.ptm.models.image.labelled_image_model import LabelledImageModel, unique_labels
from fedbbpt.ptm.models.image.preprocessor import read_preprocessor, shape_of
from fedbbpt.types import Precision, Scores


class ImageClassifier(LabelledImageModel):
    """Images come in the shape that the model's configuration names, or else its preprocessor."""

    def __init__(self, checkpoint: Checkpoint, *, threads: int = 0) -> None:
        torch.set_num_threads(1)
        if checkpoint.precision is not Precision.FLOAT32:
            raise InvalidInput(f"{checkpoint.precision} is not to be had", where=checkpoint.name, fix="float32")
        self._model, config = checkpoint.model, checkpoint.model.config
        channels = int(getattr(config, "num_channels", 3))
        self._preprocess = read_preprocessor(checkpoint.folder, channels)
        sides = shape_of(getattr(config, "image_size", None)) or self._preprocess.shape
        if sides is None:
            what, fix = "no size of its images", "image_size in config.json, or size in preprocessor_config.json"
            raise InvalidInput(what, where=str(checkpoint.folder), fix=fix)
        labels = unique_labels([str(config.id2label[number]) for number in range(config.num_labels)])
        told = f"{checkpoint.revision} {self._preprocess} {sides}"
        revision = hashlib.sha256(told.encode()).hexdigest()[:32]
        ends = [part for part in self._model.modules() if isinstance(part, nn.Linear)]
        pack(self._model)
        super().__init__(checkpoint.name, revision, (channels, *sides), labels, threads=threads)
        self.hidden_size = ends[-1].in_features if ends and ends[-1].out_features == len(labels) else 0

    def _logits(self, image: Pixels) -> Scores:
        with torch.inference_mode():
            logits: Scores = self._model(pixel_values=self._preprocess(image)).logits[0].numpy()
            return logits
