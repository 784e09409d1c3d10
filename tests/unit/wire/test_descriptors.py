"""How many connections a service accepts, by the descriptors that the operating system allows."""

import resource

import pytest

from fedbbpt.wire.descriptors import KEPT_AT_LEAST, MOST, connection_limit

INFINITY = resource.RLIM_INFINITY


class Allowed:
    """The limits of descriptors, soft and hard, as the operating system keeps them."""

    def __init__(self, soft: int, hard: int) -> None:
        self.now = (soft, hard)

    def getrlimit(self, which: int) -> tuple[int, int]:
        assert which == resource.RLIMIT_NOFILE
        return self.now

    def setrlimit(self, which: int, limits: tuple[int, int]) -> None:
        assert which == resource.RLIMIT_NOFILE and (self.now[1] == INFINITY or limits[0] <= self.now[1])
        self.now = limits


@pytest.mark.parametrize(
    ("soft", "hard", "taken", "connections"),
    [
        (1024, 1024, 1024, 896),
        (1024, 4096, 4096, 3584),
        (256, INFINITY, MOST, MOST * 7 // 8),
        (INFINITY, INFINITY, INFINITY, MOST * 7 // 8),
        (2**30, 2**30, 2**30, MOST * 7 // 8),
        (256, 256, 256, 256 - KEPT_AT_LEAST),
        (100, 100, 100, 50),
    ],
)
def test_an_eighth_of_the_descriptors_is_kept_back(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, taken: int, connections: int
) -> None:
    allowed = Allowed(soft, hard)
    monkeypatch.setattr(resource, "getrlimit", allowed.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", allowed.setrlimit)
    assert connection_limit("127.0.0.1") == connections
    assert allowed.now == (taken, hard)
