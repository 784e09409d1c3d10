"""The keys of `[ptm]` that say how a model is loaded, and where they make no sense."""

import pytest

from fedbbpt.errors import InvalidJob
from fedbbpt.job.config import parse_job
from fedbbpt.types import PrecisionChoice

KEYS = {"family": '"causal-lm"', "device": '"cuda"', "precision": '"bfloat16"', "max_length": "64"}


def test_the_keys_are_read_and_precision_is_measured_by_default() -> None:
    text = "[ptm]\nmodel = 'folder'\n" + "\n".join(f"{key} = {value}" for key, value in KEYS.items())
    expected = {"family": "causal-lm", "device": "cuda", "precision": PrecisionChoice.BFLOAT16, "max_length": 64}
    assert parse_job(text).ptm.options() == expected
    assert parse_job("").ptm.precision is PrecisionChoice.AUTO


@pytest.mark.parametrize("key", KEYS)
def test_a_running_service_has_decided_them_already(key: str) -> None:
    text = f'[ptm]\naddress = "127.0.0.1:7001"\n{key} = {KEYS[key]}'
    with pytest.raises(
        InvalidJob, match=rf"job:3: ptm.{key}: it is for a model that is loaded here.*fedbbpt ptm serve"
    ):
        parse_job(text)


@pytest.mark.parametrize("model", ["fake", "model.onnx", "openai:m@http://127.0.0.1:9/v1"])
@pytest.mark.parametrize("key", KEYS)
def test_models_without_the_choice_refuse_it_at_its_line(model: str, key: str) -> None:
    with pytest.raises(InvalidJob, match=rf"job:3: .*{'bfloat16' if key == 'precision' else key}"):
        parse_job(f'[ptm]\nmodel = "{model}"\n{key} = {KEYS[key]}')


def test_a_fixed_float32_fits_every_model_that_is_loaded_here() -> None:
    for model in ("fake", "model.onnx", "mine:a"):
        parse_job(f'[ptm]\nmodel = "{model}"\nprecision = "float32"')


def test_an_unknown_precision_names_those_that_there_are() -> None:
    with pytest.raises(InvalidJob, match=r"job:2: .*'auto', 'float32' or 'bfloat16'"):
        parse_job('[ptm]\nprecision = "float16"')
