"""An instruction for each known data set, as a user would write it before any tuning.

It is a baseline by itself, and the text that soft prompts begin as. Written once and not tuned on any data, but for
that of trec: the best of 24 by the accuracy of offsets alone, on dev and 1,000 of the other training questions.
"""

from collections.abc import Mapping

MANUAL_PROMPTS: Mapping[str, str] = {
    "demo": "Which desk of the hospital can answer this question?",
    "trec": "Question type:",
    "trec-plain": "What kind of answer does this question ask for?",
    "agnews": "What is this news article about?",
    "sst2": "Does this review say that the movie is good or bad?",
    "dbpedia": "What kind of thing does this article describe?",
}
