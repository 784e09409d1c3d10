"""Words and short word sequences of a corpus, as candidates for prompts made of words (BDPL, arXiv 2201.08531).

Texts are cut between neighbouring words x y that are rare as a pair, or whose pointwise mutual information
PMI(x, y) = log(p(x y) / (p(x) p(y))) is low. The pieces are the n-grams, and the most frequent ones are taken. The
constants are those of BDPL's code.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

MIN_PMI = 1.0
"""The lowest pointwise mutual information of two neighbours that stay together, in nats."""
MIN_COUNT = 6
"""Pairs that occur less often are too rare to be judged, and are cut."""
LONGEST = 5
"""The most words of an n-gram; longer ones are left out."""


def pmi_ngrams(texts: Sequence[str], count: int) -> tuple[str, ...]:
    """Returns at most `count` n-grams in lower case, the most frequent first, and alphabetically among equals."""
    phrases = [phrase for text in texts for phrase in _phrases(text)]
    words = Counter(word for phrase in phrases for word in phrase)
    pairs = Counter(pair for phrase in phrases for pair in pairwise(phrase))
    scale = words.total() ** 2 / max(pairs.total(), 1)  # from counts to p(x y) / (p(x) p(y))
    bound = {
        (x, y)
        for (x, y), count_of_both in pairs.items()
        if count_of_both >= MIN_COUNT and math.log(scale * count_of_both / (words[x] * words[y])) >= MIN_PMI
    }
    ngrams = {ngram for phrase in phrases for ngram in _cut(phrase, bound) if len(ngram) <= LONGEST}
    frequency: Counter[str] = Counter()
    for phrase in phrases:
        for start in range(len(phrase)):
            for end in range(start + 1, min(start + LONGEST, len(phrase)) + 1):
                if phrase[start:end] in ngrams:
                    frequency[" ".join(phrase[start:end])] += 1
    return tuple(sorted(frequency, key=lambda ngram: (-frequency[ngram], ngram))[:count])


def _phrases(text: str) -> list[tuple[str, ...]]:
    """Splits a text at its punctuation marks, and each part into words."""
    return [tuple(words) for part in re.split(r"[^\w\s'-]+", text.lower()) if (words := re.findall(r"\w[\w'-]*", part))]


def _cut(phrase: tuple[str, ...], bound: set[tuple[str, str]]) -> list[tuple[str, ...]]:
    """Cuts a phrase between neighbours that are not bound."""
    cuts = [i + 1 for i, pair in enumerate(pairwise(phrase)) if pair not in bound]
    return [phrase[start:end] for start, end in pairwise([0, *cuts, len(phrase)])]
