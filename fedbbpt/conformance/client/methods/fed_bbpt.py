"""fed-bbpt with a soft generator: the steps of SPSA whose directions are prescribed, or else their losses alone."""

import math

import numpy as np

from fedbbpt.conformance.client import draws
from fedbbpt.conformance.client.methods.answer import Answer, Asked
from fedbbpt.conformance.client.numbers import Vector
from fedbbpt.conformance.results import Broken

NOISE = 1e-9
"""Relative differences of a coefficient, which is the difference of two losses."""


def answer(asked: Asked) -> Answer:
    """Returns the arrays of a right update."""
    settings = asked.run.method.fed_bbpt
    if not settings.scalars_sent:
        return _by_own_draws(asked)
    theta, weight = asked.arrays["theta"].astype(np.float64), float(asked.examples)
    momentum, size = np.zeros(len(theta)), len(theta)
    coefficients, losses, train = [], [], list[str]()
    first = int(asked.arrays["round"][0]) * settings.local_steps + 1
    for j in range(settings.local_steps):
        i = first + j
        seed = draws.derive(draws.derive(asked.task.seed, asked.client_id, j), "spsa")
        drawn = [2 * u - 1 for u in draws.uniforms(seed, settings.estimates * size)]
        delta = np.array([math.copysign((1 + abs(v)) / 2, v) for v in drawn]).reshape(-1, size)
        width = settings.c / i**settings.gamma
        pairs = []
        for index, direction in enumerate(delta):
            sides = [asked.generated(theta + sign * width * direction) for sign in (1, -1)]
            train = train or asked.texts_of(sides[0], "the first point of step 0")
            for side in sides:
                asked.require_scored(side, train, f"a point of pair {index} of step {j}")
            pairs.append([float(asked.losses(side, train).mean()) for side in sides])
        losses += [loss for pair in pairs for loss in pair]
        exact = np.array([plus - minus for plus, minus in pairs])
        coefficients.append(exact)
        # The step uses what the coordinator gets.
        sent = (exact * weight).astype(np.float32).astype(np.float64) / weight
        g = (sent[:, None] / (2 * width * delta)).sum(axis=0) / len(delta)
        momentum = settings.beta * momentum + g
        theta = theta - settings.a / (i + settings.o) ** settings.alpha * (g + settings.beta * momentum)
    found: dict[str, Vector] = {"coefficients": np.array(coefficients), "loss": np.array([np.mean(losses)])}
    return Answer(found, train, weight, {"coefficients": NOISE})


def _by_own_draws(asked: Asked) -> Answer:
    """Returns the loss over all points that the client has evaluated. Where its search ends depends on its draws."""
    settings = asked.run.method.fed_bbpt
    prompts = [each for each in asked.box.order if each != asked.prompt(asked.point)]
    wanted = 2 * settings.estimates * settings.local_steps
    if len(prompts) != wanted:
        raise Broken(f"the client scored {len(prompts)} points; expected {wanted}")
    if asked.offsets:
        raise AssertionError("a case without scalars_sent has no offsets, which nobody but the client would know")
    train = sorted(asked.box.asked[prompts[0]], key=list(asked.labels).index)
    losses = [asked.losses(np.frombuffer(each, np.float32), train).mean() for each in prompts]
    shape = asked.arrays["theta"].shape
    return Answer({"loss": np.array([np.mean(losses)])}, train, float(asked.examples), free={"theta": shape})
