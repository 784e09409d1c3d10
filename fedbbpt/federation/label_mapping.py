"""The classes of a task that a classifier was not trained for, as labels that it has: `task.mapping = "frequency"`.

Found before a run, on the server's own examples and without a prompt: no client's label leaves it.
"""

from dataclasses import replace

from fedbbpt.errors import InvalidJob
from fedbbpt.federation.evaluation import no_prompt, score
from fedbbpt.federation.splits import Splits
from fedbbpt.interfaces import Ptm
from fedbbpt.tasks.label_mapping import by_frequency
from fedbbpt.types import TaskSpec


def with_mapped_classes(splits: Splits, ptm: Ptm) -> Splits:
    """The splits with `task.classes` of the job complete; costs a query for each example of the server.

    Raises InvalidJob where the model has no labels, or the server no examples.
    """
    job, server = splits.job, splits.server
    if job.task.mapping == "given":
        return splits
    names = ptm.describe().labels
    if not names:
        raise InvalidJob('task.mapping = "frequency" of a model without labels', where="job", fix="a classifier")
    if not len(server):
        what = 'task.mapping = "frequency" is found on the server\'s examples, and it has none'
        raise InvalidJob(what, where="job", fix="data.server_share above 0, or task.classes")
    task_id = ptm.register_task(TaskSpec("{prompt} {text}", names))
    scores = score(ptm, task_id, job.space(), no_prompt, server)[0]
    labels = by_frequency(scores, server.labels, len(job.task.labels))
    changes = {"mapping": "given", "classes": tuple(names[label] for label in labels)}
    return replace(splits, job=job.model_copy(update={"task": job.task.model_copy(update=changes)}))
