"""The kit: opens a service as its callers see it, tries the cases, and compares the outcomes with what is known."""

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum

from fedbbpt.conformance import calls
from fedbbpt.conformance.cases import Caller, Case
from fedbbpt.conformance.inputs import KINDS, Inputs
from fedbbpt.conformance.relations import RELATIONS
from fedbbpt.conformance.target import Refused, Target
from fedbbpt.conformance.trial import Broken, Skipped, Tenant, Trial
from fedbbpt.errors import FedbbptError, InvalidInput, Unauthenticated
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.types import Injection, ModelCard, PromptKind
from fedbbpt.wire.messages.card_messages import model_card
from fedbbpt.wire.tls import ClientTls

FRESH_ROWS = 10**4
STRANGER = "a token that nobody was given"
VECTORS = (PromptKind.LATENT, PromptKind.SOFT)
"""Which enter by an injection."""

PROFILES = {
    "soft": frozenset({*VECTORS, PromptKind.DEEP}),
    "discrete": frozenset({PromptKind.TEXT, PromptKind.TOKENS}),
    "vision": frozenset({PromptKind.IMAGE}),
}
"""Those beside core, and the kinds of prompts of which a card has to offer one."""


class Outcome(StrEnum):
    PASSED = "passed"
    SKIPPED = "skipped"
    FAILED = "failed"
    KNOWN = "failed: known"
    UNEXPECTED = "passed: unexpected"
    """Said to be failing."""

    @property
    def good(self) -> bool:
        return self not in (Outcome.FAILED, Outcome.UNEXPECTED)


@dataclass(frozen=True, slots=True)
class Result:
    case: Case
    outcome: Outcome
    detail: str
    """Why, unless it just passed."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Service:
    """The service under test, opened."""

    callers: dict[Caller, Target]
    me: Tenant
    other: Tenant | None
    tokens_asked: bool

    def profiles(self) -> list[str]:
        """Core, and those that the card offers."""
        return ["core", *(name for name, kinds in PROFILES.items() if kinds & self.me.card.prompt_kinds)]

    def queries(self) -> int:
        """That the caller has used by now."""
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
) -> Iterator[Service]:
    """Raises PtmUnavailable, Unauthenticated, InvalidInput where a card cannot be read."""
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
        yield Service(callers, tenant("tenant"), other, bool(token))


def _card(target: Target, address: str) -> ModelCard:
    try:
        card = model_card(target.call("Describe", pb.DescribeRequest()))
    except Refused as refused:
        if refused.code == "UNAUTHENTICATED":
            fix = "--ptm-token-file with a tenant's token"
            raise Unauthenticated(refused.text, where=address, fix=fix) from None
        fix = "a service that answers Describe; all else depends on its card"
        raise InvalidInput(f"Describe gives {refused}", where=address, fix=fix) from None
    if not card.prompt_kinds:
        fix = "at least one kind of prompt; all else depends on it"
        raise InvalidInput("the card offers no prompts", where="DescribeResponse.prompt_kinds", fix=fix)
    return card


def run(
    service: Service, cases: Sequence[Case], known_failing: frozenset[str], tell: Callable[[Result], None]
) -> list[Result]:
    """Tries one after the other, and tells each result as it is there."""
    results = []
    for case in cases:
        started = time.monotonic()
        outcome, detail = _try(service, case)
        if case.name in known_failing:
            expected = {Outcome.FAILED: Outcome.KNOWN, Outcome.PASSED: Outcome.UNEXPECTED}
            outcome = expected.get(outcome, outcome)
        results.append(Result(case, outcome, detail, time.monotonic() - started))
        tell(results[-1])
    return results


def _try(service: Service, case: Case) -> tuple[Outcome, str]:
    """With each kind of prompt and injection that the case names; the first that fails decides."""
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
                calls.play(case, trial)
            else:
                RELATIONS[case.relation](trial)
            passed = name
        except Skipped as reason:
            skipped = str(reason)
        except Broken as broken:
            return Outcome.FAILED, f"{broken} ({name})"
        except Refused as refused:
            return Outcome.FAILED, f"a call that is sound gives {refused} ({name})"
        except FedbbptError as problem:
            return Outcome.FAILED, f"an answer that cannot be read: {problem} ({name})"
        finally:
            trial.clear()
    return (Outcome.PASSED, "") if passed else (Outcome.SKIPPED, skipped)


def _applies(service: Service, case: Case) -> None:
    """Raises Skipped."""
    card = service.me.card
    given = {"token": service.tokens_asked, "other": service.other is not None, "labels": bool(card.labels)}
    missing = {"token": "--ptm-token-file", "other": "--other-token-file", "labels": "a card with labels"}
    for need in case.needs:
        if not given[need]:
            raise Skipped(f"needs {missing[need]}")
    if card.output not in case.outputs:
        raise Skipped(f"not for {card.output}")
    inputs = "text" if card.image_shape is None else "image"
    if case.inputs not in ("any", inputs):
        raise Skipped(f"not for models of {inputs}s")


def _variants(card: ModelCard, case: Case) -> list[tuple[PromptKind, Injection]]:
    """Kinds and injections to try, at least one. Raises Skipped."""
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
            f"the card has no {wanted} prompts" if case.injections != "unoffered" else "it takes all injections"
        )
    return found
