"""The coordinator's side of secure aggregation as a state machine: one epoch, without I/O and without a clock.

It routes what clients seal for each other, and adds masked answers. It gets the secrets of survivors, and the seeds of
masks that dropped clients share with them, so that all masks cancel in the sum and in nothing else.

Whoever drives it decides how long to wait for clients, and calls `freeze` to go on without some. If it cannot go on,
the same answers are asked for in another attempt or another epoch, whose masks are others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedbbpt.errors import InvalidRequest
from fedbbpt.secure import masks, shamir
from fedbbpt.secure.graph import LEAST_CLIENTS, graph, needed
from fedbbpt.secure.messages import (
    ATTEMPTS,
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
    signed_text,
)

BOX_BYTES = ATTEMPTS * shamir.ELEMENT_BYTES + 16
"""Shares for all attempts, and the tag of ChaCha20-Poly1305."""

V = TypeVar("V")


class Step(Enum):
    """What the coordinator waits for."""

    SHARES = auto()
    NOTHING = auto()
    """The epoch is ready for its next attempt."""
    MASKED = auto()
    CONSENTS = auto()
    REVEALS = auto()


@dataclass(frozen=True, slots=True, eq=False)
class Total:
    """The sum of the answers of an attempt."""

    round: int
    clients: tuple[str, ...]
    """The survivors, sorted."""
    values: npt.NDArray[np.uint64]
    """`[L]`"""


@dataclass(slots=True, eq=False)
class _Open:
    """An open attempt, with what clients have sent for it by their indices."""

    attempt: Attempt
    length: int
    signed: bool
    masked: dict[int, npt.NDArray[np.uint64]] = field(default_factory=dict)
    dropped: tuple[int, ...] = ()
    consents: dict[int, Consent] = field(default_factory=dict)
    reveals: dict[int, Reveal] = field(default_factory=dict)
    shares: dict[int, dict[int, int]] = field(default_factory=dict)
    """Shares of each survivor's secret, by their places."""
    complete: int = 0
    """The number of survivors of whose secrets there are enough shares."""
    wrong: npt.NDArray[np.uint64] | None = None
    """The sum by the first shares, once it has turned out to be none."""


class SecureServer:
    """One epoch. `sent` has what each of its clients is due to receive."""

    def __init__(self, epoch: int, members: Mapping[str, Keys], threshold: float) -> None:
        """Sends the roster to its members, at least LEAST_CLIENTS of them."""
        self.roster = Roster(epoch, tuple(sorted(members.items())))
        self._digest = self.roster.digest()
        self._index = {name: index for index, (name, _) in enumerate(self.roster.members)}
        self._graph = graph(len(members), threshold, self.roster.clients())
        self._needed = [needed(len(neighbours), threshold) for neighbours in self._graph]
        self._boxes: dict[int, Sequence[bytes]] = {}
        self._attempt: _Open | None = None
        self._number = -1
        self.step = Step.SHARES
        self.total: Total | None = None
        """The sum of the last attempt, once it is known. Its last number is that of its clients, unless it is wrong."""
        self.blamed: str | None = None
        """The client whose shares were wrong in the last attempt, if it was found. The sum is right without them.

        It changed them, or another client sealed wrong ones for it: nobody can tell which.
        """
        self.sent: dict[str, list[FromServer]] = {name: [self.roster] for name in members}
        """The epoch's messages to each client, and those of the open attempt."""

    def keys_of(self, client_id: str) -> Keys | None:
        """Returns the keys of a client of the epoch; None for others."""
        index = self._index.get(client_id)
        return None if index is None else self.roster.members[index][1]

    @property
    def attempts_left(self) -> int:
        """The number of further attempts that there are shares for."""
        return ATTEMPTS - 1 - self._number

    @property
    def missing(self) -> frozenset[str]:
        """The clients that the step waits for."""
        opened = self._attempt
        match self.step:
            case Step.NOTHING:
                answered: Sequence[int] = range(len(self._graph))
            case Step.SHARES:
                answered = tuple(self._boxes)
            case Step.MASKED:
                assert opened is not None, "an attempt is open"
                answered = tuple(opened.masked)
            case Step.CONSENTS | Step.REVEALS:
                assert opened is not None, "an attempt is open"
                given = opened.consents if self.step is Step.CONSENTS else opened.reveals
                answered = (*given, *opened.dropped)
        found = set(answered)
        return frozenset(name for name, index in self._index.items() if index not in found)

    @property
    def dropped(self) -> frozenset[str]:
        """The clients whose answers the open attempt does not sum."""
        gone = self._attempt.dropped if self._attempt is not None else ()
        return frozenset(self.roster.members[index][0] for index in gone)

    def begin(self, round: int, length: int, *, signed: bool = False) -> None:
        """Begins the next attempt, in place of an open one, if any.

        Args:
            round: The round whose answers are summed.
            length: The number of numbers of an answer.
            signed: Whether clients sign the survivors in any case, so that nobody reveals for survivors that another
                client refuses. Needed if clients may have revealed for this round before.
        """
        assert self.attempts_left and self.step is not Step.SHARES, "the epoch is ready, and has an attempt left"
        self._number += 1
        attempt = Attempt(self.roster.epoch, self._number, round)
        self._attempt, self.total, self.step = _Open(attempt, length, signed), None, Step.MASKED
        self.blamed = None
        for messages in self.sent.values():
            messages[2:] = [attempt]

    def take(self, client_id: str, message: FromClient) -> bool:
        """Takes what a client sends, and goes on if the step is complete. Returns whether it was of use.

        A message that came before, or belongs to another epoch, attempt or step, is of no use and does nothing.

        Raises:
            InvalidRequest: The message is of the open step, and wrong.
        """
        index = self._index.get(client_id)
        if isinstance(message, Keys | Refusal | Waiting):
            return False  # for whoever chooses the clients of the next epoch
        if index is None or message.epoch != self.roster.epoch:
            return False
        if isinstance(message, Shares):
            return self.step is Step.SHARES and index not in self._boxes and self._take_shares(index, message)
        opened = self._attempt
        if opened is None or message.attempt != opened.attempt.attempt:
            return False
        match message:
            case Masked():
                return (
                    self.step is Step.MASKED
                    and index not in opened.masked
                    and self._take_masked(index, message, opened)
                )
            case Consent():
                useful = self.step is Step.CONSENTS and index not in {*opened.consents, *opened.dropped}
                return useful and self._take_consent(index, message, opened)
            case Reveal():
                useful = self.step is Step.REVEALS and index not in {*opened.reveals, *opened.dropped}
                return useful and self._take_reveal(index, message, opened)

    def _take_shares(self, index: int, message: Shares) -> bool:
        _check_count(len(message.boxes), len(self._graph[index]), "boxes")
        if any(len(box) != BOX_BYTES for box in message.boxes):
            raise InvalidRequest("a box of a wrong length", where="boxes", fix=f"{BOX_BYTES} bytes")
        self._boxes[index] = message.boxes
        if len(self._boxes) == len(self._graph):
            # A neighbour's boxes are in the order of its own neighbours.
            boxes = [dict(zip(self._graph[each], self._boxes[each], strict=True)) for each in range(len(self._graph))]
            for (name, _), each, neighbours in zip(self.roster.members, range(len(boxes)), self._graph, strict=True):
                self.sent[name].append(Inbox(self.roster.epoch, tuple(boxes[other][each] for other in neighbours)))
            self._boxes, self.step = {}, Step.NOTHING
        return True

    def _take_masked(self, index: int, message: Masked, opened: _Open) -> bool:
        if message.round != opened.attempt.round or message.values.shape != (opened.length,):
            found = f"{message.values.shape} numbers for round {message.round}"
            fix = f"{(opened.length,)} for round {opened.attempt.round}"
            raise InvalidRequest(found, where="masked.values", fix=fix)
        opened.masked[index] = message.values
        if len(opened.masked) == len(self._graph):
            self.freeze()
        return True

    @property
    def viable(self) -> bool:
        """Whether those that have answered are enough to go on without the others."""
        if self.step is not Step.MASKED or self._attempt is None:
            return False
        there = self._attempt.masked.keys()
        if len(there) < LEAST_CLIENTS:
            return False
        return all(sum(other in there for other in self._graph[each]) >= self._needed[each] for each in there)

    def freeze(self) -> None:
        """Takes those that have answered so far as the survivors of the attempt. They must be `viable`."""
        assert self._attempt is not None and self.viable, "enough have answered"
        opened = self._attempt
        opened.dropped = tuple(each for each in range(len(self._graph)) if each not in opened.masked)
        self.step = Step.CONSENTS if opened.dropped or opened.signed else Step.REVEALS
        opened.shares = {each: {} for each in opened.masked}
        message = Survivors(self.roster.epoch, opened.attempt.attempt, opened.dropped, opened.signed)
        for each in opened.masked:
            self._send(each, message)

    def _send(self, index: int, message: FromServer) -> None:
        self.sent[self.roster.members[index][0]].append(message)

    def _take_consent(self, index: int, message: Consent, opened: _Open) -> bool:
        gone = [other for other in self._graph[index] if other in opened.dropped]
        _check_count(len(message.seeds), len(gone), "seeds")
        if any(len(seed) != masks.KEY_BYTES for seed in message.seeds):
            raise InvalidRequest("a seed of a wrong length", where="seeds", fix=f"{masks.KEY_BYTES} bytes")
        key = Ed25519PublicKey.from_public_bytes(self.roster.members[index][1].verification)
        try:
            key.verify(message.signature, signed_text(self._digest, opened.attempt, opened.dropped))
        except InvalidSignature:
            what, fix = "a signature of other survivors", "one of those that the client was told"
            raise InvalidRequest(what, where="signature", fix=fix) from None
        opened.consents[index] = message
        if len(opened.consents) == len(opened.masked):
            self.step = Step.REVEALS
            for each in opened.masked:
                signed = ((other, opened.consents[other]) for other in self._graph[each] if other in opened.consents)
                signatures = tuple((other, consent.signature) for other, consent in signed)
                self._send(each, Signatures(self.roster.epoch, opened.attempt.attempt, signatures))
        return True

    def _take_reveal(self, index: int, message: Reveal, opened: _Open) -> bool:
        staying = [other for other in self._graph[index] if other in opened.masked]
        _check_count(len(message.shares), len(staying), "shares")
        opened.reveals[index] = message
        for other, share in zip(staying, message.shares, strict=True):
            shares = opened.shares[other]
            if share is not None:
                shares[index + 1] = share
                opened.complete += len(shares) == self._needed[other]
        if opened.complete == len(opened.masked):
            self._sum(opened)
        return True

    def _sum(self, opened: _Open) -> None:
        """Ends the attempt if its sum is right, or if there will be no more shares to mend it with.

        One member's wrong shares make every sum wrong in which they are used. With more shares than are needed, leaving
        out those of each member in turn finds it.
        """
        values, blamed = self._unmasked(opened) if opened.wrong is None else opened.wrong, None
        assert values is not None, "there are enough shares of all members"
        if int(values[-1]) != len(opened.masked):
            opened.wrong = values
            for each in opened.reveals:
                mended = self._unmasked(opened, without=each)
                if mended is not None and int(mended[-1]) == len(opened.masked):
                    values, blamed = mended, self.roster.members[each][0]
                    break
            else:
                if len(opened.reveals) < len(opened.masked):
                    return
        names = tuple(self.roster.members[each][0] for each in sorted(opened.masked))
        self.total, self.blamed = Total(opened.attempt.round, names, values), blamed
        self._attempt, self.step = None, Step.NOTHING

    def _unmasked(self, opened: _Open, without: int | None = None) -> npt.NDArray[np.uint64] | None:
        """Returns the sum by the shares that came first; None if there are too few without those of one member."""
        epoch, number = self.roster.epoch, opened.attempt.attempt
        total = np.zeros(opened.length, np.uint64)
        for each, values in opened.masked.items():
            used = [pair for pair in opened.shares[each].items() if without is None or pair[0] != without + 1]
            if len(used) < self._needed[each]:
                return None
            secret = shamir.combined(dict(used[: self._needed[each]]))
            total += values - masks.mask(masks.self_seed(secret, epoch, number), opened.length)
            gone = [other for other in self._graph[each] if other in opened.dropped]
            for other, seed in zip(gone, opened.consents[each].seeds if gone else (), strict=True):
                common = masks.mask(seed, opened.length)
                total = total - common if each < other else total + common
        return total


def _check_count(found: int, right: int, where: str) -> None:
    if found != right:
        raise InvalidRequest(f"{found}", where=where, fix=f"{right}, one for each of these neighbours")
