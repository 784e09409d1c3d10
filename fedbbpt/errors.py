"""The tree of errors. Each error says what is wrong, where, and what would be right. `wire.status` has its code.

FedbbptError
├── InvalidInput
│   ├── InvalidJob
│   ├── InvalidData
│   ├── InvalidTask
│   ├── InvalidExamples
│   ├── InvalidTensor
│   ├── InvalidHello
│   ├── InvalidUpdate
│   ├── InvalidRequest
│   ├── PromptTooLong
│   └── InvalidPlugin
├── ChecksumMismatch
├── NotFound
│   ├── UnknownRun
│   ├── UnknownRound
│   ├── UnknownTask
│   └── UnknownExamples
├── Conflict
│   ├── ClientIdTaken
│   ├── RunNameTaken
│   ├── SessionUnknown
│   ├── VersionMismatch
│   ├── RunFinished
│   ├── NoResultYet
│   ├── RevisionChanged
│   ├── UnsupportedPrompt
│   ├── OutputWithheld
│   ├── ScoreUnavailable
│   ├── PluginMissing
│   ├── NotPrivate
│   └── WrongService
├── SessionEvicted
├── Unauthenticated
│   └── TlsFailed
├── PolicyForbids
├── NotPermitted
├── Exhausted
│   ├── MessageTooLarge
│   ├── Overloaded
│   ├── RateLimited
│   ├── TooManyRuns
│   └── BudgetSpent
├── Unavailable
│   ├── PtmUnavailable
│   ├── CoordinatorUnavailable
│   ├── StoreReplaced
│   └── ChildFailed
├── DeadlineExceeded
├── StoreError
│   ├── StoreLocked
│   ├── StoreTooNew
│   ├── StoreFull
│   ├── StoreDamaged
│   └── StoreMismatch
├── AuditBroken
├── PortTaken
└── InsecureAddress
"""

import functools


class FedbbptError(Exception):
    """An error that a user can act upon.

    Attributes:
        what: What is wrong.
        where: A field, or a file and a line; empty if that is obvious.
        fix: What would be right; empty if there is nothing to do.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what, where, fix)
        self.what, self.where, self.fix = what, where, fix

    def __reduce__(self) -> tuple[object, ...]:
        """Makes the error picklable, although its constructor takes keywords."""
        return functools.partial(type(self), where=self.where, fix=self.fix), (self.what,)

    def __str__(self) -> str:
        """Returns "where: what; fix"."""
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.what}" + (f"; {self.fix}" if self.fix else "")


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message that is not empty, or else the name of the error's class.

    Other libraries raise errors of many lines, of which the user's message shows one.
    """
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)


def reason(error: Exception) -> str:
    """Returns an error's message; of an error of the operating system, without its number and the path."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


class InvalidInput(FedbbptError):
    """The caller sent or wrote something invalid."""


class InvalidJob(InvalidInput):
    """A job file is invalid."""


class InvalidData(InvalidInput):
    """Examples are unusable: there are none, all have one class, or a label is not in the task."""


class InvalidTask(InvalidInput):
    """The PTM cannot score a template or its classes."""


class InvalidExamples(InvalidInput):
    """The PTM cannot take the examples."""


class InvalidTensor(InvalidInput):
    """An array has the wrong type or shape, NaN or infinite elements, or numbers out of range."""


class InvalidHello(InvalidInput):
    """The client cannot join with this id, key, codec or number of examples."""


class InvalidUpdate(InvalidInput):
    """An update has wrong arrays, an invalid weight or invalid measurements."""


class InvalidRequest(InvalidInput):
    """A message lacks a part, or violates the order of a stream."""


class PromptTooLong(InvalidInput):
    """A prompt and an input exceed the model together."""


class InvalidPlugin(InvalidInput):
    """An installed method or backend does not load, or its name is taken."""


class ChecksumMismatch(FedbbptError):
    """Bytes were corrupted in transit."""


class NotFound(FedbbptError):
    """A name or a handle is unknown."""


class UnknownRun(NotFound):
    """The coordinator serves another run."""


class UnknownRound(NotFound):
    """The coordinator has no such round."""


class UnknownTask(NotFound):
    """The PTM service does not know the task."""


class UnknownExamples(NotFound):
    """The PTM service does not know the handle: it expired, was released, or belongs to another server."""


class Conflict(FedbbptError):
    """A valid request is not possible in the current state."""


class ClientIdTaken(Conflict):
    """A client with another key has this id. It keeps the id until an operator removes it."""


class RunNameTaken(Conflict):
    """Another run of the coordinator has this name."""


class SessionUnknown(Conflict):
    """The coordinator does not know the session. Joining again helps."""


class VersionMismatch(Conflict):
    """Client and coordinator speak different versions of the protocol."""


class RunFinished(Conflict):
    """The run has ended."""


class NoResultYet(Conflict):
    """No round of the run has been measured yet."""


class RevisionChanged(Conflict):
    """The PTM is not the revision with which the run began."""


class UnsupportedPrompt(Conflict):
    """The model does not take this kind of prompt, injection or projection."""


class OutputWithheld(Conflict):
    """The PTM returns less than the method needs."""


class PtmNotAccepted(Conflict):
    """The coordinator names a PTM service to which its client was not told to send inputs."""


class LabelsWithheld(Conflict):
    """The PTM service needs labels, and its caller was not told to send it any."""


class ScoreUnavailable(Conflict):
    """The PTM service's own model server did not return a class's score."""


class PluginMissing(Conflict):
    """The run uses a plug-in method that is not installed here, or another version of it."""


class NotPrivate(Conflict):
    """What the coordinator asks would show the values of a client, which secure aggregation hides."""


class WrongService(Conflict):
    """Another service answers at this address."""


class SessionEvicted(FedbbptError):
    """A newer session of the same client replaced this one."""


class Unauthenticated(FedbbptError):
    """The caller presented no credentials, or unknown ones."""


class TlsFailed(Unauthenticated):
    """Caller and service cannot agree on TLS: one has none, or does not accept the other's certificate."""


class PolicyForbids(FedbbptError):
    """The provider's policy does not allow the call."""


class NotPermitted(FedbbptError):
    """The caller is known, but its role or its name does not allow the call."""


class Exhausted(FedbbptError):
    """A limit is reached."""


class MessageTooLarge(Exhausted):
    """A message exceeds the size limit."""


class Overloaded(Exhausted):
    """The service is busy. Trying again later helps."""


class RateLimited(Exhausted):
    """The tenant sends too many calls. Trying again after `seconds` helps."""

    def __init__(self, what: str, *, where: str = "", fix: str = "", seconds: float = 1.0) -> None:
        """`seconds`: how long to wait before trying again."""
        super().__init__(what, where=where, fix=fix)
        self.seconds = seconds


class TooManyRuns(Exhausted):
    """The coordinator has as many runs as it may. Deleting an ended one helps."""


class BudgetSpent(Exhausted):
    """The tenant's budget is spent. Trying again does not help."""


class Unavailable(FedbbptError):
    """A service does not answer, or not now. Trying again helps."""


class PtmUnavailable(Unavailable):
    """The PTM service does not answer."""


class CoordinatorUnavailable(Unavailable):
    """The coordinator does not answer."""


class StoreReplaced(Unavailable):
    """Another coordinator has taken over the store. This one ends, and its clients find the other."""


class ChildFailed(Unavailable):
    """A process that the run needs has ended."""


class DeadlineExceeded(FedbbptError):
    """A call took longer than its deadline."""


class StoreError(FedbbptError):
    """The store could not read or write. The stored state is unchanged."""


class StoreLocked(StoreError):
    """Another coordinator has the database open."""


class StoreTooNew(StoreError):
    """A newer version of fedbbpt wrote the database."""


class StoreFull(StoreError):
    """The disk is full."""


class StoreDamaged(StoreError):
    """The database is not as a coordinator left it: it was changed by something else, or a part of it is missing."""


class StoreMismatch(StoreError):
    """The database holds another job."""


class AuditBroken(FedbbptError):
    """A record of the audit log was changed or is missing."""


class PortTaken(FedbbptError):
    """Another process listens on the port."""


class InsecureAddress(FedbbptError):
    """The address is not loopback, and there is no TLS."""
