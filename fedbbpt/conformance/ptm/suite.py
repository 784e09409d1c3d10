"""Opens a service for all callers, runs the cases, and compares the outcomes with the known failures."""

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from fedbbpt.conformance.ptm import calls
from fedbbpt.conformance.ptm.cases import Caller, Case
from fedbbpt.conformance.ptm.inputs import KINDS, Inputs
from fedbbpt.conformance.ptm.relations import RELATIONS
from fedbbpt.conformance.ptm.target import Refused, Target
from fedbbpt.conformance.ptm.trial import Tenant, Trial
from fedbbpt.conformance.results import Broken, Outcome, Result, Skipped
from fedbbpt.errors import FedbbptError, InvalidInput, Unauthenticated
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.types import Injection, ModelCard, PromptKind
from fedbbpt.wire.messages.card_messages import model_card
from fedbbpt.wire.tls import ClientTls

FRESH_ROWS = 10**4
"""Rows from here on are used where examples must be new to the service."""
STRANGER = "a token that no tenant has"
VECTORS = (PromptKind.LATENT, PromptKind.SOFT)
"""Kinds of prompts that need an injection."""

PROFILES = {
    "soft": frozenset({*VECTORS, PromptKind.DEEP}),
    "discrete": frozenset({PromptKind.TEXT, PromptKind.TOKENS}),
    "vision": frozenset({PromptKind.IMAGE}),
}
"""The profiles besides core; a profile applies if the card lists one of its kinds of prompts."""


@dataclass(frozen=True, slots=True)
class ServiceUnderTest:
    """The service with a connection for each caller."""

    callers: dict[Caller, Target]
    me: Tenant
    other: Tenant | None
    has_token: bool
    """Whether the kit was given a tenant's token."""

    def profiles(self) -> list[str]:
        """Returns core and the profiles that apply to the card."""
        return ["core", *(name for name, kinds in PROFILES.items() if kinds & self.me.card.prompt_kinds)]

    def queries(self) -> int:
        """Returns the number of queries that the tenant has used so far."""
        found: pb.GetUsageResponse = self.me.target.call("GetUsage", pb.GetUsageRequest())
        return found.usage.queries


@contextmanager
def open_service(
    address: str,
    *,
    tls: ClientTls | None = None,
    token: str = "",
    other_token: str = "",
    template: str = "",
    classes: Sequence[str] = (),
    call_seconds: float = 60.0,
    patience_seconds: float = 5.0,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[ServiceUnderTest]:
    """Opens a service for the duration of the block.

    Args:
        token: a tenant's token; `other_token` that of a second tenant.
        template: the template of tasks; empty uses the default for the card's family.
        classes: the classes of tasks; empty uses the card's labels or default words.
        patience_seconds: how long to wait for a connection.

    Raises PtmUnavailable, Unauthenticated, or InvalidInput if the card cannot be read.
    """
    tokens: dict[Caller, str] = {"tenant": token, "nobody": "", "stranger": STRANGER}
    if other_token:
        tokens["other"] = other_token
    with ExitStack() as stack:
        callers = {name: Target(address, tls, shown, call_seconds, pause) for name, shown in tokens.items()}
        for target in callers.values():
            stack.callback(target.close)
        callers["tenant"].wait(patience_seconds)

        def tenant(name: Caller) -> Tenant:
            card = _card(callers[name], address)
            return Tenant(callers[name], card, Inputs(card, template, classes))

        other = tenant("other") if other_token else None
        yield ServiceUnderTest(callers, tenant("tenant"), other, bool(token))


def _card(target: Target, address: str) -> ModelCard:
    try:
        card = model_card(target.call("Describe", pb.DescribeRequest()))
    except Refused as refused:
        if refused.code == "UNAUTHENTICATED":
            fix = "--ptm-token-file with a tenant's token"
            raise Unauthenticated(refused.text, where=address, fix=fix) from None
        fix = "a service that answers Describe, since all cases depend on its card"
        raise InvalidInput(f"Describe fails with {refused}", where=address, fix=fix) from None
    if not card.prompt_kinds:
        fix = "list at least one kind of prompt"
        raise InvalidInput("the card lists no kinds of prompts", where="DescribeResponse.prompt_kinds", fix=fix)
    return card


def run(
    service: ServiceUnderTest, cases: Sequence[Case], known_failing: frozenset[str], tell: Callable[[Result], None]
) -> list[Result]:
    """Runs the cases one after the other, and passes each result to `tell` as soon as it is known."""
    results = []
    for case in cases:
        started = time.monotonic()
        outcome, detail = _try(service, case)
        outcome = outcome.if_known(case.name in known_failing)
        results.append(Result(case, outcome, detail, time.monotonic() - started))
        tell(results[-1])
    return results


def _try(service: ServiceUnderTest, case: Case) -> tuple[Outcome, str]:
    """Tries a case with each kind of prompt and injection that it names, up to the first failure."""
    skipped = passed = ""
    try:
        _applies(service, case)
        variants = _variants(service.me.card, case)
    except Skipped as reason:
        return Outcome.SKIPPED, str(reason)
    for kind, injection in variants:
        name = f"{kind}, {injection}" if kind in VECTORS else str(kind)
        fresh = FRESH_ROWS * (1 + secrets.randbelow(FRESH_ROWS)) if case.fresh else 0
        trial = Trial(service.callers, service.me, service.other, f"{case.name} {name}", kind, injection, fresh)
        try:
            if case.calls:
                calls.make_calls(case, trial)
            else:
                RELATIONS[case.relation](trial)
            passed = name
        except Skipped as reason:
            skipped = str(reason)
        except Broken as broken:
            return Outcome.FAILED, f"{broken} ({name})"
        except Refused as refused:
            return Outcome.FAILED, f"a valid call fails with {refused} ({name})"
        except FedbbptError as problem:
            return Outcome.FAILED, f"an answer cannot be read: {problem} ({name})"
        finally:
            trial.release_all()
    return (Outcome.PASSED, "") if passed else (Outcome.SKIPPED, skipped)


def _applies(service: ServiceUnderTest, case: Case) -> None:
    """Raises Skipped if the case does not apply to the service."""
    card = service.me.card
    given = {"token": service.has_token, "other": service.other is not None, "labels": bool(card.labels)}
    missing = {"token": "--ptm-token-file", "other": "--other-token-file", "labels": "a card with labels"}
    for need in case.needs:
        if not given[need]:
            raise Skipped(f"needs {missing[need]}")
    if card.output not in case.outputs:
        raise Skipped(f"does not apply to {card.output}")
    inputs = "text" if card.image_shape is None else "image"
    if case.inputs not in ("any", inputs):
        raise Skipped(f"does not apply to models of {inputs}s")


def _variants(card: ModelCard, case: Case) -> list[tuple[PromptKind, Injection]]:
    """Returns the kinds and injections to try, at least one. Raises Skipped if there are none."""
    if case.prompts == "unoffered":
        kinds = [kind for kind in KINDS if kind not in card.prompt_kinds]
    elif case.prompts == "any":
        kinds = [kind for kind in KINDS if kind in card.prompt_kinds][:1]
    else:
        kinds = [kind for kind in case.prompts if kind in card.prompt_kinds]
    offered = [injection for injection in Injection if injection in card.injections]
    injections = {
        "first": offered[:1],
        "each": offered,
        "unoffered": [injection for injection in Injection if injection not in offered],
    }[case.injections]
    found: list[tuple[PromptKind, Injection]] = []
    for kind in kinds:
        if kind in VECTORS and case.prompts != "unoffered":
            found += [(kind, injection) for injection in injections]
        else:
            found.append((kind, Injection.PREFIX))
    if not found:
        wanted = case.prompts if isinstance(case.prompts, str) else " or ".join(case.prompts)
        raise Skipped(
            f"the card lists no {wanted} prompts" if case.injections != "unoffered" else "the card lists all injections"
        )
    return found
