"""The outcome of a case, for all kits."""

from dataclasses import dataclass
from enum import StrEnum

from fedbbpt.conformance.case_files import CaseOfAKit


class Broken(Exception):
    """Raised if the case's claim does not hold."""


class Skipped(Exception):
    """Raised if the case does not apply to what is tested."""


class Outcome(StrEnum):
    """The outcome of a case."""

    PASSED = "passed"
    SKIPPED = "skipped"
    FAILED = "failed"
    KNOWN = "failed: known"
    UNEXPECTED = "passed: unexpected"
    """The case passed, but is on the list of known failures."""

    @property
    def good(self) -> bool:
        """Whether what is tested conforms as expected."""
        return self not in (Outcome.FAILED, Outcome.UNEXPECTED)

    def if_known(self, known: bool) -> "Outcome":
        """Returns the outcome of a case that may be on the list of known failures."""
        if not known:
            return self
        return {Outcome.FAILED: Outcome.KNOWN, Outcome.PASSED: Outcome.UNEXPECTED}.get(self, self)


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one case."""

    case: CaseOfAKit
    outcome: Outcome
    detail: str
    """The reason, empty if the case passed."""
    seconds: float
