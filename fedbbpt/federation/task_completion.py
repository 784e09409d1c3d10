"""Completes the task of a job: labels, class texts, template and candidate words that the job leaves to its data."""

import numpy as np

from fedbbpt.client.asking import PromptScorer
from fedbbpt.data.ngrams import pmi_ngrams
from fedbbpt.errors import InvalidData, InvalidJob
from fedbbpt.interfaces import Ptm
from fedbbpt.job.config import Job
from fedbbpt.job.prompt_sections import TextPromptSection
from fedbbpt.job.settings import DEFAULT_TEMPLATE, task_spec
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.tasks.label_mapping import by_frequency
from fedbbpt.tasks.presets import PRESETS
from fedbbpt.types import LabelledExamples, TaskSpec


def with_preset(job: Job) -> Job:
    """Returns the job with the labels and class texts of its preset written out. Raises InvalidJob if it is unknown."""
    name = job.task.preset
    if not name:
        return job
    if name not in PRESETS:
        raise InvalidJob(f"task.preset = {name!r} is unknown", where="job", fix=f"one of {', '.join(PRESETS)}")
    return with_task(job, tuple(PRESETS[name]), tuple(PRESETS[name].values()), "")


def with_task(job: Job, labels: tuple[str, ...], classes: tuple[str, ...], template: str) -> Job:
    """Returns the job with these labels, class texts and template wherever its task names none."""
    task = job.task
    named = task.labels or labels
    changes = {
        "preset": "",
        "labels": named,
        "classes": task.classes or (classes if named == labels else named),
        "template": task.template or template,
    }
    return job.model_copy(update={"task": task.model_copy(update=changes)})


def with_candidates(job: Job, server: LabelledExamples) -> Job:
    """Returns the job with the candidate words of a text prompt taken from the server's examples, if it lists none.

    Clients' examples are not used, because everybody in the run sees the candidates.

    Raises:
        InvalidJob: The job lists no candidates, and the server has no examples.
        InvalidData: The server's examples hold fewer than two candidates.
    """
    prompt = job.task.prompt
    if not isinstance(prompt, TextPromptSection) or prompt.candidates:
        return job
    if not len(server):
        fix = "a data.server_share above 0 to take them from, or a list of words"
        raise InvalidJob("task.prompt.candidates is empty", where="job", fix=fix)
    candidates = pmi_ngrams(server.examples.texts, prompt.vocabulary)
    if len(candidates) < 2:
        what = f"{len(candidates)} words in the server's {len(server)} examples"
        raise InvalidData(what, where=job.data.source, fix="a larger data.server_share, or task.prompt.candidates")
    changed = prompt.model_copy(update={"candidates": candidates})
    return job.model_copy(update={"task": job.task.model_copy(update={"prompt": changed})})


def with_mapped_classes(job: Job, server: LabelledExamples, ptm: Ptm) -> Job:
    """Returns the job with labels of the model as its classes, if `task.mapping = "frequency"`.

    Each class becomes the label that the model gives the server's examples of that class most often. No prompt and no
    client's example is used. The search costs a query for each example of the server.

    Raises:
        InvalidJob: The model has no labels, or the server no examples.
    """
    if job.task.mapping == "given":
        return job
    names = ptm.describe().labels
    if not names:
        raise InvalidJob('task.mapping = "frequency" of a model without labels', where="job", fix="a classifier")
    if not len(server):
        what = 'task.mapping = "frequency" is found on the server\'s examples, and it has none'
        raise InvalidJob(what, where="job", fix="data.server_share above 0, or task.classes")
    scorer = PromptScorer(ptm, TaskSpec(DEFAULT_TEMPLATE, names), NoPrompt(job.prompt_tokens()))
    labels = by_frequency(scorer.scores(server, NoPrompt.Z, use_labels=False)[0], server.labels, len(job.task.labels))
    changes = {"mapping": "given", "classes": tuple(names[label] for label in labels)}
    return job.model_copy(update={"task": job.task.model_copy(update=changes)})


def check_prompt(job: Job, examples: LabelledExamples, ptm: Ptm) -> None:
    """Raises UnsupportedPrompt if the model does not take the job's prompts with such examples."""
    scorer = PromptScorer(ptm, task_spec(job), job.space())
    scorer.check_prompts(scorer.parts(examples.take(np.arange(1)))[0])
