"""fed-bbpt with a categorical generator, which makes prompts of words."""

from pathlib import Path

import numpy as np
import pytest

from fedbbpt import seeds
from fedbbpt.codecs import CODECS
from fedbbpt.errors import InvalidJob
from fedbbpt.federation.simulation import simulate
from fedbbpt.federation.splits import prepare
from fedbbpt.methods.fed_bbpt import FedBbptClient, FedBbptConfig, FedBbptServer, settings
from fedbbpt.optim.policy_gradient import PolicyGradient
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.prompts.text import TextSpace
from fedbbpt.types import (
    Examples,
    Phase,
    Projection,
    ProjectionKind,
    Task,
    TaskId,
    TextPrompts,
    Update,
)
from tests.reports import dev_losses
from tests.tiny_run import fake_ptm, job, job_of_words
from tests.toys import Linear

SPACE = TextSpace(2, ("red", "green", "blue"), 16)
CONFIG = FedBbptConfig(generator="categorical", local_steps=3, samples=4, learning_rate=0.1)
THETA = np.array([[0.25, 0.5, 0.25], [0.5, 0.25, 0.25]])


def task(client: str) -> Task:
    return Task(TaskId("run", 4, client, Phase.UPDATE), 21, {"theta": THETA.astype(np.float32)}, 1.0)


def test_a_round_makes_local_steps_of_the_policy_gradient_from_the_broadcast() -> None:
    words = Linear()
    update, private = FedBbptClient(settings(CONFIG), SPACE, words).update(task("a"), {})
    search = PolicyGradient(4, 0.1, 0.01, 3.0)
    state, probed = search.init(THETA), []
    for j in range(3):
        population = search.ask(state, seeds.derive(21, "a", j))
        probed.append(Linear().loss(population, 0))
        state = search.tell(state, population, probed[-1])
    np.testing.assert_allclose(update.arrays["theta"], 6.0 * state.point)
    np.testing.assert_allclose(update.arrays["loss"], 6.0 * np.mean(probed))
    assert private == {}, "the moments begin anew in each round"


def test_clients_draw_their_own_prompts() -> None:
    one, other = Linear(), Linear()
    FedBbptClient(settings(CONFIG), SPACE, one).update(task("a"), {})
    FedBbptClient(settings(CONFIG), SPACE, other).update(task("b"), {})
    assert not np.array_equal(one.asked[0], other.asked[0])


def test_the_most_probable_words_are_the_prompt() -> None:
    client = FedBbptClient(settings(CONFIG), SPACE, Linear())
    z = client.prompt(task("a").arrays)
    assert z.tolist() == [1, 0]
    assert SPACE.prompts(z[None], Examples(("a sky",))) == TextPrompts(("green red",))


@pytest.mark.parametrize("codec", CODECS)
def test_the_average_is_a_distribution_again_after_codecs_round(codec: str) -> None:
    server = FedBbptServer(CONFIG, SPACE)
    updates = []
    for seed, (name, weight) in enumerate([("a", 3.0), ("b", 5.0)]):
        theta = np.random.default_rng(seed).dirichlet(np.ones(3), 2)
        arrays = {"theta": weight * theta, "loss": np.array([weight])}
        shapes = {name: array.shape for name, array in arrays.items()}
        rounded = CODECS[codec].decode(CODECS[codec].encode(arrays, np.random.default_rng(seed)), shapes)
        updates.append(Update(rounded, weight, client_id=name))
    theta = server.step(server.init(0), updates, 0)[0].theta
    assert (theta >= 0).all()
    np.testing.assert_allclose(theta.sum(axis=1), 1, atol=1e-9)


def test_a_latent_space_is_refused_by_a_categorical_generator() -> None:
    latent = LatentSpace(2, Projection(ProjectionKind.RADEMACHER, 1, 2, 1.0, ""))
    with pytest.raises(InvalidJob) as caught:
        FedBbptServer(CONFIG, latent)
    assert (caught.value.where, caught.value.fix) == ("task.prompt", 'kind = "text"')


@pytest.mark.parametrize(("size", "rounds"), [(0, 30), (1, 90)])
def test_a_federation_finds_better_words(data: Path, size: int, rounds: int) -> None:
    """Three clients in each round and one client find them with the same number of queries."""
    splits = prepare(job_of_words(job(data, rounds=rounds), size=size))
    result, reports = simulate(splits, fake_ptm(), lambda status: None)
    losses = np.array([report.train_loss for report in reports[:-1]], np.float64)
    tenth = rounds // 10
    assert losses[-tenth:].mean() < losses[:tenth].mean() - 0.03
    assert result.measured.dev_examples == len(splits.dev[0]) * 3
    assert dev_losses([result.measured])[0] < 0.6
