"""The generator: a small network that makes z from its weights."""

import numpy as np

from fedbbpt.prompts.generator import Generator

GENERATOR = Generator(dim=7, code=3, hidden=4, seed=11)


def test_generator_counts_its_weights() -> None:
    assert GENERATOR.size == 4 * 3 + 4 + 7 * 4 + 7 == len(GENERATOR.init())


def test_generator_starts_at_the_initial_prompt() -> None:
    np.testing.assert_array_equal(GENERATOR(GENERATOR.init()[None]), np.zeros((1, 7)))


def test_first_weights_and_code_follow_from_the_seed() -> None:
    other = Generator(dim=7, code=3, hidden=4, seed=12)
    theta = np.linspace(-1, 1, GENERATOR.size)[None]
    np.testing.assert_array_equal(GENERATOR.init(), Generator(dim=7, code=3, hidden=4, seed=11).init())
    assert not np.array_equal(GENERATOR.init(), other.init())
    assert not np.array_equal(GENERATOR(theta), other(theta))


def test_hidden_layer_is_not_zero_at_the_start() -> None:
    theta = GENERATOR.init()
    theta[4 * 3 + 4 : -7] = 1.0  # W_2
    assert (np.abs(GENERATOR(theta[None])) > 1e-3).all()


def test_several_weight_vectors_give_the_same_as_one_by_one() -> None:
    thetas = np.random.default_rng(0).normal(size=(5, GENERATOR.size))
    np.testing.assert_allclose(GENERATOR(thetas), np.concatenate([GENERATOR(theta[None]) for theta in thetas]))


def test_the_output_bias_is_z_itself() -> None:
    theta = np.zeros(GENERATOR.size)
    theta[-7:] = np.arange(7)
    np.testing.assert_array_equal(GENERATOR(theta[None])[0], np.arange(7))
