"""Drives secure aggregation through the rounds of a run: who is in an epoch, and when a round goes on without whom.

All of it is in the coordinator's memory. A coordinator that was killed begins another epoch, with masks of its own, and
asks for the same answers again. It knows neither an answer nor a mask, so it has nothing to lose.
"""

import logging
import secrets
from collections.abc import Callable, Collection, Sequence

from fedbbpt.secure.graph import LEAST_CLIENTS
from fedbbpt.secure.messages import FromClient, FromServer, Keys, Refusal
from fedbbpt.secure.server import SecureServer, Step, Total

log = logging.getLogger(__name__)

_EPOCHS = 2**63


def least_clients(quorum: int) -> int:
    """Returns the smallest number of clients in a sum of a run whose rounds need `quorum` answers."""
    return max(quorum, LEAST_CLIENTS)


class SecureRounds:
    """The epochs and attempts of one run."""

    def __init__(self, threshold: float, quorum: int, blame: Callable[[str], None] = lambda client_id: None) -> None:
        """
        Args:
            threshold: The share of a client's neighbours that must stay.
            quorum: The smallest number of clients that a round may end with.
            blame: Called with the id of a client whose shares were wrong, once for each sum.
        """
        self._blame = blame
        self._blamed: Total | None = None
        """The last sum for which a client was blamed."""
        self._threshold, self._least = threshold, least_clients(quorum)
        self._keys: dict[str, Keys] = {}
        self._server: SecureServer | None = None
        self._round: int | None = None
        self._length = 0
        self._attempted: int | None = None
        """The round of the epoch's last attempt."""
        self._begun: int | None = None
        """The last round for which clients may have revealed secrets."""
        self._cohort: frozenset[str] = frozenset()
        self._excused: frozenset[str] = frozenset()
        self._left_out: set[str] = set()
        """Clients that have let a deadline of this round pass, and have said nothing since."""
        self._only: frozenset[str] | None = None
        """The only clients whose sum can end the round, because others have revealed for them."""
        self.version = 0
        """Grows with every change of what is due to clients."""

    def open(self, round: int | None, length: int) -> None:
        """Opens a round, whose answers are vectors of `length` numbers; None: no round is open."""
        if self._round is None:
            self._begun = round  # perhaps before this process
        self._round, self._length = round, length
        self._left_out.clear()
        self._only = None

    @property
    def total(self) -> Total | None:
        """The sum that ends the open round, once it is known."""
        server = self._server
        if server is None or server.total is None or server.total.round != self._round:
            return None
        return server.total

    @property
    def missing(self) -> frozenset[str]:
        """The clients whose part in the open step is missing; none while no epoch is open."""
        return self._server.missing if self._server is not None else frozenset()

    def due(self, client_id: str) -> Sequence[FromServer]:
        """Returns all messages of the epoch and its open attempt to a client, in order.

        A client that came back with other keys has no part in the epoch.
        """
        server = self._server
        if server is None or server.keys_of(client_id) != self._keys.get(client_id):
            return ()
        return server.sent.get(client_id, ())

    def _renewed(self, server: SecureServer) -> frozenset[str]:
        """Returns the clients of an epoch that have other keys by now."""
        return frozenset(name for name, keys in server.roster.members if self._keys.get(name) != keys)

    def see(self, cohort: frozenset[str], excused: Collection[str]) -> None:
        """Learns the clients of the open round, and those that it does not wait for, and goes on if it can."""
        self._cohort, self._excused = cohort, frozenset(excused) & cohort
        self._go_on()

    def take(self, client_id: str, message: FromClient) -> None:
        """Takes what a client says, and goes on if it can. Raises InvalidRequest."""
        self._left_out.discard(client_id)
        server = self._server
        step = server.step if server is not None else None
        if isinstance(message, Keys):
            self._keys[client_id] = message
        elif isinstance(message, Refusal):
            self._refused(client_id, message)
        elif server is None or not server.take(client_id, message) or server.step is step:
            return
        else:
            self.version += 1
        self._check_total()
        self._go_on()

    def _refused(self, client_id: str, message: Refusal) -> None:
        server, survivors = self._server, frozenset(message.survivors)
        if server is None or message.epoch != server.roster.epoch or server.step is not Step.CONSENTS:
            return
        if client_id in survivors and len(survivors) >= self._least:
            log.warning("round %s: clients have revealed for %s alone", self._round, ", ".join(sorted(survivors)))
            self._only, self._server = survivors, None

    def _check_total(self) -> None:
        """Drops a sum that was not unmasked as it should: its last number counts the clients."""
        total = self.total
        if self._server is not None and self._server.blamed is not None and self._blamed is not total:
            self._blamed, name = total, self._server.blamed
            log.error(
                "round %s: the shares of %s are wrong, changed by it or sealed so; the sum is right without them",
                self._round,
                name,
            )
            self._blame(name)
        if total is not None and int(total.values[-1]) != len(total.clients):
            log.error("round %d: a client sent wrong shares or masks; asking for all answers again", total.round)
            self._only, self._server = frozenset(total.clients), None

    @property
    def _busy(self) -> bool:
        """Whether the open round's attempt has survivors."""
        server = self._server
        if server is None or self._attempted != self._round:
            return False
        if server.step is Step.CONSENTS:
            return not server.missing & self._renewed(server)
        return server.step is Step.REVEALS or server.total is not None

    def _go_on(self) -> None:
        if self._round is None or self._busy:
            return
        if not self._fits():
            self._begin_epoch()
            return
        server = self._server
        assert server is not None, "the epoch fits"
        if server.step is not Step.SHARES and self._attempted != self._round:
            server.begin(self._round, self._length, signed=self._begun == self._round)
            self._attempted = self._begun = self._round
            self.version += 1
        elif server.missing and server.missing <= self._excused and self._enough(server):
            server.freeze()
            self.version += 1

    def _enough(self, server: SecureServer) -> bool:
        """Returns whether the clients that have answered can end the round."""
        return server.viable and len(server.roster.members) - len(server.missing) >= self._least

    def _fits(self) -> bool:
        """Returns whether the epoch's clients are those of the open round, and have an attempt for it."""
        server = self._server
        if server is None:
            return False
        members = dict(server.roster.members)
        if self._attempted != self._round and not server.attempts_left:
            return False
        if self._renewed(server):
            return False
        if self._only is not None:
            return members.keys() == self._only <= self._cohort
        asleep = self._excused if server.step is Step.SHARES else frozenset[str]()
        if server.missing & (asleep | self._left_out):
            return False
        return self._cohort - self._excused - self._left_out <= members.keys() <= self._cohort

    def _begin_epoch(self) -> None:
        """Begins an epoch with all clients of the round, once they and their keys are there."""
        names = self._cohort - self._excused - self._left_out if self._only is None else self._only
        self._server, self._attempted = None, None
        if len(names) < self._least or not names <= self._cohort & self._keys.keys():
            return
        members = {name: self._keys[name] for name in names}
        self._server = SecureServer(secrets.randbelow(_EPOCHS), members, self._threshold)
        self.version += 1
        log.info("round %s: keys and shares are exchanged between %d clients", self._round, len(names))

    def time_is_up(self) -> bool:
        """Goes on without the clients that have let the deadline pass. Returns whether enough are there for that."""
        server = self._server
        if self._round is None:
            return False
        if server is None:
            late = self._cohort - self._keys.keys()
        elif server.step is Step.REVEALS:
            return self._once_more(server)
        elif self._enough(server):
            server.freeze()
            self.version += 1
            return True
        else:
            late = server.missing
        left = self._cohort - self._excused - self._left_out - late
        if self._only is not None or not late or len(left) < self._least:
            self._left_out.clear()
            return False
        self._left_out |= late
        log.warning("round %s: goes on without %s", self._round, ", ".join(sorted(late)))
        self._begin_epoch()
        return True

    def _once_more(self, server: SecureServer) -> bool:
        """Asks the same survivors again, since their clients reveal for no others. Returns whether all may be there."""
        survivors = frozenset(name for name, _ in server.roster.members) - server.dropped
        log.warning("round %s: too few clients revealed; asking the same ones again", self._round)
        self._only = survivors
        self._begin_epoch()
        return False

    def forget(self, client_id: str) -> None:
        """Forgets the keys of a client that an operator has removed."""
        if self._keys.pop(client_id, None) is not None and any(
            name == client_id for name, _ in (self._server.roster.members if self._server is not None else ())
        ):
            self._server, self._attempted = None, None
