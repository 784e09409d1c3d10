"""fed-bbpt by scalars: from the coefficients of its clients' steps alone the server computes their thetas."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt import seeds
from fedbbpt.codecs import CODECS
from fedbbpt.codecs.travelling import packed
from fedbbpt.methods.fed_bbpt import FedBbptClient, FedBbptConfig, FedBbptServer, Theta, settings
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.server.checks import decode_update
from fedbbpt.types import Losses, Phase, Population, Projection, ProjectionKind, Task, TaskId, Update
from tests.toys import ToyObjectives


class Bowl(ToyObjectives):
    """A client with a smooth loss, of which a share is broken."""

    weight = 13.0

    def __init__(self, broken: float) -> None:
        self._broken = broken

    def loss(self, population: Population, draw: int) -> Losses:
        losses: Losses = ((population - 1) ** 2).mean(axis=1)
        return np.where(np.random.default_rng(draw).random(len(losses)) < self._broken, np.nan, losses)


SPACE = LatentSpace(3, Projection(ProjectionKind.NORMAL, seed=1, tokens=2, scale=1.0, initial_text=""))


def thetas(uplink: str, options: dict[str, Any], seed: int, broken: float) -> list[Theta]:
    """Returns the server's theta after each of three rounds with one client, whose updates travel as float32."""
    config = FedBbptConfig.model_validate({"name": "fed-bbpt", "uplink": uplink, **options})
    server, codec = FedBbptServer(config, SPACE), CODECS["float32"]
    half = FedBbptClient(settings(config), SPACE, Bowl(broken))
    state, found = server.init(0), []
    for round in range(3):
        task_seed = seeds.derive(seed, "task", round)
        task = Task(TaskId("run", round, "a", Phase.UPDATE), task_seed, server.broadcast(state, task_seed), 1.0)
        update, _ = half.update(task, {})
        travelling = packed(update.arrays, update.weight, task.arrays)
        encoded = Update(codec.encode(travelling, np.random.default_rng(0)), update.weight)
        decoded = decode_update(encoded, codec, server.expected(state), task.arrays)
        if uplink == "scalars":
            assert decoded.arrays["coefficients"].tobytes() == update.arrays["coefficients"].tobytes()
            assert sum(array.nbytes for array in encoded.arrays.values()) == 4 * (
                config.local_steps * config.estimates + 1
            )
        sent = Update(decoded.arrays, decoded.weight, client_id="a")
        state, _ = server.step(state, [sent], task_seed)
        found.append(state.theta)
    return found


@given(
    seed=st.integers(0, 2**32 - 1),
    broken=st.sampled_from([0.0, 0.3, 1.0]),
    options=st.fixed_dictionaries(
        {
            "local_steps": st.integers(1, 4),
            "estimates": st.integers(1, 3),
            "hidden": st.integers(1, 3),
            "code": st.integers(1, 3),
            "a": st.floats(1e-4, 1e-2),
            "gamma": st.floats(0, 1),
        }
    ),
)
def test_the_server_finds_the_theta_that_would_have_been_sent(
    seed: int, broken: float, options: dict[str, Any]
) -> None:
    """Kills: the gains of the first round in each round, directions of another step, a pair that should be left out."""
    for by_theta, by_scalars in zip(
        thetas("theta", options, seed, broken), thetas("scalars", options, seed, broken), strict=True
    ):
        np.testing.assert_allclose(by_scalars, by_theta, rtol=1e-4, atol=1e-5)
