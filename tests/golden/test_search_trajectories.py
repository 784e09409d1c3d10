"""Each method's prompt after each round equals the stored one.

`python -m tests.golden.test_search_trajectories` writes new trajectories; review their changes like code.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt import seeds
from fedbbpt.methods import METHODS, ClientMethod
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.types import Phase, Projection, ProjectionKind, Task, TaskId
from tests.toys import Valley

STORED = Path(__file__).with_name("search_trajectories.json")
SPACE = LatentSpace(4, Projection(ProjectionKind.RADEMACHER, seed=1, tokens=2, scale=1.0, initial_text=""))
ROUNDS = 6
VARIANTS: dict[str, dict[str, Any]] = {
    "diagonal": {"name": "fed-cma", "step": "ranks"},
    "full": {"name": "fed-cma", "step": "ranks", "covariance": "full"},
    "better half": {"name": "fed-bpt", "perturb_rate": 0.4},
    "all parents": {"name": "fed-bpt", "parents": "all", "common_seed": True},
    "ranks": {"name": "fed-bpt", "uplink": "ranks", "local_covariance": "diagonal", "norm_limit": 1.5},
    "generator": {"name": "fed-bbpt", "a": 0.0005},
    "averaged": {"name": "fedavg-bbt", "local_population": 6},
}


def trajectory(options: dict[str, Any]) -> list[list[float]]:
    """Returns the prompt z after each round."""
    method = METHODS[options["name"]]
    config = method.config(**options)
    server = method.server(config, SPACE)
    halves = [ClientMethod(method, method.settings(config), SPACE).half(Valley(client)) for client in range(4)]
    state, prompts = server.init(0), []
    for round in range(ROUNDS):
        seed = seeds.derive(0, "task", round)
        arrays = server.broadcast(state, seed)
        tasks = [Task(TaskId("run", round, str(k), Phase.UPDATE), seed, arrays, 1.0) for k in range(4)]
        updates = [
            replace(half.update(task, {})[0], client_id=task.id.client_id)
            for half, task in zip(halves, tasks, strict=True)
        ]
        state, _ = server.step(state, updates, seed)
        prompts.append([round_to(float(z)) for z in server.prompt(state)])
    return prompts


def round_to(value: float) -> float:
    return float(f"{value:.7g}")


@pytest.mark.parametrize("variant", VARIANTS)
def test_trajectory_is_the_stored_one(variant: str) -> None:
    stored = json.loads(STORED.read_text())[variant]
    np.testing.assert_allclose(trajectory(VARIANTS[variant]), stored, rtol=1e-5, atol=1e-6)


if __name__ == "__main__":
    walked = {variant: trajectory(options) for variant, options in VARIANTS.items()}
    STORED.write_text(json.dumps(walked, indent=1) + "\n")
