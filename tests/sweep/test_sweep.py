"""Any model of transformers: scored as by a plain forward pass, or refused in words."""

from pathlib import Path

import pytest

pytest.importorskip("transformers")

from tests.slow import slow_except
from tests.sweep.comparison import sweep
from tests.sweep.table import documented, summarise
from tests.sweep.tiny_models import TYPES

CASES = [(family, model_type) for family, types in TYPES.items() for model_type in types]
BRIEF = (
    *(("masked-lm", "bert"), ("masked-lm", "deberta-v2"), ("masked-lm", "xlm-roberta")),
    *(("causal-lm", "gpt2"), ("causal-lm", "gemma3_text"), ("causal-lm", "qwen3"), ("causal-lm", "mixtral")),
    *(("sequence-classifier", "distilbert"), ("sequence-classifier", "mistral"), ("dual-encoder", "mpnet")),
    *(("seq2seq-lm", "t5"), ("seq2seq-lm", "bart")),
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("family", "model_type"), slow_except(CASES, *BRIEF))
def test_each_type_is_scored_right_or_refused(family: str, model_type: str, tmp_path: Path) -> None:
    """Kills: a wrong score in silence, and an error that says nothing to a user."""
    outcome = sweep(family, model_type, tmp_path)
    assert outcome.faults == {}
    assert summarise(outcome) == documented()[family, model_type], "run python -m tests.sweep"
