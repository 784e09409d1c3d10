"""The messages of secure aggregation. coordinator.proto has the same ones, and describes each.

An epoch is a roster of clients with their keys and shares for ATTEMPTS attempts. An attempt is one sum.
"""

import hashlib
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

ATTEMPTS = 16
"""The number of attempts of an epoch. The steps of an epoch are shared by so many rounds."""


@dataclass(frozen=True, slots=True)
class Keys:
    """A client's public keys, for its session."""

    agreement: bytes
    """X25519, 32 bytes."""
    verification: bytes
    """Ed25519, 32 bytes: of the signatures on survivors."""


@dataclass(frozen=True, slots=True)
class Roster:
    """Begins an epoch. The coordinator sends the same to all of its clients."""

    epoch: int
    """A number that no client has seen before."""
    members: tuple[tuple[str, Keys], ...]
    """The clients and their keys, sorted by their ids. Their places are their indices."""

    def clients(self) -> bytes:
        """Returns the SHA-256 of all clients with their keys."""
        found = hashlib.sha256()
        for client_id, keys in self.members:
            named = client_id.encode()
            found.update(len(named).to_bytes(4, "little") + named + keys.agreement + keys.verification)
        return found.digest()

    def digest(self) -> bytes:
        """Returns the SHA-256 of the epoch and of `clients`."""
        return hashlib.sha256(self.epoch.to_bytes(8, "little") + self.clients()).digest()


@dataclass(frozen=True, slots=True)
class Shares:
    """A client's shares for its neighbours: one box for each, in the order of their indices."""

    epoch: int
    boxes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Inbox:
    """The boxes of a client's neighbours for it, in the order of their indices. The epoch is complete."""

    epoch: int
    boxes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Attempt:
    """Asks all clients of an epoch for their masked answers to the task of a round."""

    epoch: int
    attempt: int
    round: int


@dataclass(frozen=True, slots=True, eq=False)
class Masked:
    """A client's masked answer."""

    epoch: int
    attempt: int
    round: int
    values: npt.NDArray[np.uint64]
    """`[L]`"""


@dataclass(frozen=True, slots=True)
class Survivors:
    """Says whose masked answers are missing from an attempt."""

    epoch: int
    attempt: int
    dropped: tuple[int, ...]
    """Indices, in ascending order."""
    signed: bool = False
    """Whether clients sign the survivors even if nobody was dropped."""


@dataclass(frozen=True, slots=True)
class Consent:
    """A client signs the survivors, and gives the seeds of the masks that it shares with dropped neighbours."""

    epoch: int
    attempt: int
    signature: bytes
    seeds: tuple[bytes, ...]
    """In the order of the neighbours' indices."""


@dataclass(frozen=True, slots=True)
class Signatures:
    """The signatures of a client's neighbours, by index."""

    epoch: int
    attempt: int
    signatures: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Reveal:
    """A client's shares of the secrets of its surviving neighbours, in the order of their indices."""

    epoch: int
    attempt: int
    shares: tuple[int | None, ...]
    """None where the neighbour's box could not be read."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The client has revealed for this round already, for other survivors."""

    epoch: int
    attempt: int
    survivors: tuple[str, ...]
    """Those that it has revealed for, sorted."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The client has an answer to the task of a round, and no attempt asks for it."""

    round: int


FromClient: TypeAlias = Keys | Shares | Masked | Consent | Reveal | Refusal | Waiting
FromServer: TypeAlias = Roster | Inbox | Attempt | Survivors | Signatures


def signed_text(roster: bytes, attempt: Attempt, dropped: tuple[int, ...]) -> bytes:
    """Returns what clients sign: the roster's digest, the attempt, its round and the dropped clients."""
    numbers = b"".join(number.to_bytes(8, "little") for number in (attempt.attempt, attempt.round, *dropped))
    return b"fedbbpt survivors" + roster + numbers
