"""What the log of a run tells its sinks, and which jobs have one."""

from pathlib import Path

import pytest

from fedbbpt.errors import InvalidInput, InvalidJob
from fedbbpt.job.config import Job, parse_job
from fedbbpt.sinks import opening, run_log
from fedbbpt.sinks.run_log import RunLog
from fedbbpt.types import Report
from tests.sinks import EVENT, REPORTS, SUMMARY, Recording


def test_every_sink_is_told_the_run_its_rounds_and_its_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sinks = [Recording(), Recording()]
    monkeypatch.setattr(run_log, "sinks_of", lambda section, folder: [("a", lambda: sinks[0]), ("b", lambda: sinks[1])])
    job = parse_job('[run]\nname = "tiny"\n[log]\notlp = "http://127.0.0.1:1"')
    log = RunLog(job, tmp_path)
    shown: tuple[Report, ...] = REPORTS[:1]
    log.follow("tiny-1", lambda since: shown[since:], lambda since: ())
    shown = REPORTS
    for _ in range(2):
        log.follow("tiny-1", lambda since: shown[since:], lambda since: (EVENT,) if since < EVENT.number else ())
    log.end(SUMMARY)
    log.close()
    for sink in sinks:
        (_, begun), *others = sink.calls
        assert (begun.key, begun.name, begun.run_id) == ("tiny-1", "tiny", "tiny-1")
        assert begun.settings["cohort.clients"] == 4
        assert not any(key.startswith("log.") for key in begun.settings)
        rounds = [("round", report) for report in REPORTS]
        assert others == [*rounds, ("event", EVENT), ("end", SUMMARY), ("close", None)]


def test_a_job_without_log_has_no_sinks(tmp_path: Path) -> None:
    assert not RunLog(Job(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_simulation_that_continues_keeps_its_key(tmp_path: Path) -> None:
    assert run_log.kept_key(tmp_path) == run_log.kept_key(tmp_path) != run_log.kept_key(tmp_path.parent)


def test_the_tools_of_a_run_do_not_change_its_identity() -> None:
    assert parse_job('[log]\ntensorboard = "logs"').digest("r") == Job().digest("r")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('mlflow = "localhost"', "log.mlflow: 'localhost' is no URI"),
        ('otlp = "localhost:4317"', "log.otlp: 'localhost:4317' is no HTTP URL"),
        ('wandb_mode = "on"', "log.wandb_mode = \"on\": input should be 'online' or 'offline'"),
    ],
)
def test_wrong_keys_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidJob, match="job:2") as caught:
        parse_job(f"[log]\n{text}")
    assert message in str(caught.value)


def test_a_missing_package_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fedbbpt.host.extras.find_spec", lambda name: None)
    for key, extra in (("tensorboard", "tensorboard"), ("mlflow", "mlflow"), ("wandb", "wandb"), ("otlp", "otel")):
        job = parse_job(f'[log]\n{key} = "http://x/"')
        with pytest.raises(InvalidInput, match=rf"log\.{key}: .* is not installed; pip install 'fedbbpt\[{extra}\]'"):
            RunLog(job, tmp_path)


def test_weights_and_biases_needs_an_account_to_be_online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    job = parse_job('[log]\nwandb = "project"')
    with pytest.raises(InvalidInput, match=r"log.wandb: no account of Weights & Biases is set up; WANDB_API_KEY"):
        list(opening.sinks_of(job.log, tmp_path))
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password key\n")
    assert [name for name, _ in opening.sinks_of(job.log, tmp_path)] == ["log.wandb"]
