"""Inputs, segments and label words, compared with those of the model's own tokenizer."""

from functools import cache
from typing import Any

import numpy as np
import pytest

from fedbbpt.errors import InvalidExamples, InvalidInput, InvalidTask, InvalidTensor, PromptTooLong
from fedbbpt.types import Examples, Perturbation, TaskSpec
from tests.tiny_tokenizers import TOKENIZERS

pytest.importorskip("torch")

from fedbbpt.ptm.models.text.encoding import ExampleEncoder, TokenisedExample

CLASSES = ("bad", "great")
LLAMAS = ("llama2", "legacy_llama2", "gemma")
CAUSAL = (*LLAMAS, "gpt2", "qwen")


@cache
def tokenizer_of(name: str) -> Any:
    return TOKENIZERS[name]()


def encoder_of(name: str, *, causal: bool = False, max_tokens: int = 256, segments: bool = True) -> ExampleEncoder:
    tokenizer = tokenizer_of(name)
    return ExampleEncoder(tokenizer, max_tokens, vectors=len(tokenizer), causal=causal, segments=segments)


def encode(encoder: ExampleEncoder, template: str, text: str, pair: str | None = None) -> TokenisedExample:
    examples = Examples((text,), None if pair is None else (pair,))
    (row,) = encoder.encode(TaskSpec(template, CLASSES), examples, 0, None)
    return row


@pytest.mark.parametrize("name", ["wordpiece", "albert"])
@pytest.mark.parametrize("pair", ["who wrote this book", "a story [SEP] of 12"])
def test_second_text_is_in_the_second_segment(name: str, pair: str) -> None:
    """The tokens and segments are those of the tokenizer for two texts."""
    text = "the film was very good"
    theirs = tokenizer_of(name)(text, pair, split_special_tokens=True)
    for template in ("{prompt} {text}[SEP]{text_pair}", "{text}[SEP]{text_pair}", "{prompt} {text} [SEP] {text_pair}"):
        if template.startswith("{prompt} {text} ") and name == "albert":
            continue  # the space before [SEP] is a token to this tokenizer
        row = encode(encoder_of(name), template, text, pair)
        assert (list(row.ids), list(row.segments)) == (theirs["input_ids"], theirs["token_type_ids"])


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("wordpiece", "{text} {text_pair}"),
        ("wordpiece", "{text} [SEP] it was [SEP] {text_pair}"),
        ("wordpiece", "[SEP] {text} {text_pair}"),
        ("roberta", "{text}</s></s>{text_pair}"),
    ],
)
def test_one_segment_without_the_tokenizers_separator(name: str, template: str) -> None:
    row = encode(encoder_of(name), template, "the film", "a story")
    assert not any(row.segments)


def test_model_without_segments_gets_none() -> None:
    assert encode(encoder_of("wordpiece", segments=False), "{text} [SEP] {text_pair}", "the film", "bad").segments == ()


def test_two_texts_of_roberta_are_those_of_its_tokenizer() -> None:
    row = encode(encoder_of("roberta"), "{text}</s></s>{text_pair}", "the film", "a story")
    assert list(row.ids) == tokenizer_of("roberta")("the film", "a story")["input_ids"]


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("template", ["{prompt} {text} it was {mask}", "{text}.\nSentiment : {mask}", "{text} {mask}"])
def test_label_word_is_the_token_with_which_the_text_goes_on(name: str, template: str) -> None:
    tokenizer, encoder = tokenizer_of(name), encoder_of(name, causal=True)
    words = encoder.label_words(TaskSpec(template, CLASSES))
    whole = template.replace("{prompt} ", "").removesuffix(" {mask}").format(text="the film")
    row = encode(encoder, template.replace("{prompt} ", ""), "the film")
    assert row.ids == tuple(tokenizer(whole)["input_ids"])
    for word, ids in zip(CLASSES, words, strict=True):
        assert row.ids + ids == tuple(tokenizer(f"{whole} {word}")["input_ids"])
        assert len(ids) == 1 or name == "gemma"


@pytest.mark.parametrize("name", ["wordpiece", "roberta"])
def test_label_word_is_the_token_at_the_mask(name: str) -> None:
    tokenizer, encoder = tokenizer_of(name), encoder_of(name)
    words = encoder.label_words(TaskSpec("{prompt} {text} it was {mask} .", CLASSES))
    for word, (id,) in zip(CLASSES, words, strict=True):
        assert id in tokenizer(f"the film it was {word} .")["input_ids"]
        assert tokenizer.convert_ids_to_tokens(id).strip("Ġ▁") == word


@pytest.mark.parametrize("name", ["gpt2", "qwen"])
def test_word_that_becomes_one_token_with_the_template_is_refused(name: str) -> None:
    encoder = encoder_of(name, causal=True)
    with pytest.raises(InvalidTask, match="are read together"):
        encoder.label_words(TaskSpec("{text} it wa{mask}", ("s", "t")))


@pytest.mark.parametrize("name", LLAMAS)
def test_text_that_becomes_one_token_with_the_label_word_is_refused(name: str) -> None:
    encoder = encoder_of(name, causal=True)
    with pytest.raises(InvalidExamples, match=r"examples\[1\].*are read together.*white space at its end"):
        encoder.encode(TaskSpec("{prompt} {text} {mask}", CLASSES), Examples(("the film", "the film ")), 0, None)


@pytest.mark.parametrize("name", ["t5", "gpt2"])
def test_mask_without_a_mask_token_is_refused(name: str) -> None:
    with pytest.raises(InvalidTask, match="no mask token"):
        encoder_of(name).label_words(TaskSpec("{text} it was {mask}", CLASSES))


@pytest.mark.parametrize("name", ["wordpiece", "roberta", "llama2", "t5", "byt5"])
def test_truncation_cuts_the_end_of_the_first_text_only(name: str) -> None:
    whole = encode(encoder_of(name), "{prompt} ( {text} ) it was", "the film was very good")
    end = len(whole.ids) - len(encode(encoder_of(name), "{prompt} ( {text} ) it was", "the").ids)
    for cut in range(1, end + 1):
        row = encode(
            encoder_of(name, max_tokens=len(whole.ids) - cut), "{prompt} ( {text} ) it was", "the film was very good"
        )
        kept = row.text_index + (len(whole.ids) - cut) - len(row.ids[: row.text_index])
        assert row.cut_tokens == cut and len(row.ids) == len(whole.ids) - cut == kept
        assert any(row.ids == whole.ids[:at] + whole.ids[at + cut :] for at in range(row.text_index + 1, len(row.ids)))
    with pytest.raises(PromptTooLong, match="no room"):
        encode(encoder_of(name, max_tokens=4), "{prompt} ( {text} ) it was", "the film was very good")


@pytest.mark.parametrize("name", ["wordpiece", "roberta", "llama2"])
def test_perturbation_replaces_tokens_of_the_texts_only(name: str) -> None:
    encoder = encoder_of(name)
    task, examples = TaskSpec("{prompt} ( {text} ) it was", CLASSES), Examples(("the film was very good",))
    (plain,), (row,) = encoder.encode(task, examples, 0, None), encoder.encode(task, examples, 0, Perturbation(1.0, 3))
    changed = np.flatnonzero(np.array(plain.ids) != np.array(row.ids))
    text = len(encode(encoder, "{text}", "a").ids[1:])
    assert len(plain.ids) == len(row.ids) and changed.size >= 3 and text
    assert changed.min() >= plain.text_index and changed.max() < len(plain.ids) - 3
    assert row.ids[: row.text_index] == plain.ids[: plain.text_index]


@pytest.fixture
def encoder_without_image() -> ExampleEncoder:
    """A tokenizer with a token more than the model has vectors for."""
    tokenizer = TOKENIZERS["words"]()
    count = len(tokenizer)
    tokenizer.add_tokens(["<image>"])
    return ExampleEncoder(tokenizer, 64, vectors=count, causal=True)


def test_token_that_the_model_has_no_vector_for_is_refused_wherever_it_occurs(
    encoder_without_image: ExampleEncoder,
) -> None:
    encoder, match = encoder_without_image, "<image>.*no vector"
    task = TaskSpec("{prompt} {text} it was {mask}", CLASSES)
    (row,) = encoder.encode(task, Examples(("the film",)), 0, None)
    for text in ("the <image>", "<image> film"):
        with pytest.raises(InvalidExamples, match=match):
            encoder.encode(task, Examples(("the film", text)), 0, None)
        with pytest.raises(InvalidTensor, match=match):
            encoder.encode_prompts(["what", text], [row])
        with pytest.raises(InvalidTensor, match=match):
            encoder.tokenise_initial_text(text)
        with pytest.raises(InvalidTask, match=match):
            encoder.encode_class(text)
        with pytest.raises(InvalidTask, match=match):
            encoder.label_words(TaskSpec(task.template, ("bad", text)))
    with pytest.raises(InvalidExamples, match=match):
        pairs = TaskSpec("{text} {text_pair} it was {mask}", CLASSES)
        encoder.encode(pairs, Examples(("the",), ("<image>",)), 0, None)
    with pytest.raises(InvalidTask, match=match):
        encoder.label_words(TaskSpec("<image> {text} it was {mask}", CLASSES))
    highest = max(
        max(encoder.encode(task, Examples(("the film was very good",)), 0, Perturbation(1.0, seed))[0].ids)
        for seed in range(100)
    )
    assert highest < len(tokenizer_of("words"))


def test_special_token_without_a_vector_is_refused_at_loading() -> None:
    with pytest.raises(InvalidInput, match="no vector"):
        ExampleEncoder(tokenizer_of("wordpiece"), 64, vectors=3)
