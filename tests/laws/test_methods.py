"""The merge law: a linear method's server cannot tell a cohort from its sum."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.interfaces import PromptSpace, ServerHalf
from fedbbpt.methods import METHODS, ClientMethod
from fedbbpt.prompts.deep import DeepSpace
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.prompts.text import TextSpace
from fedbbpt.types import Orders, Projection, ProjectionKind, Update, merge, pack

SPACE = LatentSpace(5, Projection(ProjectionKind.NORMAL, seed=1, tokens=2, scale=1.0, initial_text=""))
DEEP = DeepSpace(layers=1, heads=1, width=1, tokens=3, seed=0, std=0.02)
READOUT = ReadoutSpace(NoPrompt(), ("", "In short:"), 4, 3, 5)
SPACES: dict[str, PromptSpace] = {
    "latent": SPACE,
    "text": TextSpace(5, ("no", "yes", "maybe"), 8),
    "deep": DEEP,
    "none": READOUT,
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "fed-cma": ("fed-cma", {"step": "ranks"}),
    "fed-cma, full": ("fed-cma", {"step": "ranks", "covariance": "full"}),
    "fed-cma, newton": ("fed-cma", {"population": 4}),
    "fed-bpt": ("fed-bpt", {}),
    "fed-bbpt": ("fed-bbpt", {"hidden": 2, "code": 2}),
    "fed-bbpt, scalars": ("fed-bbpt", {"hidden": 2, "code": 2, "uplink": "scalars"}),
    "fed-bbpt, categorical": ("fed-bbpt", {"generator": "categorical"}),
    "fed-sp": ("fed-sp", {}),
    "fedavg-bbt": ("fedavg-bbt", {}),
    "fed-readout": ("fed-readout", {}),
}


def server_of(variant: str) -> ServerHalf[Any]:
    name, options = VARIANTS[variant]
    method = METHODS[name]
    config = method.config(name=name, **options)
    (kind,) = method.spaces(config)
    return method.server(config, SPACES[kind])


def test_every_method_has_a_variant() -> None:
    assert {name for name, _ in VARIANTS.values()} == set(METHODS)


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if server_of(variant).linear])
@given(weights=st.lists(st.integers(1, 100), min_size=2, max_size=6), seed=st.integers(0, 2**32 - 1))
def test_a_linear_server_sees_only_the_sum(variant: str, weights: list[int], seed: int) -> None:
    """Kills: averaging losses without their weights, taking the first client's array, a step over the clients' means
    (fed-bpt) that calls itself linear."""
    server = server_of(variant)
    state = server.init(0)
    shapes = {name: form for name, form in server.expected(state).items() if not isinstance(form, Orders)}
    rng = np.random.default_rng(seed)
    updates = [
        Update({name: weight * rng.uniform(0.5, 1.5, shape) for name, shape in shapes.items()}, weight)
        for weight in weights
    ]
    apart, measured_apart = server.step(state, updates, seed)
    merged, measured_merged = server.step(state, [merge(updates)], seed)
    for field, array in pack(apart).items():
        np.testing.assert_allclose(array, pack(merged)[field], rtol=1e-9, atol=1e-12)
    assert measured_merged == pytest.approx(measured_apart)


@pytest.mark.parametrize("variant", VARIANTS)
def test_relays_know_the_shapes_of_linear_methods_and_of_no_others(variant: str) -> None:
    """Kills: a relay that sums what does not add, and one that expects other arrays than the server."""
    name, options = VARIANTS[variant]
    method, server = METHODS[name], server_of(variant)
    config = method.config(name=name, **options)
    (kind,) = method.spaces(config)
    told = ClientMethod(method, method.settings(config), SPACES[kind])
    assert told.linear == (server.linear and not method.white_box)
    if told.linear:
        state = server.init(0)
        assert told.sums(server.broadcast(state, seed=1)) == server.expected(state)
