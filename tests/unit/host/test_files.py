"""Atomic writes and digests of files."""

import hashlib
import os
from pathlib import Path

import pytest

from fedbbpt.host.files import atomic_write, sha256_of_file


def test_atomic_write_replaces_the_content_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    atomic_write(path, b"old and longer")
    atomic_write(path, "new, größer")
    assert path.read_text(encoding="utf-8") == "new, größer"
    assert os.listdir(tmp_path) == ["summary.json"]


def test_atomic_write_keeps_the_old_content_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: writing in place, and renaming before the content is on disk."""
    path = tmp_path / "summary.json"
    atomic_write(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"


def test_atomic_write_recovers_from_the_rest_of_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    (tmp_path / "summary.json.partial").write_bytes(b"half of a much longer content")
    atomic_write(path, b"whole")
    assert path.read_bytes() == b"whole"


def test_an_error_names_the_missing_folder_and_never_the_partial_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        atomic_write(tmp_path / "no" / "such" / "p.csv", b"")
    assert caught.value.filename == str(tmp_path / "no" / "such")
    path = tmp_path / "p.csv"
    (tmp_path / "p.csv.partial").mkdir()
    with pytest.raises(OSError) as caught_too:
        atomic_write(path, b"")
    assert caught_too.value.filename == str(path)


def test_atomic_write_keeps_a_secret_from_other_users(tmp_path: Path) -> None:
    path = tmp_path / "client.key"
    atomic_write(path, b"secret", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600


def test_sha256_of_file_is_the_digest_of_its_content(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"weights" * 100_000)
    assert sha256_of_file(path) == hashlib.sha256(b"weights" * 100_000).hexdigest()
