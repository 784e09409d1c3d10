"""The laws of secure aggregation, on the state machines. Each docstring names the mutant that its test kills."""

import itertools
from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbbpt.errors import InvalidRequest, NotPrivate
from fedbbpt.secure.client import SecureClient
from fedbbpt.secure.fixed_point import summed
from fedbbpt.secure.graph import degree, graph, needed
from fedbbpt.secure.messages import (
    ATTEMPTS,
    Attempt,
    Consent,
    FromClient,
    FromServer,
    Inbox,
    Masked,
    Reveal,
    Roster,
    Shares,
    Signatures,
    Survivors,
)
from fedbbpt.secure.server import SecureServer, Step
from tests.secure import THRESHOLD, Parties, vectors


@pytest.mark.parametrize("clients", [3, 4, 7, 40])
def test_masks_cancel_in_the_sum_of_all(clients: int) -> None:
    """Mutant: both neighbours add their common mask, instead of one of them subtracting it."""
    answers = vectors(clients)
    parties = Parties(answers)
    parties.attempt(answers)
    assert parties.server.total is not None
    assert parties.server.total.clients == tuple(sorted(answers))
    np.testing.assert_array_equal(parties.server.total.values, summed(list(answers.values())))


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_any_viable_set_of_survivors_gives_exactly_its_sum_and_any_other_nothing(data: st.DataObject) -> None:
    """Mutant: the masks that dropped clients share with survivors stay in the sum (no seeds in a consent)."""
    clients = data.draw(st.integers(3, 9))
    answers = vectors(clients, seed=clients)
    masking = data.draw(st.sets(st.sampled_from(sorted(answers)), max_size=clients))
    parties = Parties(answers)
    parties.attempt(answers, masking)
    staying = sorted(answers.keys() - masking)
    least = needed(clients - 1, THRESHOLD)
    if len(staying) >= 3 and len(staying) - 1 >= least:
        assert parties.server.total is not None
        assert parties.server.total.clients == tuple(staying)
        expected = summed([answers[name] for name in staying])
        np.testing.assert_array_equal(parties.server.total.values, expected)
    else:
        assert parties.server.total is None
        assert parties.server.step is Step.MASKED


def test_a_sum_needs_only_the_threshold_of_the_survivors_after_their_masked_answers() -> None:
    """Mutant: the coordinator waits for the shares of all survivors."""
    answers = vectors(10)
    least = needed(9, THRESHOLD)
    dying = sorted(answers)[: 10 - least - 1]
    parties = Parties(answers)
    parties.attempt(answers, later=dying)
    assert parties.server.total is not None
    np.testing.assert_array_equal(parties.server.total.values, summed(list(answers.values())))


def lying_reveals(parties: Parties, liars: Collection[str], victims: int = 100) -> None:
    """Lets these clients change the first shares of their reveals."""
    for name in liars:
        take = parties.clients[name].take

        def lie(message: FromServer, take: Callable[[FromServer], list[FromClient]] = take) -> list[FromClient]:
            return [
                replace(reply, shares=tuple(share and share ^ (at < victims) for at, share in enumerate(reply.shares)))
                if isinstance(reply, Reveal)
                else reply
                for reply in take(message)
            ]

        parties.clients[name].take = lie  # type: ignore[method-assign]  # a client that is not ours


@pytest.mark.parametrize("victims", [1, 100])
@pytest.mark.parametrize("liar", ["client-0000", "client-0004", "client-0009"])
def test_wrong_shares_of_one_client_are_found_and_left_out(liar: str, victims: int) -> None:
    """Mutant: a sum by the first shares, whoever sent them, which the whole round is repeated for again and again."""
    answers = vectors(10)
    parties = Parties(answers)
    lying_reveals(parties, [liar], victims)
    for round in range(2):
        parties.attempt(answers, masking=["client-0005"] if round else [], round=round)
        assert parties.server.total is not None
        summed_up = [vector for name, vector in answers.items() if not round or name != "client-0005"]
        np.testing.assert_array_equal(parties.server.total.values, summed(summed_up))
        assert parties.server.blamed in (liar, None)
    if liar == "client-0000":
        assert parties.server.blamed == liar, "its shares come first"


@pytest.mark.parametrize(("clients", "liars"), [(3, ["client-0000"]), (10, ["client-0000", "client-0001"])])
def test_wrong_shares_without_spare_ones_end_the_attempt_with_a_sum_that_shows_it(
    clients: int, liars: list[str]
) -> None:
    """Mutant: an attempt that waits for further shares for ever, or whose wrong sum looks like a right one."""
    answers = vectors(clients)
    parties = Parties(answers)
    lying_reveals(parties, liars)
    parties.attempt(answers)
    assert parties.server.total is not None and parties.server.blamed is None
    assert int(parties.server.total.values[-1]) != clients


def test_fewer_reveals_than_the_threshold_give_nothing() -> None:
    """Mutant: a polynomial of a lower degree, from whose shares fewer clients learn a secret."""
    answers = vectors(10)
    least = needed(9, THRESHOLD)
    parties = Parties(answers)
    parties.attempt(answers, later=sorted(answers)[least:])
    assert parties.server.total is None
    assert parties.server.step is Step.REVEALS


def test_a_client_that_masked_and_dies_before_it_consents_leaves_the_next_attempt_to_the_others() -> None:
    """Mutant: a client that has signed one set of survivors refuses all others, although it has revealed nothing."""
    answers = vectors(8)
    parties = Parties(answers)
    parties.attempt(answers, masking=["client-0000"], later=["client-0001"])
    assert parties.server.total is None and parties.server.missing == {"client-0001"}
    parties.attempt(answers, masking=["client-0000", "client-0001"])
    assert parties.server.total is not None
    expected = summed([vector for name, vector in answers.items() if name not in ("client-0000", "client-0001")])
    np.testing.assert_array_equal(parties.server.total.values, expected)


def test_a_masked_answer_looks_random_and_differs_from_attempt_to_attempt() -> None:
    """Mutant: seeds of masks that do not depend on the attempt, so that two answers differ by their values alone."""
    answers = {name: np.zeros(400, np.uint64) for name in vectors(3)}
    parties = Parties(answers)
    parties.deliver()
    sent = []
    for number in range(2):
        parties.server.begin(number, 400)
        message = parties.server.sent["client-0000"][2]
        parties.clients["client-0000"].answer(number, answers["client-0000"])
        (masked,) = parties.clients["client-0000"].take(message)
        assert isinstance(masked, Masked)
        sent.append(masked.values)
    for values in (*sent, sent[0] - sent[1]):
        assert abs(np.unpackbits(values.view(np.uint8)).mean() - 0.5) < 0.02
        assert len(np.unique(values)) == 400


def test_a_round_is_revealed_for_one_set_of_survivors_also_in_a_later_epoch() -> None:
    """Mutant: a client that forgets for whom it has revealed: the difference of two sums is a client's values."""
    answers = vectors(6)
    parties = Parties(answers)
    parties.attempt(answers)
    assert parties.server.total is not None
    # The coordinator has forgotten the sum, as after a crash, and asks again.
    parties.open(8, {name: client.keys for name, client in parties.clients.items()})
    parties.attempt(answers, masking=["client-0000"])
    assert parties.server.total is None and parties.server.step is Step.CONSENTS
    # The same set is the same sum, and another round has other values.
    parties.attempt(answers)
    assert parties.server.total is not None
    np.testing.assert_array_equal(parties.server.total.values, summed(list(answers.values())))
    parties.attempt(answers, masking=["client-0000"], round=1)
    assert parties.server.total is not None


def test_a_coordinator_that_tells_clients_of_different_survivors_is_caught() -> None:
    """Mutant: a client that reveals without looking at the signatures of its neighbours."""
    answers = vectors(6)
    parties = Parties(answers)
    parties.deliver()
    parties.server.begin(0, 5)
    parties.answer(answers)
    parties.deliver_masked(())
    clients, attempt = parties.clients, parties.server.sent["client-0000"][2]
    assert isinstance(attempt, Attempt)
    # client-0000 and two others hear that all are there, and reveal; the others hear that client-0000 is not.
    revealed = [clients[f"client-000{index}"].take(Survivors(7, 0, ())) for index in range(3)]
    assert all(isinstance(reply, Reveal) for (reply,) in revealed)
    consents = {index: clients[f"client-000{index}"].take(Survivors(7, 0, (0,)))[0] for index in range(3, 6)}
    signatures = tuple((index, each.signature) for index, each in consents.items() if isinstance(each, Consent))
    with pytest.raises(NotPrivate, match="only 2 neighbours have signed"):
        clients["client-0003"].take(Signatures(7, 0, signatures))
    # Those that revealed for all do not sign another set.
    with pytest.raises(NotPrivate, match="two sets of survivors"):
        clients["client-0001"].take(Survivors(7, 0, (0,)))


def test_forged_signatures_do_not_count() -> None:
    """Mutant: signatures are counted and not verified."""
    answers = vectors(5)
    parties = Parties(answers)
    parties.attempt(answers, masking=["client-0004"], later=["client-0000"])
    client = parties.clients["client-0001"]
    forged = Ed25519PrivateKey.generate().sign(b"survivors")
    with pytest.raises(NotPrivate, match="only 0 neighbours"):
        client.take(Signatures(7, 0, tuple((index, forged) for index in (0, 2, 3))))


@pytest.mark.parametrize(
    ("dropped", "message"),
    [
        ((0,), "no subset of the roster with this client"),
        ((1, 2, 3), "2 survivors, with 1 of 4 neighbours"),
        ((1, 2), "3 survivors, with 2 of 4 neighbours"),
        ((5,), "no subset"),
        ((2, 1), "no subset"),
    ],
)
def test_survivors_below_the_threshold_get_nothing(dropped: tuple[int, ...], message: str) -> None:
    """Mutant: a client that does not count how many of its neighbours survive."""
    answers = vectors(5)
    parties = Parties(answers)
    parties.deliver()
    parties.server.begin(0, 5)
    parties.answer(answers)
    parties.deliver_masked(())
    with pytest.raises(NotPrivate, match=message):
        parties.clients["client-0000"].take(Survivors(7, 0, dropped))


@pytest.mark.parametrize("least", [4, 5])
def test_a_client_reveals_for_no_fewer_clients_than_the_noise_counts_on(least: int) -> None:
    """Mutant: a client that asks for LEAST_CLIENTS survivors only, whose shares of noise are too few."""
    answers = vectors(5)
    parties = Parties(answers, least=least)
    if least == 5:
        with pytest.raises(NotPrivate, match="4 survivors"):
            parties.attempt(answers, masking=["client-0000"])
    else:
        parties.attempt(answers, masking=["client-0000"])
        assert parties.server.total is not None
    with pytest.raises(NotPrivate, match="a roster of 3 clients"):
        Parties(vectors(3), least=least).deliver()


def test_a_client_masks_one_answer_in_an_attempt() -> None:
    """Mutant: the same attempt masks a second answer with the same masks, and their difference is bare."""
    answers = vectors(3)
    parties = Parties(answers)
    parties.deliver()
    client = parties.clients["client-0000"]
    attempt = Attempt(7, 0, 0)
    client.take(attempt)
    (first,) = client.answer(0, answers["client-0000"])
    (again,) = client.answer(0, answers["client-0001"])
    assert again is first
    with pytest.raises(NotPrivate, match="attempt 0 once more"):
        client.take(Attempt(7, 0, 1))
    with pytest.raises(NotPrivate, match=f"attempt {ATTEMPTS}"):
        client.take(Attempt(7, ATTEMPTS, 1))


def test_a_roster_is_refused_that_a_lying_coordinator_could_use() -> None:
    """Mutants: a roster of two; own keys replaced; one key twice; the number of an earlier epoch."""
    clients = {name: SecureClient(name, THRESHOLD) for name in ("a", "b", "c")}
    members = tuple((name, client.keys) for name, client in clients.items())
    client, stranger = clients["a"], SecureClient("a", THRESHOLD)
    for wrong, message in [
        (members[:2], "2 clients"),
        ((("a", stranger.keys), *members[1:]), "without this client and its keys"),
        ((members[0], ("b", clients["c"].keys), members[2]), "twice"),
        ((members[1], members[0], members[2]), "not sorted"),
    ]:
        with pytest.raises(NotPrivate, match=message):
            client.take(Roster(1, wrong))
    (shares,) = client.take(Roster(1, members))
    assert client.take(Roster(1, members)) == [shares]
    client.take(Roster(2, members))
    with pytest.raises(NotPrivate, match="an earlier epoch"):
        client.take(Roster(1, members))


def test_a_threshold_of_half_is_refused() -> None:
    """Mutant: a client that takes any threshold from the coordinator."""
    with pytest.raises(NotPrivate, match=r"threshold of 0\.5"):
        SecureClient("a", 0.5)


def test_different_rosters_for_different_clients_are_caught() -> None:
    """Mutant: boxes that are not bound to the digest of the roster."""
    names = sorted(vectors(4))
    other = SecureClient("client-0003", THRESHOLD)

    def forge(name: str, message: FromServer) -> FromServer:
        if isinstance(message, Roster) and name != "client-0000":
            members = tuple((each, other.keys if each == "client-0003" else keys) for each, keys in message.members)
            return replace(message, members=members) if name != "client-0003" else message
        return message

    parties = Parties(names, forge=forge)
    with pytest.raises(NotPrivate, match="another roster"):
        parties.deliver()


def test_one_neighbour_that_seals_nonsense_does_no_harm() -> None:
    """Mutant: a client that gives up when one box cannot be opened, so that one bad client stops all others."""
    answers = vectors(6)
    parties = Parties(answers)
    original = parties.clients["client-0000"].take

    def nonsense(message: FromServer) -> list[object]:
        replies = original(message)
        return [
            replace(reply, boxes=tuple(bytes(len(box)) for box in reply.boxes)) if isinstance(reply, Shares) else reply
            for reply in replies
        ]

    parties.clients["client-0000"].take = nonsense  # type: ignore[method-assign, assignment]  # a client that lies
    parties.attempt(answers)
    # Nobody has a share of client-0000's secret, so the attempt ends with nothing, and nobody has raised.
    assert parties.server.total is None
    assert parties.server.step is Step.REVEALS


def test_messages_of_another_attempt_or_epoch_are_ignored_and_wrong_ones_refused() -> None:
    """Mutant: a coordinator that takes what belongs to another attempt."""
    answers = vectors(4)
    parties = Parties(answers)
    assert not parties.server.take("client-0000", Shares(6, ()))
    with pytest.raises(InvalidRequest, match="boxes"):
        parties.server.take("client-0000", Shares(7, ()))
    parties.deliver()
    parties.server.begin(3, 5)
    masked = Masked(7, 0, 3, answers["client-0000"])
    assert not parties.server.take("client-0000", replace(masked, attempt=1))
    assert not parties.server.take("stranger", masked)
    with pytest.raises(InvalidRequest, match=r"masked\.values"):
        parties.server.take("client-0000", replace(masked, values=masked.values[:3]))
    assert parties.server.take("client-0000", masked)
    assert not parties.server.take("client-0000", masked)


@pytest.mark.parametrize("clients", [3, 31, 32, 64, 128, 512])
def test_the_graph_is_regular_mutual_and_joined(clients: int) -> None:
    """Mutant: neighbours on one side of the circle only."""
    found = graph(clients, THRESHOLD, bytes(32))
    assert {len(neighbours) for neighbours in found} == {degree(clients, THRESHOLD)}
    assert all(each in found[other] and each != other for each in range(clients) for other in found[each])
    reached, edge = {0}, {0}
    while edge:
        edge = {other for each in edge for other in found[each]} - reached
        reached |= edge
    assert len(reached) == clients
    assert clients < 128 or degree(clients, THRESHOLD) < clients / 2


def test_another_roster_gives_another_graph() -> None:
    """Mutant: an order on the circle that the roster does not decide."""
    first, second = (graph(128, THRESHOLD, bytes([each]) * 32) for each in (0, 1))
    assert first != second


@pytest.mark.parametrize("neighbours", range(2, 60))
def test_more_than_half_of_the_neighbours_are_needed_whatever_the_threshold(neighbours: int) -> None:
    """Mutant: the share of the neighbours alone, which rounds down to a half where they are few."""
    for threshold in (0.51, 0.67, 1.0):
        assert neighbours / 2 < needed(neighbours, threshold) <= neighbours


def test_an_inbox_of_a_wrong_length_is_refused() -> None:
    """Mutant: boxes are assigned to neighbours without a look at their number."""
    parties = Parties(vectors(3))
    client = parties.clients["client-0000"]
    client.take(parties.server.roster)
    with pytest.raises(NotPrivate, match="0 boxes"):
        client.take(Inbox(7, ()))
    with pytest.raises(NotPrivate, match="before all shares"):
        client.take(Attempt(7, 0, 0))
    assert SecureServer(1, {name: each.keys for name, each in parties.clients.items()}, THRESHOLD).attempts_left == 16
    assert list(itertools.islice(parties.server.missing, 1))
