"""The files of a client survive its process, bit for bit."""

import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.client.keepsake import Keepsake
from fedbbpt.types import Measurement, Phase, TaskId, Update

TASK = TaskId("run", 3, "a", Phase.UPDATE)
UPDATE = Update(
    {"x": np.array([0.1, -2.5], np.float32), "empty": np.zeros((0, 3)), "s": np.array(1e-300)},
    1 / 3,
    Measurement(0.1 + 0.2, dev_examples=3, dev_correct=None, queries=7),
    finalists=(Measurement(1 / 3, dev_examples=3, dev_correct=2), Measurement(2.5, dev_examples=3, dev_correct=None)),
)


def test_an_update_comes_back_bit_for_bit(tmp_path: Path) -> None:
    Keepsake(tmp_path).save(TASK, UPDATE, {})
    kept = Keepsake(tmp_path).load(TASK)
    assert kept is not None
    assert replace(kept, arrays={}) == replace(UPDATE, arrays={})
    assert list(kept.arrays) == list(UPDATE.arrays)
    for name, array in UPDATE.arrays.items():
        assert kept.arrays[name].dtype == array.dtype and kept.arrays[name].tobytes() == array.tobytes()


def test_private_arrays_belong_to_their_run(tmp_path: Path) -> None:
    keepsake, private = Keepsake(tmp_path), {"weights": np.array([0.5, 1e-30], np.float32)}
    assert keepsake.load_private("run") == {}
    keepsake.save(TASK, UPDATE, private)
    assert Keepsake(tmp_path).load_private("run")["weights"].tobytes() == private["weights"].tobytes()
    assert keepsake.load_private("another") == {}
    update = keepsake.load(TASK)
    assert update is not None and list(update.arrays) == list(UPDATE.arrays)


def test_another_task_finds_no_update(tmp_path: Path) -> None:
    keepsake = Keepsake(tmp_path)
    assert keepsake.load(TASK) is None
    keepsake.save(TASK, UPDATE, {})
    assert keepsake.load(TaskId("run", 4, "a", Phase.UPDATE)) is None
    assert keepsake.load(TaskId("run", 3, "a", Phase.EVALUATE)) is None


def test_shorter_updates_replace_longer_ones(tmp_path: Path) -> None:
    """Kills: a file whose old end is read as a part of the new update."""
    for round, length in enumerate((100, 50, 3, 80)):
        task = replace(TASK, round=round)
        Keepsake(tmp_path).save(task, Update({"x": np.arange(length)}, 1.0), {})
        kept = Keepsake(tmp_path).load(task)
        assert kept is not None and kept.arrays["x"].tolist() == list(range(length))


@pytest.mark.parametrize("spoil", [lambda data: data[:20], lambda data: data[:-1], lambda data: data[:50] + b"?" * 9])
def test_a_save_that_was_cut_off_leaves_the_one_before(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    keepsake, earlier = Keepsake(tmp_path), replace(TASK, round=2)
    keepsake.save(earlier, UPDATE, {"weights": np.ones(2)})
    keepsake.save(TASK, UPDATE, {"weights": np.zeros(2)})
    last = tmp_path / "update-0"
    last.write_bytes(spoil(last.read_bytes()))
    after = Keepsake(tmp_path)
    assert after.load_private("run")["weights"].tolist() == [1, 1]
    assert after.load(TASK) is None and after.load(earlier) is not None
    after.save(TASK, UPDATE, {})
    assert Keepsake(tmp_path).load(TASK) is not None


def test_the_key_is_made_once_and_readable_by_its_user_only(tmp_path: Path) -> None:
    key = Keepsake(tmp_path).client_key()
    assert Keepsake(tmp_path).client_key() == key
    assert Keepsake(tmp_path / "other").client_key() != key
    Keepsake(tmp_path).save(TASK, UPDATE, {})
    for name in ("client.key", "update-1"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
