"""Finds the tokens of label words: those with which a filled template goes on, or that it has at its mask."""

from collections.abc import Mapping, Sequence

from fedbbpt.errors import InvalidExamples, InvalidTask
from fedbbpt.ptm.models.text.filling import Template
from fedbbpt.ptm.models.text.surroundings import head, tail
from fedbbpt.ptm.models.text.tokenizer import Ids, TextTokenizer


def find_continuations(tokenizer: TextTokenizer, template: Template, words: Sequence[str]) -> tuple[Ids, ...]:
    """Returns the tokens that follow those of the filled template when each word is written after it.

    Raises:
        InvalidTask: A word has no tokens or is not in the vocabulary, its first letters become one token with the end
            of the template, or two words have the same tokens.
    """
    end = tail(template.fill(template.word, template.word).text)
    before, *continued = tokenizer.ids([end, *(end + template.space_before_label + word for word in words)])
    found = []
    for word, ids in zip(words, continued, strict=True):
        if ids[: len(before)] != before:
            border = next(i for i, id in enumerate(before) if ids[i : i + 1] != (id,))
            read = tokenizer.pieces(ids[border : border + 3])
            what = f"the end of the template and the label word {word!r} are read together, as {read}"
            raise InvalidTask(what, where="template", fix='white space before {mask}, such as "... It was {mask}"')
        found.append(_check_known(tokenizer, word, ids[len(before) :], "words that the vocabulary has"))
    return _check_different(found)


def find_fillers(tokenizer: TextTokenizer, template: Template, words: Sequence[str]) -> tuple[Ids, ...]:
    """Returns the one token that each word is when it stands in place of the template's mask.

    Raises:
        InvalidTask: A word is not exactly one token of the vocabulary, or two words are the same token.
    """
    texts = []
    for word in words:
        filled = template.fill(template.word, template.word, mask=word)
        assert filled.mask is not None, "families that fill masks check that the template has one"
        before = tail(filled.text[: filled.mask.space])
        end = len(before) + filled.mask.end - filled.mask.space
        after = head(filled.text[filled.mask.end :])
        texts.append((before + filled.text[filled.mask.space : filled.mask.end] + after, (len(before), end)))
    found = []
    for word, tokens in zip(words, tokenizer.encode(texts), strict=True):
        (first, _), (_, last) = tokens.overlaps  # a token that also contains neighbours counts
        ids = tokens.ids[first:last]
        if None in tokens.cuts:
            what = f"the template and the label word {word!r} are read together, as {tokenizer.pieces(ids)}"
            raise InvalidTask(what, where="template", fix='white space around {mask}, such as "It was {mask} ."')
        fix = "words of one token each"
        if len(ids) > 1:
            raise InvalidTask(f"label word {word!r} is {tokenizer.pieces(ids)} to the model", where="classes", fix=fix)
        found.append(_check_known(tokenizer, word, ids, fix))
    return _check_different(found)


def check_endings(tokenizer: TextTokenizer, ends: Mapping[str, int], labels: Sequence[tuple[str, Ids]]) -> None:
    """Checks that each input goes on with the tokens of the label words that the task found.

    Args:
        tokenizer: The tokenizer.
        ends: The last characters of inputs, and the number of an example that ends with them.
        labels: The label words, each with the white space before it, and their tokens.

    Raises:
        InvalidExamples: The end of a text and a label word are read together.
    """
    before = tokenizer.ids(list(ends))
    for label, label_ids in labels:
        continued = tokenizer.ids([end + label for end in ends])
        for index, start, ids in zip(ends.values(), before, continued, strict=True):
            if ids != start + label_ids:
                what = f"the end of the text and the label word {label!r} are read together"
                fix = "a text without white space at its end, or a template with words between the text and {mask}"
                raise InvalidExamples(what, where=f"examples[{index}]", fix=fix)


def _check_known(tokenizer: TextTokenizer, word: str, ids: Ids, fix: str) -> Ids:
    if not ids or tokenizer.unknown_id in ids:
        raise InvalidTask(f"label word {word!r} is {tokenizer.pieces(ids)} to the model", where="classes", fix=fix)
    return ids


def _check_different(found: Sequence[Ids]) -> tuple[Ids, ...]:
    if len(set(found)) < len(found):
        raise InvalidTask("two label words are the same tokens", where="classes", fix="different words")
    return tuple(found)
