"""Converts the messages of secure aggregation between `secure.messages` and coordinator.proto.

Unreadable messages raise InvalidRequest.
"""

from functools import lru_cache

import numpy as np

from fedbbpt.errors import InvalidRequest
from fedbbpt.secure import shamir
from fedbbpt.secure.messages import (
    Attempt,
    Consent,
    FromClient,
    FromServer,
    Inbox,
    Keys,
    Masked,
    Refusal,
    Reveal,
    Roster,
    Shares,
    Signatures,
    Survivors,
    Waiting,
)
from fedbbpt.v1 import coordinator_pb2 as pb

_NUMBER_BYTES, _KEY_BYTES = 8, 32


def secure_request(message: FromClient) -> pb.SecureRequest:
    """Writes what a client says."""
    match message:
        case Keys():
            return pb.SecureRequest(keys=_keys_message(message))
        case Shares(epoch, boxes):
            return pb.SecureRequest(shares=pb.SecureShares(epoch=epoch, boxes=boxes))
        case Masked(epoch, attempt, round, values):
            data = values.astype("<u8").tobytes()
            return pb.SecureRequest(masked=pb.SecureMasked(epoch=epoch, attempt=attempt, round=round, values=data))
        case Consent(epoch, attempt, signature, seeds):
            consent = pb.SecureConsent(epoch=epoch, attempt=attempt, signature=signature, seeds=seeds)
            return pb.SecureRequest(consent=consent)
        case Reveal(epoch, attempt, shares):
            written = [b"" if each is None else each.to_bytes(shamir.ELEMENT_BYTES, "little") for each in shares]
            return pb.SecureRequest(reveal=pb.SecureReveal(epoch=epoch, attempt=attempt, shares=written))
        case Refusal(epoch, attempt, survivors):
            return pb.SecureRequest(refusal=pb.SecureRefusal(epoch=epoch, attempt=attempt, survivors=survivors))
        case Waiting(round):
            return pb.SecureRequest(waiting=pb.SecureWaiting(round=round))


def from_client(request: pb.SecureRequest) -> FromClient:
    """Reads what a client says."""
    match request.WhichOneof("part"):
        case "keys":
            return _keys(request.keys)
        case "shares":
            return Shares(request.shares.epoch, tuple(request.shares.boxes))
        case "masked":
            sent = request.masked
            if len(sent.values) % _NUMBER_BYTES:
                raise InvalidRequest(f"{len(sent.values)} bytes", where="masked.values", fix="8 for each number")
            values = np.frombuffer(sent.values, "<u8").astype(np.uint64)
            return Masked(sent.epoch, sent.attempt, sent.round, values)
        case "consent":
            given = request.consent
            return Consent(given.epoch, given.attempt, given.signature, tuple(given.seeds))
        case "reveal":
            shares = tuple(map(_share, request.reveal.shares))
            return Reveal(request.reveal.epoch, request.reveal.attempt, shares)
        case "refusal":
            refused = request.refusal
            return Refusal(refused.epoch, refused.attempt, tuple(refused.survivors))
        case "waiting":
            return Waiting(request.waiting.round)
    raise InvalidRequest("an empty message", where="secure", fix="one of its parts")


def _share(sent: bytes) -> int | None:
    if not sent:
        return None
    share = int.from_bytes(sent, "little")
    if len(sent) != shamir.ELEMENT_BYTES or share >= shamir.PRIME:
        fix = f"{shamir.ELEMENT_BYTES} bytes with a number below 2^127 - 1"
        raise InvalidRequest("not a share", where="reveal.shares", fix=fix)
    return share


def _keys_message(keys: Keys) -> pb.SecureKeys:
    return pb.SecureKeys(agreement=keys.agreement, verification=keys.verification)


def _keys(sent: pb.SecureKeys) -> Keys:
    if not len(sent.agreement) == len(sent.verification) == _KEY_BYTES:
        raise InvalidRequest("a key of a wrong length", where="secure.keys", fix=f"{_KEY_BYTES} bytes")
    return Keys(sent.agreement, sent.verification)


def secure_part(message: FromServer) -> bytes:
    """Returns what the coordinator asks as a serialised TakePartResponse, which may follow another one in a message."""
    return _own(message) if isinstance(message, Inbox | Signatures) else _shared(message)


@lru_cache(maxsize=64)
def _shared(message: FromServer) -> bytes:
    """Serialises a message that all clients of an epoch get, once for all of them."""
    return _own(message)


def _own(message: FromServer) -> bytes:
    return pb.TakePartResponse(secure=secure_response(message)).SerializeToString()


def secure_response(message: FromServer) -> pb.SecureResponse:
    """Writes what the coordinator asks."""
    match message:
        case Roster(epoch, members):
            named = [pb.SecureMember(client_id=name, keys=_keys_message(keys)) for name, keys in members]
            return pb.SecureResponse(roster=pb.SecureRoster(epoch=epoch, members=named))
        case Inbox(epoch, boxes):
            return pb.SecureResponse(inbox=pb.SecureInbox(epoch=epoch, boxes=boxes))
        case Attempt(epoch, attempt, round):
            return pb.SecureResponse(attempt=pb.SecureAttempt(epoch=epoch, attempt=attempt, round=round))
        case Survivors(epoch, attempt, dropped, signed):
            survivors = pb.SecureSurvivors(epoch=epoch, attempt=attempt, dropped=dropped, signed=signed)
            return pb.SecureResponse(survivors=survivors)
        case Signatures(epoch, attempt, signatures):
            written = [pb.SecureSignature(index=index, signature=signature) for index, signature in signatures]
            return pb.SecureResponse(signatures=pb.SecureSignatures(epoch=epoch, attempt=attempt, signatures=written))


def from_server(response: pb.SecureResponse) -> FromServer:
    """Reads what the coordinator asks."""
    match response.WhichOneof("part"):
        case "roster":
            members = tuple((each.client_id, _keys(each.keys)) for each in response.roster.members)
            return Roster(_epoch(response.roster.epoch), members)
        case "inbox":
            return Inbox(response.inbox.epoch, tuple(response.inbox.boxes))
        case "attempt":
            return Attempt(response.attempt.epoch, response.attempt.attempt, response.attempt.round)
        case "survivors":
            told = response.survivors
            return Survivors(told.epoch, told.attempt, tuple(told.dropped), told.signed)
        case "signatures":
            signed = tuple((each.index, each.signature) for each in response.signatures.signatures)
            return Signatures(response.signatures.epoch, response.signatures.attempt, signed)
    raise InvalidRequest("an empty message", where="secure", fix="one of its parts")


def _epoch(sent: int) -> int:
    if sent < 0:
        raise InvalidRequest(f"{sent}", where="roster.epoch", fix="at least 0")
    return sent
