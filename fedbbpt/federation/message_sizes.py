"""Computes the bytes of a round's protocol messages, without the frames that gRPC and HTTP/2 add."""

from collections.abc import Mapping, Sequence

from fedbbpt.methods.replay import Told
from fedbbpt.server.live_run import shared_task
from fedbbpt.types import Receipt, Task, Update
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.wire.messages.coordinator_messages import own_part, receipt_part, update_header
from fedbbpt.wire.tensors import bundle, chunks


def message_bytes(
    exchanges: Sequence[tuple[Task, Update]], told: Told | None = None, held: Mapping[str, bytes] | None = None
) -> tuple[int, int]:
    """Returns the bytes sent up (updates) and down (tasks and receipts).

    Args:
        exchanges: The tasks of a round, each with its encoded update.
        told: What clients that replay are told of the round; None sends them the whole broadcast.
        held: The digest of the state that a client holds from an earlier round, by client id.
    """
    receipt = len(receipt_part(Receipt.COUNTED))
    up = down = 0
    sizes = dict[bytes | None, int]()
    for task, update in exchanges:
        own = own_part(task.id.client_id)
        has = None if told is None else (held or {}).get(task.id.client_id, b"")
        has = has if told is None or has in told.steps or has == told.after else b""
        if has not in sizes:  # apart from its client's id, a task is the same for all that hold the same
            sizes[has] = sum(map(len, shared_task(task, told, has).messages(b"")))
        down += sizes[has] + len(own) + receipt
        announced, data = bundle(update.arrays)
        ids = {"run_id": task.id.run_id, "client_id": task.id.client_id}
        up += pb.TakePartRequest(update=update_header("", task.id, update, announced, **ids)).ByteSize()
        up += sum(pb.StreamUpdateRequest(chunk=chunk).ByteSize() for chunk in chunks(data))
    return up, down
