"""The runs of one coordinator process, by name. Each has its own members, store and tokens."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from fedbbpt.errors import Conflict, FedbbptError, InvalidInput, SessionUnknown, Unauthenticated, UnknownRun
from fedbbpt.identity.callers import Caller
from fedbbpt.limits import MAX_ROUNDS
from fedbbpt.server.live_run import LiveRun
from fedbbpt.types import NewRun


class Keeper(Protocol):
    """Keeps the files of runs, and opens and closes them."""

    def submit(self, new: NewRun) -> LiveRun:
        """Returns the new run, or the one that the same request began before. Raises what SubmitRun documents."""
        ...

    def continue_run(self, run: LiveRun, rounds: int) -> LiveRun:
        """Returns an ended run, opened anew with so many rounds more. Raises InvalidInput, StoreError."""
        ...

    def delete(self, run: LiveRun) -> None:
        """Deletes the files of an ended run. Raises StoreError."""
        ...


class Runs:
    """The runs by name. Without a keeper there is a single one, which the process was started for."""

    def __init__(
        self,
        runs: Sequence[LiveRun] = (),
        keeper: Keeper | None = None,
        broken: Mapping[str, FedbbptError] = MappingProxyType({}),
    ) -> None:
        """
        Args:
            runs: the runs.
            keeper: keeps the files of many runs.
            broken: the names of runs that cannot be opened, with the reason.
        """
        self._runs = {run.name: run for run in runs}
        self._keeper, self._broken = keeper, broken
        self._numbers: dict[str, str] = {}
        """The names of runs by the numbers in the sessions of their clients."""

    def __iter__(self) -> Iterator[LiveRun]:
        return (self._runs[name] for name in sorted(self._runs))

    def caller(self, digest: str) -> Caller | None:
        """Returns the caller with a token of this SHA-256 that is one of the runs' own, or None."""
        found = {run.name: run.tokens[digest] for run in self._runs.values() if digest in run.tokens}
        if not found:
            return None
        names, roles = {token.name for token in found.values()}, frozenset(token.role for token in found.values())
        if len(names) > 1:
            raise Unauthenticated("two runs give the token to two members", where="authorization", fix="a new token")
        return Caller(names.pop(), roles, frozenset(found), proof=digest)

    def named(self, name: str) -> LiveRun:
        """Returns the run of this name; without one the only run, or the only one that has not ended.

        Raises UnknownRun.
        """
        if name:
            if name in self._runs:
                return self._runs[name]
            if name in self._broken:
                raise Conflict(f"the run cannot be opened: {self._broken[name].what}", where=name)
            known = ", ".join(sorted(self._runs)) or "none yet"
            raise UnknownRun(f"no run {name!r}", where="run", fix=f"one of the coordinator's runs: {known}")
        runs = list(self._runs.values())
        found = runs if len(runs) == 1 else [run for run in runs if not run.coordinator.state.ended]
        if len(found) == 1:
            return found[0]
        what = f"the coordinator has {len(runs)} runs" if runs else "the coordinator has no run"
        fix = f"the name of one: {', '.join(sorted(self._runs))}" if runs else "submit one first"
        raise UnknownRun(what, where="run", fix=fix)

    def session(self, run: LiveRun, own: str) -> str:
        """Returns the session that a client is given for the one that the run's coordinator knows.

        It begins with a number that names the run as long as the process lives, since it travels with every update.
        """
        number = next((number for number, name in self._numbers.items() if name == run.name), str(len(self._numbers)))
        self._numbers[number] = run.name
        return f"{number}.{own}"

    def of_session(self, session: str) -> tuple[LiveRun, str]:
        """Returns the run of a client's session, and its coordinator's own one. Raises SessionUnknown."""
        number, _, own = session.partition(".")
        run = self._runs.get(self._numbers.get(number, ""))
        if number not in self._numbers or run is None:
            raise SessionUnknown("no such session", where="session", fix="join again")
        return run, own

    def add(self, run: LiveRun) -> None:
        """Adds a run that has begun elsewhere."""
        self._runs[run.name] = run

    def submit(self, new: NewRun) -> LiveRun:
        """Begins a run. Raises what SubmitRun documents."""
        run = self._kept().submit(new)
        self._runs[run.name] = run
        return run

    def continue_run(self, name: str, rounds: int) -> LiveRun:
        """Lets a run that has ended play more rounds. Raises what ContinueRun documents."""
        keeper, run = self._kept(), self._ended(name, "continued")
        if not 1 <= rounds <= MAX_ROUNDS:
            raise InvalidInput(f"{rounds}", where="rounds", fix=f"from 1 to {MAX_ROUNDS}")
        self._runs[run.name] = keeper.continue_run(run, rounds)
        return self._runs[run.name]

    def delete(self, name: str) -> None:
        """Deletes a run that has ended, with its files. Raises what DeleteRun documents."""
        keeper, run = self._kept(), self._ended(name, "deleted")
        keeper.delete(run)
        del self._runs[run.name]

    def _kept(self) -> Keeper:
        if self._keeper is None:
            fix = "a coordinator that was started with --state in place of a job"
            raise Conflict("this coordinator serves a single run", where="run", fix=fix)
        return self._keeper

    def _ended(self, name: str, done: str) -> LiveRun:
        run = self.named(name)
        if not run.coordinator.state.ended:
            raise Conflict(f"the run is {run.coordinator.state}", where=name, fix=f"stop it; then it can be {done}")
        return run
