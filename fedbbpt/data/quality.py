"""Warnings about examples that may make a result worse, or look better than it is. None of them shows a text."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from fedbbpt.data.columns import shown
from fedbbpt.types import Examples, LabelledExamples, Truncation

_WORD = re.compile(r"[^\W_]")
"""A letter or a digit."""


@dataclass(frozen=True, slots=True)
class DataWarning:
    """Something about a data set that its owner should look at."""

    kind: str
    """A short name for programs."""
    count: int
    """The number of examples, or of labels, that it is about."""
    message: str
    """The whole warning for people."""


class TextReview:
    """Counts texts that are odd by themselves. They may come in several parts."""

    def __init__(self) -> None:
        self._counts = Counter[str]()
        self._texts = 0

    def add(self, examples: Examples) -> None:
        """Counts the odd ones among further examples. Images are never odd."""
        self._texts += len(examples.texts)
        for text in examples.texts:
            self._counts["short"] += len(_WORD.findall(text)) < 2
            self._counts["lost"] += "\ufffd" in text
            self._counts["misread"] += not text.isascii() and _is_misread(text)

    def warnings(self) -> list[DataWarning]:
        """Returns a warning for each kind of oddity that was found."""
        said = {
            "short": "nearly empty, with at most one letter or digit",
            "lost": "damaged, with a replacement character for each letter that was lost",
            "misread": "misread: UTF-8 was taken for another encoding, by another program or by --encoding",
        }
        return [
            DataWarning(
                f"{kind} texts", self._counts[kind], f"{_share(self._counts[kind], self._texts, 'text')} {what}"
            )
            for kind, what in said.items()
            if self._counts[kind]
        ]


def review(parts: Mapping[str, LabelledExamples], labels: Sequence[str]) -> list[DataWarning]:
    """Returns the warnings about a data set.

    Args:
        parts: The examples by the name of their split, such as "train".
        labels: The names of the classes.
    """
    texts = TextReview()
    for part in parts.values():
        texts.add(part.examples)
    keys = {name: _keys(part.examples) for name, part in parts.items()}
    return [*_shared(keys), *_conflicting(parts, keys), *similar_labels(labels), *texts.warnings()]


def similar_labels(labels: Sequence[str]) -> list[DataWarning]:
    """Returns a warning about each group of labels that differ only in case and spaces."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in labels:
        groups[_normalised(name)].append(name)
    return [
        DataWarning("similar labels", len(group), f"classes that differ only in case or spaces: {names}")
        for group in groups.values()
        if len(group) > 1 and (names := ", ".join(map(shown, group)))
    ]


def cut_texts(truncation: Truncation | None, examples: int, max_tokens: int) -> list[DataWarning]:
    """Returns a warning if texts were truncated.

    Args:
        truncation: The truncated ones; None if the service does not tell.
        examples: The number of all examples.
        max_tokens: Most tokens of the model's input.
    """
    if truncation is None or not truncation.examples:
        return []
    mean = truncation.tokens / truncation.examples
    message = (
        f"{_share(truncation.examples, examples, 'text')} too long for the model, which reads {max_tokens} tokens "
        f"with template and prompt; what exceeds them was cut off, {mean:.0f} tokens on average"
    )
    return [DataWarning("cut texts", truncation.examples, message)]


def _shared(keys: Mapping[str, Sequence[tuple[bytes, str]]]) -> Iterable[DataWarning]:
    """Warns of examples that stand in two splits."""
    for first, second in combinations(keys, 2):
        exact, normalised = {key for key, _ in keys[first]}, {key for _, key in keys[first]}
        count = sum(key in normalised for _, key in keys[second])
        if count:
            same = sum(key in exact for key, _ in keys[second])
            less = f", {count - same} with other spaces or capitals" if count > same else ""
            message = f"{_share(count, len(keys[second]), f'{second} example')} also in {first}{less}"
            message += "; measurements look better than they are"
            yield DataWarning(f"{second} examples in {first}", count, message)


def _conflicting(
    parts: Mapping[str, LabelledExamples], keys: Mapping[str, Sequence[tuple[bytes, str]]]
) -> Iterable[DataWarning]:
    """Warns of examples that have one label here and another one there."""
    labels: dict[str, set[int]] = defaultdict(set)
    for name, part in parts.items():
        for (_, key), label in zip(keys[name], part.labels.tolist(), strict=True):
            labels[key].add(label)
    count = sum(len(found) > 1 for found in labels.values())
    if count:
        occur = "1 example occurs" if count == 1 else f"{count} examples occur"
        yield DataWarning("conflicting labels", count, f"{occur} with different labels")


def _share(count: int, total: int, noun: str) -> str:
    """The beginning of a sentence about some of a number of things: "1 of 20 texts is", "2 of 20 texts are"."""
    return f"{count} of {total} {noun}{'' if total == 1 else 's'} {'is' if count == 1 else 'are'}"


def _keys(examples: Examples) -> list[tuple[bytes, str]]:
    """A digest of each example, and what is the same for examples that differ only in case and spaces."""
    digests = examples.digests()
    if examples.images is not None:
        return [(digest, digest.hex()) for digest in digests]
    same = ["\0".join(map(_normalised, both)) for both in examples.text_pairs]
    return list(zip(digests, same, strict=True))


def _normalised(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _is_misread(text: str) -> bool:
    """Says whether a text was UTF-8 and was read as cp1252: it hardly ever happens by chance that it can be undone."""
    try:
        text.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return False
    return True
