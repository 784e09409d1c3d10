"""Jobs with asynchronous rounds: those that are refused, and how many updates a round waits for."""

import pytest

from fedbbpt.errors import InvalidJob
from fedbbpt.federation.assemble import cohort_rules
from fedbbpt.job.config import parse_job

ASYNC = '[cohort]\nclients = 10\nmode = "async"\n'
FEDAVG = '[method]\nname = "fedavg-bbt"\n'


def test_buffer_is_half_the_clients_unless_the_job_says_otherwise() -> None:
    rules = cohort_rules(parse_job(ASYNC + "quorum = 0.5\n" + FEDAVG))
    assert (rules.buffer, rules.enough, rules.quorum, rules.max_staleness, rules.asked) == (5, 5, 3, 4, None)
    rules = cohort_rules(parse_job(ASYNC + "buffer = 8\nmax_staleness = 2\n" + FEDAVG))
    assert (rules.buffer, rules.enough, rules.quorum, rules.max_staleness) == (8, 8, 4, 2)
    assert cohort_rules(parse_job(FEDAVG)).buffer == 0


@pytest.mark.parametrize(
    "method",
    [
        FEDAVG,
        FEDAVG + 'sends = "best"\n',
        '[method]\nname = "fed-bbpt"\n',
        '[method]\nname = "fed-bbpt"\nuplink = "scalars"\n',
        '[task.prompt]\nkind = "text"\n[method]\nname = "fed-bbpt"\ngenerator = "categorical"\n',
    ],
)
def test_methods_whose_updates_are_points_take_stale_ones(method: str) -> None:
    assert parse_job(ASYNC + method).cohort.mode == "async"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ASYNC + '[method]\nname = "fed-cma"\n', "derivatives by the mixtures of the candidates of one round"),
        (ASYNC + '[method]\nname = "fed-cma"\nstep = "ranks"\n', "losses of the candidates of one round"),
        (ASYNC + '[method]\nname = "fed-bpt"\n', "ranks the clients by their losses"),
        (ASYNC + '[method]\nname = "fed-readout"\n', "sums over examples at one readout"),
        (ASYNC + '[method]\nname = "fed-sp"\n', "the owner tunes between two rounds"),
        (ASYNC + FEDAVG + '[task]\nviews = [""]\n', "a readout is fitted to all clients at one prompt"),
        (ASYNC + "buffer = 11\n" + FEDAVG, "buffer.*11 is more than cohort.clients = 10.*at most 10"),
        (ASYNC + "size = 3\n" + FEDAVG, "asynchronous rounds ask every client that is free.*cohort.buffer"),
        ("[cohort]\nbuffer = 3\n", 'it is for asynchronous rounds.*cohort.mode = "async" as well'),
        ("[cohort]\nmax_staleness = 3\n", "it is for asynchronous rounds"),
        ('[cohort]\nmode = "asynch"\n', "mode"),
    ],
)
def test_what_cannot_be_right_is_refused_in_words(text: str, message: str) -> None:
    with pytest.raises(InvalidJob, match=message):
        parse_job(text)
