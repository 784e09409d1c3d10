"""The start-up self-test: the parts of a split model must give the logits of the whole model, or the model is refused.

The whole model is asked with token ids, as users of transformers ask it, before it is split. The parts are asked later,
through the code that scores calls, and their scores are compared. The order matters: the whole model reads a long input
before it has seen any short one, the parts read it afterwards, so that an architecture whose short inputs change how it
reads later long ones is found.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedbbpt import seeds
from fedbbpt.errors import InvalidInput, first_line
from fedbbpt.ptm.models.accelerate.latent_projection import deviation_of_words
from fedbbpt.ptm.models.checkpoint import CPU, Checkpoint
from fedbbpt.ptm.models.text.encoding import TokenisedExample

SHORT_TOKENS, LONG_TOKENS = 24, 256
"""Tokens of the short input, and of the long one unless the architecture changes its attention at a greater length."""
LONG_PROMPT_TOKENS = 17
"""Enough for a causal model to compute the prompt separately, as a prefix that inputs share."""
MIN_LONG_TOKENS = 64
MAX_OPERATIONS = {CPU: 2.5e11}
"""Operations for the long input by kind of device: seconds on one core. A model that needs more reads a shorter one."""
MAX_OPERATIONS_ELSEWHERE = 2.5e13
LABEL_WORDS = 64
"""Label words that are compared, drawn from the vocabulary."""
RELATIVE_TOLERANCE, ROUNDING = 1e-3, 1e-5
"""Largest differences: relative to the range of an answer's numbers, and relative to the largest of them."""
_WINDOWS = (
    "attention_chunk_size", "attention_window", "attention_window_size", "chunk_size", "index_topk", "local_attention",
    "local_attn_chunk_length", "lsh_attn_chunk_length", "original_max_position_embeddings", "sliding_window",
    "window_size",
)  # fmt: skip
"""Names in configs of the lengths at which attention changes."""


@dataclass(frozen=True)
class Probe:
    """An example and a prompt, in tokens, and the label words that are scored."""

    name: str
    row: TokenisedExample
    prompt: tuple[int, ...]
    words: tuple[tuple[int, ...], ...]

    @property
    def continuation(self) -> tuple[int, ...]:
        """The tokens of the longest label word that the model reads after the input: all except the last."""
        return max(self.words, key=len)[:-1]

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """The tokens of the input, joined with the prompt."""
        at = self.row.prompt_index
        return (*self.row.ids[:at], *self.prompt, *self.row.ids[at:])

    @property
    def read_position(self) -> int:
        """The position whose logits are scored: that of the mask, or the last."""
        mask = self.row.mask_index
        return len(self.ids) - 1 if mask is None else mask + len(self.prompt) * (mask >= self.row.prompt_index)


class SelfTest:
    """What a whole model answers, to be compared with the answers of its parts."""

    def __init__(self, checkpoint: Checkpoint, family: str, *, causal: bool) -> None:
        """Asks the model, which is not split yet.

        Raises:
            InvalidInput: The model has no word vectors, does not accept vectors, or reads token ids as well.
        """
        self._name, self._family = checkpoint.name, family
        self._config = checkpoint.model.config.get_text_config()
        words = checkpoint.model.get_input_embeddings()
        if not isinstance(words, nn.Embedding):
            what = f"the model's word embeddings are no plain table but a {type(words).__name__}"
            raise InvalidInput(what, where=self._name, fix="another model")
        draw = _Draw(checkpoint, min(words.num_embeddings, len(checkpoint.tokenizer)), causal)
        self._switches = _switches(self._config)
        longest = _long_tokens(checkpoint, self._switches)
        self.probes = draw.probes(min(SHORT_TOKENS, checkpoint.max_tokens), longest)
        self.vectors = random_vectors(words, 1, min(SHORT_TOKENS, checkpoint.max_tokens))
        self.words = self.probes[0].words
        with torch.inference_mode():
            self.outputs = [_ask(checkpoint, probe, ids=_ids(checkpoint, probe)) for probe in self.probes]
            self._ask_with_vectors(checkpoint, words)

    def _ask_with_vectors(self, checkpoint: Checkpoint, words: nn.Embedding) -> None:
        """Asks the model with vectors in place of token ids."""
        probe, adds_vectors = self.probes[-1], getattr(self._config, "hidden_size_per_layer_input", 0)
        try:
            by_vectors = _ask(checkpoint, probe, vectors=words(_ids(checkpoint, probe)))
            why = "" if difference(by_vectors, self.outputs[-1]) is None else "it reads the token ids as well"
            self.output_of_vectors = _output(checkpoint.model, -1, inputs_embeds=self.vectors)
        except Exception as error:  # architectures reject vectors, and fail on them, in any way
            why = f"it fails: {first_line(error)}"
        if why and adds_vectors:
            why = "it adds vectors of its own for each token id in every layer (per-layer embeddings)"
        if why:
            what = f"the model cannot be asked with vectors in place of token ids: {why}"
            raise InvalidInput(what, where=self._name, fix="another model")

    def check_vectors(self, ours: Tensor, theirs: Tensor) -> None:
        """Raises InvalidInput if the parts and the whole model score `vectors` differently, `[K]` each."""
        if (gap := difference(ours, theirs)) is not None:
            self._refuse(f"its parts score vectors differently from the whole model ({gap})")

    def check(self, both_scores: Callable[[Probe, Tensor], tuple[Tensor, Tensor] | None]) -> None:
        """Compares the scores of all probes, the long input last.

        Args:
            both_scores: Returns the scores `[K]` of a probe by the parts, and those in the whole model's output; None
                if this model cannot have such label words.

        Raises:
            InvalidInput: They differ.
        """
        for probe, output in reversed(list(zip(self.probes, self.outputs, strict=True))):
            both = both_scores(probe, output)
            if both is None or (gap := difference(*both)) is None:
                continue
            tokens = len(probe.ids)
            what = f"{probe.name} of {tokens} tokens gets other scores than transformers gives ({gap})"
            if probe is not self.probes[0]:
                self._refuse(what)
            verified = len(self.probes[-1].ids)
            limit = max((length for length in self._switches if verified <= length < tokens), default=verified)
            why = "its attention depends on the length of the input, or on inputs before it"
            self._refuse(f"{what}: {why}", fix=f"--max-length {limit}, or another model")

    def _refuse(self, what: str, fix: str = "another model") -> None:
        raise InvalidInput(f"as a {self._family}, {what}", where=self._name, fix=fix)


class _Draw:
    """Draws probes from a tokenizer's vocabulary, between the special tokens that the tokenizer puts around a text."""

    def __init__(self, checkpoint: Checkpoint, vocabulary: int, causal: bool) -> None:
        tokenizer, config = checkpoint.tokenizer, checkpoint.model.config
        special = {*tokenizer.all_special_ids, config.pad_token_id, config.eos_token_id if causal else None}
        self._ids = np.setdiff1d(np.arange(vocabulary), [one for one in special if isinstance(one, int)])
        self._rng = seeds.rng(0, "self-test")
        around = tokenizer("a")["input_ids"]
        plain = [index for index, token in enumerate(around) if token not in tokenizer.all_special_ids] or [0]
        self._before, self._after = around[: plain[0]], [] if causal else around[plain[-1] + 1 :]
        self._mask = [] if causal or tokenizer.mask_token_id is None else [tokenizer.mask_token_id]
        self._causal = causal

    def _some(self, count: int) -> tuple[int, ...]:
        return tuple(map(int, self._rng.choice(self._ids, max(0, count))))

    def probes(self, short: int, long: int) -> list[Probe]:
        """Returns the long input first. Prompts join before a text and after it: causal models compute both ways."""
        words = tuple((one,) for one in dict.fromkeys(self._some(LABEL_WORDS)))
        prompt = min(LONG_PROMPT_TOKENS, long // 2)
        found = [self._probe("an input", long, prompt, words, in_front=True)]
        if self._causal and short > 4:
            several = self._some(1), self._some(1), self._some(3)
            found.append(self._probe("a label word of several tokens after an input", short - 2, 3, several))
        return [*found, self._probe("an input", short, min(3, short // 3), words)]

    def _probe(
        self, name: str, tokens: int, prompt: int, words: tuple[tuple[int, ...], ...], *, in_front: bool = False
    ) -> Probe:
        room = tokens - prompt - len(self._before) - len(self._after) - len(self._mask)
        rest = min(2, room // 2)
        ids = (*self._before, *self._some(room - rest), *self._mask, *self._some(rest), *self._after)
        text, mask = len(self._before), len(self._before) + max(0, room - rest)
        row = TokenisedExample(ids, min(1, text), text if in_front else mask, mask if self._mask else None, text)
        return Probe(name, row, self._some(prompt), words)


def random_vectors(embeddings: nn.Embedding, count: int, tokens: int) -> Tensor:
    """Returns random vectors `[count, tokens, D]` of the same scale as the model's word vectors."""
    noise = seeds.rng(0, "probe").standard_normal((count, tokens, embeddings.embedding_dim), np.float32)
    return deviation_of_words(embeddings) * torch.from_numpy(noise).to(embeddings.weight.device)


def difference(ours: Tensor, theirs: Tensor) -> str | None:
    """Returns None if two answers `[..., K]` are the same except for rounding, otherwise a description."""
    largest, spread = float(theirs.abs().max()), float((theirs.amax(-1) - theirs.amin(-1)).max())
    gap = float((ours - theirs).abs().max())
    if gap <= RELATIVE_TOLERANCE * spread + ROUNDING * largest:  # false for NaN
        return None
    return f"by {gap:.2g}, where scores range over {spread:.2g}"


def _switches(config: Any) -> list[int]:
    """Returns the numbers of tokens beyond which the architecture may read inputs in another way, in order."""
    found = [getattr(config, name, None) for name in _WINDOWS]
    numbers = [one for each in found for one in (each if isinstance(each, list | tuple) else [each])]
    if (block := getattr(config, "block_size", None)) and hasattr(config, "num_random_blocks"):  # BigBird
        numbers.append((5 + 2 * config.num_random_blocks) * block)
    scaling = getattr(config, "rope_parameters", None)
    if isinstance(scaling, Mapping):
        numbers.append(scaling.get("original_max_position_embeddings"))
    return sorted({one for one in numbers if isinstance(one, int) and one > 0})


def _long_tokens(checkpoint: Checkpoint, switches: Sequence[int]) -> int:
    """Returns the tokens of the long input: beyond the greatest switch that it takes reasonable time to reach."""
    operations = MAX_OPERATIONS.get(checkpoint.model.device.type, MAX_OPERATIONS_ELSEWHERE)
    affordable = int(operations / (2 * checkpoint.model.num_parameters()))
    wanted = max(LONG_TOKENS, *(switch + switch // 4 + 2 for switch in switches), 0)
    return min(checkpoint.max_tokens, max(MIN_LONG_TOKENS, min(wanted, affordable)))


def _ids(checkpoint: Checkpoint, probe: Probe) -> Tensor:
    return torch.tensor([[*probe.ids, *probe.continuation]], device=checkpoint.model.device)


def _ask(checkpoint: Checkpoint, probe: Probe, *, ids: Tensor | None = None, vectors: Tensor | None = None) -> Tensor:
    named = {"input_ids": ids} if vectors is None else {"inputs_embeds": vectors}
    return _output(checkpoint.model, probe.read_position, **named)


def _output(model: Any, read_position: int, **inputs: Any) -> Tensor:
    """Returns logits `[S, vocabulary]` from the read position on or `[K]`, or hidden states `[T, D]` without a head."""
    output = model(**inputs)
    logits: Tensor | None = getattr(output, "logits", None)
    if logits is None:
        hidden: Tensor = output.last_hidden_state[0]
        return hidden
    return logits[0, read_position:].clone() if logits.ndim == 3 else logits[0]
