"""The roles of members, and the one table of which role may call which rpc.

The interceptors of both services look a call up here, before a servicer sees it. docs/protocol.md and the comments of
the protos show the same table, and a test compares them.
"""

from collections.abc import Mapping
from enum import StrEnum


class Role(StrEnum):
    """What a member is to a federation."""

    CLIENT = "client"
    """Takes part in runs under its own name."""
    OWNER = "owner"
    """The model's owner, who takes part in runs of fed-sp under the name `owner`."""
    OPERATOR = "operator"
    """Begins, stops and deletes runs, and removes members."""
    OBSERVER = "observer"
    """Looks at runs and changes nothing."""


def role_of(text: str) -> Role | None:
    """Returns the role of this name, or None."""
    return Role(text) if text in Role.__members__.values() else None


EVERY = frozenset(Role)
PARTICIPANTS = frozenset({Role.CLIENT, Role.OWNER})
"""The roles that take part in runs."""
_OPERATORS = frozenset({Role.OPERATOR})
WATCHERS = frozenset({Role.OPERATOR, Role.OBSERVER})
"""The roles that see every member of a run."""
_ASKERS = EVERY - {Role.OBSERVER}

ROLES: Mapping[str, Mapping[str, frozenset[Role]]] = {
    "fedbbpt.v1.CoordinatorService": {
        "Join": PARTICIPANTS,
        "GetAuxiliary": PARTICIPANTS,
        "TakePart": PARTICIPANTS,
        "StreamUpdate": PARTICIPANTS,
        "ReportTrouble": PARTICIPANTS,
        "ReportPtm": PARTICIPANTS,
        "Leave": PARTICIPANTS,
    },
    "fedbbpt.v1.RunService": {
        "SubmitRun": _OPERATORS,
        "ListRuns": WATCHERS,
        "DeleteRun": _OPERATORS,
        "ContinueRun": _OPERATORS,
        "ListMembers": WATCHERS,
        "RemoveMember": _OPERATORS,
        "GetRun": EVERY,
        "WatchRun": EVERY,
        "StopRun": _OPERATORS,
        "GetResult": EVERY,
        "BackupRun": _OPERATORS,
    },
    "fedbbpt.ptm.v1.PtmService": {
        "Describe": EVERY,
        "RegisterTask": _ASKERS,
        "RegisterExamples": _ASKERS,
        "Score": _ASKERS,
        "Release": _ASKERS,
        "GetUsage": EVERY,
    },
    "fedbbpt.v1.EnrolmentService": {"Renew": EVERY},
    "grpc.reflection.v1.ServerReflection": {"ServerReflectionInfo": EVERY},
    "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": EVERY},
}
"""The roles that may call each rpc, by service."""

ANYBODY = (
    "/grpc.health.v1.Health/",
    "/fedbbpt.v1.EnrolmentService/GetAuthority",
    "/fedbbpt.v1.EnrolmentService/Enrol",
)
"""Beginnings of the methods that anybody may call: health probes carry no credentials, new members have none yet."""


def is_open(method: str) -> bool:
    """Returns whether anybody may call the method, such as `/grpc.health.v1.Health/Check`."""
    return method.startswith(ANYBODY)


def roles_of(method: str) -> frozenset[Role]:
    """Returns the roles that may call a method, such as `/fedbbpt.v1.RunService/GetRun`.

    A method that the table does not list is for operators.
    """
    service, _, rpc = method.removeprefix("/").partition("/")
    return ROLES.get(service, {}).get(rpc, _OPERATORS)
