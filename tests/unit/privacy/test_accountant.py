"""The accountant against dp-accounting's own accountants, and against published figures."""

import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.privacy.accountant import most_rounds, noise_multiplier, spent


def composed(multiplier: float, rounds: int) -> dp_accounting.DpEvent:
    return dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(multiplier), rounds)


@pytest.mark.parametrize(("multiplier", "rounds"), [(1.0, 1), (4.0, 10), (10.0, 50), (40.0, 200)])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-9])
def test_epsilon_is_that_of_composed_gaussian_mechanisms(multiplier: float, rounds: int, delta: float) -> None:
    """Kills: an account that adds epsilons up, or forgets a round."""
    event, found = composed(multiplier, rounds), spent(multiplier, rounds, delta)
    exact = PLDAccountant(value_discretization_interval=1e-4).compose(event).get_epsilon(delta)
    assert found == pytest.approx(exact, rel=2e-3)
    assert found <= RdpAccountant().compose(event).get_epsilon(delta), "Renyi's bound is never below the exact value"


def test_epsilon_of_one_release_is_that_of_balle_and_wang() -> None:
    """Their theorem 8: delta = F(m/2 - e/m) - exp(e) F(-m/2 - e/m), m = 1 / multiplier and F normal."""

    def normal(x: float) -> float:
        return math.erfc(-x / math.sqrt(2)) / 2

    epsilon, m = spent(3.0, 1, 1e-6), 1 / 3.0
    delta = normal(m / 2 - epsilon / m) - math.exp(epsilon) * normal(-m / 2 - epsilon / m)
    assert delta == pytest.approx(1e-6, rel=1e-6)


@pytest.mark.parametrize(
    ("sampled", "batch", "multiplier", "epochs", "epsilon"),
    [
        (60_000, 256, 1.3, 15, 1.19),
        (60_000, 256, 1.1, 60, 3.01),
        (60_000, 256, 0.7, 45, 7.10),
    ],
)
def test_package_gives_the_published_figures(
    sampled: int, batch: int, multiplier: float, epochs: int, epsilon: float
) -> None:
    """The table of TensorFlow Privacy's tutorial on MNIST (tutorials/README.md), at delta = 1e-5.

    Its epsilons come from the Renyi divergences by Mironov's conversion (Renyi Differential Privacy, 2017, proposition
    3). The package has the same divergences, and a conversion that gives less.
    """
    event = dp_accounting.PoissonSampledDpEvent(batch / sampled, dp_accounting.GaussianDpEvent(multiplier))
    account = RdpAccountant().compose(dp_accounting.SelfComposedDpEvent(event, epochs * sampled // batch))
    orders, divergences = np.array(account._orders), np.array(account._rdp)
    assert (divergences + math.log(1e5) / (orders - 1)).min() == pytest.approx(epsilon, abs=0.01)
    assert 0.7 * epsilon < account.get_epsilon(1e-5) < epsilon


@pytest.mark.parametrize(("multiplier", "rounds"), [(1.0, 1), (4.0, 10), (40.0, 200)])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-9])
def test_epsilon_of_shares_is_what_is_proven_of_sums_of_discrete_gaussians(
    multiplier: float, rounds: int, delta: float
) -> None:
    """Concentrated differential privacy with rho = rounds / (2 multiplier^2), converted at the best order.

    Kills: the account of the continuous Gaussian, which is not proven for these sums.
    """
    rho, orders = rounds / (2 * multiplier**2), 1 + np.geomspace(1e-2, 1e6, 200_000)
    converted = rho * orders + np.log1p(-1 / orders) - np.log(delta * orders) / (orders - 1)
    found = spent(multiplier, rounds, delta, shares=True)
    assert found == pytest.approx(converted.min(), rel=1e-3) and found >= converted.min()
    assert found > spent(multiplier, rounds, delta)


@pytest.mark.parametrize(
    ("sampled", "batch", "multiplier", "epochs", "delta", "epsilon"),
    [
        (60_000, 150, 1.3, 15, 1e-5, 0.7242234026109595),
        (100_000, 100, 1.0, 30, 1e-7, 1.4154988495444845),
        (100_000_000, 1024, 0.1, 10, 1e-7, 5907982.31138195),
    ],
)
def test_package_gives_the_figures_of_tensorflow_privacy(
    sampled: int, batch: int, multiplier: float, epochs: int, delta: float, epsilon: float
) -> None:
    """The cases of tensorflow/privacy, privacy/analysis/compute_dp_sgd_privacy_test.py, test_compute_dp_sgd_privacy."""
    orders = [1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 3.0, 3.5, 4.0, 4.5, *range(5, 64), 128, 256, 512]
    event = dp_accounting.PoissonSampledDpEvent(batch / sampled, dp_accounting.GaussianDpEvent(multiplier))
    account = RdpAccountant(orders).compose(
        dp_accounting.SelfComposedDpEvent(event, math.ceil(epochs * sampled / batch))
    )
    assert account.get_epsilon(delta) == pytest.approx(epsilon, rel=1e-9)


def test_package_gives_the_figure_of_opacus() -> None:
    """pytorch/opacus, opacus/tests/accountants_test.py, test_rdp_accountant: 90 epochs, 4 % of the examples a step.

    The best order is 3.9, and for orders that are no whole numbers the two packages end their series elsewhere.
    """
    orders = [1 + each / 10.0 for each in range(1, 100)] + list(range(12, 64))  # opacus/accountants/rdp.py
    event = dp_accounting.PoissonSampledDpEvent(0.04, dp_accounting.GaussianDpEvent(1.5))
    account = RdpAccountant(orders).compose(dp_accounting.SelfComposedDpEvent(event, int(90 / 0.04)))
    assert account.get_epsilon(1e-5) == pytest.approx(7.32911117143, rel=1e-4)


@given(st.floats(0.05, 50), st.sampled_from([1e-3, 1e-5, 1e-8]), st.integers(1, 2000))
def test_noise_of_a_budget_pays_for_its_rounds_and_no_more(epsilon: float, delta: float, rounds: int) -> None:
    """Kills: a multiplier on the wrong side of the solver's tolerance, and rounds beyond the budget."""
    for shares in (False, True):
        multiplier = noise_multiplier(epsilon, delta, rounds, shares=shares)
        assert spent(multiplier, rounds, delta, shares=shares) <= epsilon
        assert spent(multiplier, rounds + 1, delta, shares=shares) > epsilon
        assert most_rounds(multiplier, epsilon, delta, shares=shares) == rounds


def test_nothing_is_spent_before_the_first_round() -> None:
    assert spent(1.0, 0, 1e-5) == 0.0
