"""Reads a job's data, sets test examples apart, and shares out the rest to the clients and the server."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.data import demo, partition
from fedbbpt.data.columns import Columns, shown
from fedbbpt.data.examples import Table, check_trainable, in_order, label, label_names, read_table
from fedbbpt.data.partition import Partition, Rows
from fedbbpt.data.split_files import split_files
from fedbbpt.errors import InvalidData, InvalidJob
from fedbbpt.federation.column_choice import with_columns
from fedbbpt.federation.task_completion import with_candidates, with_mapped_classes, with_preset, with_task
from fedbbpt.interfaces import Ptm
from fedbbpt.job.config import Job
from fedbbpt.types import LabelledExamples
from fedbbpt.types.examples import concatenate

FRACTIONS = (0.6, 0.2, 0.2)
"""Shares of train, dev and test examples in a source that is not split already."""

SHARDS_PER_CLIENT = 2


@dataclass(frozen=True, slots=True)
class Splits:
    """A job whose task is complete, and its data, shared out to clients."""

    job: Job
    train: tuple[LabelledExamples, ...]
    """Each client's training examples."""
    dev: tuple[LabelledExamples, ...]
    """Each client's dev examples."""
    test: LabelledExamples
    server: LabelledExamples
    """Training examples that the server has and no client; often none."""
    titles: tuple[str, ...]
    """Each client's title in tables: its value of the partition column, or its number."""

    def completed_by(self, ptm: Ptm) -> "Splits":
        """Returns the splits with what the job leaves to its model: the labels of its classes, and general columns."""
        return replace(self, job=with_columns(with_mapped_classes(self.job, self.server, ptm), ptm))

    def pooled(self) -> LabelledExamples:
        """Returns all clients' training examples in one place, which a federation never has; for baselines only."""
        return concatenate(self.train)

    def histogram(self) -> npt.NDArray[np.int64]:
        """Returns how many training examples of each class each client has, `[clients, K]`."""
        classes = len(self.job.task.labels)
        return np.stack([np.bincount(part.labels, minlength=classes) for part in self.train])


@dataclass(frozen=True, slots=True)
class _Source:
    """A job whose task is complete, and its data before it is shared out."""

    job: Job
    train: LabelledExamples
    dev: LabelledExamples
    test: LabelledExamples
    groups: tuple[str, ...] = ()
    """Each training example's value of the partition column, if the job has one."""


def prepare(job: Job) -> Splits:
    """Reads, splits and shares out the data of a job. The job's seed determines every choice.

    Raises:
        InvalidJob: The job does not fit its data.
        InvalidData: The data cannot be read, or are too few for the job.
    """
    job = with_preset(job)
    source = _demo(job) if job.data.source == "demo" else _read(job)
    job, train, dev = source.job, source.train, source.dev
    check_trainable(train, job.task.labels, job.data.source)
    for name, part in (("dev", dev), ("test", source.test)):
        if not len(part):
            raise InvalidData(f"no {name} examples", where=job.data.source, fix="at least three examples of each class")
    data, seed, clients = job.data, job.run.seed, job.cohort.clients
    if data.dev_shots_per_class:
        rows = partition.shots(dev.labels, data.dev_shots_per_class, seeds.derive(seed, "dev"), fewer=True)
        dev = dev.take(rows)
    if len(dev) < clients:
        what, fix = f"{len(dev)} dev examples for {clients} clients", "a larger data.dev_shots_per_class, or 0 for all"
        raise InvalidData(what, where=data.source, fix=f"{fix}; or fewer clients")
    # Dev metrics are summed over clients, so it does not matter which client measures which example.
    dev_parts = partition.iid(dev.labels, clients, seeds.derive(seed, "dev"))
    rows, parts, titles = _share_out(source)
    server = train.take(rows)
    job = with_candidates(job, server)
    return Splits(job, tuple(map(train.take, parts)), tuple(map(dev.take, dev_parts)), source.test, server, titles)


def labelled(job: Job, *tables: Table) -> tuple[Job, tuple[LabelledExamples, ...]]:
    """Returns the job with its task completed from the tables, and the examples of each table.

    Raises:
        InvalidData: A label is not among the job's, or there are too many different ones.
    """
    labels = job.task.labels or label_names(*tables)
    template = "{prompt} {text} {text_pair}" if tables[0].examples.pairs else "{prompt} {text}"
    return with_task(job, labels, labels, template), tuple(label(table, labels) for table in tables)


def _share_out(source: _Source) -> tuple[Rows, Partition, tuple[str, ...]]:
    """The server's and each client's rows of the training examples, and the clients' titles."""
    data, seed, clients, labels = source.job.data, source.job.run.seed, source.job.cohort.clients, source.train.labels
    rows = np.arange(len(labels))
    if data.shots == "total" and data.shots_per_class:
        _check_shots(labels, 1, source.job)
        rows = partition.shots(labels, data.shots_per_class, seeds.derive(seed, "train"))
    fractions = (data.server_share, 1 - data.server_share)
    server, rest = (rows[part] for part in partition.split(labels[rows], fractions, seeds.derive(seed, "server")))
    if data.server_share and not len(server):
        what = f"data.server_share = {data.server_share} of {len(rows)} examples is nothing"
        raise InvalidData(what, where=data.source, fix="a larger share, or more examples")
    titles = tuple(map(str, range(clients)))
    match data.partition:
        case "iid":
            parts = partition.iid(labels[rest], clients, seed)
        case "dirichlet":
            parts = partition.dirichlet(labels[rest], clients, data.alpha, seed)
        case "shards":
            parts = partition.shards(labels[rest], clients, SHARDS_PER_CLIENT, seed)
        case "column":
            titles = _distinct_values(source)
            parts = partition.by_group([source.groups[row] for row in rest], titles)
    if data.shots == "client" and data.shots_per_class:
        if data.partition == "iid":
            _check_shots(labels[rest], clients, source.job)
        parts = partition.few(labels[rest], parts, data.shots_per_class, seeds.derive(seed, "train"))
    return server, tuple(rest[part] for part in parts), titles


def _distinct_values(source: _Source) -> tuple[str, ...]:
    """The distinct values of the partition column in order: as many as there are clients."""
    values, job = in_order(set(source.groups)), source.job
    if len(values) != job.cohort.clients:
        what = (
            f"data.partition_column = {job.data.partition_column!r} has {len(values)} values in the training examples"
        )
        fix = f"cohort.clients = {len(values)}, not {job.cohort.clients}; or another column"
        raise InvalidJob(what, where="job", fix=fix)
    return values


def _check_shots(labels: Rows, holders: int, job: Job) -> None:
    """Raises InvalidData unless every one of `holders` can have the job's shots of each class."""
    counts, shots = np.bincount(labels), job.data.shots_per_class
    rarest = int(np.where(counts, counts, len(labels) + 1).argmin())
    most = int(counts[rarest]) // holders
    if most < shots:
        each = f" for each of {holders} clients" if holders > 1 else ""
        name = shown(job.task.labels[rarest])
        what = f"{counts[rarest]} training examples of class {name}, {shots} shots{each} were asked for"
        fix = f"data.shots_per_class = {most}" if most else "fewer clients"
        raise InvalidData(what, where=job.data.source, fix=f"{fix}, or more examples")


def _demo(job: Job) -> _Source:
    # The questions are the same for all seeds, so that runs differ only in their shots, partition and search.
    made = demo.questions(seed=0)
    if job.task.labels not in ((), made.labels):
        raise InvalidJob(
            'task.labels and data.source = "demo" contradict each other',
            where="job",
            fix=f"other data, or the labels {', '.join(made.labels)}",
        )
    if job.data.partition == "column":
        raise InvalidJob(
            'data.source = "demo" has no columns', where="job", fix="other data, or another data.partition"
        )
    completed = with_task(job, made.labels, made.labels, "{prompt} {text}")
    return _Source(completed, made.train, made.dev, made.test)


def _read(job: Job) -> _Source:
    data = job.data
    columns = data.columns()
    grouped = replace(columns, group=data.partition_column)
    folder = Path(data.source)
    if folder.is_dir():
        tables = [_table(folder, "train", grouped)]
        tables += [_table(folder, name, columns) for name in ("dev", "test")]
    else:
        tables = [read_table(data.source, grouped)]
    job, parts = labelled(job, *tables)
    groups = tables[0].groups
    if len(tables) == 1:
        (whole,) = parts
        rows = partition.split(whole.labels, FRACTIONS, job.run.seed)
        train, dev, test = map(whole.take, rows)
        groups = tuple(groups[row] for row in rows[0]) if groups else ()
    else:
        train, dev, test = parts
    return _Source(job, train, dev, test, groups)


def _table(folder: Path, split: str, columns: Columns) -> Table:
    """The rows of one split of a folder."""
    first, *more = split_files(folder, split)
    return read_table(first, columns, more)
