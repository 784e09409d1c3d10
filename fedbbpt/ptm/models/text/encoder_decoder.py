"""Encoder-decoders (T5, BART and others): a class scores by its label word's logit as the beginning of the answer.

The encoder is the body that prompts join. The decoder is the head: for every pair it reads the few tokens with which
the model begins each answer, and the encoder's hidden states.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutput, MoEModelOutput

from fedbbpt.errors import InvalidInput, InvalidTask
from fedbbpt.limits import MAX_CONTINUATION_TOKENS
from fedbbpt.ptm.models.checkpoint import Checkpoint
from fedbbpt.ptm.models.template import Placeholder, parse
from fedbbpt.ptm.models.text.language_model import LabelHead, LanguageModel
from fedbbpt.ptm.models.text.transformer import LabelTokens, copies_to_fill
from fedbbpt.types import TaskSpec


class EncoderDecoder(LanguageModel):
    """Scores for example "{prompt} {text} Is this positive?" with the classes "yes" and "no".

    The filled template is the encoder's input. The decoder's input is what the model's own generation begins with: the
    start token and, if generation_config.json states a `forced_bos_token_id`, that token. Label words are tokenised as
    the beginning of a target text. If one has several tokens, all words are scored by teacher forcing, as in
    `CausalLM`.
    """

    family = "seq2seq-lm"

    def __init__(self, checkpoint: Checkpoint, *, threads: int = 0, token_budget: int = 0) -> None:
        # A copy, since a tokenizer of a translation model changes its settings while it reads a target text.
        self._target_tokenizer, self._target_lock = deepcopy(checkpoint.tokenizer), Lock()
        self._label_words = lru_cache(maxsize=64)(self._tokenise_label_words)
        first_step = _FirstStep(checkpoint.model, checkpoint.name)
        super().__init__(replace(checkpoint, model=first_step), threads=threads, token_budget=token_budget)

    def check(self, task: TaskSpec) -> None:
        if any(piece.placeholder is Placeholder.MASK for piece in parse(task)):
            raise InvalidTask(
                "the template has a {mask}, but an encoder-decoder begins its answer with the label word",
                where="template",
                fix='a template without it, for example "{prompt} {text} Sentiment:"',
            )
        self._label_words(task.classes)

    def columns(self, task: TaskSpec) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(map(str, word)) for word in self._label_words(task.classes))

    def _columns(self, task: TaskSpec) -> LabelHead:
        return self._label_head(self._label_words(task.classes))

    def _tokenise_label_words(self, classes: tuple[str, ...]) -> LabelTokens:
        """Returns the tokens of each label word, as the beginning of a target text.

        Raises:
            InvalidTask: A word is not in the vocabulary, two words have the same tokens, or all words are too long.
        """
        tokenizer = self._target_tokenizer
        with self._target_lock:
            found = tokenizer(text_target=list(classes), add_special_tokens=False, split_special_tokens=True)
        words = tuple(tuple(tokens) for tokens in found["input_ids"])
        for text, tokens in zip(classes, words, strict=True):
            if not tokens or tokenizer.unk_token_id in tokens:
                pieces = tokenizer.convert_ids_to_tokens(tokens)
                what = f"label word {text!r} is {pieces} to the model"
                raise InvalidTask(what, where="classes", fix="words that the vocabulary has")
            if max(tokens) >= self._decoder.weight.shape[0]:
                what = f"label word {text!r} has a token that the tokenizer has and the model has no vector for"
                raise InvalidTask(what, where="classes", fix="other words")
        if len(set(words)) < len(words):
            raise InvalidTask("two label words are the same tokens", where="classes", fix="different words")
        if (continued := sum(map(len, words)) - len(words)) > MAX_CONTINUATION_TOKENS:
            what = f"label words of {continued + len(words)} tokens"
            raise InvalidTask(what, where="classes", fix=f"at most {MAX_CONTINUATION_TOKENS} after the first ones")
        return words

    def _score_output(self, output: Tensor, columns: LabelHead) -> Tensor:
        return output[[word[0] for word in columns.words]]

    def _fit_head(self, words: LabelTokens) -> LabelHead:
        fitted = super()._fit_head(words)
        if fitted.fitted and (bias := getattr(fitted.head.model, "final_logits_bias", None)) is not None:
            fitted.head.model.final_logits_bias = bias[:, [word[0] for word in words]]
        return fitted

    def _score_hidden(self, hidden: Tensor, positions: Tensor, columns: LabelHead) -> Tensor:
        count = len(hidden)
        states = hidden.repeat(copies_to_fill(count), 1, 1)
        if columns.extra_tokens:
            return torch.stack([self._log_probability(states, word)[:count] for word in columns.words], dim=1)
        logits: Tensor = columns.head(inputs_embeds=states).logits[:count]
        return logits if columns.fitted else logits[:, [word[0] for word in columns.words]]

    def _log_probability(self, states: Tensor, word: Sequence[int]) -> Tensor:
        """Returns the logarithm of the word's probability, `[N]`, for the encoder's hidden states `[N, T, D]`."""
        log_probabilities = self._model.head.decode(states, word[:-1]).log_softmax(-1)
        found: Tensor = log_probabilities[:, range(len(word)), list(word)].sum(1)
        return found


class _FirstStep(nn.Module):
    """An encoder-decoder as a model of one input and one output: the logits `[N, vocabulary]` of its first token.

    The encoder is a part of this model and no longer of the one that it comes from.
    """

    base_model_prefix = "encoder"

    def __init__(self, model: Any, name: str) -> None:
        """Takes a model apart, which is modified.

        Raises:
            InvalidInput: The model does not state how an answer starts, or has another vocabulary for answers.
        """
        super().__init__()
        stated = model.generation_config
        start = stated.decoder_start_token_id if stated.decoder_start_token_id is not None else stated.bos_token_id
        if start is None:
            what = "generation_config.json does not state the token with which an answer starts"
            raise InvalidInput(what, where=name, fix="decoder_start_token_id in generation_config.json")
        forced = getattr(stated, "forced_bos_token_id", None)
        self.start = [start] if forced is None else [start, forced]
        self.encoder, self.output_embeddings = model.get_encoder(), model.get_output_embeddings()
        # FSMT's encoder is no model of its own.
        self.words = getattr(self.encoder, "get_input_embeddings", model.get_input_embeddings)()
        self.config = getattr(self.encoder, "config", model.config).get_text_config()
        if self.output_embeddings.weight.shape[0] != self.words.num_embeddings:
            what = "answers have a vocabulary of their own, which is not that of the input"
            raise InvalidInput(what, where=name, fix="a model with one vocabulary")
        _replace(model, self.encoder, _Taken(self.config))
        self.model = model

    @property
    def device(self) -> torch.device:
        found: torch.device = self.words.weight.device
        return found

    def num_parameters(self) -> int:
        return sum(weight.numel() for weight in self.parameters())

    def get_input_embeddings(self) -> Any:
        return self.words

    def get_output_embeddings(self) -> Any:
        return self.output_embeddings

    def set_output_embeddings(self, decoder: nn.Linear) -> None:
        """Replaces the decoder of the head. T5Gemma's own method would replace the decoder's word vectors as well."""
        _replace(self, self.output_embeddings, decoder)

    def forward(self, **inputs: Any) -> CausalLMOutput:
        """Returns the logits for the encoder's inputs."""
        logits = self.decode(self.encoder(**inputs).last_hidden_state)
        return CausalLMOutput(logits=logits[:, -1])

    def decode(self, encoded: Tensor, answer: Sequence[int] = ()) -> Tensor:
        """Returns the logits `[N, 1 + len(answer), vocabulary]` of an answer's tokens, which begins with `answer`.

        `encoded` `[N, T, D]` are the encoder's hidden states.
        """
        tokens = torch.tensor([[*self.start, *answer]], device=encoded.device).expand(len(encoded), -1)
        seen = torch.ones(encoded.shape[:2], dtype=torch.long, device=encoded.device)
        outputs = _Encoded(last_hidden_state=encoded)
        logits: Tensor = self.model(encoder_outputs=outputs, attention_mask=seen, decoder_input_ids=tokens).logits
        return logits[:, len(self.start) - 1 :]


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Puts one module in the place of another, wherever it is in a model."""
    for part in list(model.modules()):
        for name, child in list(part.named_children()):
            if child is old:
                setattr(part, name, new)


class _Taken(nn.Module):
    """Stands where the encoder was; some models look at the encoder's config."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config


class _Encoded(MoEModelOutput):
    """Has None for each output that a decoder passes on without reading it, such as the choices of experts' routers."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
