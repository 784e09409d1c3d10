"""The folder of many runs, without a network: requests, restarts, damage."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from fedbbpt.errors import Conflict, InvalidInput, InvalidJob, RunNameTaken, StoreLocked, TooManyRuns, UnknownRun
from fedbbpt.federation import assemble, served_runs
from fedbbpt.federation.assemble import hello
from fedbbpt.federation.prompt_file import PromptCard, write_prompt
from fedbbpt.federation.run_folder import prompt_card
from fedbbpt.federation.served_runs import RunFolders
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.identity.callers import Caller
from fedbbpt.identity.roles import Role
from fedbbpt.job.config import Job
from fedbbpt.job.job_file import job_text
from fedbbpt.limits import MAX_RUN_TOKENS, MAX_START_BYTES
from fedbbpt.server.hosted_run import Submission
from fedbbpt.server.live_run import LiveRun
from fedbbpt.server.metrics import families
from fedbbpt.server.runs import Runs
from fedbbpt.types import NewRun, PtmIdentity, Receipt, Report, Result
from tests.tiny_run import fake_ptm, job


@pytest.fixture
def new(splits: Splits) -> NewRun:
    return NewRun("", job_text(splits.job), "127.0.0.1:7001", "r1")


class Hub:
    """The runs of a folder, as a process has them from its start to its end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.start()

    def start(self) -> None:
        self.folders = RunFolders(self._folder)
        self.runs = Runs(self.folders.runs, self.folders, self.folders.broken)

    def restart(self) -> None:
        self.folders.close()
        self.start()

    @property
    def names(self) -> list[str]:
        return [run.name for run in self.runs]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(tmp_path / "runs")
    yield hub
    hub.folders.close()


def test_a_request_is_kept_and_may_be_repeated(hub: Hub, new: NewRun) -> None:
    first = hub.runs.submit(new)
    assert first.name == "tiny" and hub.runs.named("") is first
    assert hub.runs.submit(new) is first
    hub.runs.submit(replace(new, name="other", tokens=(LINE,)))
    for different in (replace(new, ptm_revision="r2"), replace(new, job=new.job + "# changed\n")):
        with pytest.raises(RunNameTaken, match="tiny: another run has this name; another --name, or delete that run"):
            hub.runs.submit(different)
    hub.restart()
    assert hub.names == ["other", "tiny"]
    again = hub.runs.named("tiny").coordinator.settings
    assert again == first.coordinator.settings and again.ptm_revision == "r1"
    assert hub.runs.caller("a" * 64) == Caller("north", frozenset({Role.CLIENT}), frozenset({"other"}), "a" * 64)
    assert hub.runs.caller("b" * 64) is None
    assert hub.runs.submit(new).coordinator.settings.run_id == again.run_id


LINE = f"north client {'a' * 64}"

REFUSED: dict[str, tuple[dict[str, object], type[Exception], str]] = {
    "a name that leads elsewhere": ({"name": "../x"}, InvalidInput, "name: '../x' is not a name of a run; at most 64"),
    "a hidden name": ({"name": ".x"}, InvalidInput, "'.x' is not a name"),
    "no job": ({"job": "[run]\nround = 3"}, InvalidJob, "the job:2: unknown key 'run.round'"),
    "a large job": ({"job": "#" * 2**21}, InvalidInput, "job: the job is too large; at most 1048576 bytes"),
    "no digest": ({"tokens": ("north client secret",)}, InvalidInput, "tokens:1: not a line of a tokens file"),
    "many tokens": ({"tokens": (LINE,) * (MAX_RUN_TOKENS + 1)}, InvalidInput, "tokens: 1025 tokens; at most 1024"),
    "an operator's": ({"tokens": (LINE.replace("client", "operator"),)}, InvalidInput, "a token of the role operator"),
    "no address": ({"ptm_address": "nowhere"}, InvalidInput, "ptm_address: "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_invalid_request_leaves_nothing(case: str, hub: Hub, new: NewRun, tmp_path: Path) -> None:
    changes, error, words = REFUSED[case]
    with pytest.raises(error, match=words.replace("[", r"\[")):
        hub.runs.submit(replace(new, **changes))  # type: ignore[arg-type]  # of several types
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["lock"]


def test_the_number_of_runs_is_limited(hub: Hub, new: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_runs, "MAX_RUNS", 1)
    hub.runs.submit(new)
    with pytest.raises(TooManyRuns, match="`fedbbpt runs delete`"):
        hub.runs.submit(replace(new, name="another"))


def test_a_run_is_named_if_there_are_several_that_go_on(hub: Hub, new: NewRun) -> None:
    with pytest.raises(UnknownRun, match="the coordinator has no run; submit one first"):
        hub.runs.named("")
    hub.runs.submit(new)
    second = hub.runs.submit(replace(new, name="second"))
    with pytest.raises(UnknownRun, match="the coordinator has 2 runs; the name of one: second, tiny"):
        hub.runs.named("")
    with pytest.raises(UnknownRun, match="no run 'third'; one of the coordinator's runs: second, tiny"):
        hub.runs.named("third")
    hub.runs.named("tiny").coordinator.stop(0.0)
    assert hub.runs.named("") is second


def test_only_a_run_that_has_ended_is_deleted(hub: Hub, new: NewRun, tmp_path: Path) -> None:
    run = hub.runs.submit(new)
    with pytest.raises(Conflict, match="tiny: the run is waiting; stop it; then it can be deleted"):
        hub.runs.delete("tiny")
    run.coordinator.stop(0.0)
    hub.runs.delete("tiny")
    assert hub.names == [] and not (tmp_path / "runs/tiny").exists()
    assert hub.runs.submit(new) is not run, "its name is free"


def play(run: LiveRun, splits: Splits) -> None:
    """Plays a run to its end with one client, as its service would."""
    coordinator = run.coordinator
    session, settings = coordinator.join(hello("anna", "key", len(splits.train[0])), 0.0)
    coordinator.report_ptm(session, PtmIdentity("fake", "r1", "float32"))
    agent = assemble.client(settings, splits.train[0], splits.dev[0], fake_ptm())
    while not coordinator.state.ended:
        with run.notifying():
            task = coordinator.task_for(session)
            assert task is not None
            assert coordinator.submit_all([Submission(session, task.id, agent.answer(task))], 0.0) == [Receipt.COUNTED]


def test_a_continued_run_has_its_records_without_gaps_or_doubles(hub: Hub, data: Path, tmp_path: Path) -> None:
    splits = prepare(job(data, rounds=2, clients=1))
    play(hub.runs.submit(NewRun("", job_text(splits.job))), splits)
    folder = tmp_path / "runs/tiny"
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [0, 1, 2]
    assert json.loads((folder / "summary.json").read_text())["state"] == "finished"
    card = PromptCard.model_validate_json(hub.runs.named("tiny").card())
    assert (card.ptm, card.ptm_revision, card.examples) == ("fake", "r1", len(splits.train[0]))
    (folder / "metrics.jsonl").write_text("\n".join([lines[0], lines[0], lines[2][:9]]))  # as a crash may leave it
    assert hub.runs.continue_run("tiny", 3).coordinator.settings.rounds == 6
    assert not (folder / "summary.json").exists()
    hub.restart()
    play(hub.runs.named("tiny"), splits)
    found = [json.loads(line)["round"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert found == [0, 1, 2, 3, 4, 5, 6]
    with pytest.raises(InvalidInput, match="rounds: 0; from 1 to 100000"):
        hub.runs.continue_run("tiny", 0)


def test_a_run_is_not_continued_beyond_its_privacy_budget(hub: Hub, data: Path) -> None:
    sections = job(data, rounds=2, clients=1).model_dump()
    splits = prepare(Job.model_validate({**sections, "privacy": {"epsilon": 3.0}}))
    coordinator = hub.runs.submit(NewRun("", job_text(splits.job))).coordinator
    session, settings = coordinator.join(hello("client-0000", "key", len(splits.train[0])), 0.0)
    agent = assemble.client(settings, splits.train[0], splits.dev[0], fake_ptm())
    while (task := coordinator.task_for(session)) is not None:
        coordinator.submit_all([Submission(session, task.id, agent.answer(task))], 0.0)
    ended = coordinator.status()
    assert ended.privacy is not None and ended.privacy.epsilon <= 3.0
    with pytest.raises(InvalidInput, match="1 more would exceed the privacy budget") as error:
        hub.runs.continue_run("tiny", 1)
    assert error.value.fix == "a new run, whose epsilon adds to that of this one"
    assert hub.runs.named("tiny").coordinator.status() == ended


def test_metrics_tell_rounds_members_updates_and_the_store(hub: Hub, data: Path) -> None:
    splits = prepare(job(data, rounds=2, clients=1))
    hub.runs.submit(NewRun("waiting", job_text(splits.job)))
    play(hub.runs.submit(NewRun("", job_text(splits.job))), splits)
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families(hub.runs)
        for sample in family.samples
    }
    assert found["fedbbpt_run_round_seconds_count", "tiny"] == 3
    assert found["fedbbpt_run_state", "finished", "tiny"] == found["fedbbpt_run_state", "waiting", "waiting"] == 1
    assert found["fedbbpt_run_members", "all", "tiny"] == 1 and found["fedbbpt_run_members", "all", "waiting"] == 0
    assert found["fedbbpt_run_members", "connected", "tiny"] == 0
    assert found["fedbbpt_run_queries_total", "tiny"] == hub.runs.named("tiny").coordinator.status().queries > 0
    # The last update of a round is stored as the state that follows from it.
    assert found["fedbbpt_run_store_seconds_count", "commit", "tiny"] == 4
    assert found["fedbbpt_run_store_seconds_count", "commit", "waiting"] == 0


def test_a_damaged_run_does_not_keep_the_others_from_going_on(hub: Hub, new: NewRun, tmp_path: Path) -> None:
    for name in ("bad", "good", "ugly"):
        hub.runs.submit(replace(new, name=name))
    hub.folders.close()
    (tmp_path / "runs/bad/run.db").write_bytes(b"no database" * 100)
    (tmp_path / "runs/ugly/run.json").write_text("{}")
    hub.start()
    assert hub.names == ["good"]
    for name in ("bad", "ugly"):
        with pytest.raises(Conflict, match=f"{name}: the run cannot be opened: "):
            hub.runs.named(name)
        with pytest.raises(RunNameTaken):
            hub.runs.submit(replace(new, name=name))


def test_a_folder_belongs_to_one_coordinator(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(StoreLocked, match="another coordinator has it open; another --state"):
        RunFolders(tmp_path / "runs")


def test_a_single_run_takes_no_others(hub: Hub, new: NewRun) -> None:
    run = hub.runs.submit(new)
    single: Callable[[NewRun], LiveRun] = Runs([run]).submit
    with pytest.raises(
        Conflict, match="this coordinator serves a single run; a coordinator that was started with --state"
    ):
        single(replace(new, name="second"))


def prompt_of(splits: Splits, folder: Path, z: npt.NDArray[np.float32]) -> bytes:
    """Returns the file of a prompt in the space of the job."""
    finished = Result(z, Report(3, 3, 0.5, 0.9, 0.4, 100, 1.0))
    write_prompt(
        folder / "found.safetensors", z, prompt_card(splits.job, PtmIdentity("fake", "r1", ""), 9, finished, 7)
    )
    return (folder / "found.safetensors").read_bytes()


def test_a_run_begins_at_the_prompt_of_another_also_after_a_restart(
    hub: Hub, new: NewRun, splits: Splits, tmp_path: Path
) -> None:
    z = np.linspace(-1, 1, splits.job.space().dim, dtype=np.float32)
    new = replace(new, start=prompt_of(splits, tmp_path, z))
    first = hub.runs.submit(new)
    assert hub.runs.submit(new) is first
    with pytest.raises(RunNameTaken):
        hub.runs.submit(replace(new, start=b""))
    hub.restart()
    coordinator = hub.runs.named("tiny").coordinator
    sessions = [coordinator.join(hello(f"client-{k}", f"key-{k}", 9), 0.0)[0] for k in range(3)]
    task = coordinator.task_for(sessions[0])
    assert task is not None
    np.testing.assert_array_equal(task.arrays["mean"], z)


@pytest.mark.parametrize(
    ("start", "what"),
    [(b"no prompt", "not a prompt"), (bytes(MAX_START_BYTES + 1), "too large")],
    ids=["no prompt", "too large"],
)
def test_what_no_run_can_begin_at_is_refused(hub: Hub, new: NewRun, start: bytes, what: str) -> None:
    with pytest.raises(InvalidInput, match=what):
        hub.runs.submit(replace(new, start=start))
    assert hub.names == []


def test_a_prompt_of_another_space_is_refused(hub: Hub, new: NewRun, splits: Splits, tmp_path: Path) -> None:
    start = prompt_of(splits, tmp_path, np.zeros(splits.job.space().dim, np.float32))
    job = splits.job.model_copy(deep=True)
    sections = job.model_dump()
    sections["task"]["prompt"]["dim"] = 8
    with pytest.raises(InvalidInput, match="a prompt in another space"):
        hub.runs.submit(replace(new, job=job_text(Job.model_validate(sections)), start=start))
    assert hub.names == []


def test_a_submitted_run_is_shown_in_no_tool(hub: Hub, new: NewRun) -> None:
    text = new.job.replace('otlp = ""', 'otlp = "http://127.0.0.1:1"')
    with pytest.raises(InvalidJob, match="log: a submitted run is shown in no tool; an empty"):
        hub.folders.submit(replace(new, job=text))
    assert hub.names == []
