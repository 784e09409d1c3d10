"""How many replicas there should be, by the tokens that wait to be computed."""

from math import ceil
from typing import Any

QUEUED_TOKENS = "queued_tokens"
"""What every replica reports; they all say the same, since the front has the queue."""
TOKENS_PER_REPLICA = 8192
"""That may wait for each replica before another is begun: eight micro-batches."""


class QueuedTokens:
    """A policy of Ray Serve, which keeps to the bounds and waits before it does what this says."""

    def __init__(self, tokens_per_replica: int = TOKENS_PER_REPLICA) -> None:
        self._tokens_per_replica = tokens_per_replica

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """The number of replicas, and what the policy wants to know next time: nothing."""
        reported = context.aggregated_metrics.get(QUEUED_TOKENS, {})
        return max(1, ceil(max(reported.values(), default=0.0) / self._tokens_per_replica)), {}
