"""A search in turn with the fit of a readout: the order of the rounds, their cost, and what the result is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fedbbpt import seeds
from fedbbpt.client.objective import LocalObjectives
from fedbbpt.codecs import CODECS
from fedbbpt.codecs.travelling import packed
from fedbbpt.errors import InvalidPlugin
from fedbbpt.federation.simulation import SimulatedRound, Simulation
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.interfaces import ClientHalf
from fedbbpt.job.config import Job
from fedbbpt.job.settings import task_spec
from fedbbpt.methods import METHODS, ClientMethod, server_half
from fedbbpt.methods.alternating import AlternatingState, ThroughReadout
from fedbbpt.methods.fed_cma import FedCmaConfig, FedCmaServer
from fedbbpt.methods.method import AnyMethod
from fedbbpt.optim.cmaes import CmaState
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.ptm.local import LocalPtm
from fedbbpt.server.checks import decode_update
from fedbbpt.types import FINALISTS, Arrays, Phase, Projection, ProjectionKind, Result, Task, TaskId, Update, pack
from tests.tiny_run import fake_ptm, job, write_data
from tests.toys import Read

ROUNDS, EVERY, CLIENTS = 4, 3, 3
PROMPTS = LatentSpace(6, Projection(ProjectionKind.RADEMACHER, seed=1, tokens=2, scale=1.0, initial_text=""))
SPACE = ReadoutSpace(PROMPTS, ("",), 0, 3, 5)
READOUT = {"rounds": ROUNDS, "every": EVERY}


@dataclass
class Played:
    """A round that was played by hand."""

    task: Task
    updates: list[Update]
    state: AlternatingState
    """The state with which the round began."""


def play(method: AnyMethod, rounds: int, **options: Any) -> list[Played]:
    """Plays rounds with toy clients, and checks that clients send what the server expects."""
    config = method.config(**{"name": method.name, "readout": READOUT} | options)
    server = server_half(method, config, SPACE)
    halves = [ClientMethod(method, method.settings(config), SPACE).half(Read(SPACE, k)) for k in range(CLIENTS)]
    private: list[Arrays] = [{} for _ in halves]
    state, played = server.init(0), []
    for number in range(rounds):
        seed = seeds.derive(3, "task", number)
        arrays = server.broadcast(state, seed)
        updates = []
        for index, half in enumerate(halves):
            task = Task(TaskId("run", number, str(index), Phase.UPDATE), seed, arrays, 60.0)
            update, private[index] = half.update(task, private[index])
            np.testing.assert_array_equal(half.prompt(arrays), server.prompt(state))
            travelling = packed(update.arrays, update.weight, arrays)
            encoded = replace(update, arrays=CODECS["float32"].encode(travelling, np.random.default_rng(0)))
            decoded = decode_update(encoded, CODECS["float32"], server.expected(state), arrays)
            updates.append(replace(decoded, client_id=str(index)))
        played.append(Played(task, updates, state))
        state, _ = server.step(server.restore(pack(state)), updates, seed)
    return played


def kinds(played: Sequence[Played]) -> str:
    """Returns a letter for each round: v for a readout of the views, p of the prompt as well, s for the search."""
    letters = []
    for each in played:
        readouts = each.task.arrays.get("readouts")
        letters.append("s" if readouts is None else "v" if readouts.shape[2] == 5 + 1 else "p")
    return "".join(letters)


def test_readout_of_the_views_then_of_the_prompt_then_the_search_in_turn() -> None:
    assert kinds(play(METHODS["fed-cma"], 19)) == "vvvv" + "pppp" + "sss" + "pppp" + "sss" + "p"


def test_a_fit_that_has_converged_ends_early() -> None:
    long = kinds(play(METHODS["fed-cma"], 40, readout={"rounds": 39, "every": 1}))
    assert "s" in long and len(long.partition("p")[0]) < 20


@pytest.mark.parametrize("name", ["fed-cma", "fed-bpt", "fed-bbpt", "fedavg-bbt"])
def test_the_arrays_of_a_search_pass_as_they_are(name: str) -> None:
    method = METHODS[name]
    played = play(method, 2 * ROUNDS + 1)
    assert kinds(played).endswith("s")
    search = method.server(method.config(name=name), PROMPTS)
    last, state = played[-1], played[-1].state
    own = dict(last.task.arrays)
    assert own.pop("readout").shape == (3, 10 + 1) and own.pop("turn") == [0]
    expected = search.broadcast(state.search, last.task.seed)
    assert {n: a.tobytes() for n, a in own.items()} == {n: a.tobytes() for n, a in expected.items()}
    assert last.updates[0].arrays.keys() == search.expected(state.search).keys()


class NotedHalf:
    """A client's half that notes the rounds and the private arrays that it is given."""

    def __init__(self, half: ClientHalf, noted: list[tuple[int, Arrays]]) -> None:
        self._half, self._noted = half, noted

    def update(self, task: Task, private: Arrays) -> tuple[Update, Arrays]:
        self._noted.append((task.id.round, private))
        return self._half.update(task, private)[0], {"round": np.array([task.id.round])}

    def prompt(self, arrays: Arrays) -> npt.NDArray[np.float32]:
        return self._half.prompt(arrays)


def test_a_search_counts_its_own_rounds_and_keeps_its_private_arrays() -> None:
    """Kills: gains of SPSA that decay during the fits, private arrays that a fit loses."""
    noted: list[tuple[int, Arrays]] = []
    method = METHODS["fed-cma"]
    assert method.client is not None
    plain = method.client
    play(replace(method, client=lambda *args: NotedHalf(plain(*args), noted)), 2 * ROUNDS + EVERY + ROUNDS + 2)
    rounds = [(round, {name: int(array[0]) for name, array in private.items()}) for round, private in noted]
    assert rounds[::CLIENTS] == [(0, {}), (1, {"round": 0}), (2, {"round": 1}), (3, {"round": 2}), (4, {"round": 3})]


def test_names_that_the_fits_use_are_refused() -> None:
    class Taken(FedCmaServer):
        def broadcast(self, state: CmaState, seed: int) -> Arrays:
            return {**super().broadcast(state, seed), "turn": np.zeros(1, np.float32)}

    method = replace(METHODS["fed-cma"], server=Taken)
    with pytest.raises(InvalidPlugin, match="Taken: a broadcast holds turn, which runs with a readout use themselves"):
        server_half(method, FedCmaConfig(), SPACE)


# Runs of the whole framework


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def splits_of(data: Path, rounds: int, **method: Any) -> Splits:
    sections = job(data, rounds=rounds).model_dump()
    sections["method"] |= {"readout": READOUT, **method}
    sections["task"] |= {"columns": ("person", "thing"), "views": ("", "In short:")}
    return prepare(Job.model_validate(sections))


def run(splits: Splits) -> tuple[list[SimulatedRound], LocalPtm, Result]:
    ptm = fake_ptm()
    simulation = Simulation(splits, ptm)
    return list(simulation.rounds()), ptm, simulation.result()


def dev_losses(closed: list[SimulatedRound]) -> list[float]:
    return [np.inf if each.report.dev_loss is None else each.report.dev_loss for each in closed]


def test_no_prompt_is_scored_before_the_readout_of_the_views_ends(data: Path) -> None:
    """A pass over the examples for each view, one for the prompt of the second fit, and then the search's."""
    splits = splits_of(data, 2 * ROUNDS + EVERY + ROUNDS, population=6)
    closed, ptm, _ = run(splits)
    train, dev = (sum(len(part) for part in parts) for parts in (splits.train, splits.dev))
    queries = [each.report.queries for each in closed]
    first = queries[0]
    assert 2 * train <= first <= 2 * (train + dev)
    assert queries[1:ROUNDS] == [0] * (ROUNDS - 1)
    assert queries[ROUNDS : 2 * ROUNDS] == [train + dev] + [0] * (ROUNDS - 1)
    # The first mean of the search has been measured in the fit; later ones are measured on the dev examples.
    assert queries[2 * ROUNDS : 2 * ROUNDS + EVERY] == [6 * train] + [6 * train + dev] * (EVERY - 1)
    assert queries[2 * ROUNDS + EVERY :] == [train + dev] + [0] * ROUNDS
    assert sum(queries) == ptm.usage().queries


def test_fits_are_measured_whatever_dev_every_says(data: Path) -> None:
    closed, _, _ = run(splits_of(data, 2 * ROUNDS + EVERY + 1, population=6, dev_every=100))
    measured = [each.report.dev_loss is not None for each in closed]
    assert measured == [True] * 2 * ROUNDS + [False] * EVERY + [True] * 2


def test_a_run_on_samples_keeps_the_readout_that_the_search_began_with(data: Path) -> None:
    splits = splits_of(data, 40, population=4, sigma=0.4, batch_examples=5)
    closed, _, result = run(splits)
    task, _ = closed[-1].exchanges[0]
    entries = splits.job.task.prompt.dim  # type: ignore[union-attr]  # a latent prompt
    prompts = [each[:entries] for each in task.arrays[FINALISTS]]
    assert sum(not prompt.any() for prompt in prompts) == 1
    assert len({prompt.tobytes() for prompt in prompts}) == len(prompts) == 4
    assert result.measured.dev_loss is not None


def test_the_prompt_adds_to_the_readout(data: Path) -> None:
    closed, _, result = run(splits_of(data, 40, population=6))
    losses = dev_losses(closed)
    assert result.measured.round > 2 * ROUNDS
    assert losses[result.measured.round] < 0.7 * min(losses[: ROUNDS + 1])
    np.testing.assert_array_equal(result.z, closed[result.measured.round].z)


def test_a_search_that_makes_things_worse_leaves_the_readout_as_the_result(data: Path) -> None:
    splits = splits_of(data, 2 * ROUNDS + EVERY, population=4, sigma=30.0)
    closed, _, result = run(splits)
    losses = dev_losses(closed)
    fitted, searched = losses[: 2 * ROUNDS + 1], losses[2 * ROUNDS + 1 :]
    assert min(searched) > min(fitted)
    assert result.measured.dev_loss == min(fitted)


@pytest.mark.parametrize("seed", range(3))
def test_the_expansion_goes_through_the_readout(data: Path, seed: int) -> None:
    """The derivatives in mixtures of the candidates' scores are those of the class scores that the readout makes."""
    splits = splits_of(data, 2 * ROUNDS + 1, step="newton", population=4)
    space = splits.job.space()
    assert isinstance(space, ReadoutSpace)
    objectives = LocalObjectives(fake_ptm(), task_spec(splits.job), space, splits.train[0], splits.dev[0])
    draw = np.random.default_rng(seed)
    through = ThroughReadout(objectives, space, 0.3 * draw.normal(size=(space.classes, space.width + 1)))
    mean, moves = draw.normal(size=space.prompt.dim), 1e-2 * draw.normal(size=(3, space.prompt.dim))
    found = through.expansion(np.concatenate([mean[None], mean + moves]), 0)
    # The fake model's scores are linear in the prompt, so a mixture of scores is the scores of the mixture.
    step = 1e-1
    up, down = (through.loss(mean + sign * step * moves, 0) for sign in (1, -1))
    np.testing.assert_allclose(found.gradient, (up - down) / (2 * step), rtol=1e-2, atol=1e-5)
    assert found.losses[0] == pytest.approx(through.loss(mean[None], 0)[0])
    assert np.abs(found.gradient).max() > 1e-4
