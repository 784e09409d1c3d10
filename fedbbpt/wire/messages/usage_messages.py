"""Converts usage and budgets between `fedbbpt.types` and the messages of ptm.proto."""

from collections.abc import Mapping

from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.types import Budget, Statement, Usage
from fedbbpt.wire.messages.durations import duration, seconds_of


def usage_message(usage: Usage) -> pb.Usage:
    """Writes usage."""
    return pb.Usage(
        queries=usage.queries,
        tokens=usage.tokens,
        compute_time=duration(usage.compute_seconds),
        cached_queries=usage.cached_queries,
        queue_time=duration(usage.queue_seconds),
        cost_micros=usage.cost_micros,
        bounded_scores=usage.bounded_scores,
    )


def usage(message: pb.Usage) -> Usage:
    """Reads usage."""
    return Usage(
        message.queries,
        message.tokens,
        seconds_of(message.compute_time),
        message.cached_queries,
        seconds_of(message.queue_time),
        message.cost_micros,
        message.bounded_scores,
    )


def budget_message(budget: Budget) -> pb.Budget:
    """Writes a budget."""
    return pb.Budget(queries=budget.queries, tokens=budget.tokens, label_tokens=budget.label_tokens)


def budget(message: pb.Budget) -> Budget:
    """Reads a budget."""
    return Budget(
        message.queries if message.HasField("queries") else None,
        message.tokens if message.HasField("tokens") else None,
        message.label_tokens if message.HasField("label_tokens") else None,
    )


def get_usage_response(used: Usage, left: Budget, handles: int, tasks: Mapping[str, Usage]) -> pb.GetUsageResponse:
    """Writes the usage of a tenant, the budget that is left, its number of handles, and the usage of each task."""
    return pb.GetUsageResponse(
        usage=usage_message(used),
        handles=handles,
        budget=budget_message(left),
        tasks=[pb.TaskUsage(task_id=name, usage=usage_message(each)) for name, each in tasks.items()],
    )


def statement(response: pb.GetUsageResponse) -> Statement:
    """Reads the account of a tenant."""
    tasks = {task.task_id: usage(task.usage) for task in response.tasks}
    return Statement(usage(response.usage), budget(response.budget), response.handles, tasks)
