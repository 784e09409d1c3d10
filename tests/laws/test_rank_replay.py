"""fed-bpt by ranks: from the orders of candidates alone the server computes the means of its clients, bit for bit."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fedbbpt import seeds
from fedbbpt.methods.fed_bpt import FedBptClient, FedBptConfig, FedBptServer, settings
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.types import (
    Array,
    Arrays,
    Phase,
    Projection,
    ProjectionKind,
    Task,
    TaskId,
    Update,
    pack,
)
from tests.toys import Rugged

CLIENTS = ("a", "b", "c")


def walked(options: dict[str, Any], dim: int, seed: int, broken: float) -> tuple[dict[str, Array], list[Update]]:
    """Returns the server's state after three rounds, and the last round's updates before encoding."""
    config = FedBptConfig.model_validate({"name": "fed-bpt", **options})
    space = LatentSpace(dim, Projection(ProjectionKind.NORMAL, seed=1, tokens=2, scale=1.0, initial_text=""))
    server = FedBptServer(config, space)
    state, updates = server.init(0), list[Update]()
    for round in range(3):
        task_seed = seeds.derive(seed, "task", round)
        broadcast: Arrays = server.broadcast(state, task_seed)
        updates = []
        for client in CLIENTS:
            half = FedBptClient(settings(config), space, Rugged(seeds.derive(seed, client), broken))
            task = Task(TaskId("run", round, client, Phase.UPDATE), task_seed, broadcast, 1.0)
            update, _ = half.update(task, {})
            updates.append(Update(update.arrays, update.weight, update.measurement, client))
        state, _ = server.step(state, updates, task_seed)
    return pack(state), updates


@given(
    dim=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
    broken=st.sampled_from([0.0, 0.3, 1.0]),
    options=st.fixed_dictionaries(
        {
            "local_covariance": st.sampled_from(["identity", "diagonal"]),
            "local_population": st.integers(3, 9),
            "local_iterations": st.integers(1, 4),
            "common_seed": st.booleans(),
            "perturb_rate": st.sampled_from([0.0, 0.5]),
            "parents": st.sampled_from(["half", "all"]),
            "norm_limit": st.sampled_from([0.0, 0.7]),
            "sigma": st.floats(1e-3, 1e3),
        }
    ),
)
def test_a_replay_finds_the_mean_that_would_have_been_sent(
    dim: int, seed: int, broken: float, options: dict[str, Any]
) -> None:
    """Kills: the round's seed in place of the clients' own seeds; a replay from the unrounded state instead of the
    broadcast, without the norm guard, or with the first generation's order in every generation."""
    by_means, sent = walked({**options, "uplink": "mean"}, dim, seed, broken)
    by_ranks, ordered = walked({**options, "uplink": "ranks"}, dim, seed, broken)
    assert {name: array.tobytes() for name, array in by_ranks.items()} == {
        name: array.tobytes() for name, array in by_means.items()
    }
    for mean, order in zip(sent, ordered, strict=True):
        assert mean.arrays["loss"].tobytes() == order.arrays["loss"].tobytes()
        assert order.arrays.keys() == {"orders", "loss"}
