"""The rounds of a site, called as functions: time is a number, and what it sends above is a list."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from fedbbpt.codecs import CODECS, LINKS
from fedbbpt.codecs.travelling import packed
from fedbbpt.errors import (
    ClientIdTaken,
    Conflict,
    InvalidHello,
    InvalidJob,
    InvalidTensor,
    InvalidUpdate,
    NoResultYet,
    UnknownRound,
)
from fedbbpt.federation.relay.names import SiteNames
from fedbbpt.federation.relay.relay import check_adds
from fedbbpt.federation.relay.site import DEADLINE_SHARE, Site
from fedbbpt.methods import METHODS, ClientMethod, client_method
from fedbbpt.methods.fed_cma import FedCmaSettings
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.server.hosted_run import Submission
from fedbbpt.types import (
    FINALISTS,
    Hello,
    Measurement,
    Phase,
    PtmIdentity,
    Receipt,
    RunState,
    Task,
    TaskId,
    Update,
    merge,
)
from tests.coordinators import SETTINGS

P = 3
RUN = replace(SETTINGS, method=FedCmaSettings(P, candidates_sent=False, expansion_sent=False))
DEADLINE = 100.0


def task(round: int = 0, phase: Phase = Phase.UPDATE, **arrays: Any) -> Task:
    return Task(
        TaskId("run-1", round, "north", phase), 7 + round, {"mean": np.zeros(2, np.float32), **arrays}, DEADLINE
    )


@dataclass
class Bench:
    """A site with clients that have joined, and what it has sent above."""

    now: float = 0.0
    sums: list[tuple[Task, Update]] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    ptms: list[PtmIdentity] = field(default_factory=list)
    sessions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.site = Site(RUN, client_method(RUN), [hello("anna"), hello("bert")], self, SiteNames())
        self.join("anna", "bert")

    def submit(self, task: Task, total: Update) -> None:
        self.sums.append((task, total))

    def report_trouble(self, text: str) -> None:
        self.troubles.append(text)

    def report_ptm(self, ptm: PtmIdentity) -> None:
        self.ptms.append(ptm)

    def join(self, *names: str) -> None:
        for name in names:
            self.sessions[name], _ = self.site.join(hello(name), self.now)
            self.site.connected(self.sessions[name])

    def open(self, task: Task) -> None:
        self.site.open(task, None, self.now)

    def task(self, name: str) -> Task | None:
        return self.site.task_for(self.sessions[name])

    def answer(self, name: str, weight: float, *losses: float) -> Receipt:
        given = self.task(name)
        assert given is not None
        return self.send(name, given.id, encoded(weight, losses))

    def send(self, name: str, task_id: TaskId, update: Update) -> Receipt:
        (answer,) = self.site.submit_all([Submission(self.sessions[name], task_id, update)], self.now)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.site.tick(self.now)


WEIGHTS = {"anna": 2, "bert": 1, "carl": 1}
"""The number of training examples of each client."""


def hello(name: str, key: str = "key") -> Hello:
    return Hello(name, key, WEIGHTS.get(name, 1), LINKS)


def encoded(weight: float, losses: tuple[float, ...], **measured: Any) -> Update:
    arrays = packed({"losses": weight * np.array(losses)}, weight, {})
    measurement = Measurement(3.0, 4, 1, 12) if not measured else Measurement(**measured)
    return Update(CODECS["float32"].encode(arrays, np.random.default_rng(0)), weight, measurement)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_round_ends_with_the_sum_of_all_clients(bench: Bench) -> None:
    """Kills: a sum of means; a sum that drops what was measured; a sum that is sent before all have answered."""
    bench.open(task())
    bench.answer("bert", 1, 0.5, 0.25, 1.0)
    assert not bench.sums
    bench.answer("anna", 2, 1.0, 2.0, 3.0)
    ((answered, total),) = bench.sums
    assert answered.id == TaskId("run-1", 0, "north", Phase.UPDATE)
    assert total.arrays["losses"].tolist() == [2.5, 4.25, 7.0]
    assert (total.weight, total.measurement) == (3.0, Measurement(6.0, 8, 2, 24))


def test_the_bits_of_a_sum_do_not_depend_on_the_order_of_arrival() -> None:
    found = []
    for order in (("anna", "bert", "carl"), ("carl", "anna", "bert")):
        bench = Bench()
        bench.join("carl")
        bench.open(task())
        losses = {"anna": 0.1, "bert": 0.2, "carl": 0.3}
        for name in order:
            bench.answer(name, WEIGHTS[name], *[losses[name]] * P)
        found.append(bench.sums[0][1].arrays["losses"].tobytes())
    assert found[0] == found[1]


def test_clients_draw_with_the_name_of_their_site(bench: Bench) -> None:
    """Kills: two sites with clients of the same name whose draws are the same."""
    bench.open(task())
    given = bench.task("anna")
    assert given is not None and given.id.client_id == "north/anna"
    assert given.deadline_seconds == DEADLINE_SHARE * DEADLINE


def test_at_its_deadline_a_site_sends_what_it_has_and_waits_no_more_for_the_missing(bench: Bench) -> None:
    bench.open(task())
    bench.answer("anna", 2, 1, 1, 1)
    late = bench.task("bert")
    bench.wait(DEADLINE_SHARE * DEADLINE)
    assert [total.weight for _, total in bench.sums] == [2.0]
    bench.open(task(1))
    assert bench.task("bert") is not None, "it is asked as long as it is connected"
    bench.answer("anna", 2, 1, 1, 1)
    assert len(bench.sums) == 2, "nobody waits for it"
    bench.open(task(2))
    assert late is not None and bench.send("bert", late.id, encoded(1, (1, 1, 1))) is Receipt.TOO_LATE
    bench.answer("anna", 2, 1, 1, 1)
    assert len(bench.sums) == 2, "its late answer shows that it is alive"


def test_a_client_that_died_is_not_waited_for_and_takes_part_when_it_comes_back(bench: Bench) -> None:
    bench.open(task())
    bench.site.disconnected(bench.sessions["bert"])
    bench.answer("anna", 2, 1, 1, 1)
    assert not bench.sums, "it may come back before the deadline"
    bench.wait(DEADLINE_SHARE * DEADLINE)
    bench.open(task(1))
    bench.join("bert")
    bench.answer("anna", 2, 1, 1, 1)
    assert len(bench.sums) == 1
    bench.answer("bert", 1, 1, 1, 1)
    assert bench.sums[1][1].weight == 3.0


def test_a_client_that_joins_during_a_round_takes_part(bench: Bench) -> None:
    bench.open(task())
    bench.join("carl")
    for name in ("anna", "bert", "carl"):
        bench.answer(name, WEIGHTS[name], 1, 1, 1)
    assert bench.sums[0][1].weight == 4.0


def test_a_client_that_leaves_is_not_waited_for(bench: Bench) -> None:
    bench.open(task())
    bench.answer("anna", 2, 1, 1, 1)
    bench.site.leave(bench.sessions["bert"], bench.now)
    assert bench.sums[0][1].weight == 2.0


def test_a_site_without_answers_says_so_above(bench: Bench) -> None:
    bench.open(task())
    bench.wait(DEADLINE_SHARE * DEADLINE)
    assert bench.troubles == ["no client of the site has answered; it waits for anna, bert"]
    bench.answer("anna", 2, 1, 1, 1)
    bench.answer("bert", 1, 1, 1, 1)
    assert len(bench.sums) == 1, "a late sum may still count above"


def test_a_site_whose_clients_are_all_in_trouble_says_so_above(bench: Bench) -> None:
    bench.open(task())
    bench.site.report_trouble(bench.sessions["anna"], "PtmUnavailable", 0.0, bench.now)
    assert not bench.troubles
    bench.site.report_trouble(bench.sessions["bert"], "PtmUnavailable", 0.0, bench.now)
    assert bench.troubles == ["no client of the site can work; bert: PtmUnavailable"]


def test_an_update_counts_once(bench: Bench) -> None:
    bench.open(task())
    given = bench.task("anna")
    assert given is not None
    bench.answer("anna", 2, 1, 1, 1)
    assert bench.send("anna", given.id, encoded(2, (1, 1, 1))) is Receipt.DUPLICATE
    bench.answer("bert", 1, 1, 1, 1)
    assert bench.send("anna", given.id, encoded(2, (1, 1, 1))) is Receipt.DUPLICATE
    assert [total.weight for _, total in bench.sums] == [3.0]


def test_a_task_that_comes_again_keeps_the_answers_or_gets_the_same_sum(bench: Bench) -> None:
    """Kills: a link that broke and makes the site begin again; a sum that is lost with a coordinator that restarted."""
    bench.open(task())
    bench.answer("anna", 2, 1, 1, 1)
    bench.open(task())
    assert bench.task("anna") is None
    bench.answer("bert", 1, 1, 1, 1)
    bench.open(task())
    assert [total for _, total in bench.sums] == [bench.sums[0][1]] * 2


def test_a_new_task_replaces_one_that_is_over_above(bench: Bench) -> None:
    bench.open(task())
    given = bench.task("bert")
    bench.answer("anna", 2, 1, 1, 1)
    bench.open(task(1))
    assert given is not None and bench.send("bert", given.id, encoded(1, (1, 1, 1))) is Receipt.TOO_LATE
    bench.answer("anna", 2, 1, 1, 1)
    bench.answer("bert", 1, 1, 1, 1)
    assert [(each.id.round, total.weight) for each, total in bench.sums] == [(1, 3.0)]


def test_an_earlier_task_is_played_again_if_the_coordinator_went_back_to_a_backup(bench: Bench) -> None:
    for round in (5, 3):
        bench.open(task(round))
        bench.answer("anna", 2, 1, 1, 1)
        bench.answer("bert", 1, 1, 1, 1)
    assert [each.id.round for each, _ in bench.sums] == [5, 3]


def test_a_restarted_relay_has_no_task_until_it_gets_one(bench: Bench) -> None:
    """Its client sends the update again when the task comes again."""
    with pytest.raises(UnknownRound, match="has not got this task"):
        bench.send("anna", TaskId("run-1", 4, "north/anna", Phase.UPDATE), encoded(2, (1, 1, 1)))


def test_the_last_round_adds_measurements_of_all_finalists(bench: Bench) -> None:
    bench.open(task(3, Phase.EVALUATE, **{FINALISTS: np.zeros((2, 2), np.float32)}))
    each = (Measurement(1.0, 4, 2), Measurement(3.0, 4, 0))
    for name in ("anna", "bert"):
        given = bench.task(name)
        assert given is not None
        bench.send(name, given.id, Update({}, 4, Measurement(3.0, 4, 1, 12), finalists=each))
    assert bench.sums[0][1] == merge([Update({}, 4, Measurement(3.0, 4, 1, 12), finalists=each)] * 2)


@pytest.mark.parametrize(
    ("update", "error"),
    [
        (Update({"losses": np.full(P, np.nan, np.float32)}, 2.0), InvalidTensor),
        (Update({"losses": np.zeros(P + 1, np.float32)}, 2.0), InvalidTensor),
        (Update({"gains": np.zeros(P, np.float32)}, 2.0), InvalidUpdate),
        (Update({"losses": np.zeros(P, np.float32)}, -1.0), InvalidUpdate),
        (Update({"losses": np.zeros(P, np.float32)}, 200.0), InvalidUpdate),
        (Update({"losses": np.full(P, -1.0, np.float32)}, 2.0), InvalidUpdate),
        (Update({"losses": np.zeros(P, np.float32)}, 2.0, Measurement(1e300, 4, 0)), InvalidUpdate),
    ],
)
def test_a_wrong_update_concerns_its_client_only(bench: Bench, update: Update, error: type[Exception]) -> None:
    bench.open(task())
    with pytest.raises(error):
        bench.send("anna", TaskId("run-1", 0, "north/anna", Phase.UPDATE), update)
    bench.answer("bert", 1, 1, 1, 1)
    assert [total.weight for _, total in bench.sums] == [1.0], "nobody waits for a client that was refused"
    bench.open(task(1))
    bench.answer("anna", 2, 1, 1, 1)
    bench.answer("bert", 1, 1, 1, 1)
    assert [total.weight for _, total in bench.sums] == [1.0, 3.0], "it takes part as before"


def test_an_update_for_another_client_is_refused(bench: Bench) -> None:
    bench.open(task())
    with pytest.raises(InvalidUpdate, match="north/bert"):
        bench.send("anna", TaskId("run-1", 0, "north/bert", Phase.UPDATE), encoded(2, (1, 1, 1)))


def test_an_update_may_leave_out_the_id_that_the_session_names(bench: Bench) -> None:
    """Kills: a relay that refuses clients which do not repeat the site's name."""
    bench.open(task())
    assert bench.send("anna", TaskId("run-1", 0, "anna", Phase.UPDATE), encoded(2, (1, 1, 1))) is Receipt.COUNTED


def test_names_have_owners_and_no_separator(bench: Bench) -> None:
    with pytest.raises(ClientIdTaken):
        bench.site.join(hello("anna", key="another"), bench.now)
    with pytest.raises(InvalidHello, match="'ward/anna' is not a name"):
        bench.site.join(hello("ward/anna"), bench.now)
    bench.site.remove("anna", bench.now)
    bench.site.join(hello("anna", key="another"), bench.now)


def test_the_ptm_is_told_above_if_all_clients_ask_the_same(bench: Bench) -> None:
    bench.site.report_ptm(bench.sessions["anna"], PtmIdentity("bert", "r1"))
    bench.site.report_ptm(bench.sessions["bert"], PtmIdentity("bert", "r2"))
    assert bench.ptms == [PtmIdentity("bert", "r1")]


def test_the_operator_of_a_site_sees_its_clients_and_cannot_stop_the_run(bench: Bench) -> None:
    bench.open(task())
    bench.answer("anna", 2, 1, 1, 1)
    status = bench.site.status()
    assert [(each.client_id, each.submitted) for each in status.members] == [("anna", True), ("bert", False)]
    with pytest.raises(Conflict, match="cannot stop the run"):
        bench.site.stop(bench.now)
    with pytest.raises(NoResultYet):
        bench.site.result()


def test_the_end_closes_the_round_and_tells_the_reason(bench: Bench) -> None:
    bench.open(task())
    bench.site.end(RunState.STOPPED, None)
    assert bench.task("anna") is None
    assert bench.site.status().state is RunState.STOPPED
    assert bench.site.next_deadline() is None


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("fed-bpt", {}, "those of fed-bpt with these settings do not add"),
        ("fed-bbpt", {"uplink": "scalars"}, "those of fed-bbpt with these settings do not add"),
        ("fed-sp", {}, "fed-sp sends its clients a model"),
    ],
)
def test_methods_that_do_not_add_are_refused_with_the_reason(name: str, options: dict[str, Any], reason: str) -> None:
    method = METHODS[name]
    settings, space = method.settings(method.config(name=name, **options)), SETTINGS.space
    assert isinstance(space, LatentSpace)
    with pytest.raises(InvalidJob, match=reason):
        check_adds(ClientMethod(method, settings, space), "float32")


def test_a_codec_that_sends_the_rest_later_is_refused_with_the_reason() -> None:
    """Kills: a relay that drops most of each sum in silence."""
    check_adds(client_method(RUN), "int8")
    with pytest.raises(InvalidJob, match="what an update leaves out follows in later ones"):
        check_adds(client_method(RUN), "topk+int8")
