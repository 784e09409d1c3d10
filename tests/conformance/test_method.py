"""The halves of every method fulfil interfaces.ServerHalf and interfaces.ClientHalf, on a quadratic."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest

from examples import own_method
from fedbbpt import seeds
from fedbbpt.codecs import CODECS
from fedbbpt.codecs.travelling import packed
from fedbbpt.errors import InvalidInput
from fedbbpt.interfaces import ClientHalf, PromptSpace, ServerHalf
from fedbbpt.methods import METHODS, ClientMethod, server_half
from fedbbpt.methods.starting import started
from fedbbpt.prompts.deep import DeepSpace
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.prompts.text import TextSpace
from fedbbpt.prompts.visual import ImageSpace
from fedbbpt.server.checks import decode_update
from fedbbpt.types import (
    Arrays,
    Phase,
    Projection,
    ProjectionKind,
    Task,
    TaskId,
    Update,
    pack,
)
from tests.slow import slow_except
from tests.toys import Quadratic, Read

ALL_METHODS = {**METHODS, own_method.METHOD.name: own_method.METHOD}
DIM = 6
SPACE = LatentSpace(DIM, Projection(ProjectionKind.RADEMACHER, seed=1, tokens=2, scale=1.0, initial_text=""))
SPACES: dict[str, PromptSpace] = {
    "latent": SPACE,
    "text": TextSpace(DIM, ("no", "yes", "maybe", "never"), 8),
    "deep": DeepSpace(layers=1, heads=1, width=1, tokens=3, seed=0, std=0.0),
    "none": ReadoutSpace(NoPrompt(), ("", "In short:"), 4, 3, 5),
    "image": ImageSpace((1, 2, 2), pooled=1, grid=1, widths=(2,), strength=1.0, seed=0),
}
READOUT = ReadoutSpace(SPACE, ("",), 0, 3, 5)
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "fed-cma": ("fed-cma", {"step": "ranks"}),
    "fed-cma, full": ("fed-cma", {"step": "ranks", "covariance": "full"}),
    "fed-cma, newton": ("fed-cma", {"population": 4}),
    "fed-bpt": ("fed-bpt", {}),
    "fed-bpt, as its code": ("fed-bpt", {"parents": "all", "common_seed": True, "perturb_ratio": "means"}),
    "fed-bpt, by ranks": ("fed-bpt", {"uplink": "ranks", "local_covariance": "identity"}),
    "fed-bpt, guarded": (
        "fed-bpt",
        {
            "uplink": "ranks",
            "local_covariance": "diagonal",
            "common_seed": True,
            "perturb_rate": 0.0,
            "norm_limit": 4.0,
        },
    ),
    "fed-bbpt": ("fed-bbpt", {"hidden": 4, "code": 3}),
    "fed-bbpt, visual": ("fed-bbpt", {"generator": "visual"}),
    "fed-bbpt, by scalars": ("fed-bbpt", {"hidden": 4, "code": 3, "uplink": "scalars"}),
    "fed-bbpt, categorical": ("fed-bbpt", {"generator": "categorical", "learning_rate": 0.02}),
    "fed-sp": ("fed-sp", {"prompt_learning_rate": 0.02}),
    "fedavg-bbt": ("fedavg-bbt", {}),
    "fed-cem, the example": ("fed-cem", {}),
    "fedavg-bbt, as FedOne": ("fedavg-bbt", {"sends": "best"}),
    "fed-readout": ("fed-readout", {}),
}


SEARCHES_WITH_A_READOUT = ("fed-cma", "fed-cma, newton", "fed-bpt", "fed-bpt, by ranks", "fed-bbpt", "fedavg-bbt")
"""Variants of searches that run with a readout as well, under the name "VARIANT, with a readout"."""
VARIANTS |= {
    f"{variant}, with a readout": (VARIANTS[variant][0], {**VARIANTS[variant][1], "readout": {"rounds": 4, "every": 3}})
    for variant in SEARCHES_WITH_A_READOUT
}


def clients_of(space: PromptSpace, broken: int = 0) -> list[Quadratic] | list[Read]:
    if isinstance(space, ReadoutSpace):
        return [Read(space, client, broken) for client in range(5)]
    dim = space.dim
    targets = np.random.default_rng(0).normal(size=(5, dim)) * 0.3 + 1.0
    return [Quadratic(target, weight, broken) for target, weight in zip(targets, [3, 8, 1, 5, 6], strict=True)]


@dataclass
class Federation:
    server: ServerHalf[Any]
    halves: list[ClientHalf]
    space: PromptSpace
    clients: list[Quadratic] | list[Read]

    def task(self, state: Any, round: int, client: int) -> Task:
        seed = seeds.derive(7, "task", round)
        id = TaskId("run", round, f"client-{client}", Phase.UPDATE)
        return Task(id, seed, self.server.broadcast(state, seed), deadline_seconds=60.0)

    def update(self, state: Any, round: int, client: int) -> Update:
        task = self.task(state, round, client)
        return replace(self.halves[client].update(task, {})[0], client_id=task.id.client_id)

    def step(self, state: Any, round: int, present: list[int]) -> Any:
        updates = [self.update(state, round, client) for client in present]
        return self.server.step(state, updates, seeds.derive(7, "task", round))[0]

    def loss(self, state: Any) -> float:
        """Returns the global loss at the state's prompt."""
        z = self.server.prompt(state).astype(np.float64)
        losses = [float(client.loss(z[None], 0)[0]) for client in clients_of(self.space)]
        return float(np.average(losses, weights=[client.weight for client in self.clients]))


def half_of(chosen: ClientMethod, client: Quadratic | Read) -> ClientHalf:
    if chosen.white_box:
        assert isinstance(client, Quadratic)
        return chosen.white_box_half(client)
    return chosen.half(client)


def federation(variant: str, broken: int = 0) -> Federation:
    name, options = VARIANTS[variant]
    method = ALL_METHODS[name]
    config = method.config(name=name, **options)
    (kind,) = method.spaces(config)
    space = READOUT if variant.endswith("with a readout") else SPACES[kind]
    clients = clients_of(space, broken)
    chosen = ClientMethod(method, method.settings(config), space)
    halves = [half_of(chosen, client) for client in clients]
    return Federation(server_half(method, config, space), halves, space, clients)


each_variant = pytest.mark.parametrize("variant", VARIANTS)
each_variant_in_a_long_run = pytest.mark.parametrize(
    "variant", slow_except(VARIANTS, *METHODS, "fed-cma, with a readout")
)
EVERYONE = [0, 1, 2, 3, 4]


def bits(arrays: Arrays) -> dict[str, tuple[str, bytes]]:
    return {name: (str(array.dtype), array.tobytes()) for name, array in arrays.items()}


def test_a_method_is_listed_under_its_name() -> None:
    for name, method in ALL_METHODS.items():
        assert method.name == name == method.config(name=name).name


@each_variant
def test_clients_send_the_arrays_that_the_server_expects(variant: str) -> None:
    run = federation(variant)
    state = run.server.init(0)
    update = run.update(state, 0, 1)
    for codec in CODECS.values():
        broadcast = run.server.broadcast(state, 0)
        encoded = codec.encode(packed(update.arrays, update.weight, broadcast), np.random.default_rng(0))
        decode_update(replace(update, arrays=encoded), codec, run.server.expected(state), broadcast)


@each_variant
def test_server_and_client_read_the_same_prompt_from_a_broadcast(variant: str) -> None:
    run = federation(variant)
    state = run.step(run.server.init(0), 0, EVERYONE)
    read = run.halves[0].prompt(run.task(state, 1, 0).arrays)
    assert read.dtype == np.float32
    assert read.shape == (run.space.dim,)
    np.testing.assert_array_equal(read, run.server.prompt(state))


@each_variant
def test_a_run_starts_with_z_at_zero(variant: str) -> None:
    server = federation(variant).server
    prompt = server.prompt(server.init(0))
    np.testing.assert_array_equal(prompt, np.zeros_like(prompt))


@each_variant
def test_a_search_can_begin_at_another_prompt_or_refuses_to(variant: str) -> None:
    """Kills: a state whose broadcast still holds the first prompt."""
    run = federation(variant)
    first = run.server.init(0)
    z = run.server.prompt(first)
    z[: run.space.prompt.dim if isinstance(run.space, ReadoutSpace) else None] = 0.25
    try:
        state = started(run.server, variant, first, z)
    except InvalidInput as error:
        assert variant.startswith(("fed-bbpt", "fed-readout", "fed-cem")) and "cannot begin at a given prompt" in str(
            error
        )
        return
    np.testing.assert_array_equal(run.halves[0].prompt(run.task(state, 0, 0).arrays), z)
    np.testing.assert_array_equal(run.server.prompt(run.server.restore(pack(state))), z)


@each_variant
def test_broadcasts_are_float32(variant: str) -> None:
    run = federation(variant)
    arrays = run.task(run.server.init(0), 0, 0).arrays
    others = {"readouts": np.float64, "round": np.int32}
    types = {name: np.dtype(others.get(name, np.float32)) for name in arrays}
    assert {name: array.dtype for name, array in arrays.items()} == types


@each_variant_in_a_long_run
def test_loss_falls(variant: str) -> None:
    run = federation(variant)
    state = run.server.init(0)
    before = run.loss(state)
    for round in range(60):
        state = run.step(state, round, EVERYONE)
    assert run.loss(state) < before / 3


@each_variant_in_a_long_run
def test_loss_falls_while_clients_are_missing(variant: str) -> None:
    run = federation(variant)
    state = run.server.init(0)
    before = run.loss(state)
    for round in range(60):
        present = [client for client in EVERYONE if (client + round) % 3] or [0]
        state = run.step(state, round, present)
    state = run.step(state, 60, [2])  # even down to one
    assert run.loss(state) < before / 3


@each_variant_in_a_long_run
def test_broken_losses_neither_leave_the_client_nor_stop_the_search(variant: str) -> None:
    run = federation(variant, broken=4)
    state = run.server.init(0)
    before = run.loss(state)
    for round in range(80):
        updates = [run.update(state, round, client) for client in EVERYONE]
        assert all(np.isfinite(array).all() for update in updates for array in update.arrays.values())
        state, metrics = run.server.step(state, updates, seeds.derive(7, "task", round))
        assert np.isfinite(metrics["train_loss"])
    assert run.loss(state) < before


@each_variant
def test_clients_survive_an_objective_that_is_never_finite(variant: str) -> None:
    run = federation(variant, broken=1)
    state = run.server.init(0)
    for round in range(3):
        state = run.step(state, round, EVERYONE)
    assert all(np.isfinite(array).all() for array in run.task(state, 3, 0).arrays.values())


@each_variant
def test_an_update_is_a_function_of_its_task(variant: str) -> None:
    """Kills: drawing from numpy's global generator, as pycma does by default, and reseeding it."""
    run = federation(variant)
    state = run.step(run.server.init(0), 0, EVERYONE)
    np.random.seed(1)
    before = str(np.random.get_state(legacy=False))
    one = run.update(state, 1, 3)
    assert str(np.random.get_state(legacy=False)) == before
    np.random.seed(2)
    assert bits(run.update(state, 1, 3).arrays) == bits(one.arrays)
    assert bits(federation(variant).update(state, 1, 3).arrays) == bits(one.arrays)


@each_variant
def test_methods_neither_print_nor_write_files(
    variant: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = federation(variant)
    run.step(run.server.init(0), 0, EVERYONE)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@each_variant
def test_a_step_leaves_its_arguments_unchanged(variant: str) -> None:
    run = federation(variant)
    state = run.step(run.server.init(0), 0, EVERYONE)
    updates = [run.update(state, 1, client) for client in EVERYONE]
    for array in [*pack(state).values(), *(array for update in updates for array in update.arrays.values())]:
        array.flags.writeable = False
    before = bits(pack(state)), [bits(update.arrays) for update in updates]
    one, _ = run.server.step(state, updates, seed=5)
    other, _ = run.server.step(state, updates, seed=5)
    assert bits(pack(one)) == bits(pack(other))
    assert (bits(pack(state)), [bits(update.arrays) for update in updates]) == before


@each_variant
def test_a_stored_state_continues_bit_for_bit(variant: str) -> None:
    run = federation(variant)
    state = run.step(run.server.init(0), 0, EVERYONE)
    restored = run.server.restore(pack(state))
    for field in fields(state):
        assert type(getattr(restored, field.name)) is type(getattr(state, field.name))
    one, other = run.step(state, 1, EVERYONE), run.step(restored, 1, EVERYONE)
    assert bits(pack(one)) == bits(pack(other))
