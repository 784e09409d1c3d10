"""Computes the bytes of a round's protocol messages, without the frames that gRPC and HTTP/2 add."""

from collections.abc import Sequence

from fedbbpt.types import Receipt, Task, Update
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.wire.messages import coordinator_messages
from fedbbpt.wire.tensors import bundle, chunks

SESSION = "s" * 43
"""A session id of the usual length."""


def message_bytes(exchanges: Sequence[tuple[Task, Update]]) -> tuple[int, int]:
    """Returns the bytes sent up (updates) and down (tasks and receipts)."""
    receipt = coordinator_messages.submit_update_response(Receipt.COUNTED).ByteSize()
    up = down = 0
    for task, update in exchanges:
        announced, data = bundle(task.arrays)
        down += pb.StreamTasksResponse(task=coordinator_messages.task_header(task, announced)).ByteSize() + receipt
        down += sum(pb.StreamTasksResponse(chunk=chunk).ByteSize() for chunk in chunks(data))
        announced, data = bundle(update.arrays)
        header = coordinator_messages.update_header(SESSION, task.id, update, announced)
        up += pb.SubmitUpdateRequest(header=header).ByteSize()
        up += sum(pb.SubmitUpdateRequest(chunk=chunk).ByteSize() for chunk in chunks(data))
    return up, down
