"""The start-up self-test: the parts of a split model must give the logits of the whole model, or the model is refused.

The whole model is asked with token ids, as users of transformers ask it, before it is split. The parts are asked later,
through the code that scores calls, and their scores are compared. The order matters: the whole model reads a long input
before it has seen any short one, the parts read it afterwards, so that an architecture whose short inputs change how it
reads later long ones is found.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedbbpt import seeds
from fedbbpt.errors import InvalidInput, first_line
from fedbbpt.ptm.models.accelerate.latent_projection import deviation_of_words
from fedbbpt.ptm.models.checkpoint import CPU, Checkpoint, without_warnings
from fedbbpt.ptm.models.text.agreement import difference
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
_WINDOWS = (
    "attention_chunk_size", "attention_window", "attention_window_size", "chunk_size", "index_topk", "keep_window_size",
    "local_attention", "local_attn_chunk_length", "lsh_attn_chunk_length", "original_max_position_embeddings",
    "sliding_window", "window_size",
)  # fmt: skip
"""Names in configs of the lengths at which attention changes."""


_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "special_tokens_mask")
"""What a tokenizer gives a model that the service takes care of."""


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
    def segments(self) -> tuple[int, ...]:
        """The segment of each of `ids`; empty if all are in segment 0. The prompt is in segment 0."""
        at = self.row.prompt_index
        own = self.row.segments
        return (*own[:at], *(0 for _ in self.prompt), *own[at:]) if own else ()

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
        self._refuse_other_inputs(checkpoint)
        if not isinstance(words, nn.Embedding):
            what = f"the model's word embeddings are no plain table but a {type(words).__name__}"
            raise InvalidInput(what, where=self._name, fix="another model")
        draw = _Draw(checkpoint, min(words.num_embeddings, len(checkpoint.tokenizer)), causal)
        self._switches = _switches(self._config)
        longest = _long_tokens(checkpoint, self._switches)
        self._after = draw.after
        self.probes = draw.probes(min(SHORT_TOKENS, checkpoint.max_tokens), longest)
        if getattr(self._config, "type_vocab_size", 0) > 1 and not causal:
            self.probes.insert(1, _as_pair(self.probes[-1]))
        self.vectors = random_vectors(words, 1, min(SHORT_TOKENS, checkpoint.max_tokens))
        self.words = self.probes[0].words
        with torch.inference_mode(), without_warnings():
            self.outputs = [_ask(checkpoint, probe, ids=_ids(checkpoint, probe)) for probe in self.probes]
            if any(output.isnan().any() for output in self.outputs):
                what = "the model answers with NaN: its weights are damaged, or overflow"
                raise InvalidInput(what, where=self._name, fix="copy the weights again, or another model")
            self._ask_with_vectors(checkpoint, words)
            self.padding = self._find_padding(checkpoint, words)
            """Tokens that the model reads otherwise than by their vectors."""

    def _refuse_other_inputs(self, checkpoint: Checkpoint) -> None:
        """Refuses models that read more of a text than its tokens."""
        encoded, takes = checkpoint.tokenizer("a"), inspect.signature(checkpoint.model.forward).parameters
        if others := sorted(name for name in encoded if name not in _INPUTS and name in takes):
            what = f"the model also reads {', '.join(others)} of each token, which the service cannot give it"
            raise InvalidInput(what, where=self._name, fix="another model")
        if any(encoded.get("token_type_ids", ())) and "token_type_ids" in takes:
            what = "the tokenizer puts parts of a single text into segments of their own, which the service cannot do"
            raise InvalidInput(what, where=self._name, fix="another model")

    def _ask_with_vectors(self, checkpoint: Checkpoint, words: nn.Embedding) -> None:
        """Asks the model with vectors in place of token ids."""
        probe, adds_vectors = self.probes[-1], getattr(self._config, "hidden_size_per_layer_input", 0)
        try:
            by_vectors = _ask(checkpoint, probe, vectors=words(_ids(checkpoint, probe)))
            why = (
                ""
                if difference(by_vectors, self.outputs[-1]) is None
                else "it reads the token ids as well, for example to look for padding"
            )
            self.output_of_vectors = _output(checkpoint.model, -1, inputs_embeds=self.vectors.clone())
        except Exception as error:  # architectures reject vectors, and fail on them, in any way
            why = f"it fails: {first_line(error)}"
        if why and adds_vectors:
            why = "it adds vectors of its own for each token id in every layer (per-layer embeddings)"
        if why:
            what = f"the model cannot be asked with vectors in place of token ids: {why}"
            raise InvalidInput(what, where=self._name, fix="another model")

    def _find_padding(self, checkpoint: Checkpoint, words: nn.Embedding) -> frozenset[int]:
        """Returns the padding token if the model looks for its id, for example to count positions without it."""
        probe, padding = self.probes[-1], self._config.to_dict().get("pad_token_id")
        if not isinstance(padding, int) or not 0 <= padding < words.num_embeddings:
            return frozenset()
        ids = _ids(checkpoint, probe)
        last = ids.shape[1] - 1 - len(self._after)
        for place in {min(1, last), last} - {probe.read_position if probe.row.mask_index is not None else -1}:
            ids[0, place] = padding
        by_ids, by_vectors = _ask(checkpoint, probe, ids=ids), _ask(checkpoint, probe, vectors=words(ids))
        return frozenset() if difference(by_vectors, by_ids) is None else frozenset({padding})

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
        tokenizer = checkpoint.tokenizer
        stated = checkpoint.model.config.get_text_config().to_dict()
        special = {*tokenizer.all_special_ids, stated.get("pad_token_id"), stated.get("eos_token_id")}
        self._ids = np.setdiff1d(np.arange(vocabulary), [one for one in special if isinstance(one, int)])
        self._rng = seeds.rng(0, "self-test")
        around = tokenizer("a")["input_ids"]
        plain = [index for index, token in enumerate(around) if token not in tokenizer.all_special_ids] or [0]
        self._before, self.after = around[: plain[0]], [] if causal else around[plain[-1] + 1 :]
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
        room = tokens - prompt - len(self._before) - len(self.after) - len(self._mask)
        rest = min(2, room // 2)
        ids = (*self._before, *self._some(room - rest), *self._mask, *self._some(rest), *self.after)
        text, mask = len(self._before), len(self._before) + max(0, room - rest)
        row = TokenisedExample(ids, min(1, text), text if in_front else mask, mask if self._mask else None, text)
        return Probe(name, row, self._some(prompt), words)


def _as_pair(probe: Probe) -> Probe:
    """Returns the same input as two texts, with a prompt in the first."""
    count, start = len(probe.row.ids), min(1, probe.row.text_index)
    segments = (0,) * (count // 2) + (1,) * (count - count // 2)
    row = replace(probe.row, prompt_index=start, segments=segments)
    return replace(probe, name="an input with a second text", row=row)


def random_vectors(embeddings: nn.Embedding, count: int, tokens: int) -> Tensor:
    """Returns random vectors `[count, tokens, D]` of the same scale as the model's word vectors."""
    noise = seeds.rng(0, "probe").standard_normal((count, tokens, embeddings.embedding_dim), np.float32)
    return deviation_of_words(embeddings) * torch.from_numpy(noise).to(embeddings.weight.device)


def _switches(config: Any) -> list[int]:
    """Returns the numbers of tokens beyond which the architecture may read inputs in another way, in order."""
    stated = config.to_dict()  # some configs refuse to give what differs between layers
    found = [stated.get(name) for name in _WINDOWS]
    numbers = [one for each in found for one in (each if isinstance(each, list | tuple) else [each])]
    if "num_random_blocks" in stated:  # BigBird
        numbers.append((5 + 2 * stated["num_random_blocks"]) * stated["block_size"])
    scaling = stated.get("rope_parameters")
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
    if ids is not None and "attention_mask" in inspect.signature(checkpoint.model.forward).parameters:
        named["attention_mask"] = torch.ones_like(ids)  # as tokenizers give it
    if probe.segments:
        named["token_type_ids"] = torch.tensor([probe.segments], device=checkpoint.model.device)
    return _output(checkpoint.model, probe.read_position, **named)


def _output(model: Any, read_position: int, **inputs: Any) -> Tensor:
    """Returns logits `[S, vocabulary]` from the read position on or `[K]`, or hidden states `[T, D]` without a head."""
    output = model(**inputs)
    logits: Tensor | None = getattr(output, "logits", None)
    if logits is None:
        hidden: Tensor = output.last_hidden_state[0]
        return hidden
    return logits[0, read_position:].clone() if logits.ndim == 3 else logits[0]
