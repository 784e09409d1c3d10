"""Reads the next token from POST /v1/completions, which continues a text."""

from collections.abc import Sequence
from typing import Any

from fedbbpt.errors import InvalidTask
from fedbbpt.ptm.models.openai.endpoint import Endpoint, RequestForm, check_different
from fedbbpt.ptm.models.openai.filled_template import FilledTemplate
from fedbbpt.ptm.models.openai.next_token import LabelWord, NextToken, next_token
from fedbbpt.ptm.models.template import Piece, Placeholder, check_mask_at_end

PROBES = (
    "Answer: yes no no yes no yes yes no yes",
    "It is one or the other, and it goes on like this: no yes yes no no yes no yes yes no no",
    "no no yes no yes yes no yes no",
    "The answers to all of these questions are: yes yes no yes no no yes no yes no",
)
"""They repeat " yes" and " no", so that every language model has these two among its likeliest next tokens."""


class Completions(Endpoint[str]):
    """A model that continues texts. An input is a text."""

    probes = PROBES
    space = " "
    most_texts = 16
    overhead = 1

    def input(self, row: FilledTemplate, prompt: str) -> str:
        """Returns the text of a pair."""
        return row.text(prompt)

    def echoes(self, found: NextToken, probe: str) -> bool:
        """Returns whether the answer begins with the probe."""
        return found.written.startswith(probe)

    def check_template(self, pieces: Sequence[Piece]) -> None:
        """Raises InvalidTask unless the template ends with {mask}."""
        check_mask_at_end(tuple(pieces))

    def label_words(self, pieces: Sequence[Piece], words: Sequence[str]) -> tuple[LabelWord, ...]:
        """Returns the label words as they follow a template. Raises InvalidTask."""
        space = pieces[-1].text if pieces[-1].placeholder is Placeholder.MASK else ""
        last = [piece for piece in pieces if piece.placeholder is not Placeholder.MASK][-1]
        return self.labels(last.text if last.placeholder is None else ".", space, words)

    def labels(self, stem: str, space: str, words: Sequence[str]) -> tuple[LabelWord, ...]:
        """Returns label words as they follow a text that ends in `stem`, after the white space `space`.

        Without a tokenizer there is no telling whether a word is one token; if it is not, it has no score later.

        Raises:
            InvalidTask: A word is not one token, or two words are the same token.
        """
        if not self.has_tokenizer:
            return tuple(LabelWord(space + word) for word in words)
        before = self.tokenise(stem)
        labels = []
        for word in words:
            tokens = self.tokenise(stem + space + word)
            if len(tokens) != len(before) + 1 or tokens[:-1] != before:
                what = f"label word {space + word!r} is not one token to the model after {stem!r}"
                raise InvalidTask(what, where="classes", fix="words of one token each")
            labels.append(LabelWord(space + word, tokens[-1]))
        check_different([label.id for label in labels])
        return tuple(labels)

    def next_tokens(self, inputs: Sequence[str], labels: Sequence[LabelWord], form: RequestForm) -> list[NextToken]:
        """Returns the next token after each input; as `Endpoint.next_tokens`."""
        body: dict[str, Any] = {
            "prompt": inputs[0] if len(inputs) == 1 else list(inputs),
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": form.top_logprobs,
        }
        if form.requests_label_ids:
            body["logprob_token_ids"] = [label.id for label in labels]
        if form.tokens_as_ids:
            body["return_tokens_as_token_ids"] = True
        choices = self._choices("/completions", body, len(inputs))
        likeliest = not form.requests_label_ids
        return [next_token(choice, str(choice.get("text")), likeliest=likeliest) for choice in choices]
