"""Fills a template with an example and tokenises it as one text, once per example, and notes where a prompt can join.

An example's tokens are those that the model's own tokenizer gives for the filled template, without the prompt's. The
text can be truncated and perturbed without touching the rest. Special tokens that are spelled out in a text stay plain
text, whereas in the template they are special.

If the tokenizer puts the second of two texts into a segment of its own (BERT), and the template has the same special
tokens between both texts ("{text} [SEP] {text_pair}"), whatever follows them is in the second segment. Without them,
there is one segment.
"""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.errors import InvalidExamples, InvalidInput, InvalidTask, InvalidTensor
from fedbbpt.ptm.models.template import Placeholder, check_pairs
from fedbbpt.ptm.models.text.filling import Filled, Template
from fedbbpt.ptm.models.text.key_value_cache import CacheSlot
from fedbbpt.ptm.models.text.label_words import check_endings, find_continuations, find_fillers
from fedbbpt.ptm.models.text.locating import Places, locate
from fedbbpt.ptm.models.text.surroundings import Surroundings, tail, tokenise_prompts
from fedbbpt.ptm.models.text.tokenizer import Ids, Tokens, in_batches, text_tokenizer
from fedbbpt.ptm.models.text.truncation import perturb, truncate
from fedbbpt.types import Examples, Perturbation, TaskSpec


@dataclass(frozen=True, slots=True)
class TokenisedExample:
    """A filled template in tokens, without its prompt."""

    ids: Ids
    front_index: int
    """Index at which a prompt of vectors joins: after the first special token, the model's or the template's, if there
    is one, otherwise at the front."""
    prompt_index: int
    """Index at which a prompt of tokens or text joins: that of the template's {prompt}."""
    mask_index: int | None
    """Index of the mask token, if there is one."""
    text_index: int
    """Index of the first token of the example's own text."""
    segments: Ids = ()
    """The segment of each token (transformers' `token_type_ids`); empty if all are in segment 0."""
    cut_tokens: int = field(default=0, compare=False)
    """Number of tokens that were cut off from the text."""
    no_prompt_index: bool = False
    """True if a token has characters from both sides of {prompt}, so that nothing can join there."""
    surroundings: Surroundings | None = None
    """The characters around the prompt, which decide how a prompt of text is tokenised."""
    cache_slot: CacheSlot = field(default_factory=CacheSlot, compare=False, repr=False)
    """Holds the keys and values of the tokens before the prompt, for causal models."""


class ExampleEncoder:
    """Turns examples, prompts and label words into tokens for one tokenizer. Thread-safe."""

    def __init__(
        self,
        tokenizer: Any,
        max_tokens: int,
        *,
        vectors: int,
        causal: bool = False,
        segments: bool = False,
        padding: Set[int] = frozenset(),
    ) -> None:
        """Copies the tokenizer.

        Args:
            tokenizer: One of transformers' tokenizers.
            max_tokens: Most tokens of an input.
            vectors: How many tokens the model has word vectors for. A tokenizer may have more.
            causal: The input ends without a mask token and without the model's last special tokens.
            segments: Whether the model distinguishes the segments of two texts.
            padding: Tokens that the model takes for padding, so that no input may contain them.

        Raises:
            InvalidInput: The model has no vector for one of the special tokens around its inputs.
        """
        self._tokenizer = text_tokenizer(tokenizer)
        self._max_tokens, self._vectors, self._causal = max_tokens, vectors, causal
        self._padding = sorted(padding)
        self._before, self._after = self._tokenizer.before, () if causal else self._tokenizer.after
        self._check_vectors(self._before + self._after, InvalidInput("special tokens", where="tokenizer"))
        self._pair_form = self._tokenizer.pair_form if segments and not causal else None
        self._special = frozenset(tokenizer.all_special_ids)
        self._vocabulary = np.setdiff1d(
            np.arange(min(self._tokenizer.count, vectors)), [*tokenizer.all_special_ids, *padding]
        )
        self._template = lru_cache(maxsize=64)(self._compile)
        self.label_words = lru_cache(maxsize=64)(self._label_words)

    def tokenise(self, text: str) -> Ids:
        """Returns the token ids of a text alone, without the model's own special tokens."""
        return self._tokenizer.ids([text])[0]

    def tokenise_initial_text(self, text: str) -> Ids:
        """Does the same for the text from which latent prompts start.

        Raises:
            InvalidTensor: The model has no vector for a token.
        """
        ids = self.tokenise(text)
        self._check_vectors(ids, InvalidTensor("the text", where="latent.projection.initial_text"))
        return ids

    def spell(self, ids: Sequence[int]) -> list[str]:
        """Returns tokens as the vocabulary spells them. Those that only fill up a table of vectors have no spelling."""
        return [piece if piece is not None else "(unused)" for piece in self._tokenizer.pieces(ids)]

    def encode_class(self, text: str) -> TokenisedExample:
        """Tokenises a class description, between the model's special tokens.

        Raises:
            InvalidTask: The model has no vector for a token.
        """
        own = self.tokenise(text)
        self._check_vectors(own, InvalidTask(f"class {text!r}", where="classes"))
        ids = (*self._before, *own, *self._after)
        front = self._front_index(ids)
        return TokenisedExample(ids, front, front, None, len(self._before))

    def _front_index(self, ids: Ids) -> int:
        return int(bool(self._before) or ids[0] in self._special)

    def encode_prompts(self, texts: Sequence[str], rows: Sequence[TokenisedExample]) -> list[Ids]:
        """Returns the tokens of text prompts, as they are next to what surrounds them in examples.

        An empty prompt has no tokens. At most one token more than the model takes is kept of each.

        Raises:
            InvalidTensor: A prompt runs together with its surroundings, or the model has no vector for a token.
        """
        around = [row.surroundings for row in rows if row.surroundings is not None]
        found = tokenise_prompts(self._tokenizer, texts, around, self._max_tokens + 1)
        for index, ids in enumerate(found):
            self._check_vectors(ids, InvalidTensor("the prompt", where=f"text.texts[{index}]"))
        return found

    def _label_words(self, task: TaskSpec) -> tuple[Ids, ...]:
        """Returns the tokens of each label word, as the filled template goes on with them, or has them at its mask.

        Raises:
            InvalidTask: A word is not in the vocabulary, runs together with the template, or has several tokens and the
                model is not causal, so that there is one mask to fill; or two words have the same tokens.
        """
        find = find_continuations if self._causal else find_fillers
        words = find(self._tokenizer, self._template(task), task.classes)
        for word, ids in zip(task.classes, words, strict=True):
            self._check_vectors(ids, InvalidTask(f"label word {word!r}", where="classes"))
        return words

    def encode(
        self, task: TaskSpec, examples: Examples, prompt_tokens: int, perturbation: Perturbation | None
    ) -> list[TokenisedExample]:
        """Tokenises examples, and cuts off the ends of texts that leave no room for a prompt of `prompt_tokens`.

        Nothing but the first text of an example is ever cut.

        Raises:
            InvalidExamples: A text has no tokens, or one that the model has no vector for; it is read together with the
                prompt or a label word; or examples and template do not agree on second texts.
            InvalidTask: The template cannot be tokenised.
            PromptTooLong: There is no room for a single token of a text.
        """
        check_pairs(task, examples)
        template = self._template(task)
        words = self.label_words(task) if self._causal else ()
        labels = tuple(
            (template.space_before_label + word, ids) for word, ids in zip(task.classes, words, strict=bool(words))
        )
        rows: list[TokenisedExample] = []
        ends: dict[str, int] = {}
        ends_in_prompt = template.last is Placeholder.PROMPT
        for filled, tokens in self._tokenise_filled(template, examples):
            index = len(rows)
            ends.setdefault(tail(filled.text), index)
            places = locate(filled, tokens, template.stand_in, labels if ends_in_prompt else ())
            rows.append(self._assemble(tokens, places, prompt_tokens, perturbation, index))
        if labels and template.last in (Placeholder.TEXT, Placeholder.TEXT_PAIR):
            check_endings(self._tokenizer, ends, labels)
        return rows

    def _tokenise_filled(self, template: Template, examples: Examples) -> Iterator[tuple[Filled, Tokens]]:
        """Fills the template with each example and tokenises it, in batches of bounded size."""
        pairs = examples.pairs or ("",) * len(examples.texts)
        for index, text in enumerate((*examples.texts, *pairs)):
            if self._tokenizer.has_marks(text):
                what = "a character that Unicode reserves for programs' own use"
                raise InvalidExamples(what, where=f"examples[{index % len(examples.texts)}]", fix="text without it")
        every = [template.fill(text, pair) for text, pair in zip(examples.texts, pairs, strict=True)]
        start = 0
        for batch in in_batches([(filled.text, filled.positions) for filled in every]):
            yield from zip(every[start : start + len(batch)], self._tokenizer.encode(batch), strict=True)
            start += len(batch)

    def _assemble(
        self, tokens: Tokens, places: Places, prompt_tokens: int, perturbation: Perturbation | None, number: int
    ) -> TokenisedExample:
        """Removes the prompt's stand-in, truncates and perturbs the text, and adds the model's own special tokens."""
        where = f"examples[{number}]"
        if not places.has_text:
            raise InvalidExamples("the text has no tokens", where=where, fix="leave the example out")
        if places.prompt is None and places.surroundings.stand_in:
            what = "the tokenizer reads the end of the text together with the prompt"
            raise InvalidExamples(what, where=where, fix="white space or punctuation between {text} and {prompt}")
        ids, keep = np.array(tokens.ids, np.int64), np.ones(len(tokens.ids), bool)
        if places.prompt is not None:
            keep[places.prompt] = False
        text = range(places.text.start, places.text.stop)
        excess = len(self._before) + int(keep.sum()) + len(self._after) + prompt_tokens - self._max_tokens
        if excess > 0:
            text = truncate(text, len(text) - excess, number)
            keep[text.stop : places.text.stop] = False
        self._check_vectors(ids[keep], InvalidExamples("the text", where=where))
        if perturbation is not None:
            rng = seeds.rng(perturbation.seed, "perturbation", number)
            for own in (slice(text.start, text.stop), places.pair or slice(0)):
                ids[own] = perturb(ids[own].tolist(), perturbation, rng, self._vocabulary)

        def index(token: int) -> int:
            """Returns the index that a token of the filled template has in the input."""
            return len(self._before) + int(keep[:token].sum())

        found = (*self._before, *map(int, ids[keep]), *self._after)
        return TokenisedExample(
            found,
            self._front_index(found),
            0 if places.prompt is None else index(places.prompt.start),
            None if places.mask is None else index(places.mask),
            index(places.text_index),
            self._segments(len(found), None if places.second_segment is None else index(places.second_segment)),
            cut_tokens=places.text.stop - text.stop,
            no_prompt_index=places.prompt is None,
            surroundings=places.surroundings,
        )

    def _segments(self, length: int, second: int | None) -> Ids:
        """Returns the segments of an input whose second segment begins at index `second`."""
        form = self._pair_form
        if form is None or second is None:
            return ()
        within = (form.first,) * (second - len(self._before)) + (form.second,) * (length - second - len(self._after))
        return form.before + within + form.after

    def _compile(self, task: TaskSpec) -> Template:
        """Makes the template of a task, and compares it with the model's own tokenizer.

        Raises:
            InvalidTask: The template cannot be tokenised.
        """
        template = Template(self._tokenizer, task, causal=self._causal)
        filled = template.fill(template.word, template.word)
        (ours,) = self._tokenizer.ids([filled.text])
        theirs = self._tokenizer.plain_encoding(self._tokenizer.spell(filled.text))
        if (*self._tokenizer.before, *ours, *self._tokenizer.after) != theirs:
            what = f"the service reads the filled template as {self._tokenizer.pieces(ours)}"
            fix = f"the model's own tokenizer as {self._tokenizer.pieces(theirs)}: another template, or another model"
            raise InvalidTask(what, where="template", fix=fix)
        self._check_vectors(ours, InvalidTask("the template", where="template"))
        return template

    def check_prompt(self, ids: npt.NDArray[np.integer[Any]]) -> None:
        """Raises InvalidTensor if prompts of tokens contain one that the model takes for padding."""
        self._check_padding(ids, InvalidTensor("the prompt", where="tokens.ids"))

    def _check_padding(self, ids: Any, error: InvalidInput) -> None:
        if found := [id for id in self._padding if np.isin(id, ids)]:
            (piece,) = self._tokenizer.pieces(found[:1])
            what = f"{error.what} contains the token {piece!r}, which the model takes for padding, not for text"
            raise type(error)(what, where=error.where, fix="other words")

    def _check_vectors(self, ids: Sequence[int] | npt.NDArray[np.int64], error: InvalidInput) -> None:
        """Raises the error, completed, if the model has no vector for a token, or takes one for padding."""
        if len(ids) and (highest := int(max(ids))) >= self._vectors:
            (piece,) = self._tokenizer.pieces([highest])
            what = f"{error.what} contains the token {piece!r}, which the tokenizer has and the model has no vector for"
            fix = "other words, or a checkpoint whose embeddings were resized to its tokenizer"
            raise type(error)(what, where=error.where, fix=fix)
        self._check_padding(ids, error)
