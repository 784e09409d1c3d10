"""Completes the columns of a job's readout with the model at hand (`task.columns = "general"`)."""

from fedbbpt.errors import InvalidInput, InvalidJob, InvalidTask
from fedbbpt.interfaces import Ptm
from fedbbpt.job.config import Job
from fedbbpt.job.settings import task_spec
from fedbbpt.limits import MAX_CLASSES
from fedbbpt.tasks.general_columns import GENERAL_PHRASES, GENERAL_WORDS
from fedbbpt.tasks.judgement import require_scores
from fedbbpt.tasks.wordings import find_form
from fedbbpt.types import ModelCard, TaskSpec

OWN_LIST = "a list of texts in task.columns"


def with_columns(job: Job, ptm: Ptm) -> Job:
    """Returns the job with `task.columns = "general"` replaced by texts that suit its model. Costs no queries.

    A classifier that has labels of its own gets those that are not classes. Other models get general words or phrases,
    of which only those are kept that the model scores as one label token. So that no class text gets a second column,
    texts that equal one are left out, whatever their case.

    Raises:
        OutputWithheld: The model gives no scores, and the job has a readout.
        InvalidJob: The model is of a family without general columns, takes none of them, or has too many labels.
        InvalidTask: The model cannot score the class texts.
        BudgetSpent: The tenant may not see as many label tokens.
    """
    if not job.task.views:
        return job
    card = ptm.describe()
    require_scores(card.output, "a readout")
    if job.task.columns != "general":
        return job
    task = task_spec(job.with_columns(()))
    ptm.register_task(task)  # a fault of the class texts is reported as theirs
    own = {text.casefold() for text in task.classes}
    texts = tuple(text for text in dict.fromkeys(_candidates(card)) if text.casefold() not in own)
    if len(task.classes) + len(texts) > MAX_CLASSES:
        what = f'task.columns = "general" of a model with {len(card.labels)} labels'
        raise InvalidJob(what, where="job", fix=f"{OWN_LIST}, at most {MAX_CLASSES} with the classes")
    chosen = _scored_as_one_token(ptm, task, texts)
    if texts and not chosen:
        what = f'task.columns = "general": {card.model} scores none of the general texts as one token'
        raise InvalidJob(what, where="job", fix=OWN_LIST)
    return job.with_columns(chosen)


def _candidates(card: ModelCard) -> tuple[str, ...]:
    if card.labels:
        return card.labels
    if card.family == "clip":
        return GENERAL_PHRASES
    try:
        return GENERAL_PHRASES if find_form(card.family) == "describe" else GENERAL_WORDS
    except InvalidInput:
        what = f'task.columns = "general" of a model of the family {card.family!r}, for which there is no list'
        raise InvalidJob(what, where="job", fix=OWN_LIST) from None


def _scored_as_one_token(ptm: Ptm, task: TaskSpec, texts: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the texts that the model scores as one label token each, next to the task's classes.

    Some models refuse a task with a word of several tokens, and others score all its words in another way. The first
    are found by halves; of the second the service tells the number of tokens. If it does not, all are kept.
    """
    try:
        counts = ptm.label_tokens(TaskSpec(task.template, task.classes + texts))
    except InvalidTask:
        if len(texts) < 2:
            return ()
        half = len(texts) // 2
        return _scored_as_one_token(ptm, task, texts[:half]) + _scored_as_one_token(ptm, task, texts[half:])
    own = counts[len(task.classes) :] or (1,) * len(texts)
    return tuple(text for text, count in zip(texts, own, strict=True) if count == 1)
