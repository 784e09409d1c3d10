"""Accuracy against epsilon, for each training example, of fed-readout and fed-cma with ten clients.

Prints a line for each method and epsilon: the mean accuracy on test examples over the seeds, and its range. The prompt
is that of the last round, so that the choice of the best round reveals nothing of the dev examples. Epsilon 0 stands
for no noise: then the readout is fitted by L-BFGS.

Usage: python experiments/private_accuracy.py TASK FOLDER SEEDS
"""

import statistics
import sys

from fedbbpt.api.ptm import open_ptm
from fedbbpt.bench.kept_scores import KeptScores
from fedbbpt.bench.methods.grid import sample_test_examples
from fedbbpt.client.asking import PromptScorer
from fedbbpt.federation.evaluation import evaluate
from fedbbpt.federation.simulation import Simulation
from fedbbpt.federation.splits import prepare
from fedbbpt.interfaces import Ptm
from fedbbpt.job.config import parse_job
from fedbbpt.job.settings import task_spec

MODEL = "all-MiniLM-L6-v2"
EPSILONS = (0.0, 8.0, 2.0, 0.5)
METHODS = {
    "fed-readout": (40, 2.0, 'columns = "general"\nviews = [""]', "refit = false\nreadout = { ridges = [0.01] }"),
    "fed-cma": (20, 1.0, '[task.prompt]\nside = "class"\noffsets = true', ""),
}
"""Rounds, clip norm, and the lines of the sections [task] and [method]."""
TEST_EXAMPLES = 1000
JOB = """
[run]
seed = {seed}
rounds = {rounds}
[ptm]
model = "{model}"
[data]
source = "{source}"
shots_per_class = 0
alpha = 1.0
[cohort]
clients = 10
[method]
name = "{method}"
dev_every = 1000
{options}
[task]
preset = "{task}"
{prompt}
{privacy}
"""
PRIVACY = """
[privacy]
level = "example"
epsilon = {epsilon}
clip_norm = {clip_norm}
"""


def accuracy(ptm: Ptm, task: str, source: str, method: str, epsilon: float, seed: int) -> float:
    """Returns the accuracy on test examples of the prompt of a run's last round."""
    rounds, clip_norm, prompt, options = METHODS[method]
    privacy = PRIVACY.format(epsilon=epsilon, clip_norm=clip_norm) if epsilon else ""
    text = JOB.format(
        seed=seed,
        rounds=rounds,
        model=MODEL,
        source=source,
        method=method,
        options=options,
        task=task,
        prompt=prompt,
        privacy=privacy,
    )
    splits = prepare(parse_job(text)).completed_by(ptm)
    last = list(Simulation(splits, ptm).rounds())[-1]
    test = sample_test_examples(splits.test, TEST_EXAMPLES)
    scorer = PromptScorer(ptm, task_spec(splits.job), splits.job.space())
    return evaluate(scorer, last.z, test, len(splits.job.task.labels)).accuracy or 0.0


def main(task: str, source: str, seeds: int) -> None:
    """Prints the accuracies of all methods and epsilons."""
    with open_ptm(MODEL) as opened:
        ptm = KeptScores(opened, {})
        for method in METHODS:
            for epsilon in EPSILONS:
                found = [100 * accuracy(ptm, task, source, method, epsilon, seed) for seed in range(seeds)]
                mean = statistics.mean(found)
                print(f"{task} {method} {epsilon:g}: {mean:.1f} ({min(found):.1f} to {max(found):.1f})", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
