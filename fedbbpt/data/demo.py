"""A synthetic data set: questions to a hospital, each for one of seven desks, depending on the kind of answer it needs.

A seeded grammar writes them: an optional opener, an optional sentence of context, and a question. Every class asks
about the same examinations and operations, so the topic of a text does not give its desk away. Contexts mention days,
buildings, invoices and doctors independently of the question, and no text contains the name of a desk or its stem. The
model knows only the desks' names, so there is much that a tuned prompt can add.

The splits share wordings, as a help desk hears the same phrases every day, but no question is in two splits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedbbpt.seeds import rng
from fedbbpt.types import Examples, LabelledExamples

QUESTIONS: Mapping[str, Sequence[str]] = {
    "scheduling": (
        "When is {event}?",
        "On which day is {event}?",
        "How long does {event} take?",
        "How many minutes should we plan for {event}?",
        "At what hour does {event} begin?",
        "Is {event} before or after lunch?",
        "Will I be home for dinner after {event}?",
        "How soon can {event} be done?",
        "How many weeks do people wait for {event}?",
        "Could {event} be moved to Thursday?",
        "Is the date for {event} fixed by now?",
        "How early do I have to be there for {event}?",
        "When will I hear about the results of {event}?",
        "Is {event} still on the 14th?",
        "How many days off work does {event} mean?",
        "How often does {event} have to be repeated?",
    ),
    "wayfinding": (
        "Where is {event}?",
        "Which building do I go to for {event}?",
        "On which floor is {event}?",
        "What is the room number for {event}?",
        "Which entrance is nearest for {event}?",
        "Is {event} in the main building or across the road?",
        "Where do I park for {event}?",
        "Which bus stops near the entrance for {event}?",
        "Where do we wait before {event}?",
        "Where do I hand in the papers for {event}?",
        "I see no sign for {event}. Left or right of the lift?",
        "Is {event} at your branch in town?",
        "Which door leads to {event}?",
        "Where can my family sit during {event}?",
        "Where are the lockers for {event}?",
        "To which address do I send the form for {event}?",
    ),
    "billing": (
        "How much is {event}?",
        "What does {event} cost?",
        "Does my insurance cover {event}?",
        "Is there an extra charge for {event}?",
        "What will I have to pay for {event}?",
        "Is {event} free for children?",
        "Can I pay for {event} in instalments?",
        "Do you take cards for {event}?",
        "Could you send me a quote for {event}?",
        "Is there a fee if I cancel {event}?",
        "I was charged twice for {event}. Will I be refunded?",
        "Does the health fund contribute to {event}?",
        "How expensive is {event} without insurance?",
        "Is there a cheaper option than {event}?",
        "Will I get an invoice for {event}?",
        "Do we owe you anything for {event}?",
    ),
    "staff directory": (
        "Who does {event}?",
        "Which doctor is responsible for {event}?",
        "Whom do I call about {event}?",
        "Is it a nurse or a doctor who does {event}?",
        "Who will tell me how {event} went?",
        "Who ordered {event}?",
        "Which surgeon or specialist will I see for {event}?",
        "Who can interpret for us at {event}?",
        "Is Dr. Haddad going to be there for {event}?",
        "Who signs the form for {event}?",
        "With whom should I speak after {event}?",
        "Who picks me up for {event}?",
        "Whose name is on the letter about {event}?",
        "Does the head of the department do {event} herself?",
        "Who looks after my children during {event}?",
        "Who else gets to see the report on {event}?",
    ),
    "instructions": (
        "How do I book {event}?",
        "How can I cancel {event}?",
        "How do I get ready for {event}?",
        "What are the steps to register for {event}?",
        "How do I fill in the form for {event}?",
        "How does {event} work?",
        "How can I look up the results of {event} online?",
        "What is the procedure at {event}?",
        "Could you explain how to clean the skin before {event}?",
        "How do I change the bandage after {event}?",
        "How do I collect the sample for {event}?",
        "How can I apply for transport to {event}?",
        "Can you walk me through {event}?",
        "How do we upload the referral for {event}?",
        "How do I get a copy of the report on {event}?",
        "What must I do first to sign up for {event}?",
    ),
    "medical advice": (
        "Why do I need {event}?",
        "Why is {event} done?",
        "What is {event} good for?",
        "Why was {event} put off again?",
        "Why can't I have {event} here?",
        "What made the doctor order {event}?",
        "I feel fine, so what is the point of {event}?",
        "Why do you repeat {event}?",
        "What is the aim of {event}?",
        "How come {event} was called off?",
        "Why does everybody get {event}?",
        "What are you looking for with {event}?",
        "Why is {event} better than waiting?",
        "What is it that {event} would show?",
        "Why did nobody tell us about {event}?",
        "Is {event} really necessary, and what for?",
    ),
    "house rules": (
        "May I eat before {event}?",
        "Am I allowed to drive after {event}?",
        "Can my husband stay with me during {event}?",
        "Is it all right to drink coffee before {event}?",
        "May I bring my dog to {event}?",
        "Can I take my pills as usual before {event}?",
        "Is smoking forbidden before {event}?",
        "Could I keep my wedding ring on during {event}?",
        "Are visitors welcome at {event}?",
        "May children come along to {event}?",
        "Is it okay if I record {event} on my phone?",
        "Can I refuse {event}?",
        "Do you mind if I wear lenses during {event}?",
        "Am I free to go swimming after {event}?",
        "Is it fine to have {event} with a cold?",
        "Would you let me skip {event}?",
    ),
}

EVENTS = (
    "the MRI scan",
    "the blood test",
    "the eye examination",
    "the hearing test",
    "the vaccination",
    "the allergy test",
    "the knee operation",
    "the physiotherapy",
    "the follow-up visit",
    "the X-ray",
    "the stress test",
    "the sleep study",
    "the hand surgery",
    "the ultrasound",
    "the biopsy",
    "the heart check",
)

CONTEXTS = (
    "I was told to come on Monday.",
    "I am standing at the main entrance.",
    "The invoice came yesterday.",
    "Dr. Novak wrote to me.",
    "My appointment letter has no details.",
    "I read your website twice.",
    "My mother is eighty and walks badly.",
    "We have just moved here.",
    "I have been with the same health fund for years.",
    "A nurse rang me this morning.",
    "It is my first visit to your hospital.",
    "My son is afraid of needles.",
    "I work night shifts.",
    "My neighbour had it last year.",
)

OPENERS = ("Hello.", "Good morning.", "Just a quick question.", "Sorry to bother you.", "Hi, me again.")

TRAIN, DEV, TEST = 60, 30, 50
"""Number of questions of each class in each split."""


@dataclass(frozen=True, slots=True)
class Demo:
    """The three splits. No question is in two of them, and each has equally many questions of every class."""

    labels: tuple[str, ...]
    train: LabelledExamples
    dev: LabelledExamples
    test: LabelledExamples


def questions(seed: int) -> Demo:
    """Returns the data set of a seed: 420 training questions, 210 dev questions and 350 test questions."""
    splits: tuple[list[str], list[str], list[str]] = ([], [], [])
    for label, wordings in QUESTIONS.items():
        draw = rng(seed, "demo", label)
        bare = [wording.format(event=event) for wording in wordings for event in EVENTS]
        chosen = [bare[i] for i in draw.permutation(len(bare))[: TRAIN + DEV + TEST]]
        texts = [_write(question, draw) for question in chosen]
        for split, start, count in zip(splits, (0, TRAIN, TRAIN + DEV), (TRAIN, DEV, TEST), strict=True):
            split += texts[start : start + count]
    train, dev, test = (_labelled(split) for split in splits)
    return Demo(tuple(QUESTIONS), train, dev, test)


def _labelled(texts: Sequence[str]) -> LabelledExamples:
    """Labels texts that are in class order, with equally many of each class."""
    return LabelledExamples(Examples(tuple(texts)), np.repeat(np.arange(len(QUESTIONS)), len(texts) // len(QUESTIONS)))


def _write(question: str, draw: np.random.Generator) -> str:
    """Returns "[opener] [context] question", with opener and context left out at random."""
    opener = OPENERS[int(draw.integers(len(OPENERS)))] if draw.random() < 0.2 else ""
    context = CONTEXTS[int(draw.integers(len(CONTEXTS)))] if draw.random() < 0.4 else ""
    return " ".join(part for part in (opener, context, question) if part)
