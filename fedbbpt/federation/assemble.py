"""Builds the roles of a federation: the coordinator, a client, and the owner of the model.

The command line, the simulation and the tests build each role here, so that a client is the same object whether it
reaches its coordinator by function calls or over gRPC. Torch is imported only where a method trains a model (FedSP).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedbbpt.client.agent import Agent, NoDevExamples
from fedbbpt.client.clipped_objectives import ClippedObjectives
from fedbbpt.client.keepsake import Keepsake
from fedbbpt.client.objective import LocalObjectives
from fedbbpt.client.shares import Shares
from fedbbpt.codecs import LINKS, codec_of
from fedbbpt.errors import InvalidInput, InvalidJob, InvalidPlugin, NotPrivate, PluginMissing
from fedbbpt.host.extras import needs_extra
from fedbbpt.host.files import atomic_write, sha256_of_file
from fedbbpt.interfaces import Link, Ptm, Store, WhiteBox
from fedbbpt.job.config import Job
from fedbbpt.job.settings import task_spec
from fedbbpt.methods import ClientMethod, client_method, essential, point_of, replay_of, server_half
from fedbbpt.methods.fed_sp import FedSpConfig
from fedbbpt.methods.method import AnyMethod
from fedbbpt.privacy.accountant import require_accountant
from fedbbpt.prompts import space_of
from fedbbpt.prompts.checks import check_space
from fedbbpt.server.audit import Audit, no_audit
from fedbbpt.server.cohort import CohortRules
from fedbbpt.server.coordinator import Coordinator, Traffic
from fedbbpt.server.private_rounds import PrivateRounds
from fedbbpt.server.reading import numbers
from fedbbpt.server.robust.defence import RULES, Defence
from fedbbpt.types import Arrays, Auxiliary, Hello, LabelledExamples, PrivacyBudget, RunSettings


def coordinator(
    job: Job,
    settings: RunSettings,
    store: Store,
    traffic: Traffic = lambda: None,
    start: npt.NDArray[np.float32] | None = None,
    audit: Audit = no_audit,
) -> Coordinator:
    """Returns the coordinator of a job's run: of a new run, or of the unfinished one in the store.

    Args:
        job: The job, with its task complete.
        settings: The settings that clients are told when they join.
        store: The run's durable state.
        traffic: Returns the bytes that clients have sent and received so far, or None if they are not counted.
        start: The prompt `[n]` that a new run begins at, if not at the prompt 0.
        audit: Records what happens to clients and to the run.

    Raises:
        InvalidInput: The method cannot begin at `start`.
        StoreError: The store holds another run, or cannot be read.
    """
    told = job.definition().settings(job.method)
    rules = ClientMethod(job.definition(), told, job.space()).rules
    return Coordinator(
        method_name=job.method.name,
        method=server_half(job.definition(), job.method, job.space(), settings.downlink, settings.kept),
        codec=codec_of(settings.codec, kept=settings.kept, point=point_of(job.definition(), told, job.space())),
        settings=settings,
        seed=job.run.seed,
        cohort=cohort_rules(job),
        store=store,
        traffic=traffic,
        replay=replay_of(job.definition(), told, job.space(), settings.downlink, settings.kept),
        start=start,
        privacy=private_rounds(job),
        rules=rules,
        defence=defence(job),
        audit=audit,
    )


def private_rounds(job: Job) -> PrivateRounds | None:
    """Returns what the coordinator of a job's run does to keep its privacy budget; None if it has none.

    Raises:
        InvalidInput: The privacy accountant is not installed.
    """
    section, method = job.privacy, job.definition()
    if not section.epsilon:
        return None
    require_accountant()
    budget = PrivacyBudget(section.level, section.epsilon, section.delta, section.clip_norm)
    sharing = 0
    if section.aggregation == "secure":
        from fedbbpt.server.secure_rounds import least_clients  # few runs need `cryptography`

        sharing = least_clients(cohort_rules(job).quorum)
    return PrivateRounds(budget, partial(essential, method), sharing)


def check_noise(job: Job) -> None:
    """Checks the noise of a job's run before anything of the run is stored.

    Raises:
        InvalidInput: The privacy accountant is not installed.
        InvalidJob: The clip norm does not suit noise in shares.
    """
    private = private_rounds(job)
    if private is not None and private.sharing:
        half = server_half(job.definition(), job.method, job.space())
        private.share(private.opened(job.run.rounds), numbers(half.expected(half.init(0))))


def defence(job: Job) -> Defence | None:
    """Returns how the coordinator combines updates if clients may lie; None if it sums them."""
    section = job.cohort
    return None if section.robust == "none" else Defence(RULES[section.robust], section.adversaries)


def cohort_rules(job: Job) -> CohortRules:
    """Returns the conditions for a job's run to start and for its rounds to close."""
    section, owner = job.cohort, job.definition().owner_takes_part(job.method)
    quorum, asynchronous = math.ceil(section.quorum * section.updates), section.mode == "async"
    return CohortRules(
        section.clients,
        quorum,
        section.deadline_seconds,
        section.size or None,
        section.over_sample,
        owner,
        buffer=section.updates if asynchronous else 0,
        max_staleness=section.max_staleness if asynchronous else 0,
    )


def client_name(index: int) -> str:
    """Returns the id of a client that the framework itself starts. Ids sort in the order of the indices."""
    return f"client-{index:04d}"


def hello(name: str, key: str, examples: int, *, relay: bool = False) -> Hello:
    """Returns the message with which a client joins.

    Args:
        name: The client's id in the run.
        key: A secret that only this client knows; it joins again with the same one.
        examples: The number of its training examples.
        relay: Whether it is a relay.
    """
    return Hello(name, key, examples, LINKS, clips_examples=True, adds_noise=True, relay=relay)


def join(link: Link, hello: Hello, methods: Sequence[AnyMethod] = (), *, require_secure: bool = False) -> RunSettings:
    """Joins a run and returns its settings. A client without the run's method leaves again.

    Args:
        link: The client's link to the coordinator.
        hello: The message with which the client joins.
        methods: Methods that the caller defines itself, without installing them.
        require_secure: Whether to take part only if the coordinator sees no more than sums.

    Raises:
        PluginMissing: The run's method is a plug-in that is not installed here, or another version of it.
        InvalidPlugin: The plug-in does not load.
        InvalidInput: The coordinator describes prompts that cannot be made.
        NotPrivate: The run has no secure aggregation, and it is required.
    """
    settings = link.join(hello)
    try:
        if require_secure and settings.secure_threshold is None:
            what = "the coordinator would read this client's updates: the run has no secure aggregation"
            fix = 'a run with privacy.aggregation = "secure", or no --require-secure'
            raise NotPrivate(what, where="--require-secure", fix=fix)
        check_space(settings.space, len(settings.labels))
        client_method(settings, methods)
    except (InvalidInput, PluginMissing, InvalidPlugin, NotPrivate):
        link.leave()
        raise
    return settings


def client(
    settings: RunSettings,
    train: LabelledExamples,
    dev: LabelledExamples,
    ptm: Ptm,
    *,
    keepsake: Keepsake | None = None,
    fetch_auxiliary: Callable[[Auxiliary], Path] | None = None,
    methods: Sequence[AnyMethod] = (),
    private: Arrays | None = None,
    white_box: WhiteBox | None = None,
) -> Agent:
    """Returns a client of a run, with its examples registered with the PTM.

    Args:
        settings: The settings that the coordinator sent when the client joined.
        train: The examples that the client tunes on.
        dev: The examples that the client measures each round's prompt on.
        ptm: The model that the client queries.
        keepsake: The client's folder, from which it recovers after a crash; None keeps nothing.
        fetch_auxiliary: Returns the path of the run's auxiliary model. Called for a white-box method only.
        methods: Methods that the caller defines itself, without installing them.
        private: The method's private arrays, if they are not in the keepsake.
        white_box: What the client trains, in place of the run's auxiliary model.

    Raises:
        PluginMissing: The run's method is a plug-in that is not installed here, or another version of it.
        OutputWithheld: The PTM gives this client less than the run's method or prompt needs.
        InvalidData: The PTM gives losses only, and over more different examples than the client has.
        InvalidInput: The method trains a model, and the run has none for its clients, or torch is not installed.
    """
    method = client_method(settings, methods)
    space = space_of(settings.space)
    objectives = (
        ClippedObjectives(ptm, settings.task, space, train, dev, clip_norm=settings.clip_norm)
        if settings.clip_norm
        else LocalObjectives(
            ptm, settings.task, space, train, dev, sampling=settings.sampling, scores_needed=method.needs_scores
        )
    )
    if white_box is not None:
        half = method.white_box_half(white_box)
    elif method.white_box:
        if settings.auxiliary is None or fetch_auxiliary is None:
            fix = "a coordinator that was started with --auxiliary"
            raise InvalidInput("the run has no auxiliary model for its clients", where="coordinator", fix=fix)
        half = method.white_box_half(_auxiliary_model(settings, train, fetch_auxiliary(settings.auxiliary)))
    else:
        half = method.half(objectives)
    codec = codec_of(settings.codec, kept=settings.kept, point=method.point)
    secure = settings.secure_threshold is not None
    shares = None
    if settings.noise is not None:
        shares = Shares(settings.noise, settings.clip_norm, settings.rounds, method.essential)
    return Agent(half, objectives, codec, keepsake, settings.sampling, private, secure=secure, shares=shares)


def owner(
    settings: RunSettings,
    train: LabelledExamples,
    model: str,
    *,
    keepsake: Keepsake | None = None,
    methods: Sequence[AnyMethod] = (),
    private: Arrays | None = None,
    white_box: WhiteBox | None = None,
) -> Agent:
    """Returns the agent of the model's owner, which tunes the prompt through the whole model between two client rounds.

    Args:
        settings: The settings that the coordinator sent when the owner joined.
        train: The owner's examples.
        model: The full model: a local folder, or a Hugging Face name.
        keepsake: The owner's folder, from which it recovers after a crash; None keeps nothing.
        methods: Methods that the caller defines itself, without installing them.
        private: The method's private arrays, if they are not in the keepsake.
        white_box: What the owner tunes the prompt through, in place of the model.

    Raises:
        InvalidInput: The run's method has no turn for the owner, the model cannot be loaded, or torch is missing.
        InvalidTask: The model cannot score the run's classes.
    """
    method = client_method(settings, methods)
    half = method.owner_half(white_box or _full_model(settings, train, model))
    codec = codec_of(settings.codec, kept=settings.kept, point=method.point)
    return Agent(half, NoDevExamples(len(train)), codec, keepsake, private=private)


def _full_model(settings: RunSettings, train: LabelledExamples, model: str) -> WhiteBox:
    with needs_extra("ptm", where="method fed-sp"):
        from fedbbpt.whitebox import roles
    return roles.owner_white_box(model, space_of(settings.space), settings.task, train)


def _auxiliary_model(settings: RunSettings, train: LabelledExamples, path: Path) -> WhiteBox:
    with needs_extra("ptm", where="method fed-sp"):
        from fedbbpt.whitebox import roles
    return roles.client_white_box(path, space_of(settings.space), settings.task, train)


def make_auxiliary(job: Job, shard: LabelledExamples, path: Path) -> None:
    """Distils the auxiliary model of a job's full model, which clients train, and writes it to `path`.

    Args:
        job: A job with the method fed-sp.
        shard: The owner's examples to distil on. Without any, the full model writes texts of its own.
        path: The file to write, atomically.

    Raises:
        InvalidJob: The job's method has no auxiliary model.
        InvalidInput: The full model cannot be loaded, or torch is not installed.
    """
    if not isinstance(job.method, FedSpConfig):
        raise InvalidJob(f"{job.method.name} has no auxiliary model", where="method.name", fix='"fed-sp"')
    with needs_extra("ptm", where="method fed-sp"):
        from fedbbpt.whitebox import roles
        from fedbbpt.whitebox.auxiliary import LayerRange
    method, space, seed = job.method, job.space(), job.run.seed
    layers = LayerRange(method.start, method.cell, method.mode, method.bottom, method.stitch)
    made = roles.make_auxiliary(job.ptm.model, layers, method.distillation(), task_spec(job), space, shard, seed)
    atomic_write(path, made)


def announced_auxiliary(path: Path) -> Auxiliary:
    """Returns the size and digest of an auxiliary model, which clients verify. Raises InvalidInput without a file."""
    try:
        return Auxiliary(path.stat().st_size, sha256_of_file(path))
    except OSError as error:
        fix = "the file that `fedbbpt owner auxiliary` wrote"
        raise InvalidInput(error.strerror or str(error), where=str(path), fix=fix) from None


def check_owner_has_data(job: Job, shard: LabelledExamples) -> None:
    """Raises InvalidJob if the owner of the model has a turn in each round but no examples to train on."""
    if job.definition().owner_takes_part(job.method) and not len(shard):
        fix = "a share above 0, or method.server_shard = false"
        raise InvalidJob("data.server_share = 0, and method.server_shard is on", where="job", fix=fix)
