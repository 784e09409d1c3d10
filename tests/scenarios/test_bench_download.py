"""`fedbbpt bench download`, with real processes."""

import json

import pytest

from fedbbpt.bench.rounds.download import Downloads
from tests.command_line import run_command


@pytest.mark.slow
def test_bench_download_pairs_downloads_with_bare_streams(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = run_command(("bench", "download", "--mebibytes", "3", "--repeats", "2", "--json"), monkeypatch, capsys)
    assert ended.code == 0, ended.message
    found = json.loads(ended.out)
    assert found["size"] == 3 * 2**20 and found["share"] > 0
    assert all(len(found[name]) == 2 and min(found[name]) >= 0 for name in ("bare", "own", "bare_cpu", "own_cpu"))


def test_shares_are_medians_over_pairs() -> None:
    """Kills: a ratio of medians, of measurements that ran at different times."""
    found = Downloads(1, bare=[1.0, 10.0, 3.0], own=[2.0, 40.0, 5.0], bare_cpu=[1.0, 1.0, 1.0], own_cpu=[4.0, 5.0, 2.0])
    assert (found.share, found.cpu_share) == (0.5, 0.25)
