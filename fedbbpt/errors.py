"""The tree of errors. Each says what was wrong, where, and what would be right; `wire.status` gives each its gRPC code.

FedbbptError
├── InvalidInput                 the caller sent or wrote something that cannot be taken
│   ├── InvalidJob               a job file
│   ├── InvalidData              examples: empty, one class only, labels outside the task
│   ├── InvalidTask              a template or classes that the PTM cannot score
│   ├── InvalidExamples          examples that the PTM cannot take
│   ├── InvalidTensor            NaN, infinite, mis-shaped, of a wrong type
│   ├── InvalidHello             a Join that cannot be taken
│   ├── InvalidUpdate            names, weight or metrics of an update
│   ├── InvalidRequest           a message that lacks a part or breaks the order of a stream
│   ├── PromptTooLong            prompt and input exceed the model
│   └── InvalidPlugin            an installed method or backend that does not load, or whose name is taken
├── ChecksumMismatch             bytes changed on the way
├── NotFound
│   ├── UnknownRun  UnknownRound  UnknownTask  UnknownExamples
├── Conflict                     sound, but not in this state
│   ├── ClientIdTaken            a live client has this id
│   ├── SessionUnknown           join again
│   ├── VersionMismatch          protocol versions do not meet
│   ├── RunFinished  NoResultYet
│   ├── RevisionChanged          the PTM is no longer the one that the run began with
│   ├── UnsupportedPrompt        the model does not take this kind of prompt
│   ├── OutputWithheld           the PTM gives less than the caller's method needs
│   ├── ScoreUnavailable         the PTM's own model server does not tell a class's score
│   ├── PluginMissing            the run uses a plug-in method that is not installed here, or is another version
│   └── WrongService             somebody answers, but speaks another protocol
├── SessionEvicted               a newer session of the same client took over
├── Unauthenticated
├── PolicyForbids                known, but not allowed to
├── Exhausted
│   ├── MessageTooLarge
│   ├── Overloaded               try again later
│   ├── RateLimited              so many in so short a time; try again later
│   └── BudgetSpent              trying again does not help
├── Unavailable                  nobody answers, or not now
│   ├── PtmUnavailable  CoordinatorUnavailable
│   └── ChildFailed              a process that a run cannot do without has ended
├── DeadlineExceeded
├── StoreError
│   ├── StoreLocked              another coordinator has the database open
│   ├── StoreTooNew              written by a newer version
│   ├── StoreFull                the disk is full; nothing was lost
│   └── StoreMismatch            the database holds another job
├── AuditBroken                  a record of the audit log was changed, or is missing
├── PortTaken
└── InsecureAddress              not loopback and no TLS
"""

import functools


class FedbbptError(Exception):
    """`what` was wrong, `where` (a field, a file and line), the `fix` (what would be right)."""

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what, where, fix)
        self.what, self.where, self.fix = what, where, fix

    def __reduce__(self) -> tuple[object, ...]:
        """Exceptions that take keywords do not cross to another process by themselves."""
        return functools.partial(type(self), where=self.where, fix=self.fix), (self.what,)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.what}" + (f"; {self.fix}" if self.fix else "")


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message that is not empty, or else the name of the error's class.

    Other libraries raise errors of many lines, of which the user's message shows one.
    """
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)


class InvalidInput(FedbbptError): ...


class InvalidJob(InvalidInput): ...


class InvalidData(InvalidInput): ...


class InvalidTask(InvalidInput): ...


class InvalidExamples(InvalidInput): ...


class InvalidTensor(InvalidInput): ...


class InvalidHello(InvalidInput): ...


class InvalidUpdate(InvalidInput): ...


class InvalidRequest(InvalidInput): ...


class PromptTooLong(InvalidInput): ...


class InvalidPlugin(InvalidInput): ...


class ChecksumMismatch(FedbbptError): ...


class NotFound(FedbbptError): ...


class UnknownRun(NotFound): ...


class UnknownRound(NotFound): ...


class UnknownTask(NotFound): ...


class UnknownExamples(NotFound): ...


class Conflict(FedbbptError): ...


class ClientIdTaken(Conflict): ...


class SessionUnknown(Conflict): ...


class VersionMismatch(Conflict): ...


class RunFinished(Conflict): ...


class NoResultYet(Conflict): ...


class RevisionChanged(Conflict): ...


class UnsupportedPrompt(Conflict): ...


class OutputWithheld(Conflict): ...


class ScoreUnavailable(Conflict): ...


class PluginMissing(Conflict): ...


class WrongService(Conflict): ...


class SessionEvicted(FedbbptError): ...


class Unauthenticated(FedbbptError): ...


class PolicyForbids(FedbbptError): ...


class Exhausted(FedbbptError): ...


class MessageTooLarge(Exhausted): ...


class Overloaded(Exhausted): ...


class RateLimited(Exhausted):
    def __init__(self, what: str, *, where: str = "", fix: str = "", seconds: float = 1.0) -> None:
        """`seconds` from now it will not be."""
        super().__init__(what, where=where, fix=fix)
        self.seconds = seconds


class BudgetSpent(Exhausted): ...


class Unavailable(FedbbptError): ...


class PtmUnavailable(Unavailable): ...


class CoordinatorUnavailable(Unavailable): ...


class ChildFailed(Unavailable): ...


class DeadlineExceeded(FedbbptError): ...


class StoreError(FedbbptError): ...


class StoreLocked(StoreError): ...


class StoreTooNew(StoreError): ...


class StoreFull(StoreError): ...


class StoreMismatch(StoreError): ...


class AuditBroken(FedbbptError): ...


class PortTaken(FedbbptError): ...


class InsecureAddress(FedbbptError): ...
