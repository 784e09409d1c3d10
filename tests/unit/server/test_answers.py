"""The sum of a round's updates has the same bits, whether they are kept decoded or read back from the store."""

from pathlib import Path

import numpy as np
import pytest

from fedbbpt.errors import InvalidUpdate
from fedbbpt.federation.simulation import simulate
from fedbbpt.federation.splits import prepare
from fedbbpt.server.answers import Answers
from fedbbpt.types import Measurement, Update, merge
from tests.tiny_run import Course, fake_ptm, job, undisturbed

DRAW = np.random.default_rng(3)
ENCODED = {
    name: Update({"x": DRAW.normal(0, 10.0**place, 50)}, 0.1 * (place + 1), Measurement(0.1 * place, 3, 1, 7))
    for place, name in enumerate("abcdef")
}


def decode(client_id: str, update: Update) -> Update:
    """Stands for a codec: doubles the numbers."""
    return Update({"x": 2 * update.arrays["x"]}, update.weight, update.measurement, client_id)


def bits(update: Update) -> tuple[bytes, float, Measurement]:
    return update.arrays["x"].tobytes(), update.weight, update.measurement


@pytest.mark.parametrize("limit", [0, 3 * 50 * 8, 1 << 20])
@pytest.mark.parametrize("arrival", ["abcdef", "fedcba", "cfabde"])
def test_sum_does_not_depend_on_arrival_or_memory(limit: int, arrival: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedbbpt.server.answers.KEPT_BYTES", limit)
    answers = Answers((), decode, linear=True)
    for name in arrival:
        answers.add({name: decode(name, ENCODED[name])})
        answers.trim([name])
    counted = answers.counted("abdef", lambda: ENCODED)
    assert len(counted) == (5 if limit == 1 << 20 else 1)
    assert bits(merge(counted)) == bits(merge([decode(name, ENCODED[name]) for name in "abdef"]))


def test_method_that_is_not_linear_gets_all_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedbbpt.server.answers.KEPT_BYTES", 0)
    answers = Answers(ENCODED.items(), decode, linear=False)
    answers.trim("abc")
    assert [update.client_id for update in answers.counted("bcd", dict)] == ["b", "c", "d"]


def test_updates_that_could_not_be_stored_are_taken_back() -> None:
    answers = Answers((), decode, linear=True)
    answers.add({name: decode(name, ENCODED[name]) for name in "ab"})
    answers.remove("a")
    assert [bits(each) for each in answers.counted("b", dict)] == [bits(decode("b", ENCODED["b"]))]
    with pytest.raises(KeyError):
        answers.counted("ab", dict)


def test_stored_updates_are_checked_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedbbpt.server.answers.KEPT_BYTES", 0)

    def refuse(client_id: str, update: Update) -> Update:
        raise InvalidUpdate("does not fit", where=client_id)

    with pytest.raises(InvalidUpdate, match="a: does not fit"):
        Answers(ENCODED.items(), refuse, linear=True)


@pytest.mark.parametrize("method", ["fed-cma", "fed-bpt", "fed-bbpt", "fed-readout"])
def test_run_without_memory_for_updates_ends_with_the_same_bits(
    data: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = prepare(job(data, method=method))
    before = undisturbed(splits)
    monkeypatch.setattr("fedbbpt.server.answers.KEPT_BYTES", -1)
    assert Course.of(*simulate(splits, fake_ptm())) == before
