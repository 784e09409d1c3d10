"""Changes of a job file keep its comments and its layout."""

import pytest

from fedbbpt.errors import InvalidJob
from fedbbpt.job.config import parse_job
from fedbbpt.job.job_edit import with_wording

TEXT = """# Ours.
[run]
rounds = 3  # few

[task]
preset = "trec"   # for now
# The prompt.
[task.prompt]
tokens = 4
"""


def test_a_wording_replaces_the_preset_and_nothing_else() -> None:
    changed = with_wording(TEXT, '{prompt} "{text}"\n{mask}', ("a", "b"), ("bad", "good"))
    job = parse_job(changed)
    assert (job.task.template, job.task.labels, job.task.classes) == (
        '{prompt} "{text}"\n{mask}',
        ("a", "b"),
        ("bad", "good"),
    )
    assert job.task.preset == "" and job.task.prompt.kind == "latent" and job.run.rounds == 3
    for kept in ("# Ours.\n[run]\nrounds = 3  # few\n", "# The prompt.\n[task.prompt]\ntokens = 4\n"):
        assert kept in changed
    assert with_wording(changed, job.task.template, job.task.labels, job.task.classes) == changed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[run]\nseed = 1\n",
        "[task.prompt]\ntokens = 4\n",
        "[task]\nmapping = 'given'",
        "task.template = '{text}'\n[run]\nseed = 1\n",
        "task = {template = '{text}'}\n",
    ],
)
def test_the_task_may_be_missing_or_written_in_another_form(text: str) -> None:
    task = parse_job(with_wording(text, "{text}!", ("a", "b"), ("c", "d"))).task
    assert (task.template, task.labels, task.classes) == ("{text}!", ("a", "b"), ("c", "d"))


def test_a_task_that_is_no_table_is_refused() -> None:
    with pytest.raises(InvalidJob, match="task is not a table"):
        with_wording("task = 1\n", "{text}", ("a", "b"), ("c", "d"))
