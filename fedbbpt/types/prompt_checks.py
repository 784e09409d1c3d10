"""Checks that the kinds of prompts share. Each runs before anything of the prompt's size is built."""

import re
from collections.abc import Sequence

import numpy as np

from fedbbpt.errors import InvalidTensor, PromptTooLong, UnsupportedPrompt
from fedbbpt.limits import MAX_PROMPT_BYTES, MAX_SCALE, MAX_TASK_CHARACTERS, MAX_TOKEN_CHARACTERS
from fedbbpt.types.arrays import Array
from fedbbpt.types.prompt_kinds import Injection, Projection
from fedbbpt.types.ptm import ModelCard

SURROGATES = re.compile("[\ud800-\udfff]")
"""Halves of characters, which JSON permits and UTF-8 does not."""


def check_tensor(array: Array, dtype: type[np.generic], rank: int, where: str) -> None:
    """Raises InvalidTensor unless `array` has this type and rank, at least one element, and only finite numbers."""
    if array.dtype != dtype or array.ndim != rank or array.size == 0:
        fix = f"{np.dtype(dtype)} of rank {rank}, no dimension 0"
        raise InvalidTensor(f"{array.dtype} of shape {array.shape}", where=where, fix=fix)
    if not np.isfinite(array).all():
        raise InvalidTensor("NaN or infinite elements", where=where, fix="finite numbers")


def check_elements(array: Array, limit: float, where: str) -> None:
    """Raises InvalidTensor if an element exceeds `limit` in absolute value."""
    _check_greatest(np.abs(array).max(), limit, "an element", where)


def check_norms(vectors: Array, limit: float, where: str) -> None:
    """Raises InvalidTensor if a vector of the last dimension is longer than `limit`.

    Norms are computed in float64, where the square of no float32 overflows.
    """
    norms = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=-1))
    _check_greatest(norms.max(), limit, "a vector with a norm", where)


def _check_greatest(found: float, limit: float, what: str, where: str) -> None:
    if found > limit:
        raise InvalidTensor(f"{what} of {found:.3g}", where=where, fix=f"at most {limit:g}")


def check_injection(injection: Injection, card: ModelCard) -> None:
    """Raises UnsupportedPrompt if the model does not take this injection."""
    if injection is Injection.CLASS and injection not in card.injections:
        fix = 'task.prompt.side = "input", or a dual encoder or CLIP whose provider gives you "all" label_tokens'
        raise UnsupportedPrompt("the service takes no prompts in the class texts", where="injection", fix=fix)
    if injection not in card.injections:
        fix = f"one of {', '.join(sorted(card.injections))}"
        raise UnsupportedPrompt(f"injection {injection}", where="injection", fix=fix)


def check_length(tokens: int, card: ModelCard) -> None:
    """Raises PromptTooLong if a prompt of `tokens` tokens leaves no room for any input."""
    if tokens >= card.max_tokens:
        raise PromptTooLong(f"{tokens} prompt tokens", where="prompts", fix=f"less than {card.max_tokens}")


def check_prompt_bytes(tokens: int, width: int) -> None:
    """Raises InvalidTensor if the vectors of all prompts, `[tokens, width]`, would be too large together."""
    size = 4 * tokens * width
    if size > MAX_PROMPT_BYTES:
        fix = f"at most {MAX_PROMPT_BYTES}; fewer prompts in one call"
        raise InvalidTensor(f"prompts of {size} bytes", where="prompts", fix=fix)


def check_projection(projection: Projection) -> None:
    """Raises InvalidTensor if a number or the text of the projection is out of range."""
    if projection.tokens < 1:
        raise InvalidTensor(f"{projection.tokens} tokens", where="latent.projection.tokens", fix="1 or more")
    if not abs(projection.scale) <= MAX_SCALE:  # also false for NaN
        what, fix = f"scale {projection.scale}", f"at most {MAX_SCALE:g}"
        raise InvalidTensor(what, where="latent.projection.scale", fix=fix)
    if not 0 <= projection.seed < 2**64:
        raise InvalidTensor(f"seed {projection.seed}", where="latent.projection.seed", fix="0 to 2^64 - 1")
    if len(projection.initial_text) > MAX_TASK_CHARACTERS:
        what = f"{len(projection.initial_text)} characters"
        raise InvalidTensor(what, where="latent.projection.initial_text", fix=f"at most {MAX_TASK_CHARACTERS}")


def check_texts(texts: Sequence[str], card: ModelCard, where: str) -> None:
    """Raises PromptTooLong for a text that must have too many tokens, InvalidTensor for one that is not Unicode."""
    longest = MAX_TOKEN_CHARACTERS * card.max_tokens
    for index, text in enumerate(texts):
        if len(text) > longest:
            raise PromptTooLong(f"{len(text)} characters", where=f"{where}[{index}]", fix=f"at most {longest}")
        if SURROGATES.search(text):
            raise InvalidTensor("half a character", where=f"{where}[{index}]", fix="Unicode text")
