"""The table of roles, against the services that it is for and the documents that show it."""

import re
from pathlib import Path

import pytest
from google.protobuf.descriptor import ServiceDescriptor

from fedbbpt.errors import NotPermitted
from fedbbpt.identity.callers import EVERYBODY, Caller
from fedbbpt.identity.roles import ROLES, Role, is_open, role_of, roles_of
from fedbbpt.ptm.v1 import ptm_pb2
from fedbbpt.v1 import coordinator_pb2, enrolment_pb2, run_pb2

REPOSITORY = Path(__file__).parents[3]
SERVICES: list[ServiceDescriptor] = [
    *coordinator_pb2.DESCRIPTOR.services_by_name.values(),
    *run_pb2.DESCRIPTOR.services_by_name.values(),
    *enrolment_pb2.DESCRIPTOR.services_by_name.values(),
    *ptm_pb2.DESCRIPTOR.services_by_name.values(),
]
EVERY_RPC = [f"/{service.full_name}/{method.name}" for service in SERVICES for method in service.methods]
RPCS = [rpc for rpc in EVERY_RPC if not is_open(rpc)]


def words(roles: frozenset[Role]) -> str:
    return "every" if roles == frozenset(Role) else ", ".join(role for role in Role if role in roles)


def test_the_table_has_every_rpc_of_every_service() -> None:
    listed = [f"/{name}/{rpc}" for name, rpcs in ROLES.items() for rpc in rpcs if not name.startswith("grpc.")]
    assert sorted(listed) == sorted(RPCS)
    assert sorted({*EVERY_RPC} - {*RPCS}) == [
        f"/fedbbpt.v1.EnrolmentService/{rpc}" for rpc in ("Enrol", "GetAuthority")
    ]


@pytest.mark.parametrize("rpc", RPCS)
def test_protos_and_protocol_say_who_may_call_an_rpc(rpc: str) -> None:
    service, _, name = rpc.removeprefix("/").rpartition("/")
    proto = REPOSITORY / "protos" / next(s.file.name for s in SERVICES if s.full_name == service)
    comment = re.search(rf"((?:^ *//.*\n)+) *rpc {name}\(", proto.read_text(), re.MULTILINE)
    assert comment and f"// Roles: {words(roles_of(rpc))}.\n" in comment[1]
    page = (REPOSITORY / "docs/protocol.md").read_text()
    (row,) = re.findall(rf"^\| {name} \| (.*) \|$", page, re.MULTILINE)
    assert [cell.strip() for cell in row.split("|")] == ["yes" if role in roles_of(rpc) else "" for role in Role]


@pytest.mark.parametrize("role", Role)
def test_a_caller_may_call_what_its_role_may(role: Role) -> None:
    caller = Caller("north", frozenset({role}))
    for rpc in RPCS:
        EVERYBODY.check_may_call(rpc)
        if role in roles_of(rpc):
            caller.check_may_call(rpc)
        else:
            with pytest.raises(NotPermitted, match=f"north has the role {role}, which may not call this"):
                caller.check_may_call(rpc)


def test_what_the_table_does_not_list_is_for_operators_and_health_is_for_everybody() -> None:
    assert roles_of("/fedbbpt.v1.RunService/New") == roles_of("/other.Service/Get") == {Role.OPERATOR}
    assert is_open("/grpc.health.v1.Health/Watch") and not is_open("/grpc.reflection.v1alpha.ServerReflection/X")
    assert role_of("owner") is Role.OWNER and role_of("root") is None
