"""A damaged store: what opens is the undisturbed run, and everything else is refused in words, never with a traceback.

`python -m tests.robustness.test_store_damage [FLIPS]` flips random bits for as long as one likes, and counts the ends.
"""

import random
import sys
import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.errors import StoreDamaged, StoreError, StoreMismatch, StoreTooNew
from fedbbpt.server.stores.rows import RunRecord
from fedbbpt.server.stores.sqlite import SqliteStore
from fedbbpt.server.stores.sqlite_file import PAGE_BYTES
from fedbbpt.types import Arrays, Measurement, Member, Phase, Report, Result, Snapshot, TaskId, Update

RUN = RunRecord("run-1", 2**64 - 1, "digest", "2026-01-01T00:00:00+00:00")
CLIENTS, ROUNDS = 4, 15
MEMBERS = [Member(f"client-{index}", f"key-{index}", 50, since=0) for index in range(CLIENTS)]
REFUSED = (StoreDamaged, StoreMismatch, StoreTooNew)
"""The header of a database holds its version, so some bits make it one of another version or of no version."""

State = dict[str, bytes]
"""The files of a store by name."""


def reports(rounds: int) -> tuple[Report, ...]:
    return tuple(Report(round, CLIENTS, 1 / (round + 3), 0.5, None, 40, 0.1) for round in range(rounds))


def submit(store: SqliteStore, round: int, members: list[Member]) -> None:
    rng = np.random.default_rng(round)
    for member in members:
        update = Update({"losses": rng.normal(size=20).astype(np.float32)}, 50.0, Measurement(1.0, 50, 30, 1000))
        store.put_updates([(TaskId("run-1", round, member.client_id, Phase.UPDATE), update)])


def play(store: SqliteStore) -> None:
    """Plays the rounds, and lets half of the clients answer to the open one."""
    rng = np.random.default_rng(0)
    store.put_members(MEMBERS)
    for round in range(ROUNDS):
        submit(store, round, MEMBERS)
        done = reports(round + 1)
        state = {"mean": rng.normal(size=60), "path": rng.normal(size=60)}
        best = Result(state["mean"].astype(np.float32), done[-1])
        changed = [replace(member, counted=round) for member in MEMBERS]
        store.commit(Snapshot(round + 1, state, (best,), 40 * round, None, done), changed)
    submit(store, ROUNDS, MEMBERS[: CLIENTS // 2])


def files(folder: Path) -> State:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def lay(folder: Path, state: State) -> Path:
    """Makes the folder hold these files only, and returns the path of the database."""
    for path in folder.iterdir():
        path.unlink()
    for name, data in state.items():
        (folder / name).write_bytes(data)
    return folder / "run.db"


def contents(path: Path) -> list[object]:
    """Opens the store, and returns everything in it."""
    with closing(SqliteStore(path, RUN)) as store:
        snapshot = store.load()
        assert snapshot is not None
        found: list[object] = [store.run, store.members(), snapshot.round, snapshot.queries, snapshot.reports]
        found += [bits(snapshot.state), *((bits({"z": best.z}), best.measured) for best in snapshot.finalists)]
        updates = store.updates(ROUNDS).items()
        return found + [(name, bits(each.arrays), each.weight, each.measurement) for name, each in updates]


def bits(arrays: Arrays) -> list[tuple[str, str, bytes]]:
    return sorted((name, str(array.dtype), array.tobytes()) for name, array in arrays.items())


def crashed_and_closed(folder: Path) -> tuple[State, State]:
    """Returns the files after a kill -9 in the last round, and after a clean end."""
    with closing(SqliteStore(folder / "run.db", RUN)) as store:
        play(store)
        crashed = files(folder)
    return crashed, files(folder)


def flipped(state: State, name: str, bit: int) -> State:
    data = bytearray(state[name])
    data[bit // 8] ^= 1 << bit % 8
    return {**state, name: bytes(data)}


def end_of(folder: Path, state: State, name: str, bit: int, undisturbed: list[object]) -> str:
    """Returns how a start ends after one bit of a file has been flipped. Any error but a StoreError is raised."""
    path = lay(folder, flipped(state, name, bit))
    try:
        return "undisturbed" if contents(path) == undisturbed else f"another state after bit {bit} of {name}"
    except StoreError as error:
        assert str(path) in str(error)
        assert error.fix
        return type(error).__name__ if isinstance(error, REFUSED) else str(error)


def structure(name: str, data: bytes) -> list[int]:
    """Returns the bits of SQLite's own headers: of the file and its pages, or of the log and its frames."""
    starts = range(0, len(data), PAGE_BYTES) if name == "run.db" else range(32, len(data), 24 + PAGE_BYTES)
    header, of_each = (100, 8) if name == "run.db" else (32, 24)
    places = {*range(header), *(start + byte for start in starts for byte in range(of_each))}
    return [8 * place + bit for place in sorted(places) for bit in range(8)]


class Damage:
    """The files of a store whose coordinator was killed, and of one that ended, to be damaged in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.states = crashed_and_closed(folder)
        self._undisturbed = contents(lay(folder, self.states[0]))
        assert contents(lay(folder, self.states[1])) == self._undisturbed

    def flip(self, state: State, name: str, bit: int) -> str:
        """Returns how a start ends after one bit of a file has been flipped."""
        return end_of(self._folder, state, name, bit, self._undisturbed)

    def flip_any(self, flips: int, seed: int) -> Counter[str]:
        """Flips as many random bits, one at a time, and counts the ends."""
        rng, counted = random.Random(seed), Counter[str]()
        cases = [(state, name) for state in self.states for name in state]
        for _ in range(flips):
            state, name = rng.choice(cases)
            counted[self.flip(state, name, rng.randrange(8 * len(state[name])))] += 1
        return counted


@pytest.fixture
def damage(tmp_path: Path) -> Damage:
    return Damage(tmp_path)


def refused_or_undisturbed(counted: Counter[str]) -> bool:
    return set(counted) <= {"undisturbed", *(error.__name__ for error in REFUSED)}


def test_a_flipped_bit_never_leads_to_another_state(damage: Damage) -> None:
    counted = damage.flip_any(100, seed=0)
    assert refused_or_undisturbed(counted), counted
    assert counted["StoreDamaged"] > 25


@pytest.mark.slow
@pytest.mark.parametrize(
    ("closed", "name"), [(False, "run.db"), (True, "run.db"), (False, "run.db-wal")], ids=["killed", "closed", "log"]
)
def test_no_bit_of_the_structure_leads_to_another_state(damage: Damage, name: str, closed: bool) -> None:
    state = damage.states[closed]
    bits = structure(name, state[name])
    counted = Counter(damage.flip(state, name, bit) for bit in random.Random(0).sample(bits, 500))
    assert refused_or_undisturbed(counted), counted


def test_a_damaged_log_is_refused_rather_than_cut_short(damage: Damage) -> None:
    """Kills: SQLite's own recovery, which takes the first frame that does not match for the end of the log."""
    crashed = damage.states[0]
    last_page = 8 * (len(crashed["run.db-wal"]) - PAGE_BYTES)
    assert damage.flip(crashed, "run.db-wal", last_page + 8 * PAGE_BYTES - 1) == "StoreDamaged"


def test_a_log_that_ends_in_a_torn_frame_is_read_up_to_it(tmp_path: Path) -> None:
    """As a power cut leaves it while a transaction is written that nobody has acknowledged."""
    crashed, _ = crashed_and_closed(tmp_path)
    undisturbed = contents(lay(tmp_path, crashed))
    torn = crashed["run.db-wal"] + crashed["run.db-wal"][32:1000]
    assert contents(lay(tmp_path, {**crashed, "run.db-wal": torn})) == undisturbed


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        flips = int(sys.argv[1]) if sys.argv[1:] else 1500
        print(dict(Damage(Path(made)).flip_any(flips, seed=random.randrange(2**32))))
