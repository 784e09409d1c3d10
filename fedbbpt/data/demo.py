"""A made data set: questions to a hospital's help desk, to be routed to one of eight departments.

A seeded grammar writes them: an opener, a sentence of context, a question, thanks, each but the question optional. What
makes routing hard is honest: a context speaks of scans, operations and medicines whatever the question is about, the
departments' vocabularies overlap, and no text holds a department's name or its stem. No question stands in two splits,
nor comes again under another greeting; the wordings behind the questions are shared, as a help desk hears the same
things every day, so the accuracies are those of known wordings with new particulars.

The tables make the file long; the grammar is its last page.
"""

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from fedbbpt.seeds import rng
from fedbbpt.types import Examples, LabelledExamples

T = TypeVar("T")

DEPARTMENTS: Mapping[str, str] = {
    "scheduling": "booking, moving or cancelling an appointment",
    "billing": "charges, payments and insurance",
    "pharmacy": "prescriptions and medication",
    "laboratory": "medical tests, scans and their results",
    "records": "medical records and personal data",
    "nursing": "advice on symptoms, wounds and care at home",
    "admissions": "preparing for an operation and staying overnight",
    "reception": "visiting hours, parking and finding the way",
}
"""Label names, and each class in a user's words: the class texts of a dual encoder."""

QUESTIONS: Mapping[str, Sequence[str]] = {
    "scheduling": (
        "Can {i} come on {day} instead of {other_day}?",
        "{day} doesn't suit us any more. Could it be {other_day}?",
        "Would {other_day} be possible rather than {day}?",
        "I'm afraid {i} can't make it on {day}. Is {other_day} still free?",
        "Could {doctor} see {me} any sooner than {month}?",
        "Is there anything earlier than {month} for the {test}?",
        "{month} is a long wait for the {test}. Is there nothing sooner?",
        "Is there a waiting list in case somebody drops out before {month}?",
        "When is the first free appointment at {clinic}?",
        "Does {doctor} have any time next week?",
        "Nobody has given {me} a date for the {test} yet. When will that be?",
        "How long is the wait to be seen at {clinic}?",
        "Is {my} {test} still going ahead on {day}?",
        "Your letter says {day}, but the website says {other_day}. Which one is it?",
        "At what time should {i} be at {clinic} on {day}?",
        "Was it {day} or {other_day} that {doctor} wanted to see {me}?",
    ),
    "billing": (
        "Is the {test} covered by {my} insurance?",
        "Will {my} insurer pay for {medicine}?",
        "Does {my} insurance company pay you directly for the {procedure}?",
        "{my} insurer won't pay for the {test}. Can you help?",
        "Could I pay the {amount} in instalments?",
        "Can I use a credit card at {clinic}?",
        "To which account should I send the {amount}?",
        "Until when does the {amount} have to be paid?",
        "Do we get the deposit back if the {procedure} is called off?",
        "When will I be refunded the {amount}?",
        "I paid {amount} too much. How do I get it back?",
        "I transferred {amount} and still got a reminder. What now?",
        "I need an invoice for the {test} for my employer.",
        "Could you send the invoice to my insurance instead of to me?",
        "I paid {amount} in cash and never got a receipt.",
        "Is there a fee if {i} can't come on {day}?",
    ),
    "pharmacy": (
        "There are only three {medicine} tablets left. How do we get more?",
        "{my} prescription for {medicine} ran out. Could you renew it?",
        "Who renews the {medicine} while {doctor} is away?",
        "Could {doctor} write {me} another month of {medicine}?",
        "Is it safe to take {medicine} together with {other_medicine}?",
        "Can {i} drink wine with {medicine}?",
        "Which painkiller goes with {medicine}?",
        "Do {medicine} and {other_medicine} get in each other's way?",
        "Can I pick up {my} {medicine} today?",
        "Is the {medicine} that {doctor} ordered there yet?",
        "Could somebody else collect {my} {medicine} on {day}?",
        "Could you send the {medicine} to our address?",
        "What should {i} do about a missed dose of {medicine}?",
        "Does {medicine} make people sleepy?",
        "Is a dry mouth a side effect of {medicine}?",
        "{i} took the tablets twice by mistake. What now?",
    ),
    "laboratory": (
        "When will the results of the {test} be there?",
        "Has anything come back from the {test} yet?",
        "How long until {doctor} hears about the {test}?",
        "Who rings {me} if the {test} shows something?",
        "Can {i} drink coffee before the {test}?",
        "{do_i} need an empty stomach for the {test}?",
        "Can {i} have the {test} with a cold?",
        "Is contrast dye used for the {test}?",
        "Where do I hand in the urine sample?",
        "How long does a sample keep in the fridge?",
        "Could the blood be drawn at home?",
        "I spilled the sample. Can I get a new cup?",
        "Why does the {test} have to be repeated?",
        "Could {medicine} have changed the values?",
        "Is it a problem to have the {test} twice in one year?",
        "Is the {test} safe for somebody with a pacemaker?",
    ),
    "records": (
        "How do I get a copy of the discharge letter?",
        "Could you send me everything that you have on {me} from {month}?",
        "Could I have the pictures of the {test} on a disc?",
        "Where can I ask for the notes on the {procedure}?",
        "We have moved house. Who needs the new address?",
        "{my} phone number has changed. Where do I say so?",
        "I have a new surname. Where do I bring the certificate?",
        "Can you note down that {i} can't have {medicine}?",
        "Who is able to see what {doctor} wrote?",
        "Will my employer find out about the {procedure}?",
        "Can my sister be told about the {test}?",
        "Is anything about {me} used for research, and can I say no?",
        "I can't log in to the patient portal any more. What can I do?",
        "Can I read online what {doctor} wrote?",
        "How do I download {my} documents?",
        "The website won't take my password. Who can reset it?",
    ),
    "nursing": (
        "The wound is red and warm. Is that normal?",
        "The scar itches and looks swollen. Is that a bad sign?",
        "There is some yellow fluid on the dressing. Is that all right?",
        "The wound has opened a little. What should we do?",
        "How often should the dressing be changed?",
        "How do I clean around the stitches?",
        "Does the bandage stay on at night?",
        "May the stitches get wet?",
        "There has been a fever of 38.5 since {day}. Is that a reason to come in?",
        "{i_feel} dizzy when standing up. Should we be worried?",
        "{i} can't keep any food down. Should I ring for an ambulance?",
        "{i_feel} short of breath on the stairs. Is that serious?",
        "The pain is worse at night, even with {medicine}. Is that to be expected?",
        "What helps against the swelling?",
        "There is a rash after {medicine}. Is that dangerous?",
        "The leg hurts a lot. What can we do at home?",
    ),
    "admissions": (
        "What should {i} pack[ for the {procedure}]?",
        "Can {i} bring a pillow from home?",
        "Should {i} bring towels, or are there any?",
        "Is there a safe for valuables by the bed?",
        "From when on {am_i} not allowed to eat[ before the {procedure}]?",
        "May {i} drink water on the morning[ of the {procedure}]?",
        "Should {i} stop taking {medicine} beforehand?",
        "Is a cigarette the evening before a problem?",
        "Will {i} be put fully to sleep[ for the {procedure}]?",
        "Is it a general or a local anaesthetic[ for the {procedure}]?",
        "When will the anaesthetist talk to {me}?",
        "Will {i} wake up on a ward or in intensive care?",
        "Does nail polish have to come off[ before the {procedure}]?",
        "Should {i} shave the skin beforehand, or do you do that?",
        "Are contact lenses a problem[ during the {procedure}]?",
        "What time should {i} be there in the morning[ for the {procedure}]?",
    ),
    "reception": (
        "Until what time may the family come by in the evening?",
        "When are relatives allowed to drop in[ on {ward}]?",
        "Can friends come to {ward} on {day}?",
        "May we sit at the bedside before noon?",
        "Are small children allowed upstairs[ on {ward}]?",
        "How many people may come to {ward} at once?",
        "May I bring flowers[ to {ward}]?",
        "Are dogs allowed in the garden?",
        "Where can I leave the car[ near {clinic}]?",
        "Is the car park open at night?",
        "Can a taxi drop us right in front of {clinic}?",
        "Is there parking for disabled people[ at {clinic}]?",
        "Which bus stops closest to the main entrance?",
        "How far is it from the railway station[ to {clinic}]?",
        "Which door is open after ten at night?",
        "Could somebody meet us at the entrance?",
    ),
}
"""Four things that people ask of each department, each in four wordings; [...] falls away where a context says it."""

CONTEXTS: Mapping[str, Sequence[str]] = {
    "before a stay": (
        "{who} {have} {my} {procedure} next {day}.",
        "{who} will be on {ward} from {day}.",
        "{doctor} has put {whom} down for a {procedure}.",
        "{who} may need a {procedure} in {month}.",
    ),
    "after a stay": (
        "{who} had {my} {procedure} in {month}.",
        "{who} came home from {ward} on {day}.",
        "{who} had a bad fall on {day}.",
    ),
    "no stay": (
        "{who} {have} {my} {test} next {day}.",
        "{who} had {my} {test} last {day}.",
        "{who} saw {doctor} at {clinic} last week.",
        "{who} started on {medicine} last week.",
    ),
}
"""What may stand before a question."""

ONLY: Mapping[str, str] = {"admissions": "before a stay", "nursing": "after a stay"}
"""Departments whose questions make sense with these contexts alone."""

CONTEXT = 0.15
"""How many of the questions that can have a context do."""

OPENERS = ("Hello.", "Hi there.", "Good morning.", "Just a quick question.", "Sorry to bother you.", "Hi, me again.")
THANKS = ("Thanks!", "Thank you.", "Thanks in advance.", "Many thanks.")

FILLERS: Mapping[str, Sequence[str]] = {
    "doctor": ("Dr. Okafor", "Dr. Lindqvist", "Dr. Romero", "Dr. Haddad", "Dr. Novak", "Dr. Tanaka"),
    "clinic": ("the heart clinic", "the eye clinic", "the skin clinic", "the sleep clinic", "the pain clinic"),
    "ward": ("ward 3", "ward 7B", "the heart ward", "the surgical ward", "the stroke unit"),
    "procedure": ("hip replacement", "knee operation", "cataract operation", "hernia repair", "gallbladder operation"),
    "test": ("MRI scan", "CT scan", "blood test", "X-ray", "ultrasound", "allergy test"),
    "medicine": ("metformin", "warfarin", "ibuprofen", "amoxicillin", "prednisone", "ramipril"),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday"),
    "month": ("January", "March", "May", "July", "October"),
    "amount": ("40 euros", "85 euros", "120 euros", "260 euros"),
    "city": ("Bristol", "Utrecht", "Leipzig", "Porto"),
}
ANOTHER: Mapping[str, str] = {"other_day": "day", "other_medicine": "medicine"}
"""Slots that take another filler of the same table."""

_ASKERS = ("who", "whom", "i", "my", "me", "have", "am_i", "do_i", "i_feel")
ASKERS: Sequence[Mapping[str, str]] = tuple(
    dict(zip(_ASKERS, words, strict=True))
    for words in (
        ("I", "me", "I", "my", "me", "have", "am I", "Do I", "I feel"),
        ("My mother", "my mother", "she", "her", "her", "has", "is she", "Does she", "She feels"),
        ("My father", "my father", "he", "his", "him", "has", "is he", "Does he", "He feels"),
        ("My wife", "my wife", "she", "her", "her", "has", "is she", "Does she", "She feels"),
        ("My son", "my son", "he", "his", "him", "has", "is he", "Does he", "He feels"),
    )
)
"""For whom somebody asks: the first for himself, the others have to be introduced by a context."""

TRAIN, DEV, TEST = 40, 25, 40
"""Questions of a class in each split."""


@dataclass(frozen=True, slots=True)
class Demo:
    """Splits without a question in common, every class equally often in each."""

    labels: tuple[str, ...]
    classes: tuple[str, ...]
    train: LabelledExamples
    dev: LabelledExamples
    test: LabelledExamples


def questions(seed: int) -> Demo:
    """The data set of a seed: 320 questions to train on, 200 for dev, 320 for test."""
    splits: tuple[list[str], list[str], list[str]] = ([], [], [])
    for department, wordings in QUESTIONS.items():
        draw = rng(seed, "demo", department)
        texts: dict[str, str] = {}
        while len(texts) < TRAIN + DEV + TEST:
            core = _core(department, wordings[int(draw.integers(len(wordings)))], draw)
            # Keyed by its core, no question comes again under another greeting.
            texts.setdefault(core, _greeted(core, draw))
        written = list(texts.values())
        for split, first, last in zip(splits, (0, TRAIN, TRAIN + DEV), (TRAIN, TRAIN + DEV, None), strict=True):
            split += written[first:last]
    train, dev, test = (_labelled(split) for split in splits)
    return Demo(tuple(DEPARTMENTS), tuple(DEPARTMENTS.values()), train, dev, test)


def _labelled(texts: Sequence[str]) -> LabelledExamples:
    """Texts in class order, equally many of each."""
    classes = len(DEPARTMENTS)
    return LabelledExamples(Examples(tuple(texts)), np.repeat(np.arange(classes), len(texts) // classes))


def _one_of(things: Sequence[T], draw: np.random.Generator) -> T:
    return things[int(draw.integers(len(things)))]


def _core(department: str, question: str, draw: np.random.Generator) -> str:
    """[context] question."""
    words = {slot: _one_of(fillers, draw) for slot, fillers in FILLERS.items()}
    for slot, table in ANOTHER.items():
        words[slot] = _one_of([filler for filler in FILLERS[table] if filler != words[table]], draw)
    bare = re.sub(r"\[.*\]", "", question)
    sentences, asker = [re.sub(r"[\[\]]", "", question)], ASKERS[0]
    if not _slots(bare) & {"procedure", "test"} and draw.random() < CONTEXT:
        # A context stands for the bracketed part of a question, and names nothing that the rest of it names.
        fitting = (ONLY[department],) if department in ONLY else tuple(CONTEXTS)
        apt = [c for kind in fitting for c in CONTEXTS[kind] if not _slots(c) & _slots(bare)]
        sentences, asker = [_one_of(apt, draw), bare], _one_of(ASKERS, draw)
    written = (sentence.format(**words, **asker) for sentence in sentences)
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in written)


def _greeted(core: str, draw: np.random.Generator) -> str:
    """[opener] core [thanks]."""
    opener = _one_of(OPENERS, draw) + " " if draw.random() < 0.2 else ""
    thanks = " " + _one_of(THANKS, draw) if draw.random() < 0.15 else ""
    return opener + core + thanks


def _slots(template: str) -> set[str]:
    """The things that a template names; who asks is no thing."""
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None and name in FILLERS}
