"""A client's side of secure aggregation as a state machine: messages in, messages out, without I/O and without a clock.

The protocol is that of Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS
2017, with the graph of SecAgg+ and, as in Flamingo (Ma et al., S&P 2023), keys that serve many sums: each attempt's
masks have seeds of their own, which neighbours of a dropped client give away without its key.

A client never helps to unmask what it would not give away itself:

- It masks one answer in an attempt, and for a round it reveals the secrets of one set of survivors only, also in later
  attempts. From the sums of two sets anybody could compute the values of the clients in between.
- It reveals for a neighbour either its share of the neighbour's secret or the seed of their common mask, never both.
- It needs LEAST_CLIENTS survivors, or as many as the run's noise counts on, and `needed` neighbours among them. If
  anybody dropped out, as many neighbours must have signed the same survivors.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import NoReturn

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedbbpt.errors import NotPrivate
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
    signed_text,
)

log = logging.getLogger(__name__)

_WHERE = "secure aggregation"


class SecureClient:
    """The secrets of one client for one session, and what it has done with them."""

    def __init__(self, client_id: str, threshold: float, least: int = LEAST_CLIENTS) -> None:
        """
        Args:
            client_id: The client's id.
            threshold: The share of a client's neighbours that must stay.
            least: The smallest number of clients in a sum, at least LEAST_CLIENTS.

        Raises:
            NotPrivate: So few neighbours would be enough that the coordinator could deceive them.
        """
        if not 0.5 < threshold <= 1:
            refuse(f"a threshold of {threshold:g}", "privacy.threshold above 0.5 and at most 1")
        self.client_id, self._threshold, self._least = client_id, threshold, max(least, LEAST_CLIENTS)
        self._agreement, self._signing = X25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        self.keys = Keys(self._agreement.public_key().public_bytes_raw(), self._signing.public_key().public_bytes_raw())
        self._pairs: dict[bytes, bytes] = {}
        """The keys shared with other clients, by their public keys."""
        self._epoch: _Epoch | None = None
        self._seen: set[int] = set()
        self._answer: tuple[int, npt.NDArray[np.uint64]] | None = None
        """The last round that the client has answered, and its values."""
        self._revealed: tuple[int, frozenset[str]] | None = None
        """The last round for which the client has revealed secrets, and the survivors whose secrets they are."""

    def answer(self, round: int, values: npt.NDArray[np.uint64]) -> list[FromClient]:
        """Gives the answer to the task of a round, `[L]`. Returns it masked, if an attempt waits for it."""
        self._answer = round, values
        return self._masked() if self._epoch is not None and self._epoch.attempt is not None else []

    def take(self, message: FromServer) -> list[FromClient]:
        """Returns the replies to a message. A repeated message gets the same reply.

        Raises:
            NotPrivate: What the coordinator asks would show the values of a client.
        """
        match message:
            case Roster():
                return [self._enter(message)]
            case Inbox():
                self._current(message.epoch).receive(message)
                return []
            case Attempt():
                self._current(message.epoch).begin(message)
                return self._masked()
            case Survivors():
                return self._survived(self._current(message.epoch), message)
            case Signatures():
                return [self._reveal(self._current(message.epoch).agreed(message))]

    def _current(self, epoch: int) -> "_Epoch":
        if self._epoch is None or self._epoch.roster.epoch != epoch:
            refuse("a message about an epoch that has no roster", "the roster first")
        return self._epoch

    def _enter(self, roster: Roster) -> Shares:
        if self._epoch is not None and self._epoch.roster == roster:
            return self._epoch.shares
        if roster.epoch in self._seen:
            refuse("the number of an earlier epoch", "a new number for each roster")
        names = [client_id for client_id, _ in roster.members]
        keys = {each.agreement for _, each in roster.members} | {each.verification for _, each in roster.members}
        if len(names) < self._least:
            refuse(f"a roster of {len(names)} clients", f"at least {self._least}")
        if names != sorted(set(names)) or len(keys) != 2 * len(names):
            refuse("a roster in which clients or keys appear twice or are not sorted", "each client once")
        if (self.client_id, self.keys) not in roster.members:
            refuse("a roster without this client and its keys", "the keys that the client sent")
        self._seen.add(roster.epoch)
        index = names.index(self.client_id)
        neighbours = graph(len(names), self._threshold, roster.clients())[index]
        pairs = {each: self._pair(roster.members[each][1].agreement) for each in neighbours}
        self._epoch = _Epoch(roster, index, pairs, needed(len(neighbours), self._threshold), self._signing)
        return self._epoch.shares

    def _pair(self, other: bytes) -> bytes:
        if other not in self._pairs:
            try:
                self._pairs[other] = masks.agreed(self._agreement, other)
            except ValueError:
                refuse("a key in the roster with which no secret can be agreed", "the keys of other clients")
        return self._pairs[other]

    def _masked(self) -> list[FromClient]:
        epoch = self._epoch
        assert epoch is not None and epoch.attempt is not None, "an attempt has begun"
        if self._answer is None or self._answer[0] != epoch.attempt.round:
            return []
        return [epoch.mask(self._answer[1])]

    def _survived(self, epoch: "_Epoch", message: Survivors) -> list[FromClient]:
        survivors = epoch.survive(message, self._least)
        assert epoch.attempt is not None, "an attempt has survivors"
        round = epoch.attempt.round
        if self._revealed is not None and self._revealed[0] == round and self._revealed[1] != survivors:
            log.warning(
                "round %d: this client has helped to sum the answers of %s, and will not help with others: the two "
                "sums would tell the values of the clients in between",
                round,
                ", ".join(sorted(self._revealed[1])),
            )
            return [Refusal(message.epoch, message.attempt, tuple(sorted(self._revealed[1])))]
        return [epoch.consent()] if message.dropped or message.signed else [self._reveal(epoch)]

    def _reveal(self, epoch: "_Epoch") -> Reveal:
        assert epoch.attempt is not None, "an attempt has survivors"
        self._revealed = epoch.attempt.round, epoch.survivors
        return epoch.reveal()


class _Epoch:
    """One roster, the secrets that the client shares for its attempts, and the attempt that is open."""

    def __init__(
        self, roster: Roster, index: int, pairs: Mapping[int, bytes], needed: int, signing: Ed25519PrivateKey
    ) -> None:
        self.roster, self._digest = roster, roster.digest()
        self._index, self._pairs, self._needed, self._signing = index, pairs, needed, signing
        self._secrets = [shamir.random_element() for _ in range(ATTEMPTS)]
        self._held: dict[int, Sequence[int]] = {}
        """The shares of neighbours' secrets, one for each attempt."""
        self._complete = False
        self.attempt: Attempt | None = None
        self._sent: Masked | None = None
        self._survivors: Survivors | None = None
        self.survivors: frozenset[str] = frozenset()
        """The ids of the clients whose values the open attempt sums, once it has survivors."""
        self.shares = Shares(roster.epoch, self._boxes())

    def _boxes(self) -> tuple[bytes, ...]:
        places = [neighbour + 1 for neighbour in self._pairs]
        rows = [shamir.split(secret, places, self._needed) for secret in self._secrets]
        found = []
        for column, (_, pair) in enumerate(sorted(self._pairs.items())):
            shares = b"".join(row[column].to_bytes(shamir.ELEMENT_BYTES, "little") for row in rows)
            key = masks.share_key(pair, self.roster.epoch, self._index)
            found.append(masks.sealed(key, shares, self._digest))
        return tuple(found)

    def receive(self, inbox: Inbox) -> None:
        """Opens the neighbours' boxes."""
        if self._complete:
            return
        if len(inbox.boxes) != len(self._pairs):
            refuse(f"{len(inbox.boxes)} boxes", f"one from each of the {len(self._pairs)} neighbours")
        for (neighbour, pair), box in zip(sorted(self._pairs.items()), inbox.boxes, strict=True):
            key = masks.share_key(pair, self.roster.epoch, neighbour)
            try:
                self._held[neighbour] = _elements(masks.opened(key, box, self._digest))
            except (InvalidTag, ValueError):
                log.warning("the shares of %s cannot be read", self.roster.members[neighbour][0])
        if len(self._held) < self._needed:
            refuse("neighbours sealed their shares for another roster, or they were changed", "one roster for all")
        self._complete = True

    def begin(self, attempt: Attempt) -> None:
        """Begins an attempt, or the same one again."""
        if not self._complete:
            refuse("an attempt before all shares are there", "the shares first")
        before = self.attempt
        if attempt == before:
            return
        if not 0 <= attempt.attempt < ATTEMPTS or (before is not None and attempt.attempt <= before.attempt):
            refuse(f"attempt {attempt.attempt} once more", f"a later one, up to {ATTEMPTS - 1}")
        if before is not None and attempt.round < before.round:
            refuse(f"an attempt for round {attempt.round}, after one for {before.round}", "the open round")
        self.attempt, self._sent, self._survivors = attempt, None, None

    def mask(self, values: npt.NDArray[np.uint64]) -> Masked:
        """Returns the masked values of the open attempt, the same ones each time."""
        assert self.attempt is not None, "an attempt has begun"
        if self._sent is None:
            number, epoch = self.attempt.attempt, self.roster.epoch
            found = values + masks.mask(masks.self_seed(self._secrets[number], epoch, number), len(values))
            for neighbour, pair in self._pairs.items():
                common = masks.mask(masks.pair_seed(pair, epoch, number), len(values))
                # Each of two neighbours has the other's sign, so the mask is not in their sum.
                if self._index < neighbour:
                    found += common
                else:
                    found -= common
            self._sent = Masked(epoch, number, self.attempt.round, found)
        return self._sent

    def survive(self, message: Survivors, least: int) -> frozenset[str]:
        """Checks and adopts the survivors of the open attempt. Returns their ids."""
        if self.attempt is None or self.attempt.attempt != message.attempt or self._sent is None:
            refuse("survivors of an attempt that this client has not answered", "the open attempt")
        if self._survivors is not None and self._survivors != message:
            refuse("two sets of survivors in one attempt", "the same set for all clients")
        number, dropped = len(self.roster.members), set(message.dropped)
        if sorted(dropped) != list(message.dropped) or not dropped <= set(range(number)) or self._index in dropped:
            refuse("survivors that are no subset of the roster with this client", "clients of the roster")
        staying = len(self._pairs.keys() - dropped)
        if number - len(dropped) < least or staying < self._needed:
            what = f"{number - len(dropped)} survivors, with {staying} of {len(self._pairs)} neighbours"
            refuse(what, f"at least {least}, with {self._needed} neighbours")
        if self._survivors is None:
            self._survivors = message
            names = enumerate(self.roster.members)
            self.survivors = frozenset(name for index, (name, _) in names if index not in dropped)
        return self.survivors

    def _text(self) -> bytes:
        assert self.attempt is not None and self._survivors is not None, "the attempt has survivors"
        return signed_text(self._digest, self.attempt, self._survivors.dropped)

    def consent(self) -> Consent:
        """Signs the survivors, and gives the seeds of masks that dropped clients took along."""
        assert self.attempt is not None and self._survivors is not None, "the attempt has survivors"
        epoch, number = self.roster.epoch, self.attempt.attempt
        gone = sorted(self._pairs.keys() & set(self._survivors.dropped))
        seeds = tuple(masks.pair_seed(self._pairs[neighbour], epoch, number) for neighbour in gone)
        return Consent(epoch, number, self._signing.sign(self._text()), seeds)

    def agreed(self, message: Signatures) -> "_Epoch":
        """Returns this epoch, once enough neighbours have signed the survivors that this client knows."""
        if self._survivors is None or self._survivors.attempt != message.attempt:
            refuse("signatures before survivors", "the survivors first")
        text, staying = self._text(), self._pairs.keys() - set(self._survivors.dropped)
        signed = {
            index for index, signature in message.signatures if index in staying and self._by(index, signature, text)
        }
        if len(signed) < self._needed:
            what = f"only {len(signed)} neighbours have signed the survivors that this client was told"
            refuse(what, f"{self._needed}; the coordinator may have told others of other survivors")
        return self

    def _by(self, index: int, signature: bytes, text: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(self.roster.members[index][1].verification).verify(signature, text)
        except (InvalidSignature, ValueError):
            return False
        return True

    def reveal(self) -> Reveal:
        """Returns the shares of surviving neighbours' secrets."""
        assert self.attempt is not None and self._survivors is not None, "the attempt has survivors"
        number = self.attempt.attempt
        staying = sorted(self._pairs.keys() - set(self._survivors.dropped))
        shares = tuple(self._held[each][number] if each in self._held else None for each in staying)
        return Reveal(self.roster.epoch, number, shares)


def _elements(shares: bytes) -> list[int]:
    """Returns the shares of all attempts. Raises ValueError if they are not elements of the field."""
    size = shamir.ELEMENT_BYTES
    found = [int.from_bytes(shares[at : at + size], "little") for at in range(0, len(shares), size)]
    if len(shares) != ATTEMPTS * size or max(found) >= shamir.PRIME:
        raise ValueError("not a share for each attempt")
    return found


def refuse(what: str, fix: str) -> NoReturn:
    """Raises NotPrivate."""
    raise NotPrivate(f"the coordinator sent {what}", where=_WHERE, fix=fix)
