"""A model that the service loads scores as a plain forward pass does; any other is refused with the cause."""

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.errors import InvalidExamples, InvalidInput, InvalidTask, InvalidTensor
from fedbbpt.ptm.models.loading import load
from fedbbpt.types import Examples, TaskSpec, TextPrompts, TokenPrompts
from tests.jobs import score
from tests.slow import slow_except

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from fedbbpt.ptm.models.text.encoding import ExampleEncoder
from fedbbpt.ptm.models.text.split_model import split_model
from fedbbpt.ptm.models.text.tokenisation_check import check_tokenisation
from tests.sweep.comparison import sweep
from tests.sweep.plain_forward import PlainForward
from tests.sweep.tiny_models import save_tiny_model

Checkpoint = Callable[[str], Path]
TOO_LONG = "who wrote this book so long " * 7
"""A text that BigBird reads with another attention than short ones."""


def mixtures_of_experts() -> list[Any]:
    names = ("mixtral", "qwen3_moe", "olmoe", "gpt_oss", "qwen2_moe", "phimoe", "granitemoe", "deepseek_v3", "jamba")
    return slow_except(names, "gpt_oss")


@pytest.mark.parametrize("model_type", mixtures_of_experts())
def test_mixture_of_experts_scores_as_plain_transformers(model_type: str, tmp_path: Path) -> None:
    """Kills: a head that reads the routers' choices from the body's output."""
    outcome = sweep("causal-lm", model_type, tmp_path)
    wrong = {name: found for name, found in outcome.checks.items() if found != "right"}
    if model_type == "jamba":  # its state-space layers have no keys and values from which label words continue
        assert "label words of several tokens" in wrong.pop("several tokens")
    assert outcome.built and not wrong


def change(folder: Path, checkpoint: Path, **values: Any) -> Path:
    """Copies a checkpoint to the folder with other values in its config."""
    if folder != checkpoint:
        shutil.copytree(checkpoint, folder, dirs_exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


@pytest.mark.parametrize(
    ("family", "model_type", "match"),
    slow_except(
        [
            ("causal-lm", "gemma4_text", r"each token id in every layer \(per-layer embeddings\)"),
            ("causal-lm", "gemma3n_text", r"each token id in every layer \(per-layer embeddings\)"),
            ("masked-lm", "big_bird", "an input of 64 tokens gets other scores .* depends on the length"),
            ("masked-lm", "ibert", "no plain table but a QuantEmbedding"),
        ],
        ("causal-lm", "gemma4_text", r"each token id in every layer \(per-layer embeddings\)"),
        ("masked-lm", "big_bird", "an input of 64 tokens gets other scores .* depends on the length"),
    ),
)
def test_model_that_cannot_be_scored_right_is_refused(family: str, model_type: str, match: str, tmp_path: Path) -> None:
    """Kills: a self-test that asks the whole model with vectors only, or with a short input only."""
    save_tiny_model(family, model_type, tmp_path)
    with pytest.raises(InvalidInput, match=match):
        load(str(tmp_path), family=family, threads=1)


def test_model_is_served_up_to_the_length_that_its_refusal_states(tmp_path: Path) -> None:
    """BigBird reads inputs beyond 56 tokens with another attention, until it has seen a short one."""
    save_tiny_model("masked-lm", "big_bird", tmp_path)
    change(tmp_path, tmp_path, block_size=4, num_random_blocks=1)
    with pytest.raises(InvalidInput, match="--max-length 28, or another model"):
        load(str(tmp_path), threads=1)
    backend = load(str(tmp_path), threads=1, max_length=28)
    task = TaskSpec("{prompt} {text} it was {mask} .", ("bad", "great"))
    rows = backend.prepare(task, Examples(("the film was very good", TOO_LONG)), 0, None)
    assert [backend.tokens(row) for row in rows][1] == 28
    ours = score(backend, task, TextPrompts(("",)), rows)[0, 0]
    plain = PlainForward("masked-lm", tmp_path)
    encoded = plain.encode(f" the film was very good it was{plain.tokenizer.mask_token} .")
    assert np.allclose(ours, plain.scores(encoded, ("bad", "great")), atol=1e-4)


@pytest.mark.parametrize(
    "values",
    [
        {"problem_type": "regression"},
        {"problem_type": "multi_label_classification"},
        {"id2label": {"0": "score"}, "label2id": {"score": 0}},
    ],
    ids=["regression", "several labels", "one output"],
)
def test_classifier_that_chooses_no_class_is_refused(
    checkpoint: Checkpoint, values: dict[str, Any], tmp_path: Path
) -> None:
    folder = change(tmp_path, checkpoint("bert-classifier"), **values)
    if "id2label" in values:
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            checkpoint("bert-classifier"), num_labels=1, ignore_mismatched_sizes=True
        )
        model.save_pretrained(folder)
    with pytest.raises(InvalidInput, match="does not choose one of several classes"):
        load(str(folder), threads=1)


def test_classifier_that_reads_the_last_token_that_is_no_padding_is_refused(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Its tokenizer ends each text with a token that the model takes for padding.

    Kills: a reference whose padding token was removed before.
    """
    folder = change(tmp_path, checkpoint("gpt2-classifier"))
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    end = tokenizer.pad_token
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.pad_token_id)]
    )
    tokenizer.save_pretrained(folder)
    with pytest.raises(InvalidInput, match="reads the token ids as well"):
        load(str(folder), threads=1)


def test_errors_of_an_architecture_are_refusals(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: a traceback that asks the user to report a bug."""

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("no such kernel\nmore")

    monkeypatch.setattr(transformers.BertForMaskedLM, "forward", fail)
    with pytest.raises(
        InvalidInput, match="type 'bert' cannot be served as a masked-lm: AssertionError: no such kernel"
    ):
        load(str(checkpoint("bert-mlm")), threads=1)


@pytest.mark.parametrize("name", ["gpt2", "bert-mlm"])
def test_pieces_that_become_other_tokens_than_the_whole_text_are_refused(checkpoint: Checkpoint, name: str) -> None:
    """Kills: a check that compares an encoder with itself."""
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(checkpoint(name))
    causal = name == "gpt2"
    template = "{text} It was {mask}" if causal else "{text} It was {mask}."

    class Reversed(ExampleEncoder):
        def encode(self, *task: Any) -> Any:
            return [replace(row, ids=row.ids[::-1]) for row in super().encode(*task)]

    for made, refused in ((ExampleEncoder, False), (Reversed, True)):
        encoder = made(tokenizer, 48, vectors=len(tokenizer), causal=causal)
        with pytest.raises(InvalidInput, match="its whole text") if refused else nullcontext():
            check_tokenisation("m", tokenizer, encoder, template, causal=causal)


def test_a_longest_input_that_cuts_the_sentence_of_the_test_says_how_long_it_must_be(checkpoint: Checkpoint) -> None:
    """Kills: a message that blames the tokenizer for what was cut."""
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(checkpoint("gpt2"))
    needed = len(tokenizer("the film was very good It was")["input_ids"])
    encoder = ExampleEncoder(tokenizer, needed - 1, vectors=len(tokenizer), causal=True)
    with pytest.raises(InvalidInput, match="too short for the sentence") as caught:
        check_tokenisation("m", tokenizer, encoder, "{text} It was {mask}", causal=True)
    assert caught.value.fix == f"a longest input (--max-length) of {needed} tokens or more"


def with_padding(folder: Path, checkpoint: Path, word: str) -> Path:
    """Copies a checkpoint whose config takes a word of the vocabulary for padding."""
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(checkpoint)
    (padding,) = tokenizer(word, add_special_tokens=False)["input_ids"]
    return change(folder, checkpoint, pad_token_id=padding)


def test_token_that_a_classifier_takes_for_padding_is_refused_in_texts(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """GPT-2 reads the last token that is no padding. Kills: a self-test whose inputs have no padding in them."""
    backend = load(str(with_padding(tmp_path, checkpoint("gpt2-classifier"), " film")), threads=1)
    task = TaskSpec("{prompt} {text}", ("bad", "great"))
    with pytest.raises(InvalidExamples, match=r"examples\[1\]: .*'Ġfilm', which the model takes for padding"):
        backend.prepare(task, Examples(("a story", "a good film")), 1, None)


def test_token_that_has_no_position_is_refused_in_templates_and_prompts(checkpoint: Checkpoint) -> None:
    """RoBERTa counts positions without padding."""
    folder = checkpoint("roberta-mlm")
    backend, padding = load(str(folder), threads=1), transformers.RobertaConfig.from_pretrained(folder).pad_token_id
    task = TaskSpec("{prompt} {text} It was {mask}.", ("bad", "great"))
    rows = backend.prepare(task, Examples(("a story",)), 2, None)
    with pytest.raises(InvalidTensor, match=r"tokens\.ids: .*'<pad>', which the model takes for padding"):
        score(backend, task, TokenPrompts(np.array([[300, padding]], np.int32)), rows)
    with pytest.raises(InvalidTask, match=r"template: .*padding"):
        backend.check(replace(task, template="{prompt} {text} <pad> It was {mask}."))


def test_vocabulary_without_common_words_is_served(tmp_path: Path) -> None:
    """Kills: a tokenisation check whose own label words are no words of the model."""
    known = ["<unk>", "<s>", "</s>", *(f"w{number}" for number in range(20))]
    library = Tokenizer(models.WordLevel({word: id for id, word in enumerate(known)}, unk_token="<unk>"))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast: Any = transformers.PreTrainedTokenizerFast
    fast(
        tokenizer_object=library, unk_token="<unk>", bos_token="<s>", eos_token="</s>", model_max_length=48
    ).save_pretrained(tmp_path)
    config = transformers.GPT2Config(
        vocab_size=len(known), n_embd=32, n_layer=1, n_head=4, n_positions=48, bos_token_id=1, eos_token_id=2
    )
    model: Any = transformers.GPT2LMHeadModel(config)
    model.eval().save_pretrained(tmp_path)
    backend = load(str(tmp_path), threads=1)
    task = TaskSpec("{prompt} {text} {mask}", ("w3", "w4"))
    rows = backend.prepare(task, Examples(("w1 w2 w1",)), 1, None)
    with torch.inference_mode():
        expected = model(torch.tensor([[3, 4, 5, 4]])).logits[0, -1, [6, 7]].numpy()
    np.testing.assert_allclose(score(backend, task, TextPrompts(("w0",)), rows)[0, 0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"0": "bad", "1": "good", "2": "good"}, "several labels are called 'good'"),
        ({"1": "bad", "2": "fine", "3": "good"}, r"id2label numbers the labels \[1, 2, 3\]"),
    ],
)
def test_classifier_whose_labels_are_unclear_is_refused(
    names: dict[str, str], said: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = change(tmp_path, checkpoint("bert-classifier"), id2label=names, label2id={})
    with pytest.raises(InvalidInput, match=said):
        load(str(folder), threads=1)


@pytest.mark.parametrize("rope_type", ["longrope", "default"])
def test_threads_take_turns_where_each_input_sets_the_frequencies(rope_type: str) -> None:
    """Phi-3 keeps the frequencies of an input in its module, where another thread's input would change them."""
    factors: dict[str, Any] = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    rope = {"rope_type": rope_type, "rope_theta": 1e4, **(factors if rope_type == "longrope" else {})}
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    }
    config = transformers.Phi3Config(
        **sizes,
        vocab_size=20,
        intermediate_size=64,
        max_position_embeddings=256,
        original_max_position_embeddings=64,
        rope_parameters=rope | {"original_max_position_embeddings": 64},
        pad_token_id=0,
    )
    split = split_model(transformers.Phi3ForCausalLM(config))
    with split.turns:
        assert getattr(split.turns, "locked", lambda: False)() == (rope_type == "longrope")
