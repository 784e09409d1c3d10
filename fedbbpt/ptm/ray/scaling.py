"""Decides how many replicas to run, by the number of tokens that wait to be computed."""

from math import ceil
from typing import Any

QUEUED_TOKENS = "queued_tokens"
"""Name of the metric that every replica reports. All report the same value, because the front has the only queue."""
TOKENS_PER_REPLICA = 8192
"""Waiting tokens for each replica above which another one is started: eight micro-batches."""


class QueuedTokens:
    """An autoscaling policy of Ray Serve, which itself applies the bounds and the delays."""

    def __init__(self, tokens_per_replica: int = TOKENS_PER_REPLICA) -> None:
        self._tokens_per_replica = tokens_per_replica

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Returns the number of replicas, and an empty state: the policy remembers nothing between calls."""
        reported = context.aggregated_metrics.get(QUEUED_TOKENS, {})
        return max(1, ceil(max(reported.values(), default=0.0) / self._tokens_per_replica)), {}
