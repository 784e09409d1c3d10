"""Our CMA-ES has the trajectory of pycma, if pycma's departures from the tutorial are switched off."""

import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from fedbbpt import seeds
from fedbbpt.optim.cmaes import CmaEs, Covariance, constants

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # pycma warns where matplotlib is missing
    import cma

N = 12
GENERATIONS = 150
Vector = npt.NDArray[np.float64]


def ellipsoid(x: Vector) -> Vector:
    values: Vector = (10.0 ** (3 * np.arange(x.shape[1]) / (x.shape[1] - 1)) * x**2).sum(axis=1)
    return values


def rosenbrock(x: Vector) -> Vector:
    values: Vector = (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(axis=1)
    return values


def oracle(mean: Vector, search: CmaEs) -> "cma.CMAEvolutionStrategy":
    k = constants(N, search.population, search.covariance, search.parents)
    options = {
        "popsize": search.population,
        "CMA_active": False,
        "CMA_mirrors": 0,
        "updatecovwait": 0,
        "tolx": 0,
        "verbose": -10,
        "seed": np.nan,
        "randn": lambda *shape: np.zeros(shape),
    }
    if search.covariance == "diagonal":

        class Separable(cma.sampler.GaussDiagonalSampler):  # type: ignore[misc]  # pycma has no types
            """pycma's diagonal distribution, learnt at the rates of sep-CMA-ES."""

            def parameters(self, mueff: float | None = None, lam: float | None = None) -> dict[str, float]:
                return {"c1": k.c_1, "cmu": k.c_mu}

        options["CMA_sampler"] = Separable
    es = cma.CMAEvolutionStrategy(mean, search.sigma, options)
    if search.covariance == "full":
        es.sm.C, es.sm.B, es.sm.D = np.eye(N), np.eye(N), np.ones(N)  # pycma starts near the identity
    es.adapt_sigma.initialize(es)
    es.adapt_sigma.cs, es.adapt_sigma.damps = k.c_sigma, k.d_sigma  # pycma's are its own
    return es


@pytest.mark.parametrize("function", [ellipsoid, rosenbrock])
@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_our_trajectory_is_that_of_pycma(function: Callable[[Vector], Vector], covariance: Covariance) -> None:
    search = CmaEs(population=10, sigma=0.5, covariance=covariance)
    state = search.init(np.full(N, 2.0))
    es = oracle(np.full(N, 2.0), search)
    first = function(state.mean[None])[0]
    for generation in range(GENERATIONS):
        population = search.ask(state, seeds.derive(1, generation))
        losses = function(population)
        state = search.tell(state, population, losses)
        es.ask()  # brings pycma's eigenvectors up to date; its candidates are not used
        es.tell(list(population), list(losses), check_points=False)
        np.testing.assert_allclose(state.mean, es.mean, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(state.sigma, es.sigma, rtol=1e-6)
        np.testing.assert_allclose(state.covariance, es.sm.C, rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(state.path_covariance, es.pc, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(state.path_sigma, es.adapt_sigma.ps, rtol=1e-5, atol=1e-7)
    assert function(state.mean[None])[0] < 1e-2 * first
