"""The files of a client survive its process, bit for bit."""

import stat
from dataclasses import replace
from pathlib import Path

import numpy as np

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


def test_a_truncated_file_holds_no_update(tmp_path: Path) -> None:
    keepsake = Keepsake(tmp_path)
    keepsake.save(TASK, UPDATE, {})
    file = tmp_path / "update.safetensors"
    file.write_bytes(file.read_bytes()[:20])
    assert keepsake.load(TASK) is None


def test_the_key_is_made_once_and_readable_by_its_user_only(tmp_path: Path) -> None:
    key = Keepsake(tmp_path).client_key()
    assert Keepsake(tmp_path).client_key() == key
    assert Keepsake(tmp_path / "other").client_key() != key
    assert stat.S_IMODE((tmp_path / "client.key").stat().st_mode) == 0o600
