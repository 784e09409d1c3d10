"""The jobs that `fedbbpt demo` runs, one for each model that comes in a package."""

from collections.abc import Mapping

from fedbbpt.data.demo import QUESTIONS
from fedbbpt.errors import InvalidInput
from fedbbpt.job.config import Job

DEMO = Job.model_validate(
    {
        "run": {"name": "demo", "rounds": 12},
        # The result is the same on every machine only if no measurement chooses the precision.
        "ptm": {"precision": "float32"},
        "task": {"prompt": {"initial_text": "This question is about", "scale": 2.0, "offsets": True}},
        "method": {"name": "fed-cma", "step": "ranks"},
    }
)
SMOLLM2 = Job.model_validate(
    {
        "run": {"name": "demo", "rounds": 8},
        # Measuring whether bfloat16 is faster would take longer than a round.
        "ptm": {"model": "SmolLM2-135M-Instruct", "precision": "float32"},
        "task": {
            # The prompt comes after the question, so that the model reads each question once and not once per prompt.
            "template": "Question: {text}\n{prompt}The patient asks about the {mask}",
            "labels": list(QUESTIONS),
            "classes": ["time", "place", "money", "person", "preparation", "health", "permission"],
            "prompt": {"tokens": 4, "dim": 16, "injection": "place", "offsets": True},
        },
        # A language model costs a hundred times as much per query as the encoder.
        "data": {"shots_per_class": 8, "dev_shots_per_class": 8},
        "method": {"name": "fed-cma", "step": "ranks", "population": 10},
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
