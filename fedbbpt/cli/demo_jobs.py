"""The jobs that `fedbbpt demo` runs, one for each model that comes in a package."""

from collections.abc import Mapping

from fedbbpt.data.demo import QUESTIONS
from fedbbpt.errors import InvalidInput
from fedbbpt.job.config import Job

DEMO = Job.model_validate(
    {
        # Fits of the readout of at most 12 rounds: without and with a prompt, and after four rounds of the search.
        "run": {"name": "demo", "rounds": 40},
        # The result is the same on every machine only if no measurement chooses the precision.
        "ptm": {"precision": "float32"},
        "task": {"columns": "general", "prompt": {"initial_text": "This question is about", "scale": 2.0}},
        # The more dev examples, the better they choose the penalty of the readout and the round.
        "data": {"dev_shots_per_class": 30},
        "method": {
            "name": "fed-cma",
            "step": "newton",
            "population": 10,
            "batch_examples": 14,
            "readout": {"rounds": 12, "every": 4},
        },
    }
)
SMOLLM2 = Job.model_validate(
    {
        "run": {"name": "demo", "rounds": 40},
        # Measuring whether bfloat16 is faster would take longer than the run.
        "ptm": {"model": "SmolLM2-135M-Instruct", "precision": "float32"},
        "task": {
            "template": "Question: {text}\nThe patient asks about the {mask}",
            "labels": list(QUESTIONS),
            "classes": ["time", "place", "money", "person", "preparation", "health", "permission"],
            "columns": "general",
        },
        # A language model costs a hundred times as much per query as the encoder. A readout takes one per example.
        "method": {"name": "fed-readout"},
    }
)
_JOBS: Mapping[str, Job] = {job.ptm.model: job for job in (DEMO, SMOLLM2)}
MODELS = tuple(_JOBS)


def demo_job(model: str, data: str) -> Job:
    """Returns the job for a model; with `data` of the user's own, the labels are the label words.

    Raises:
        InvalidInput: There is no job for this model.
    """
    job = _JOBS.get(model)
    if job is None:
        fix = f"{' or '.join(MODELS)}, or `fedbbpt init` and `fedbbpt run` for a model of your own"
        raise InvalidInput(f"the demo has no job for {model!r}", where="--model", fix=fix)
    return job.model_copy(update={"task": job.task.model_copy(update={"labels": (), "classes": ()})}) if data else job
