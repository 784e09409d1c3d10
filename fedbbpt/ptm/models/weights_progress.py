"""The progress of transformers while it reads or dequantises weights, which it would show by bars of its own."""

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any

from transformers.utils import logging as transformers_logging

from fedbbpt.host.progress import progress


@contextmanager
def weights_progress(what: str) -> Iterator[None]:
    """Reports the tensors that transformers goes through in a block as the progress of `what`."""

    def hook(factory: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        tensors = args[0] if args else given.get("iterable")
        counted = tensors if tensors is None else _counted(what, tensors)
        return transformers_logging.EmptyTqdm(counted)  # type: ignore[no-untyped-call]  # it has no types

    before = transformers_logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(before)


def _counted(what: str, tensors: Iterable[Any]) -> Iterator[Any]:
    total = len(tensors) if isinstance(tensors, Sized) else None
    with progress(what, total, "tensors") as advance:
        for tensor in tensors:
            yield tensor
            advance(1)
