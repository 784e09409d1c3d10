"""A made data set: questions to a hospital's help desk, to be routed to one of eight departments.

A seeded grammar writes them: an opener, a sentence of context, a question, thanks, each but the question optional. What
makes routing hard is honest: the context speaks of scans, operations and medicines whatever the question is about, so
the topic of a text is often not its department; and the departments' vocabularies overlap. No text holds a department's
name or its stem. A class's wordings are dealt out to the splits, so that no wording of the test is seen in training.

The tables make the file long; the grammar itself is the last page.
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
    "pharmacy": "medicines and prescriptions",
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
        "{day} doesn't suit us any more. Is there anything free the week after?",
        "How long is the wait to be seen at {clinic}?",
        "Could {doctor} see {me} any sooner than {month}?",
        "Would it be possible to see {doctor} rather than someone new?",
        "Could it be done over the phone instead of in person?",
        "I have to call off {day}. Who should I tell?",
        "Do you have anything before nine in the morning[ at {clinic}]?",
        "Nobody has given {me} a date for the {test} yet. When will that be?",
        "Can the {test} and the talk with {doctor} be on the same day?",
        "Is the follow-up with {doctor} still going ahead on {day}?",
        "What happens if {i} can't make it to {clinic} on {day}?",
        "Is there a waiting list in case somebody drops out[ at {clinic}]?",
        "I'd like to push the {procedure} back by a week or two.",
        "Are there any Saturday slots for the {test}?",
        "We're on holiday in {month}. Can the {procedure} wait until we're back?",
        "Can I get a text message the day before as a reminder?",
        "{do_i} need a referral to be seen at {clinic}?",
        "Your letter says {day}, but the website says {other_day}. Which one is it?",
        "{doctor} wants to see {me} again in six weeks. Can I fix that now?",
        "Could we make an appointment at {clinic}?",
        "Can I change {my} appointment to another day?",
        "{i} can't come on {day} after all. Is a later date possible?",
        "What is the earliest date you have for a {test}?",
        "Could {i} come in the afternoon instead of the morning?",
        "I missed a call about {my} appointment. What time did you offer?",
        "Please cancel the {test} on {day}. We no longer need it.",
        "Do I need to confirm that {i} will be there on {day}?",
        "When does {doctor} have time for a second opinion?",
        "How often should {i} come back for a check-up, and can we book ahead?",
    ),
    "billing": (
        "Why did you ask for {amount} twice[ for the {test}]?",
        "How much will the {procedure} cost without insurance?",
        "Does {my} insurer pay you directly[ for the {test}]?",
        "Could I pay the {amount} in instalments?",
        "I've had a letter saying I owe {amount}. Wasn't the {test} covered?",
        "Is there any support for people who can't afford the {procedure}?",
        "I got a reminder for {amount} that I have already transferred. What now?",
        "Do I get the deposit back if the {procedure} is called off?",
        "I need an invoice for the {test} that my employer will accept.",
        "Is {medicine} part of what the insurance covers, or is it extra?",
        "Do I settle up on the day or afterwards?",
        "Is there a fee if {i} can't come on {day}?",
        "Can I use a credit card at {clinic}?",
        "My insurance changed in {month}. Who needs the new number?",
        "What does a single room cost per night?",
        "Why is {doctor} listed separately on the statement?",
        "Will I be refunded the {amount} for the {test} that never took place?",
        "How much do you ask for a copy of {my} {test} pictures?",
        "Is the consultation with {doctor} free, or do I have to pay something?",
        "To which account should I send the {amount}?",
        "Where do I send the form from {my} insurance company?",
        "Does the insurance pay for a second opinion?",
        "The price of the {test} is higher than what I was told. Why?",
        "What do I have to pay for an appointment that {i} missed?",
        "Can you explain the charge of {amount} on the last page?",
        "I paid {amount} in cash and never got a receipt.",
        "Are payments by bank transfer all right?",
        "Could you give me a quote for the {procedure}?",
        "{my} insurer refuses to pay for the {test}. Can you help?",
        "Until when does the {amount} have to be paid?",
    ),
    "pharmacy": (
        "Can I pick up {my} {medicine} today?",
        "There are only three tablets of {medicine} left. How do I get more?",
        "Is it safe to take {medicine} together with {other_medicine}?",
        "Should {medicine} be taken with food or on an empty stomach?",
        "Is there a cheaper version of {medicine}?",
        "What should {i} do about a missed dose of {medicine}?",
        "The new tablets look different from the old ones. Are they the same thing?",
        "Could you send the {medicine} to our address?",
        "Does {medicine} have to be kept in the fridge?",
        "Does {medicine} come in liquid form as well?",
        "Who renews a prescription while {doctor} is away?",
        "Can {i} drink wine while taking {medicine}?",
        "When will {medicine} be back in stock?",
        "Can a {medicine} tablet be cut in half?",
        "Until when is the prescription from {doctor} valid?",
        "Is it better to take {medicine} in the morning or at night?",
        "Which painkiller goes with {medicine}?",
        "I have a box of {medicine} left over. Where can I hand it back?",
        "Can someone else collect {my} {medicine} on {day}?",
        "Does {medicine} make people sleepy? I mean, can one drive with it?",
        "Does {medicine} have side effects on the stomach?",
        "How many milligrams of {medicine} can {i} take in a day?",
        "Can I get {medicine} without a prescription?",
        "{my} prescription for {medicine} ran out. Could you renew it?",
        "Is {medicine} the same thing as {other_medicine}?",
        "Which cream could replace the {medicine}?",
        "For how many days should {i} keep taking {medicine}?",
        "The leaflet of {medicine} got lost. Could you send it to me?",
        "Is it all right to crush {medicine} into some yoghurt?",
        "Do you have {medicine} in a bigger box?",
    ),
    "laboratory": (
        "How long until {doctor} hears about {my} {test}?",
        "{do_i} have to fast before the blood is drawn?",
        "What does a high ferritin level mean?",
        "Where do I hand in the urine sample?",
        "Has {my} biopsy come back yet?",
        "Can {i} drink coffee before the {test}?",
        "Is the {test} safe for somebody with a pacemaker?",
        "How much blood will be taken?",
        "The report says that the potassium is low. Is that serious?",
        "Is contrast dye used for the {test}?",
        "Who rings {me} if the {test} shows something abnormal?",
        "Could the blood sample be taken at home?",
        "Why does the {test} have to be repeated?",
        "How long does the {test} take?",
        "Is the swab sent away or looked at here?",
        "Does it hurt to have the {test} done?",
        "Could {medicine} have changed the values?",
        "What exactly are they looking for with the {test}?",
        "What is a normal value for the thyroid?",
        "How soon after the {test} will we know more?",
        "When will the results of the {test} be ready?",
        "Can you read out the results of the {test} over the phone?",
        "Is the cholesterol in {my} blood too high?",
        "What is the difference between a CT and an MRI?",
        "Is there much radiation in a {test}?",
        "Did the swab turn out positive?",
        "Do they test for iron and vitamin D as well?",
        "The results say 'negative'. Is that good news?",
        "Can claustrophobia be a problem during the {test}?",
        "Has the tissue sample been examined under the microscope?",
    ),
    "records": (
        "How do I get a copy of the discharge letter[ from {month}]?",
        "You have the wrong date of birth for {me}. How can that be put right?",
        "Who is able to see what {doctor} wrote about {me}?",
        "Can you send {my} file to a hospital in {city}?",
        "We have moved house. How do I change the address?",
        "Can I read online what {doctor} wrote?",
        "Is the family doctor told about the {test} automatically?",
        "I don't want my employer to find out about the {procedure}. Is that guaranteed?",
        "Could I have the pictures of the {test} on a disc?",
        "For how long do you keep the notes on the {procedure}?",
        "Can my daughter be told how things stand on my behalf?",
        "I need written proof that {i} was treated in {month}.",
        "I can't log in to the patient portal any more. Who can reset it?",
        "Is anything about {me} used for research, and can I say no?",
        "The letter lists {medicine}, which {i} never took. Who can correct that?",
        "May I have everything deleted that you hold about {me}?",
        "Does {clinic} know about {my} allergies, or do I need to tell them again?",
        "I have a new surname. Where do I bring the certificate?",
        "Has the letter about the {procedure} been sent to {doctor} yet?",
        "Which form do I sign so that {doctor} may share {my} history?",
        "Could you send me everything in {my} file from {month}?",
        "{my} phone number has changed. Who updates it?",
        "Is {my} personal data shared with the insurance company?",
        "Someone else's name is on {my} letter. What happens with mine?",
        "How do I give another doctor access to {my} history?",
        "Where are the old paper files from before the move kept?",
        "Can I withdraw my consent to share data?",
        "Is there a way to download {my} documents from the portal?",
        "Who has looked at {my} file since {month}?",
        "May I add {my} living will to what you have on file?",
    ),
    "nursing": (
        "The wound is red and warm. Is that normal?",
        "How often should the dressing be changed?",
        "{i_feel} dizzy when standing up[ since the {procedure}]. Should we be worried?",
        "When can {i} take a shower again[ after the {procedure}]?",
        "Is it normal to be this tired two weeks later?",
        "There has been a fever of 38.5 since {day}. Is that a reason to come in?",
        "What helps against the swelling?",
        "How soon can {i} drive again[ after the {procedure}]?",
        "How do I clean around the stitches?",
        "There is a rash after {medicine}. Is that dangerous?",
        "Which exercises are good for a stiff knee?",
        "How long before {i} can lift anything heavy[ after the {procedure}]?",
        "The cast feels tight and the fingers tingle. What should we do?",
        "Is it all right to sleep on that side?",
        "{i} can't keep any food down. Should I ring for an ambulance?",
        "Does a little bleeding on {day} mean something is wrong?",
        "Could somebody come by and help with washing in the first days?",
        "The pain is worse at night, even with {medicine}. Is that to be expected?",
        "The bruise from the {test} is getting bigger. Do I put ice on it?",
        "When is it safe to go swimming or back to work?",
        "There is a lot of pain in the leg. What can we do about it at home?",
        "The scar itches and looks swollen. Is it healing properly?",
        "{i_feel} sick and short of breath. Is that serious?",
        "The wound has opened a little. Does it need a new bandage?",
        "Is a temperature of 37.8 anything to worry about?",
        "What should {i} eat to get strength back?",
        "How long does it take for the bruises to fade?",
        "{i_feel} a tingling in the foot that was not there before. Is it a bad sign?",
        "How can we prevent bedsores at home?",
        "There is some yellow fluid in the drain. Is that all right?",
    ),
    "admissions": (
        "What should {i} pack[ for the {procedure}]?",
        "From when on {am_i} not allowed to eat[ before the {procedure}]?",
        "How many nights will {i} have to stay[ after the {procedure}]?",
        "Should {i} stop taking {medicine} beforehand?",
        "Will {i} be put fully to sleep[ for the {procedure}]?",
        "Is it possible to have a single room?",
        "What time should {i} be there in the morning[ for the {procedure}]?",
        "Can {i} bring a pillow from home?",
        "Must someone take {me} home afterwards?",
        "Does nail polish have to come off[ before the {procedure}]?",
        "Is a cold a reason to put off the {procedure}?",
        "Which papers have to be signed beforehand?",
        "Could somebody from the family sleep in the same room?",
        "Should {i} shave the skin beforehand or do you do that?",
        "When will the anaesthetist talk to {me}[ about the {procedure}]?",
        "Will {i} wake up on a ward or in intensive care?",
        "Can {i} go home the same day[ after the {procedure}]?",
        "Are contact lenses and hearing aids a problem during the {procedure}?",
        "Is there vegetarian food for people who stay several days?",
        "Does the {test} have to be done before the {procedure}?",
        "How should {i} prepare[ for the {procedure}]?",
        "How long does the {procedure} take?",
        "Is it a general or a local anaesthetic[ for the {procedure}]?",
        "What happens on the day[ of the {procedure}]?",
        "May {i} drink water on the morning[ of the {procedure}]?",
        "Will there be a television and a telephone by the bed?",
        "Can we leave valuables in a safe during the stay?",
        "Who decides how long {i} will stay?",
        "Does {my} beard have to go before the {procedure}?",
        "When will {i} be told the exact time of the {procedure}?",
    ),
    "reception": (
        "Until what time may the family come by in the evening?",
        "Where can I leave the car[ near {clinic}]?",
        "Which bus stops closest to the main entrance?",
        "Are small children allowed upstairs[ on {ward}]?",
        "How do I find {clinic} once I'm inside?",
        "Is there a café that is open on {day}?",
        "May I bring flowers[ to {ward}]?",
        "Can I borrow a wheelchair at the door?",
        "How many people may sit at the bedside at once?",
        "On which floor is the {test} done?",
        "I left my glasses in the waiting room of {clinic}. Where do lost things end up?",
        "Is there somewhere for relatives to sleep nearby?",
        "Do we go to the main building or the annexe for the {test}?",
        "What's the password for the guest wifi?",
        "Can a taxi drop us right in front of {clinic}?",
        "Is the lift to {ward} working again?",
        "What is the phone number of {ward}?",
        "Are dogs allowed in the garden?",
        "Which door is open after ten at night?",
        "Is there a cash machine or a shop in the building?",
        "When are relatives allowed to drop in[ on {ward}]?",
        "Is there parking for disabled people?",
        "How much time should we allow to walk from the car park to {clinic}?",
        "May friends come to {ward} as well, or only relatives?",
        "Where is {ward}?",
        "Which way is it from the railway station to the hospital?",
        "Is the car park open at night?",
        "I can't find the entrance to {clinic}. Is it round the back?",
        "Is there a quiet room or a chapel?",
        "Could somebody meet us at the entrance and show us the way?",
    ),
}

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
        "{who} broke an arm on {day}.",
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

CONTEXT = 0.4
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

TRAIN, DEV, TEST = 60, 30, 50
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
    """The data set of a seed: 480 questions to train on, 240 for dev, 400 for test."""
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
