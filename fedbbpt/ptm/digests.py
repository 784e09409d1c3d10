"""Names for contents: equal ones have the same, in every process."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedbbpt.types import (
    DeepPrompts,
    Examples,
    ExampleSet,
    ImagePrompts,
    LatentPrompts,
    Prompts,
    SoftPrompts,
    TaskSpec,
    TextPrompts,
    TokenPrompts,
)

SIZE = 16


def digest(*parts: bytes | str | int) -> bytes:
    """`[16]` bytes. Each part is preceded by its length, so that no two lists of parts run together."""
    found = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode(errors="surrogatepass")
        found.update(len(data).to_bytes(8, "little"))
        found.update(data)
    return found.digest()[:SIZE]


def task_id(task: TaskSpec) -> str:
    text = json.dumps([task.template, list(task.classes)], ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def contents(examples: Examples) -> Sequence[bytes]:
    """Of each input."""
    if examples.images is not None:
        return [digest("image", str(image.shape), image.tobytes()) for image in examples.images]
    pairs = examples.pairs if examples.pairs is not None else ("",) * len(examples)
    return [digest("text", text, pair) for text, pair in zip(examples.texts, pairs, strict=True)]


def rows(examples: ExampleSet, inputs: Sequence[bytes]) -> Sequence[bytes]:
    """Of each input with what is done to it: two rows of one name are the same to the model."""
    change = examples.perturbation
    if change is None:
        return [digest(one, examples.prompt_tokens) for one in inputs]
    return [
        digest(one, examples.prompt_tokens, repr(change), index)  # which tokens change hangs on the index
        for index, one in enumerate(inputs)
    ]


def examples_id(task: str, rows: Sequence[bytes], labels: npt.NDArray[np.int64] | None) -> str:
    kept = b"" if labels is None else labels.tobytes()
    return digest(task, kept, b"".join(rows)).hex()


def prompts(prompts: Prompts) -> npt.NDArray[np.object_]:
    """Of each prompt: `[P, 1]`, or `[P, B]` where a prompt is another one for each example."""
    if isinstance(prompts, LatentPrompts):
        found = [digest("latent", repr(prompts.projection), z.tobytes()) for z in prompts.z]
    elif isinstance(prompts, SoftPrompts):
        found = [digest("soft", prompts.injection, str(one.shape), one.tobytes()) for one in prompts.embeddings]
    elif isinstance(prompts, TokenPrompts):
        found = [digest("tokens", one.tobytes()) for one in prompts.ids]
    elif isinstance(prompts, TextPrompts):
        found = [digest("text", text) for text in prompts.texts]
    elif isinstance(prompts, DeepPrompts):
        found = [digest("deep", str(one.shape), one.tobytes()) for one in prompts.prefixes]
    else:
        return _images(prompts)
    return np.array(found, object)[:, None]


def _images(prompts: ImagePrompts) -> npt.NDArray[np.object_]:
    found = np.empty(prompts.deltas.shape[:2], object)
    for index in np.ndindex(*found.shape):
        found[index] = digest("image", prompts.deltas[index].tobytes())
    return found
