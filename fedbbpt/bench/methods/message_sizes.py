"""Computes the bytes of a round's protocol messages, without the frames that gRPC and HTTP/2 add."""

from collections.abc import Sequence

from fedbbpt.types import Receipt, Task, Update
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.wire.messages import coordinator_messages
from fedbbpt.wire.messages.coordinator_messages import SharedTask
from fedbbpt.wire.tensors import bundle, chunks

SESSION = "s" * 16
"""A session id of the usual length."""


def message_bytes(exchanges: Sequence[tuple[Task, Update]]) -> tuple[int, int]:
    """Returns the bytes sent up (updates) and down (tasks and receipts)."""
    receipt = pb.SubmitUpdateResponse(receipt=coordinator_messages.receipt_code(Receipt.COUNTED)).ByteSize()
    up = down = 0
    for task, update in exchanges:
        down += sum(map(len, SharedTask(task).messages(task.id.client_id))) + receipt
        announced, data = bundle(update.arrays)
        header = coordinator_messages.update_header(
            SESSION, task.id, update, announced, run_id=task.id.run_id, client_id=task.id.client_id
        )
        up += pb.SubmitUpdateRequest(header=header).ByteSize()
        up += sum(pb.StreamUpdateRequest(chunk=chunk).ByteSize() for chunk in chunks(data))
    return up, down
