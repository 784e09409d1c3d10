"""Forecasts what a run will use before anything is spent: queries, tokens, money, bytes and time.

The run is rehearsed (see `rehearsal`). A rehearsal that would take too long ends early, and the rounds that are left
count as much as the mean of those before. Where the first rounds say nothing about the others, they count nothing, and
the figures are lower bounds.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fedbbpt.client.asking import PromptScorer
from fedbbpt.federation.comparison import cost
from fedbbpt.federation.message_sizes import message_bytes
from fedbbpt.federation.rehearsal import RehearsalPtm, rehearse
from fedbbpt.federation.run_folder import compared_data
from fedbbpt.federation.simulation import SimulatedRound
from fedbbpt.federation.splits import Splits
from fedbbpt.interfaces import Ptm
from fedbbpt.job.settings import task_spec
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.types import Budget, Price, Usage

PROBE_SECONDS = 1.0
"""About how long a model is asked to measure its rate."""
PROBE_EXAMPLES = 64
"""Most examples that it is asked about."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast a model answers."""

    queries_per_second: float
    source: str
    """How it was found, in a few words."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run is expected to use."""

    method: str
    clients: int
    rounds: int
    """The number of rounds, with the last one, which only measures."""
    rehearsed: int
    """The number of rounds that were rehearsed."""
    queries: int
    """(prompt, example) pairs of all clients together."""
    queries_of_a_client: int
    """Those of the client that asks most."""
    queries_of_a_round: int
    """Those of the round that asks most."""
    queries_evaluation: int
    """Pairs to measure the result and its controls on the test examples."""
    cached_queries: int
    """Pairs that a PTM service answers from its cache. Part of `queries`."""
    tokens: int
    """Tokens that the model reads for the clients. Those of prompts in words are estimated."""
    tokens_evaluation: int
    """Tokens of the evaluation, estimated by the mean of the others."""
    price: Price
    cost_micros: int
    """The cost of all queries and tokens, in millionths of the currency's unit."""
    bytes_up_per_client_round: int
    bytes_down_per_client_round: int
    bytes_up_per_client: int
    """All rounds together, as a mean over clients."""
    bytes_down_per_client: int
    rate: Rate | None
    """None if nothing is known about the model's rate."""
    left: Budget
    """What is left of the caller's budget at the PTM service."""
    depends: str = ""
    """Why the number of queries depends on the model's scores, which a rehearsal does not know; "" if it does not."""
    notes: tuple[str, ...] = ()
    """What the figures leave out."""
    warnings: tuple[str, ...] = ()
    """A sentence for each budget that the forecast exceeds."""

    @property
    def counted(self) -> bool:
        """Whether the queries are those that the run will ask, and no estimate."""
        return self.rehearsed == self.rounds and not self.depends

    @property
    def precision(self) -> str:
        """How the number of queries is to be read: "" (exact), "about", or "at least"."""
        if self.counted:
            return ""
        return "at least" if self.depends and self.rehearsed < self.rounds else "about"

    @property
    def seconds(self) -> float | None:
        """How long the model computes; None if its rate is unknown."""
        if self.rate is None:
            return None
        return (self.queries - self.cached_queries + self.queries_evaluation) / self.rate.queries_per_second

    def record(self) -> dict[str, Any]:
        """Returns the figures for JSON."""
        found = asdict(self)
        found["price"] = asdict(self.price) if self.price.currency else None
        found["cost_micros"] = self.cost_micros if self.price.currency else None
        return found | {"counted": self.counted, "precision": self.precision, "seconds": self.seconds}


def forecast(
    splits: Splits,
    ptm: RehearsalPtm,
    *,
    left: Budget | None = None,
    rate: Rate | None = None,
    seconds: float = 20.0,
) -> Forecast:
    """Rehearses a run, and returns what it is expected to use.

    Args:
        splits: The run's job, with its task complete, and its data.
        ptm: The rehearsed model.
        left: What is left of the caller's budget; None: no limits.
        rate: How fast the model answers; None if that is unknown.
        seconds: How long the rehearsal may take. At least two rounds are rehearsed.

    Raises:
        FedbbptError: The run could not begin, for the reasons that `Simulation` gives.
    """
    job, started, tally = splits.job, time.monotonic(), _Tally()
    total = job.run.rounds + 1
    for closed in rehearse(splits, ptm):
        tally.add(closed, ptm.usage())
        if tally.rounds >= 2 and time.monotonic() - started > seconds:
            break
    depends = _depends(splits)
    # The rounds that such a run begins with say nothing about those of its search.
    missing = 0 if depends else total - tally.rounds
    evaluation = cost(job.space(), compared_data(splits))
    scale = 1 + missing / tally.rounds
    queries, cached, tokens = (tally.total(figure, missing) for figure in ("queries", "cached", "tokens"))
    computed = max(1, sum(tally.each["queries"]) - sum(tally.each["cached"]))
    tokens_evaluation = round(evaluation * sum(tally.each["tokens"]) / computed)
    clients, answers = max(1, len(tally.by_client)), max(1, tally.answers)
    price = ptm.describe().price
    found = Forecast(
        method=job.method.name,
        clients=job.cohort.clients,
        rounds=total,
        rehearsed=tally.rounds,
        queries=queries,
        queries_of_a_client=round(max(tally.by_client.values(), default=0) * scale),
        queries_of_a_round=max(tally.each["queries"], default=0),
        queries_evaluation=evaluation,
        cached_queries=cached,
        tokens=tokens,
        tokens_evaluation=tokens_evaluation,
        price=price,
        cost_micros=price.cost_micros(
            Usage(queries=queries + evaluation, tokens=tokens + tokens_evaluation, cached_queries=cached)
        ),
        bytes_up_per_client_round=round(tally.up / answers),
        bytes_down_per_client_round=round(tally.down / answers),
        bytes_up_per_client=round(tally.up / clients * scale),
        bytes_down_per_client=round(tally.down / clients * scale),
        rate=rate,
        left=left or Budget(),
        depends=depends,
        notes=_notes(splits),
    )
    return _warned(found)


class _Tally:
    """The sums over the rehearsed rounds."""

    def __init__(self) -> None:
        self.rounds = self.answers = self.up = self.down = 0
        self.each: dict[str, list[int]] = {"queries": [], "cached": [], "tokens": []}
        self.by_client: Counter[str] = Counter()
        self._held: dict[str, bytes] = {}
        self._before = Usage()

    def add(self, closed: SimulatedRound, usage: Usage) -> None:
        """Adds a round; `usage` is that of all rounds until now."""
        up, down = message_bytes(closed.exchanges, closed.told, self._held)
        self.up, self.down, self.rounds = self.up + up, self.down + down, self.rounds + 1
        self.answers += len(closed.exchanges)
        for task, update in closed.exchanges:
            self.by_client[task.id.client_id] += update.measurement.queries
            if closed.told is not None:
                self._held[task.id.client_id] = closed.told.after
        self.each["queries"].append(closed.report.queries)
        self.each["cached"].append(usage.cached_queries - self._before.cached_queries)
        self.each["tokens"].append(usage.tokens - self._before.tokens)
        self._before = usage

    def total(self, figure: str, missing: int) -> int:
        """The sum over all rounds. Those that are missing count as the mean without the first, which prepares them."""
        each = self.each[figure]
        return sum(each) + (round(missing * float(np.mean(each[1:]))) if missing else 0)


def _depends(splits: Splits) -> str:
    """Why the number of queries depends on the scores."""
    task = splits.job.task
    if task.views and task.prompt.kind != "none":
        return "the fit of the readout, which takes turns with the search, ends when it has converged"
    return ""


def _notes(splits: Splits) -> tuple[str, ...]:
    """What the figures leave out."""
    job, found = splits.job, list[str]()
    if job.definition().white_box:
        found.append("the download of the auxiliary model, and the time that clients train it")
    if job.privacy.aggregation == "secure":
        found.append("the keys and shares of secure aggregation")
    if job.cohort.mode == "async":
        found.append("answers that come too late to count")
    return tuple(found)


def _warned(found: Forecast) -> Forecast:
    """Returns the forecast with a warning for each budget that it exceeds."""
    warnings = list[str]()
    wanted = {"queries": found.queries + found.queries_evaluation, "tokens": found.tokens + found.tokens_evaluation}
    for kind, number in wanted.items():
        left: int | None = getattr(found.left, kind)
        if left is not None and number > left:
            warnings.append(
                f"the run is forecast to use {number:,} {kind}, and {left:,} are left of this tenant's budget at the "
                f"PTM service: ask the provider for more, or take fewer rounds, candidates or examples"
            )
    return replace(found, warnings=tuple(warnings))


def measured_rate(ptm: Ptm, splits: Splits, clock: Callable[[], float] = time.monotonic) -> Rate:
    """Asks a model of one's own about some training examples without a prompt, and returns how fast it answers.

    Args:
        ptm: The model. The queries are real, so it should cost nothing.
        splits: The run's data.
        clock: Returns seconds, from any origin.
    """
    job = splits.job
    data = splits.pooled()
    scorer = PromptScorer(ptm, task_spec(job).of_classes(len(job.task.labels)), NoPrompt(job.prompt_tokens()))
    first, count, asked, spent = 4, 0, 0, 0.0
    while count < min(len(data), PROBE_EXAMPLES):
        part = data.take(np.arange(count, min(count + first, len(data))))
        started = clock()
        scorer.judge(part, NoPrompt.Z)
        took = clock() - started
        if count:  # the first call also warms the model up
            asked, spent = asked + len(part), spent + took
        count, first = count + len(part), 2 * first
        if spent + took > PROBE_SECONDS and asked:
            break
    return (
        Rate(asked / max(spent, 1e-9), "measured now") if asked else Rate(len(data) / max(took, 1e-9), "measured now")
    )


def rate_of(usage: Usage) -> Rate | None:
    """Returns the rate at which a service has answered this caller until now; None if it has not."""
    computed = usage.queries - usage.cached_queries
    if not (computed and usage.compute_seconds):
        return None
    return Rate(computed / usage.compute_seconds, "from what the service computed for this tenant before")
