"""From a job to data: what each client of a federation on one machine trains on, and what nobody trains on."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.data import demo, partition
from fedbbpt.data.examples import SUFFIXES, Columns, check_trainable, in_order, label, label_names, read_table
from fedbbpt.data.ngrams import pmi_ngrams
from fedbbpt.data.partition import Partition, Rows
from fedbbpt.errors import InvalidData, InvalidJob
from fedbbpt.job.config import Job
from fedbbpt.job.prompt_sections import TextPromptSection
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
    server: LabelledExamples
    """What the server itself may train on, and no client has; often nothing."""
    owners: tuple[str, ...]
    """Each client's value of the partition column, or its number."""

    def pooled(self) -> LabelledExamples:
        """All clients' training examples in one place, which a federation never has; for controls only."""
        return _concatenate(self.train)

    def histogram(self) -> npt.NDArray[np.int64]:
        """Training examples of each class at each client, `[clients, K]`."""
        classes = len(self.job.task.labels)
        return np.stack([np.bincount(part.labels, minlength=classes) for part in self.train])


@dataclass(frozen=True, slots=True)
class _Source:
    """A job whose task is complete, and its data before they are shared out."""

    job: Job
    train: LabelledExamples
    dev: LabelledExamples
    test: LabelledExamples
    owners: tuple[str, ...] = ()
    """Of each training example, where a column names them."""


def prepare(job: Job) -> Splits:
    """Reads, cuts and shares out, all by the run's seed. Raises InvalidData, InvalidJob."""
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
    # Dev metrics add up over clients, so it does not matter who measures which example.
    dev_parts = partition.iid(dev.labels, clients, seeds.derive(seed, "dev"))
    rows, parts, owners = _share_out(source)
    server = train.take(rows)
    job = _with_candidates(job, server)
    return Splits(job, tuple(map(train.take, parts)), tuple(map(dev.take, dev_parts)), source.test, server, owners)


def _with_candidates(job: Job, server: LabelledExamples) -> Job:
    """The job with the words that it leaves to the data: out of the server's own, since all who take part see them."""
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


def _share_out(source: _Source) -> tuple[Rows, Partition, tuple[str, ...]]:
    """The server's and each client's rows of the training examples, and the clients' names."""
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
    owners = tuple(map(str, range(clients)))
    match data.partition:
        case "iid":
            parts = partition.iid(labels[rest], clients, seed)
        case "dirichlet":
            parts = partition.dirichlet(labels[rest], clients, data.alpha, seed)
        case "shards":
            parts = partition.shards(labels[rest], clients, SHARDS_PER_CLIENT, seed)
        case "column":
            owners = _owners(source)
            parts = partition.by_owner([source.owners[row] for row in rest], owners)
    if data.shots == "client" and data.shots_per_class:
        if data.partition == "iid":
            _check_shots(labels[rest], clients, source.job)
        parts = partition.few(labels[rest], parts, data.shots_per_class, seeds.derive(seed, "train"))
    return server, tuple(rest[part] for part in parts), owners


def _owners(source: _Source) -> tuple[str, ...]:
    """The values of the partition column in order: as many as there are clients."""
    owners, job = in_order(set(source.owners)), source.job
    if len(owners) != job.cohort.clients:
        what = (
            f"data.partition_column = {job.data.partition_column!r} has {len(owners)} values in the training examples"
        )
        fix = f"cohort.clients = {len(owners)}, not {job.cohort.clients}; or another column"
        raise InvalidJob(what, where="job", fix=fix)
    return owners


def _check_shots(labels: Rows, holders: int, job: Job) -> None:
    """Raises InvalidData unless there are the job's shots of each class for so many holders."""
    counts, shots = np.bincount(labels), job.data.shots_per_class
    rarest = int(np.where(counts, counts, len(labels) + 1).argmin())
    most = int(counts[rarest]) // holders
    if most < shots:
        each = f" for each of {holders} clients" if holders > 1 else ""
        name = job.task.labels[rarest]
        what = f"{counts[rarest]} training examples of class {name!r}, {shots} shots{each} were asked for"
        fix = f"data.shots_per_class = {most}" if most else "fewer clients"
        raise InvalidData(what, where=job.data.source, fix=f"{fix}, or more examples")


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


def _demo(job: Job) -> _Source:
    # The questions stay the same for all seeds, so that seeds differ in shots, partition and search alone.
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
    columns = Columns(data.text_column, data.pair_column, data.label_column)
    owned = replace(columns, owner=data.partition_column)
    folder = Path(data.source)
    if folder.is_dir():
        tables = [read_table(_file(folder, "train"), owned)]
        tables += [read_table(_file(folder, name), columns) for name in ("dev", "test")]
    else:
        tables = [read_table(data.source, owned)]
    labels = job.task.labels or label_names(*tables)
    template = "{prompt} {text} {text_pair}" if tables[0].examples.pairs else "{prompt} {text}"
    job = with_task(job, labels, labels, template)
    owners = tables[0].owners
    if len(tables) == 1:
        whole = label(tables[0], labels)
        cut = partition.split(whole.labels, FRACTIONS, job.run.seed)
        train, dev, test = map(whole.take, cut)
        owners = tuple(owners[row] for row in cut[0]) if owners else ()
    else:
        train, dev, test = (label(table, labels) for table in tables)
    return _Source(job, train, dev, test, owners)


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
    labels = np.concatenate([part.labels for part in parts])
    images = [part.examples.images for part in parts if part.examples.images is not None]
    if images:
        return LabelledExamples(Examples(images=np.concatenate(images)), labels)
    texts = tuple(text for part in parts for text in part.examples.texts)
    pairs = None
    if parts[0].examples.pairs is not None:
        pairs = tuple(pair for part in parts for pair in part.examples.pairs or ())
    return LabelledExamples(Examples(texts, pairs), labels)
