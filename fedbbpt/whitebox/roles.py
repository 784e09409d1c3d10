"""Makes the models of FedSP's roles: the owner's full and auxiliary models, and a client's auxiliary model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from fedbbpt.errors import InvalidInput
from fedbbpt.interfaces import PromptSpace, WhiteBox
from fedbbpt.prompts.deep import DeepSpace
from fedbbpt.ptm.models.checkpoint import Checkpoint, load
from fedbbpt.ptm.models.sources import locate
from fedbbpt.ptm.models.text.encoding import ExampleEncoder
from fedbbpt.types import LabelledExamples, Precision, Stage, TaskSpec
from fedbbpt.whitebox import auxiliary_file
from fedbbpt.whitebox.auxiliary import LayerRange, extract_auxiliary, layer_list
from fedbbpt.whitebox.distillation import distil, generate_sequences
from fedbbpt.whitebox.model import CausalWhiteBox
from fedbbpt.whitebox.sequences import AnsweredExample, answered_examples
from fedbbpt.whitebox.stitch import fit_stitch

GENERATED_TEXTS, GENERATED_TOKENS = 512, 64
"""Number and length of the texts that the full model writes to be distilled on, if its owner has no data."""


def make_auxiliary(
    model: str,
    layers: LayerRange,
    stage: Stage,
    task: TaskSpec,
    space: PromptSpace,
    shard: LabelledExamples,
    seed: int,
) -> bytes:
    """Makes an auxiliary model and distils the full model into it; returns the content of its file.

    Args:
        model: The full model: a folder, or a name on the hub.
        layers: The cell of layers that is taken.
        stage: Settings of the distillation; with 0 steps there is none.
        task: The task of the run.
        space: The space of its prefixes; a stitch is fitted with the initial one.
        shard: The owner's examples to distil on; if it is empty, the full model writes texts for this.
        seed: Seed of the training.

    Raises:
        InvalidInput: There is no such model, or it does not have these layers.
    """
    checkpoint = _load(model)
    student = extract_auxiliary(checkpoint.model, layers)
    if stage.steps or layers.stitched:
        encoder = _encoder(checkpoint.model, checkpoint.tokenizer, checkpoint.max_tokens)
        sequences = (
            answered_examples(encoder, task, shard, 0)
            if len(shard)
            else _generated_sequences(checkpoint, encoder, seed)
        )
        if layers.stitched:
            _stitch(checkpoint.model, student, layers, _deep(space), sequences)
        if stage.steps:
            distil(checkpoint.model, student, sequences, stage, seed)
    return auxiliary_file.pack(student, layers, locate(model))


def _stitch(
    full: Any, student: Any, layers: LayerRange, space: DeepSpace, sequences: Sequence[AnsweredExample]
) -> None:
    CausalWhiteBox(full, space, sequences)  # refuses prefixes of another shape
    initial = torch.from_numpy(space.prefixes(np.zeros((1, space.dim)))[0])
    full_layer, small_layer = layer_list(full)[1][layers.start], layer_list(student)[1][layers.bottom]
    fit_stitch(full, full_layer, student, small_layer, sequences, (initial, initial[list(layers.taken)]))


def _generated_sequences(checkpoint: Checkpoint, encoder: ExampleEncoder, seed: int) -> tuple[AnsweredExample, ...]:
    config = checkpoint.model.config
    first = next((id for id in (config.bos_token_id, config.eos_token_id) if id is not None), 0)
    return generate_sequences(
        checkpoint.model, [first], GENERATED_TEXTS, min(checkpoint.max_tokens, GENERATED_TOKENS), seed
    )


def client_white_box(path: Path, space: PromptSpace, task: TaskSpec, train: LabelledExamples) -> WhiteBox:
    """Returns a client's model, the auxiliary one in the file `path`, with its examples.

    Raises:
        InvalidInput: The file is not an auxiliary model, or the prompt does not fit it.
        InvalidTask: The model cannot score the task.
    """
    auxiliary = auxiliary_file.read(path)
    encoder = _encoder(auxiliary.model, auxiliary.tokenizer, auxiliary.max_tokens)
    return _white_box(auxiliary.model, encoder, space, task, train, auxiliary.layers)


def owner_white_box(model: str, space: PromptSpace, task: TaskSpec, shard: LabelledExamples) -> WhiteBox:
    """Returns the owner's model, the full one, with its examples. `model` is a folder or a name on the hub.

    Raises:
        InvalidInput: There is no such model, or the prompt does not fit it.
        InvalidTask: The model cannot score the task.
    """
    checkpoint = _load(model)
    encoder = _encoder(checkpoint.model, checkpoint.tokenizer, checkpoint.max_tokens)
    return _white_box(checkpoint.model, encoder, space, task, shard)


def _encoder(model: Any, tokenizer: Any, max_tokens: int) -> ExampleEncoder:
    return ExampleEncoder(tokenizer, max_tokens, vectors=model.get_input_embeddings().num_embeddings, causal=True)


def _load(model: str) -> Checkpoint:
    return load(model, locate(model), transformers.AutoModelForCausalLM, "causal-lm", Precision.FLOAT32)


def _white_box(
    model: Any,
    encoder: ExampleEncoder,
    space: PromptSpace,
    task: TaskSpec,
    data: LabelledExamples,
    layers: LayerRange | None = None,
) -> CausalWhiteBox:
    space = _deep(space)
    return CausalWhiteBox(model, space, answered_examples(encoder, task, data, space.tokens), layers)


def _deep(space: PromptSpace) -> DeepSpace:
    if not isinstance(space, DeepSpace):
        raise InvalidInput("white-box training needs deep prompts", where="task.prompt.kind", fix='"deep"')
    return space
