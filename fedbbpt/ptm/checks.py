"""What is refused before a model sees it: examples and prompts that break the limits of its card."""

import re
from collections.abc import Sequence

import numpy as np

from fedbbpt.errors import InvalidExamples, InvalidTask, InvalidTensor, PromptTooLong, UnsupportedPrompt
from fedbbpt.limits import MAX_CLASSES
from fedbbpt.types import (
    Array,
    DeepPrompts,
    Examples,
    ExampleSet,
    ImagePrompts,
    LatentPrompts,
    ModelCard,
    Projection,
    Prompts,
    SoftPrompts,
    TaskSpec,
    TextPrompts,
    TokenPrompts,
)

# What cards say; a provider may say otherwise.
MAX_PAIRS = 2**17
"""Of one call: planning takes memory and time for each, before the first is computed."""
MAX_MESSAGE_BYTES = 32 * 1024 * 1024  # a deep prompt of GPT2-XL with 40 tokens has 24,576,000
# Of a task; no card says so, since no task comes near.
MAX_TASK_CHARACTERS = 100_000
MAX_TEXT_CHARACTERS = 1_000_000
"""Of an example; what exceeds the model is cut off, but has to be tokenised first."""
MAX_TOKEN_CHARACTERS = 100
MAX_PROMPT_BYTES = 2**29
"""Of the vectors that the prompts of a call become: few bytes of z make many of them."""
MAX_SCALE = 1e4
MAX_FILLED_CHARACTERS = 2**26
"""Of a template, times the examples of a handle that it is filled with."""
MAX_DELTA = 1.0
"""Of a pixel from 0 to 1: what moves it farther does no more."""

_HALF_CHARACTERS = re.compile("[\ud800-\udfff]")  # which JSON lets through and UTF-8 does not


def check_task(task: TaskSpec) -> None:
    """Raises InvalidTask: the service keeps tasks, so their size has bounds."""
    check_classes(len(task.classes))
    characters = len(task.template) + sum(map(len, task.classes))
    if characters > MAX_TASK_CHARACTERS:
        raise InvalidTask(f"{characters} characters", where="classes", fix=f"at most {MAX_TASK_CHARACTERS}")


def check_classes(number: int) -> None:
    """Raises InvalidTask."""
    if number > MAX_CLASSES:
        raise InvalidTask(f"{number} classes", where="classes", fix=f"at most {MAX_CLASSES}")


def count(prompts: Prompts) -> int:
    """P, before anything else is known of the prompts."""
    if isinstance(prompts, LatentPrompts):
        return len(prompts.z)
    if isinstance(prompts, SoftPrompts):
        return len(prompts.embeddings)
    if isinstance(prompts, TokenPrompts):
        return len(prompts.ids)
    if isinstance(prompts, ImagePrompts):
        return len(prompts.deltas)
    return len(prompts.texts) if isinstance(prompts, TextPrompts) else len(prompts.prefixes)


def unsupported(prompts: Prompts) -> UnsupportedPrompt:
    """Of a backend that got what its card does not offer."""
    return UnsupportedPrompt(f"{prompts.kind} prompts", where="prompts", fix="one of the kinds of its card")


def check_prompts(prompts: Prompts, card: ModelCard) -> None:
    """Raises UnsupportedPrompt, InvalidTensor or PromptTooLong."""
    kind = prompts.kind
    if kind not in card.prompt_kinds:
        raise UnsupportedPrompt(f"{kind} prompts", where="prompts", fix=f"one of {sorted(card.prompt_kinds)}")
    if isinstance(prompts, LatentPrompts):
        _check_injection(prompts.projection.injection, card)
        _check_tensor(prompts.z, np.dtype(np.float32), 2, "latent.z")
        _check_greatest(np.abs(prompts.z).max(), card.max_latent, "an element", "latent.z")
        _check_projection(prompts.projection)
        _check_length(prompts.projection.tokens, card)
        check_prompt_bytes(len(prompts.z) * prompts.projection.tokens, card.embedding_width)
    elif isinstance(prompts, SoftPrompts):
        _check_injection(prompts.injection, card)
        _check_tensor(prompts.embeddings, np.dtype(np.float32), 3, "soft.embeddings")
        _check_length(prompts.embeddings.shape[1], card)
        if prompts.embeddings.shape[2] != card.embedding_width:
            width = prompts.embeddings.shape[2]
            raise InvalidTensor(f"width {width}", where="soft.embeddings", fix=f"width {card.embedding_width}")
        _check_norms(prompts.embeddings, card, "soft.embeddings")
    elif isinstance(prompts, TokenPrompts):
        _check_tensor(prompts.ids, np.dtype(np.int32), 2, "tokens.ids")
        _check_length(prompts.ids.shape[1], card)
        check_prompt_bytes(prompts.ids.size, card.embedding_width)
    elif isinstance(prompts, TextPrompts):
        _check_texts(prompts.texts, card)
    elif isinstance(prompts, ImagePrompts):
        _check_tensor(prompts.deltas, np.dtype(np.float32), 5, "image.deltas")
        _check_greatest(np.abs(prompts.deltas).max(), MAX_DELTA, "an element", "image.deltas")
        if prompts.deltas.shape[2:] != card.image_shape:
            raise InvalidTensor(
                f"shape {prompts.deltas.shape}", where="image.deltas", fix=f"images of {card.image_shape}"
            )
    elif isinstance(prompts, DeepPrompts):
        _check_tensor(prompts.prefixes, np.dtype(np.float32), 6, "deep.prefixes")
        _, layers, halves, heads, tokens, width = prompts.prefixes.shape
        if halves != 2 or (layers, heads, width) != card.prefix_shape:
            what, fix = (
                f"shape {prompts.prefixes.shape}",
                f"keys and values for (layers, heads, width) {card.prefix_shape}",
            )
            raise InvalidTensor(what, where="deep.prefixes", fix=fix)
        _check_length(tokens, card)
        _check_norms(prompts.prefixes, card, "deep.prefixes")
    number = count(prompts)
    if not 1 <= number <= card.max_prompts:
        raise InvalidTensor(f"{number} prompts", where="prompts", fix=f"1 to {card.max_prompts}")


def _check_tensor(array: Array, dtype: np.dtype[np.generic], rank: int, where: str) -> None:
    if array.dtype != dtype or array.ndim != rank or array.size == 0:
        fix = f"{dtype} of rank {rank}, no dimension 0"
        raise InvalidTensor(f"{array.dtype} of shape {array.shape}", where=where, fix=fix)
    if not np.isfinite(array).all():
        raise InvalidTensor("NaN or infinite elements", where=where, fix="finite numbers")


def _check_greatest(found: float, greatest: float, what: str, where: str) -> None:
    if found > greatest:
        raise InvalidTensor(f"{what} of {found:.3g}", where=where, fix=f"at most {greatest:g}")


def _check_norms(vectors: Array, card: ModelCard, where: str) -> None:
    """Of the last dimension; in float64, where no square of a float32 overflows."""
    norms = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=-1))
    _check_greatest(norms.max(), card.max_vector_norm, "a vector with a norm", where)


def _check_texts(texts: Sequence[str], card: ModelCard) -> None:
    """Before a tokenizer sees them: no token is that long."""
    longest = MAX_TOKEN_CHARACTERS * card.max_tokens
    for index, text in enumerate(texts):
        if len(text) > longest:
            raise PromptTooLong(f"{len(text)} characters", where=f"text.texts[{index}]", fix=f"at most {longest}")
        if _HALF_CHARACTERS.search(text):
            raise InvalidTensor("half a character", where=f"text.texts[{index}]", fix="Unicode text")


def _check_injection(injection: object, card: ModelCard) -> None:
    if injection not in card.injections:
        raise UnsupportedPrompt(f"injection {injection}", where="injection", fix=f"one of {sorted(card.injections)}")


def check_prompt_bytes(tokens: int, width: int) -> None:
    """Of all prompts together, before their vectors are made. Raises InvalidTensor."""
    found = 4 * tokens * width
    if found > MAX_PROMPT_BYTES:
        what = f"prompts of {found} bytes"
        raise InvalidTensor(what, where="prompts", fix=f"at most {MAX_PROMPT_BYTES}; fewer prompts in one call")


def _check_projection(projection: Projection) -> None:
    if projection.tokens < 1:
        raise InvalidTensor(f"{projection.tokens} tokens", where="latent.projection.tokens", fix="1 or more")
    if not abs(projection.scale) <= MAX_SCALE:  # nor NaN
        what, fix = f"scale {projection.scale}", f"at most {MAX_SCALE:g}"
        raise InvalidTensor(what, where="latent.projection.scale", fix=fix)
    if not 0 <= projection.seed < 2**64:
        raise InvalidTensor(f"seed {projection.seed}", where="latent.projection.seed", fix="0 to 2^64 - 1")
    if len(projection.initial_text) > MAX_TASK_CHARACTERS:
        what = f"{len(projection.initial_text)} characters"
        raise InvalidTensor(what, where="latent.projection.initial_text", fix=f"at most {MAX_TASK_CHARACTERS}")


def _check_length(tokens: int, card: ModelCard) -> None:
    """Before anything of that length is built; with its inputs, a prompt is checked by the planner."""
    if tokens >= card.max_tokens:
        raise PromptTooLong(f"{tokens} prompt tokens", where="prompts", fix=f"less than {card.max_tokens}")


def check_filled(task: TaskSpec, examples: Examples) -> None:
    """Raises InvalidExamples: each example is kept with the template around it."""
    characters = len(task.template) * len(examples)
    if characters > MAX_FILLED_CHARACTERS:
        what, fix = f"{len(examples)} examples in a template of {len(task.template)} characters", "fewer of them"
        raise InvalidExamples(what, where="examples", fix=fix)


def check_examples(kept: ExampleSet, card: ModelCard) -> None:
    """Raises InvalidExamples or PromptTooLong."""
    examples, prompt_tokens, perturbation = kept.examples, kept.prompt_tokens, kept.perturbation
    if not 1 <= len(examples) <= card.max_examples:
        raise InvalidExamples(f"{len(examples)} examples", where="examples", fix=f"1 to {card.max_examples}")
    if (examples.images is None) != (card.image_shape is None):
        given, wanted = ("texts", "images") if examples.images is None else ("images", "texts")
        raise InvalidExamples(given, where="examples", fix=f"{wanted}, which this model takes")
    if examples.images is not None and examples.images.shape[1:] != card.image_shape:
        what = f"images of {examples.images.shape[1:]}"
        raise InvalidExamples(what, where="examples", fix=f"(C, H, W) = {card.image_shape}")
    if examples.images is not None and perturbation is not None:
        raise InvalidExamples("a perturbation of images", where="perturbation", fix="none; it replaces tokens")
    if examples.pairs is not None and len(examples.pairs) != len(examples):
        what = f"{len(examples.pairs)} second texts for {len(examples)} examples"
        raise InvalidExamples(what, where="text_pair", fix="one for each example, or none at all")
    for name, texts in (("text", examples.texts), ("text_pair", examples.pairs or ())):
        for row, text in enumerate(texts):
            if not text.strip():
                raise InvalidExamples("an empty text", where=f"examples[{row}].{name}", fix="leave the example out")
            if len(text) > MAX_TEXT_CHARACTERS:
                what, fix = f"{len(text)} characters", f"at most {MAX_TEXT_CHARACTERS}"
                raise InvalidExamples(what, where=f"examples[{row}].{name}", fix=fix)
            if _HALF_CHARACTERS.search(text):
                raise InvalidExamples("half a character", where=f"examples[{row}].{name}", fix="Unicode text")
    if kept.labels is not None and kept.labels.shape != (len(examples),):
        what = f"{kept.labels.size} labels for {len(examples)} examples"
        raise InvalidExamples(what, where="label", fix="one for each example, or none at all")
    if prompt_tokens < 0:
        raise InvalidExamples(f"{prompt_tokens} prompt tokens", where="prompt_tokens", fix="0 or more")
    if prompt_tokens >= card.max_tokens:
        raise PromptTooLong(f"{prompt_tokens} prompt tokens", where="prompt_tokens", fix=f"less than {card.max_tokens}")
    if perturbation is not None and not (0.0 <= perturbation.rate <= 1.0 and 0 <= perturbation.seed < 2**64):
        raise InvalidExamples(f"{perturbation}", where="perturbation", fix="a rate in [0, 1] and a seed below 2^64")
