"""Reading the reports of rounds."""

from collections.abc import Sequence

from fedbbpt.types import Report


def dev_losses(reports: Sequence[Report]) -> list[float]:
    """Returns the dev loss of each report, all of which measured their prompt."""
    losses = [report.dev_loss for report in reports if report.dev_loss is not None]
    assert len(losses) == len(reports), "a round did not measure its prompt"
    return losses
