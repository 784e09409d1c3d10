"""The choice of precision, on injected measurements: what each condition decides, and what is remembered."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.errors import InvalidInput
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.ptm.models.loading import load
from fedbbpt.ptm.models.precision.choice import LEAST_SPEEDUP, MOST_MOVED, choose, load_measured, moved
from fedbbpt.ptm.models.precision.trial import Trial, measure_model, measure_product
from fedbbpt.types import Precision, PrecisionChoice, Scores

EXACT = np.random.default_rng(0).normal(size=(2, 8, 4)).astype(np.float32)
F32, BF16 = Precision.FLOAT32, Precision.BFLOAT16


def shifted(share: float) -> Scores:
    """Returns scores that are moved by this share of their spread."""
    noise = np.random.default_rng(1).normal(size=EXACT.shape)
    noise -= noise.mean(axis=2, keepdims=True)
    centred = EXACT - EXACT.mean(axis=2, keepdims=True)
    scale = share * np.sqrt(np.square(centred).mean() / np.square(noise).mean())
    found: Scores = (EXACT + scale * noise).astype(np.float32)
    return found


class Machine:
    """A machine on which bfloat16 is so many times as fast, in a product and in the model, and moves scores so far."""

    def __init__(self, product: float, model: float = 1.0, share: float = 0.0) -> None:
        self._product, self._model, self._share = product, model, share
        self.loaded: list[Precision] = []

    def load(self, precision: Precision) -> Fake:
        self.loaded.append(precision)
        return Fake()

    def product_speedup(self) -> float:
        return self._product

    def measure(self, model: Fake) -> Trial:
        if self.loaded[-1] is F32:
            return Trial(1.0, EXACT)
        return Trial(1.0 / self._model, shifted(self._share))

    def start(self, memory: Path | None = None) -> Precision:
        """Starts a model and returns its precision."""
        self.loaded.clear()
        load_measured(self.load, self.product_speedup, memory, self.measure)
        return self.loaded[-1]


def test_movement_is_relative_to_the_spread_between_classes() -> None:
    assert moved(EXACT, shifted(0.05)) == pytest.approx(0.05, rel=1e-3)
    assert moved(EXACT, EXACT + np.float32(3.0)) < 1e-6, "a shift of all classes changes no choice"
    assert moved(1000 * EXACT, 1000 * shifted(0.05)) == pytest.approx(0.05, rel=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_have_moved_infinitely_far(value: float) -> None:
    """Kills: a comparison with NaN that lets bfloat16 through."""
    broken = EXACT.copy()
    broken[0, 0, 0] = value
    assert choose(Trial(2.0, EXACT), Trial(1.0, broken)).precision is F32
    assert moved(np.ones_like(EXACT), np.ones_like(EXACT)) == np.inf, "equal scores show no spread"


@pytest.mark.parametrize(
    ("speedup", "share", "expected"),
    [
        (2.4, 0.01, BF16),
        (LEAST_SPEEDUP - 0.01, 0.01, F32),
        (0.25, 0.01, F32),
        (2.4, 1.1 * MOST_MOVED, F32),
        (LEAST_SPEEDUP + 0.01, 0.9 * MOST_MOVED, BF16),
    ],
)
def test_bfloat16_needs_both_conditions(speedup: float, share: float, expected: Precision) -> None:
    assert Machine(4.0, speedup, share).start() is expected


def test_a_processor_that_emulates_bfloat16_never_loads_a_model_in_it() -> None:
    """Kills: an AVX2-only machine on which start-up takes minutes, or memory for two models."""
    machine = Machine(0.25, 2.4)
    assert machine.start() is F32 and machine.loaded == [F32]


def test_a_choice_is_remembered_and_survives_other_measurements(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Kills: a service that changes its revision when it is started again on a busy machine."""
    memory = tmp_path / "choice.json"
    assert Machine(4.0, 2.4).start(memory) is BF16
    slower = Machine(0.5)
    with caplog.at_level(logging.INFO):
        assert slower.start(memory) is BF16 and slower.loaded == [BF16]
    assert "2.40 times as fast" in caplog.text and "remembered" in caplog.text
    memory.write_text("{")
    assert slower.start(memory) is F32, "a damaged file is measured again"


def test_the_log_has_both_figures(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Machine(4.0, 2.4, 0.01).start()
    assert "bfloat16 is 2.40 times as fast" in caplog.text and "moves scores by 1.00 % of their spread" in caplog.text


def test_a_model_that_does_not_load_in_bfloat16_is_taken_in_float32() -> None:
    class Picky(Machine):
        def load(self, precision: Precision) -> Fake:
            super().load(precision)
            if precision is BF16:
                raise InvalidInput("no bfloat16")
            return Fake()

    assert Picky(4.0, 2.4).start() is F32


@pytest.mark.parametrize("name", ["bert-encoder", "roberta-mlm", "gpt2", "llama", "bert-classifier"])
def test_every_family_can_be_measured(checkpoint: Callable[[str], Path], name: str) -> None:
    trial = measure_model(load(str(checkpoint(name)), threads=1))
    assert trial is not None and trial.seconds > 0 and np.isfinite(trial.scores).all()
    assert moved(trial.scores, trial.scores) == 0.0


def test_products_are_measured_in_both_precisions() -> None:
    assert 0.0 < measure_product(64, "cpu") < 1000.0


@pytest.mark.parametrize("name", ["vit", "clip"])
def test_models_of_images_and_the_fake_take_float32(checkpoint: Callable[[str], Path], name: str) -> None:
    for model in (str(checkpoint(name)), "fake"):
        assert load(model, precision=PrecisionChoice.AUTO).describe().precision == "float32"


def test_the_card_has_the_precision_that_was_taken(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = str(checkpoint("bert-encoder"))
    fixed = {load(folder, precision=precision).describe().revision: str(precision) for precision in Precision}
    first, second = (load(folder, precision=PrecisionChoice.AUTO).describe() for _ in range(2))
    assert fixed[first.revision] == first.precision and first == second
