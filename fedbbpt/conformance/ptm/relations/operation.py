"""Relations about how the service operates: card, health, limits, cancelled calls and tenants."""

import numpy as np

from fedbbpt.conformance.ptm.target import Refused
from fedbbpt.conformance.ptm.trial import Trial
from fedbbpt.conformance.results import Broken, Skipped
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.types import PromptKind
from fedbbpt.types.call_sizes import prompts_per_call
from fedbbpt.wire.messages import ptm_messages
from fedbbpt.wire.messages.prompt_messages import PROMPT_KINDS

NAME = pb.DESCRIPTOR.services_by_name["PtmService"].full_name
MANY = 64
"""Number of prompts of a call that is cancelled."""
GREATEST_MESSAGE = 256 * 2**20
"""Most bytes of a message that the kit sends."""


def card_is_complete(trial: Trial) -> None:
    """Checks that the card has all fields that its kinds of prompts and its output need, and does not change."""
    message: pb.DescribeResponse = trial.call("Describe", pb.DescribeRequest())
    missing = [name for name in ("model", "revision", "family", "prompt_kinds") if not getattr(message, name)]
    limits = ["max_prompts", "max_examples", "max_message_bytes", *([] if message.image_shape else ["max_tokens"])]
    missing += [name for name in limits if getattr(message, name) < 1]
    kinds = set(message.prompt_kinds)
    vectors = kinds & {PROMPT_KINDS[PromptKind.LATENT], PROMPT_KINDS[PromptKind.SOFT]}
    if vectors and not message.injections:
        missing.append("injections")
    if PROMPT_KINDS[PromptKind.LATENT] in kinds and not message.max_latent > 0:
        missing.append("max_latent")
    if kinds & {PROMPT_KINDS[PromptKind.SOFT], PROMPT_KINDS[PromptKind.DEEP]} and not message.max_vector_norm > 0:
        missing.append("max_vector_norm")
    sizes = {PromptKind.SOFT: "embedding_width", PromptKind.IMAGE: "image_shape", PromptKind.DEEP: "prefix_shape"}
    missing += [name for kind, name in sizes.items() if PROMPT_KINDS[kind] in kinds and not getattr(message, name)]
    if message.output == pb.OUTPUT_LOSS_ONLY and message.min_examples < 1:
        missing.append("min_examples")
    if missing:
        raise Broken(f"DescribeResponse lacks {', '.join(missing)}")
    if trial.call("Describe", pb.DescribeRequest()) != message:
        raise Broken("a second Describe returns a different card")


def healthy(trial: Trial) -> None:
    """Checks the health service without a token, as supervisors and clients with several services use it."""
    for service in ("", NAME):
        status = trial.callers["nobody"].health(service)
        if status != "SERVING":
            raise Broken(f"grpc.health.v1 reports {status} for {service!r}")


def same_task_same_id(trial: Trial) -> None:
    """Checks that a task always gets the same id, and another task another id."""
    ids = [
        trial.call("RegisterTask", ptm_messages.register_task_request(trial.me.inputs.task(turned=turned))).task_id
        for turned in (0, 0, 1)
    ]
    if ids[0] != ids[1] or ids[0] == ids[2]:
        raise Broken(f"one task gets the ids {ids[:2]}, and another {ids[2]!r}")


def label_tokens_for_each_class(trial: Trial) -> None:
    """Checks that RegisterTask tells a number of label tokens for each class, or none at all."""
    task = trial.me.inputs.task()
    told = list(trial.call("RegisterTask", ptm_messages.register_task_request(task)).label_tokens)
    if told and (len(told) != len(task.classes) or min(told) < 1):
        raise Broken(f"label_tokens is {told} for {len(task.classes)} classes")


def message_limit(trial: Trial) -> None:
    """Checks max_message_bytes with Release, which accepts an unknown handle of any length."""
    limit = trial.card.max_message_bytes
    if limit > GREATEST_MESSAGE:
        raise Skipped(f"the kit does not send messages of {limit} bytes")
    added = trial.me.target.added_bytes
    trial.call("Release", _release_of(limit - added))
    try:
        trial.call("Release", _release_of(limit + 1 - added))
    except Refused as refused:
        if refused.code == "RESOURCE_EXHAUSTED":
            return
        raise
    raise Broken(f"a message of {limit + 1} bytes is accepted; max_message_bytes is {limit}")


def _release_of(size: int) -> pb.ReleaseRequest:
    """Returns a message of `size` bytes, without what the channel adds."""
    message = pb.ReleaseRequest(examples_id="x" * size)
    message.examples_id = "x" * (size - (message.ByteSize() - size))
    assert message.ByteSize() == size
    return message


def _many(trial: Trial) -> int:
    """Returns MANY, or the number of prompts that a message holds."""
    return min(
        MANY, prompts_per_call(trial.card, trial.prompts(1), len(trial.rows), len(trial.me.inputs.task().classes))
    )


def given_up(trial: Trial) -> None:
    """Checks that a cancelled call costs no more than it asked for, and that the service then answers as before."""
    handle = trial.register(trial.me.inputs.task(), trial.me.inputs.examples(trial.rows))
    good = trial.score(handle, trial.prompts(2), len(trial.rows))
    number = _many(trial)
    request = ptm_messages.score_request(handle, trial.prompts(number, seed="many"))
    before = trial.usage().usage.queries
    trial.me.target.cancel("Score", request)
    again = trial.score(handle, trial.prompts(2), len(trial.rows))
    trial.require_same(again.answer, good.answer, "before and after a cancelled call")
    paid = trial.usage().usage.queries - before - again.usage.queries
    if not 0 <= paid <= number * len(trial.rows):
        raise Broken(f"a cancelled call of {number * len(trial.rows)} pairs cost {paid} queries")


def late_deadline(trial: Trial) -> None:
    """Checks that a call may miss its deadline, and that the service then answers the next call."""
    handle = trial.register(trial.me.inputs.task(), trial.me.inputs.examples(trial.rows))
    request = ptm_messages.score_request(handle, trial.prompts(_many(trial), seed="many"))
    for seconds in (1e-4, 0.02):
        try:
            trial.me.target.call("Score", request, seconds=seconds)
        except Refused as refused:
            if refused.code != "DEADLINE_EXCEEDED":
                raise
    answer = trial.score(handle, trial.prompts(2), len(trial.rows)).answer
    if answer.size == 0 or not np.isfinite(answer).all():
        raise Broken("the service returns no scores after a missed deadline")


def examples_are_the_tenants_own(trial: Trial) -> None:
    """Checks that another tenant can neither score nor release a tenant's examples."""
    other = trial.as_other()
    handle = trial.register(trial.me.inputs.task(), trial.me.inputs.examples(trial.rows))
    other.call("RegisterTask", ptm_messages.register_task_request(trial.me.inputs.task()))
    try:
        other.call("Score", ptm_messages.score_request(handle, trial.prompts(1)))
        raise Broken("another tenant can score these examples")
    except Refused as refused:
        if (refused.code, refused.reason) != ("NOT_FOUND", "UnknownExamples"):
            raise
    other.call("Release", pb.ReleaseRequest(examples_id=handle))
    trial.score(handle, trial.prompts(1), len(trial.rows))


def usage_is_the_tenants_own(trial: Trial) -> None:
    """Checks that a call does not change another tenant's usage."""
    other = trial.as_other()
    before = other.usage().usage
    trial.ask(trial.prompts(2))
    if other.usage().usage != before:
        raise Broken("a call raised another tenant's usage")
