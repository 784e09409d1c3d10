"""Graphs give the results of the body, for shapes of any number and order."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from fedbbpt.ptm.models.accelerate.cuda_graphs import SHAPES, GraphedBody, Launch, Record, cuda_recorder  # noqa: E402

WIDTH, MOST = 8, 64


class Body:
    """Computes cumulative sums, and counts its calls."""

    config = SimpleNamespace(num_hidden_layers=1)

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *, inputs_embeds: Any, shift: float = 0.0) -> Any:
        self.calls += 1
        return SimpleNamespace(last_hidden_state=torch.tanh(inputs_embeds).cumsum(1) + shift)


def by_hand(launch: Launch) -> Launch:
    """Records without a GPU: the launch is repeated by calling it again, on the same memory."""
    return launch


RECORDS: dict[str, tuple[str, Callable[[], Record]]] = {"by hand": ("cpu", lambda: by_hand)}
if torch.cuda.is_available():
    RECORDS["cuda"] = ("cuda", cuda_recorder)


def inputs(count: int, tokens: int, device: str, seed: int = 0) -> Any:
    return torch.randn(count, tokens, WIDTH, generator=torch.Generator().manual_seed(seed)).to(device)


@pytest.mark.parametrize(("device", "record"), RECORDS.values(), ids=RECORDS)
def test_graphs_give_the_bits_of_the_body(device: str, record: Callable[[], Record]) -> None:
    """Kills: outputs that are returned and then overwritten; memory of one shape used by another; stale inputs."""
    body = Body()
    graphs = GraphedBody(body, MOST, record())
    shapes = [(2, 3), (4, 16), (1, 7), (3, 2)]
    asked = [(shape, seed) for seed in range(4) for shape in shapes]
    with torch.inference_mode():
        found = [graphs(inputs_embeds=inputs(*shape, device, seed)).last_hidden_state for shape, seed in asked]
        for (shape, seed), hidden in zip(asked, found, strict=True):
            assert torch.equal(hidden, body(inputs_embeds=inputs(*shape, device, seed)).last_hidden_state)


def test_shape_is_recorded_when_it_occurs_again() -> None:
    recorded: list[Launch] = []

    def record(launch: Launch) -> Launch:
        recorded.append(launch)
        return launch

    graphs = GraphedBody(Body(), MOST, record)
    for calls, expected in ((1, 0), (1, 1), (3, 1)):
        for _ in range(calls):
            graphs(inputs_embeds=inputs(2, 5, "cpu"))
        assert len(recorded) == expected


def test_large_inputs_and_other_arguments_go_to_the_body() -> None:
    def record(launch: Launch) -> Launch:
        raise AssertionError("recorded")

    graphs = GraphedBody(Body(), MOST, record)
    for _ in range(3):
        graphs(inputs_embeds=inputs(1, MOST + 1, "cpu"))
        assert graphs(inputs_embeds=torch.zeros(1, 1, WIDTH), shift=2.0).last_hidden_state.max() == 2.0


def test_least_recently_used_shape_is_forgotten() -> None:
    recorded: list[Launch] = []

    def record(launch: Launch) -> Launch:
        recorded.append(launch)
        return launch

    graphs = GraphedBody(Body(), SHAPES + 1, record)
    for tokens in (1, 1, *range(2, SHAPES + 2)):  # the first one is forgotten
        graphs(inputs_embeds=inputs(1, tokens, "cpu"))
    assert len(recorded) == 1
    graphs(inputs_embeds=inputs(1, 1, "cpu"))
    assert len(recorded) == 1, "it occurs for the first time since it was forgotten"
    graphs(inputs_embeds=inputs(1, SHAPES + 1, "cpu"))
    assert len(recorded) == 2, "this one has occurred before"


def test_body_that_cannot_be_recorded_runs_without_graphs() -> None:
    def record(launch: Launch) -> Launch:
        raise RuntimeError("operation not permitted when stream is capturing")

    body = Body()
    graphs = GraphedBody(body, MOST, record)
    for seed in range(4):
        given = inputs(2, 5, "cpu", seed)
        assert torch.equal(graphs(inputs_embeds=given).last_hidden_state, body(inputs_embeds=given).last_hidden_state)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_thread_may_begin_with_a_shape_that_another_thread_has_used() -> None:
    """Kills: recording the first launches that a thread makes, whose libraries are not ready."""
    body = torch.nn.Linear(WIDTH, WIDTH).cuda().requires_grad_(False)
    graphs = GraphedBody(
        lambda inputs_embeds: SimpleNamespace(last_hidden_state=body(inputs_embeds)), MOST, cuda_recorder()
    )
    given = inputs(2, 5, "cuda")

    def ask() -> Any:
        with torch.inference_mode():
            return graphs(inputs_embeds=given).last_hidden_state

    expected = ask()
    for _ in range(3):
        with ThreadPoolExecutor(1) as pool:
            assert torch.equal(pool.submit(ask).result(), expected)
