"""Chooses the descent of private readouts on held-out training examples: its step, momentum, clip norm and rounds.

Fits a readout to all training examples of each task, with noise for each example as in a run, and prints the mean
accuracy on the dev examples over the tasks, the epsilons and the repetitions, best first. The dev examples were set
apart from the training examples. No test example is read, except to see that the file is there.

Usage: python experiments/private_descent.py REPETITIONS TASK=FOLDER ...
"""

import itertools
import statistics
import sys

import numpy as np

from fedbbpt.api.ptm import open_ptm
from fedbbpt.bench.data_sizes.baselines import Columns, ask
from fedbbpt.federation.splits import prepare
from fedbbpt.interfaces import Ptm
from fedbbpt.job.config import parse_job
from fedbbpt.privacy.accountant import noise_multiplier
from fedbbpt.privacy.noise import normals
from fedbbpt.tasks import readout_fit
from fedbbpt.tasks.clipping import clipped_gradient

MODEL = "all-MiniLM-L6-v2"
EPSILONS, DELTA, RIDGE = (8.0, 2.0, 0.5), 1e-5, 0.01
STEPS, MOMENTA, CLIP_NORMS, ROUNDS = (1.0, 2.0, 4.0, 8.0), (0.0, 0.5, 0.8, 0.9), (2.0, 4.0, 8.0), (20, 40)
SHOWN = 12
"""The number of settings that are printed, from the best on."""
JOB = """
[ptm]
model = "{model}"
[data]
source = "{source}"
shots_per_class = 0
dev_shots_per_class = 0
[cohort]
clients = 1
[method]
name = "fed-readout"
[task]
preset = "{task}"
columns = "general"
views = [""]
"""


def columns(ptm: Ptm, task: str, source: str) -> tuple[Columns, Columns, int]:
    """Returns the columns of the training examples and of the dev examples, and the number of classes."""
    splits = prepare(parse_job(JOB.format(model=MODEL, source=source, task=task))).completed_by(ptm)
    (member,), _ = ask(splits, splits.dev[0].take(np.arange(1)), ptm)
    return member.train, member.dev, len(splits.job.task.labels)


def accuracy(
    train: Columns, dev: Columns, classes: int, epsilon: float, setting: tuple[float, float, float, int]
) -> float:
    """Returns the accuracy on the dev examples of one fit with noise, in percent."""
    step, momentum, clip_norm, rounds = setting
    fit = readout_fit.init([RIDGE], classes, train.scores.shape[1])
    count, deviation = len(train.labels), clip_norm * noise_multiplier(epsilon, DELTA, rounds)
    for _ in range(rounds + 1):  # a readout is accepted when the next one is asked for
        asked = readout_fit.readouts(fit)
        gradient = clipped_gradient(train.scores, train.labels, asked, clip_norm)
        noisy = gradient + deviation * normals(gradient.size).reshape(gradient.shape)
        fit = readout_fit.descended(fit, noisy / count, clip_norm, length=step, momentum=momentum)
    return 100 * dev.accuracy(readout_fit.accepted(fit)[0])


def main(repetitions: int, sources: list[str]) -> None:
    """Prints the settings and their dev accuracies."""
    with open_ptm(MODEL) as ptm:
        tasks = [columns(ptm, *source.split("=", 1)) for source in sources]
    found = []
    for setting in itertools.product(STEPS, MOMENTA, CLIP_NORMS, ROUNDS):
        table = [
            [statistics.mean(accuracy(*task, epsilon, setting) for _ in range(repetitions)) for epsilon in EPSILONS]
            for task in tasks
        ]
        found.append((statistics.mean(map(statistics.mean, table)), setting, table))
    print(f"mean  step momentum clip_norm rounds  {sources} at epsilon {EPSILONS}")
    for mean, setting, table in sorted(found, reverse=True)[:SHOWN]:
        print(f"{mean:.2f} {setting} " + " | ".join(" ".join(f"{each:.1f}" for each in row) for row in table))
    spread = {setting: mean for mean, setting, _ in found}
    print(f"all settings: {min(spread.values()):.1f} to {max(spread.values()):.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
