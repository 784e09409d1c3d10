"""Image classifiers of transformers (ViT, ResNet and others): a class scores by the logit of a label of the model."""

import hashlib

import torch
from torch import nn

from fedbbpt.errors import InvalidInput
from fedbbpt.ptm.models.accelerate.packed_linear import pack
from fedbbpt.ptm.models.checkpoint import Checkpoint
from fedbbpt.ptm.models.image.image_model import Pixels
from fedbbpt.ptm.models.image.labelled_image_model import LabelledImageModel, unique_labels
from fedbbpt.ptm.models.image.preprocessor import read_preprocessor, shape_of
from fedbbpt.types import Scores


class ImageClassifier(LabelledImageModel):
    """Images must have the shape that the model's configuration states, or else its preprocessor file."""

    def __init__(self, checkpoint: Checkpoint, *, threads: int = 0) -> None:
        torch.set_num_threads(1)
        self._model, config = checkpoint.model, checkpoint.model.config
        channels = int(getattr(config, "num_channels", 3))
        self._preprocess = read_preprocessor(checkpoint.folder, channels)
        sides = shape_of(getattr(config, "image_size", None)) or self._preprocess.shape
        if sides is None:
            what, fix = "no size of images is stated", "image_size in config.json, or size in preprocessor_config.json"
            raise InvalidInput(what, where=str(checkpoint.folder), fix=fix)
        labels = unique_labels([str(config.id2label[number]) for number in range(config.num_labels)])
        revision = hashlib.sha256(f"{checkpoint.revision} {self._preprocess} {sides}".encode()).hexdigest()[:32]
        linear = [module for module in self._model.modules() if isinstance(module, nn.Linear)]
        pack(self._model)
        super().__init__(checkpoint.name, revision, (channels, *sides), labels, threads=threads)
        self.hidden_size = linear[-1].in_features if linear and linear[-1].out_features == len(labels) else 0

    def _logits(self, image: Pixels) -> Scores:
        with torch.inference_mode():
            logits: Scores = self._model(pixel_values=self._preprocess(image)).logits[0].numpy()
            return logits
