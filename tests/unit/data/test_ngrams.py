"""N-grams of a corpus by pointwise mutual information."""

import numpy as np

from fedbbpt.data.ngrams import LONGEST, MIN_COUNT, pmi_ngrams

WORDS = "the a of way to office door open house in on river map town street car old tree bell hall".split()


def corpus(texts: int) -> list[str]:
    """Returns texts of words in random order, except two words that always occur together."""
    draw = np.random.default_rng(0)
    return [" ".join([*draw.choice(WORDS, 4), "New York", *draw.choice(WORDS, 4)]) + "." for _ in range(texts)]


def test_words_that_occur_together_more_often_than_by_chance_are_an_ngram() -> None:
    found = pmi_ngrams(corpus(200), 100)
    assert found[0] == "new york", "and it is the most frequent"
    assert set(WORDS) <= set(found) and "york" not in found


def test_a_rare_pair_is_not_an_ngram() -> None:
    assert "new york" in pmi_ngrams(corpus(MIN_COUNT), 100)
    found = pmi_ngrams(corpus(MIN_COUNT - 1), 100)
    assert {"new", "york"} <= set(found) and "new york" not in found


def test_the_most_frequent_come_first_and_equals_alphabetically() -> None:
    assert pmi_ngrams(["b. b. d. c.", "d. c. e."], 100) == ("b", "c", "d", "e")
    assert pmi_ngrams(corpus(200), 3) == pmi_ngrams(corpus(200), 100)[:3]


def test_an_ngram_neither_crosses_punctuation_nor_is_too_long() -> None:
    texts = [f"{i}, one two three four five six; seven eight, nine" for i in range(100)]
    found = pmi_ngrams(texts, 1000)
    assert "seven eight" in found
    assert "eight nine" not in found
    assert all(len(ngram.split()) <= LONGEST for ngram in found)


def test_texts_without_words_have_none() -> None:
    assert pmi_ngrams(["...", "", " - "], 5) == ()
