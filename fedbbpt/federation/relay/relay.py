"""The life of a relay: it waits for its site's clients, joins the coordinator above, and carries tasks and sums.

The site lives on the event loop, whose services its clients call. The link to the coordinator above is that of a
client, and waits: one thread reads tasks from it and another one submits.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

from fedbbpt import seeds
from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.codecs import CODECS, SPARSE
from fedbbpt.codecs.travelling import packed
from fedbbpt.errors import CoordinatorUnavailable, FedbbptError, InvalidHello, InvalidJob, Unavailable
from fedbbpt.federation import assemble
from fedbbpt.federation.relay.names import SiteNames
from fedbbpt.federation.relay.site import Site
from fedbbpt.identity.names import check_name
from fedbbpt.methods import METHODS, ClientMethod, client_method
from fedbbpt.methods.replay import Told
from fedbbpt.server.live_run import LiveRun, no_card, set_within
from fedbbpt.server.remote import RemoteRun
from fedbbpt.server.runs import Runs
from fedbbpt.types import Hello, PtmIdentity, Result, RunSettings, RunState, Task, Update
from fedbbpt.wire.traffic import TrafficMeter

log = logging.getLogger(__name__)

HOLD_SECONDS = 10.0
"""How long a client that joins waits for the others before it is told to try again."""


class Relay:
    """A relay on the current event loop. Its services serve `runs`, and await `admit` before a client joins."""

    def __init__(
        self,
        link: RemoteCoordinator,
        above: Callable[[str], RemoteRun],
        name: str,
        key: str,
        clients: int,
        names: SiteNames,
    ) -> None:
        """
        Args:
            link: The link to the coordinator above, which submits apart.
            above: Returns the run of a name there, as its operator sees it.
            name: The site's name in the run.
            key: The secret with which the site joins.
            clients: The number of clients to wait for.
            names: The names of the site's clients.
        """
        self.runs = Runs()
        self._link, self._above, self._name, self._key, self._clients = link, above, name, key, clients
        self._names = names
        self._loop = asyncio.get_running_loop()
        self.hellos: dict[str, Hello] = {}
        """The clients that have come before the relay has joined."""
        self._joined = asyncio.Event()
        self._joining = False
        self._announced = 0
        """The number of training examples that the coordinator above knows of."""
        self._card = ""
        self._work: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        """Done when the run has ended. Raises the error of a relay that failed."""

    def look_above(self) -> None:
        """Looks at the run above, so that a wrong address, token or method ends the relay before any client comes."""
        self._start(self._look)

    async def admit(self, hello: Hello) -> None:
        """Waits until the relay has joined, for which it needs enough clients.

        Raises CoordinatorUnavailable if that takes longer than HOLD_SECONDS, or the error with which the relay failed.
        """
        if not self._joined.is_set():
            check_name(hello.client_id, "client_id", InvalidHello)
            self._names.take(hello)
            if hello.examples > 0:
                self.hellos[hello.client_id] = hello
            if len(self.hellos) >= self._clients and not self._joining:
                self._joining = True
                examples = sum(each.examples for each in self.hellos.values())
                log.info("%d clients with %d examples have come", len(self.hellos), examples)
                self._start(lambda: self._follow(examples))
            await set_within(self._joined, HOLD_SECONDS)
        if self.ended.done() and (error := self.ended.exception()) is not None:
            raise error
        if not self._joined.is_set():
            missing = self._clients - len(self.hellos)
            what = f"the relay waits for {missing} more of {self._clients} clients"
            raise CoordinatorUnavailable(what if missing > 0 else "the relay has not reached the coordinator above yet")

    # On the event loop

    def _begin(self, settings: RunSettings, method: ClientMethod) -> None:
        site = Site(settings, method, self.hellos.values(), self, self._names)
        run = LiveRun(site, TrafficMeter(), name=self._link.run_name, card=lambda: self._card)
        self._site, self._run = site, run
        self.runs.add(run)
        run.start()
        self._joined.set()
        self._start(self._send)

    def _open(self, task: Task, told: Told | None) -> None:
        with self._run.notifying():
            self._site.open(task, told, self._run.now())

    def _end(self, state: RunState, result: Result | None, card: str) -> None:
        self._card = card
        with self._run.notifying():
            self._site.end(state, result)
        log.info("the run is %s", state)
        if not self.ended.done():
            self.ended.set_result(None)

    def _fail(self, error: BaseException) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)
        self._joined.set()

    # The site's messages, which implement `site.Above`

    def submit(self, task: Task, total: Update) -> None:
        """Encodes the sum of the site's updates like the update of one client, and sends it."""

        examples = self._site.examples

        def send() -> None:
            if examples > self._announced:
                # More clients have come since the relay joined, and no sum may have a higher weight than it announced.
                self._link.join_with(examples)
                self._announced = examples
            rounding = seeds.rng(task.seed, "codec", task.id.client_id)
            arrays = CODECS[self._site.settings.codec].encode(packed(total.arrays, total.weight, task.arrays), rounding)
            receipt = self._link.submit(task.id, Update(arrays, total.weight, total.measurement, "", total.finalists))
            log.info("round %d: the sum is %s", task.id.round, receipt.value)

        self._work.put(send)

    def report_trouble(self, text: str) -> None:
        """Passes on why the site has no answer."""
        self._work.put(lambda: self._link.report_trouble(text))

    def report_ptm(self, ptm: PtmIdentity) -> None:
        """Passes on which PTM the site's clients ask."""
        self._work.put(lambda: self._link.report_ptm(ptm))

    # On threads

    def _start(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except Exception as error:
                self._loop.call_soon_threadsafe(self._fail, error)

        # The process may end while they wait for the network.
        threading.Thread(target=run, daemon=True, name="relay").start()

    def _look(self) -> None:
        try:
            status = self._above(self._link.run_name).status()
        except Unavailable as error:
            log.warning("%s; it is tried again when clients have come", error)
            return
        method = METHODS.get(status.method)
        if method is not None and method.white_box:
            raise _white_box(method.name)
        log.info("the run above is %s", status.run_id)

    def _follow(self, examples: int) -> None:
        """Joins the coordinator above, and hands its tasks to the site until the run ends."""
        settings = assemble.join(self._link, assemble.hello(self._name, self._key, examples, relay=True))
        self._announced = examples
        method = client_method(settings)
        try:
            check_adds(method, settings.codec)
            check_in_the_clear(settings)
        except InvalidJob:
            self._link.leave()
            raise
        self._loop.call_soon_threadsafe(self._begin, settings, method)
        for task in self._link.tasks():
            self._loop.call_soon_threadsafe(self._open, task, self._link.told)
        self._loop.call_soon_threadsafe(self._end, *self._outcome())

    def _outcome(self) -> tuple[RunState, Result | None, str]:
        """Returns how the run has ended, its result and the result's card."""
        run, state = self._above(self._link.run_name), RunState.FINISHED
        try:
            state = run.status().state
            return state, *run.result_with_card()
        except FedbbptError as error:
            log.warning("the site gets no result: %s", error)
            return state, None, no_card()

    def _send(self) -> None:
        while True:
            self._work.get()()


def check_adds(method: ClientMethod, codec: str) -> None:
    """Raises InvalidJob if the site's updates cannot be summed."""
    name = method.method.name
    if method.white_box:
        raise _white_box(name)
    if not method.linear:
        what = f"a relay sums its clients' updates, and those of {name} with these settings do not add"
        fix = 'fed-cma, fed-readout, fedavg-bbt, or fed-bbpt with uplink = "theta"; or clients without a relay'
        raise InvalidJob(what, where="method", fix=fix)
    if codec in SPARSE:
        what = f"with {codec}, what an update leaves out follows in later ones, and a relay keeps nothing of its sums"
        raise InvalidJob(what, where="codec.uplink", fix="a codec without topk; or clients without a relay")


def check_in_the_clear(settings: RunSettings) -> None:
    """Raises InvalidJob if the run has secure aggregation, whose clients must not trust a relay with their updates."""
    if settings.secure_threshold is not None:
        what = "a relay reads its clients' updates to sum them, which secure aggregation hides from everybody"
        fix = 'privacy.aggregation = "plain"; or clients that join the coordinator itself'
        raise InvalidJob(what, where="privacy.aggregation", fix=fix)


def _white_box(name: str) -> InvalidJob:
    what = f"{name} sends its clients a model that they train, which relays do not pass on"
    return InvalidJob(what, where="method.name", fix="clients that join the coordinator itself")
