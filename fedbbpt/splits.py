"""From a job to data: what each client of a federation on one machine trains on, and what nobody trains on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.config import Job
from fedbbpt.data import demo, partition
from fedbbpt.data.examples import Columns, Table, check_trainable, label, label_names, read_table
from fedbbpt.data.formats import SUFFIXES
from fedbbpt.errors import InvalidData, InvalidJob
from fedbbpt.tasks.presets import PRESETS
from fedbbpt.types import Examples, LabelledExamples

FRACTIONS = (0.6, 0.2, 0.2)
"""Train, dev and test of a source that has no splits of its own."""

SHARDS_PER_CLIENT = 2


@dataclass(frozen=True, slots=True)
class Splits:
    """A job whose task is complete, and its data by client."""

    job: Job
    train: tuple[LabelledExamples, ...]
    dev: tuple[LabelledExamples, ...]
    test: LabelledExamples

    def pooled(self) -> LabelledExamples:
        """All training examples in one place, which a federation never has; for controls only."""
        return _concatenate(self.train)

    def histogram(self) -> npt.NDArray[np.int64]:
        """Training examples of each class at each client, `[clients, K]`."""
        classes = len(self.job.task.labels)
        return np.stack([np.bincount(part.labels, minlength=classes) for part in self.train])


def prepare(job: Job) -> Splits:
    """Reads, cuts and shares out, all by the run's seed. Raises InvalidData, InvalidJob."""
    job = with_preset(job)
    train, dev, test, job = _demo(job) if job.data.source == "demo" else _read(job)
    check_trainable(train, job.task.labels, job.data.source)
    _check_sizes(train, dev, test, job)
    data, seed, clients = job.data, job.run.seed, job.cohort.clients
    if data.shots_per_class:
        train = train.take(partition.shots(train.labels, data.shots_per_class, seeds.derive(seed, "train")))
    if data.dev_shots_per_class:
        rows = partition.shots(dev.labels, data.dev_shots_per_class, seeds.derive(seed, "dev"), fewer=True)
        dev = dev.take(rows)
    parts = {
        "iid": lambda: partition.iid(train.labels, clients, seed),
        "dirichlet": lambda: partition.dirichlet(train.labels, clients, data.alpha, seed),
        "shards": lambda: partition.shards(train.labels, clients, SHARDS_PER_CLIENT, seed),
    }[data.partition]()
    # Dev metrics add up over clients, so it does not matter who measures which example.
    dev_parts = partition.iid(dev.labels, clients, seeds.derive(seed, "dev"))
    return Splits(job, tuple(map(train.take, parts)), tuple(map(dev.take, dev_parts)), test)


def _check_sizes(train: LabelledExamples, dev: LabelledExamples, test: LabelledExamples, job: Job) -> None:
    source, shots = job.data.source, job.data.shots_per_class
    for name, part in (("dev", dev), ("test", test)):
        if not len(part):
            raise InvalidData(f"no {name} examples", where=source, fix="at least three examples of each class")
    counts = np.bincount(train.labels)
    rarest = int(np.where(counts, counts, len(train) + 1).argmin())
    if counts[rarest] < shots:
        what = f"{counts[rarest]} training examples of class {job.task.labels[rarest]!r}, {shots} shots were asked for"
        raise InvalidData(what, where=source, fix=f"data.shots_per_class = {counts[rarest]}, or more examples")


def with_preset(job: Job) -> Job:
    """The job with its preset's labels and class texts written out."""
    name = job.task.preset
    if not name:
        return job
    if name not in PRESETS:
        raise InvalidJob(f"task.preset = {name!r} is unknown", where="job", fix=f"one of {', '.join(PRESETS)}")
    return with_task(job, tuple(PRESETS[name]), tuple(PRESETS[name].values()), "")


def with_task(job: Job, labels: tuple[str, ...], classes: tuple[str, ...], template: str) -> Job:
    """The job with what it leaves to the data: `labels` and `classes` hold where it names none."""
    task = job.task
    named = task.labels or labels
    changes = {
        "preset": "",
        "labels": named,
        "classes": task.classes or (classes if named == labels else named),
        "template": task.template or template,
    }
    return job.model_copy(update={"task": task.model_copy(update=changes)})


def _demo(job: Job) -> tuple[LabelledExamples, LabelledExamples, LabelledExamples, Job]:
    # The questions stay the same for all seeds, so that seeds differ in shots, partition and search alone.
    made = demo.questions(seed=0)
    if job.task.labels not in ((), made.labels):
        raise InvalidJob(
            'task.labels and data.source = "demo" contradict each other',
            where="job",
            fix=f"other data, or the labels {', '.join(made.labels)}",
        )
    return made.train, made.dev, made.test, with_task(job, made.labels, made.labels, "{prompt} {text}")


def _read(job: Job) -> tuple[LabelledExamples, LabelledExamples, LabelledExamples, Job]:
    columns = Columns(job.data.text_column, job.data.pair_column, job.data.label_column)
    folder = Path(job.data.source)
    names = ("train", "dev", "test") if folder.is_dir() else ("",)
    tables = [read_table(_file(folder, name) if name else job.data.source, columns) for name in names]
    labels = job.task.labels or label_names(*tables)
    template = "{prompt} {text} {text_pair}" if tables[0].examples.pairs else "{prompt} {text}"
    job = with_task(job, labels, labels, template)
    if len(tables) == 3:
        train, dev, test = (label(table, labels) for table in tables)
    else:
        train, dev, test = _cut(tables[0], labels, job.run.seed)
    return train, dev, test, job


def _cut(table: Table, labels: tuple[str, ...], seed: int) -> tuple[LabelledExamples, ...]:
    whole = label(table, labels)
    return tuple(whole.take(rows) for rows in partition.split(whole.labels, FRACTIONS, seed))


def _file(folder: Path, name: str) -> Path:
    """FOLDER/NAME with a known ending."""
    found = sorted(
        path for path in folder.glob(f"{name}.*") if path.name.removesuffix(".gz").rpartition(".")[2] in SUFFIXES
    )
    if not found:
        endings = ", ".join(f"{name}.{suffix}" for suffix in SUFFIXES)
        raise InvalidData(f"no {name} split", where=str(folder), fix=f"one of {endings}")
    return found[0]


def _concatenate(parts: tuple[LabelledExamples, ...]) -> LabelledExamples:
    texts = tuple(text for part in parts for text in part.examples.texts)
    pairs = None
    if parts[0].examples.pairs is not None:
        pairs = tuple(pair for part in parts for pair in part.examples.pairs or ())
    return LabelledExamples(Examples(texts, pairs), np.concatenate([part.labels for part in parts]))
