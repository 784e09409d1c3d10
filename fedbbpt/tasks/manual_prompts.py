"""An instruction for each known data set, as a user would write it before any tuning.

The instructions are a baseline, and soft prompts are initialised with them. They were written once and not tuned on any
data, except that of trec. That one is the best of 24 wordings by the accuracy that offsets alone reach with it, on the
dev questions and on 1,000 training questions that are not among the shots.
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
