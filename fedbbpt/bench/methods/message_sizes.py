"""Computes the bytes of a round's protocol messages, without the frames that gRPC and HTTP/2 add."""

from collections.abc import Sequence

from fedbbpt.types import Receipt, Task, Update
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.wire.messages.coordinator_messages import SharedTask, own_part, receipt_part, update_header
from fedbbpt.wire.tensors import bundle, chunks


def message_bytes(exchanges: Sequence[tuple[Task, Update]]) -> tuple[int, int]:
    """Returns the bytes sent up (updates) and down (tasks and receipts)."""
    receipt = len(receipt_part(Receipt.COUNTED))
    up = down = 0
    for task, update in exchanges:
        down += sum(map(len, SharedTask(task).messages(own_part(task.id.client_id)))) + receipt
        announced, data = bundle(update.arrays)
        own = {"run_id": task.id.run_id, "client_id": task.id.client_id}
        up += pb.TakePartRequest(update=update_header("", task.id, update, announced, **own)).ByteSize()
        up += sum(pb.StreamUpdateRequest(chunk=chunk).ByteSize() for chunk in chunks(data))
    return up, down
