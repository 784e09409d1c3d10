"""The longest input: the model's own limit, its tokenizer's, or a lower one of the caller."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fedbbpt.errors import InvalidInput
from fedbbpt.ptm.models.loading import load
from tests.checkpoints import MAX_TOKENS


def without_length(folder: Path, to: Path, *, tokenizer: bool) -> Path:
    """Copies a checkpoint of GPT-2 as BLOOM, which states no length in its config.json."""
    import torch
    import transformers as t

    torch.manual_seed(0)
    reader = t.AutoTokenizer.from_pretrained(folder)
    config = t.BloomConfig(vocab_size=len(reader), hidden_size=32, n_layer=2, n_head=4)
    t.BloomForCausalLM(config).save_pretrained(to)
    reader.save_pretrained(to)
    if not tokenizer:
        file = to / "tokenizer_config.json"
        settings = json.loads(file.read_text())
        del settings["model_max_length"]
        file.write_text(json.dumps(settings))
    return to


def test_the_tokenizers_length_counts_where_the_config_states_none(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = without_length(checkpoint("gpt2"), tmp_path / "bloom", tokenizer=True)
    assert load(str(folder)).describe().max_tokens == MAX_TOKENS


def test_a_model_that_states_no_length_takes_the_callers(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = without_length(checkpoint("gpt2"), tmp_path / "bloom", tokenizer=False)
    with pytest.raises(InvalidInput, match=r"neither .*config.json nor its tokenizer states .*--max-length"):
        load(str(folder))
    assert load(str(folder), max_length=40).describe().max_tokens == 40


def test_a_lower_length_truncates_and_changes_the_revision(checkpoint: Callable[[str], Path]) -> None:
    name = str(checkpoint("bert-encoder"))
    whole, same, short = (load(name, max_length=length).describe() for length in (0, MAX_TOKENS, 20))
    assert (whole.max_tokens, short.max_tokens) == (MAX_TOKENS, 20)
    assert whole.revision == same.revision != short.revision


@pytest.mark.parametrize(("length", "fix"), [(MAX_TOKENS + 1, f"at most {MAX_TOKENS}"), (7, "at least 8")])
def test_lengths_beyond_the_model_and_without_room_are_refused(
    checkpoint: Callable[[str], Path], length: int, fix: str
) -> None:
    with pytest.raises(InvalidInput, match=fix):
        load(str(checkpoint("bert-encoder")), max_length=length)


@pytest.mark.parametrize("model", ["fake", "model.onnx", "openai:m@http://user:secret@127.0.0.1:9/v1"])
@pytest.mark.parametrize("option", [{"max_length": 64}, {"family": "causal-lm"}])
def test_models_without_a_checkpoint_refuse_both(model: str, option: dict[str, int | str]) -> None:
    """Kills: an option that is accepted and then ignored; a password in a message."""
    with pytest.raises(InvalidInput, match="for checkpoints of transformers") as raised:
        load(model, **option)  # type: ignore[arg-type]  # mypy does not know which key has which type
    assert "secret" not in str(raised.value)


def test_models_of_images_have_no_length(checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(InvalidInput, match="has no length of texts"):
        load(str(checkpoint("vit")), max_length=64)
