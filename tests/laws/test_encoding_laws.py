"""Laws of tokenising: the tokens that a model reads are those of the filled template, whatever the tokenizer."""

from functools import cache
from string import Formatter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.errors import InvalidExamples, InvalidInput, InvalidTask, InvalidTensor
from fedbbpt.types import Examples, TaskSpec
from tests.tiny_tokenizers import TOKENIZERS

pytest.importorskip("torch")

from fedbbpt.ptm.models.text.encoding import ExampleEncoder

CAUSAL = ("gpt2", "qwen", "llama2", "legacy_llama2", "gemma", "words")
TEMPLATES = (
    *(
        "{prompt} {text}",
        "{prompt} {text}.",
        "({text}) {prompt} it was",
        "{text}\n{prompt}\nit was",
        "{prompt}: {text}",
    ),
    *("{prompt}\n\n{text}", "question : {prompt} ( {text} )  it was", '"{prompt}" {text}', "{text} {prompt}", "{text}"),
    *(
        "{prompt}{text}",
        "{text}{prompt}.",
        "12{prompt} {text}3",
        "\u00e9 {prompt} \u4e2d{text}\u4e2d",
        "{text}  {prompt}",
    ),
)
WORDS = (
    *(
        "the",
        "film",
        "was",
        "great",
        "12",
        "3.5",
        ".",
        ",",
        "...",
        "(",
        ")",
        ":",
        "\n",
        "\t",
        " ",
        "  ",
        "it's",
        "\r\n",
    ),
    *("[SEP]", "<s>", "</s>", "<mask>", "[MASK]", "{x}", "caf\u00e9", "\u4e2d\u6587", "\U0001f600", "\u200b", "\u00a0"),
)
texts = st.lists(st.tuples(st.sampled_from(("", " ")), st.sampled_from(WORDS)), max_size=6).map(
    lambda parts: "".join(space + word for space, word in parts)
) | st.text(max_size=12)


@cache
def tokenizer_and_encoder(name: str) -> tuple[Any, ExampleEncoder]:
    tokenizer = TOKENIZERS[name]()
    return tokenizer, ExampleEncoder(tokenizer, 256, vectors=len(tokenizer), causal=name in CAUSAL)


def plain(name: str, text: str) -> tuple[int, ...]:
    """Returns the tokens of a text by the tokenizer itself, in which special tokens are plain text."""
    tokenizer, _ = tokenizer_and_encoder(name)
    return tuple(tokenizer(text, split_special_tokens=True)["input_ids"])


def fill(template: str, **values: str) -> str:
    return Formatter().vformat(template, (), values)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(data=st.data())
def test_input_and_prompt_are_the_tokens_of_the_filled_template(name: str, data: st.DataObject) -> None:
    """Unless the service says that it cannot read them so."""
    _, encoder = tokenizer_and_encoder(name)
    template, text, prompt = data.draw(st.sampled_from(TEMPLATES)), data.draw(texts), data.draw(texts)
    task = TaskSpec(template + (" {mask}" if name in CAUSAL else ""), ("bad", "great"))
    try:
        (row,) = encoder.encode(task, Examples((text,)), 0, None)
        (tokens,) = encoder.encode_prompts([prompt], [row])
    except (InvalidExamples, InvalidTensor, InvalidTask, InvalidInput):
        return
    if not tokens:
        return
    whole = template if "{prompt}" in template else "{prompt}" + template
    ours = row.ids[: row.prompt_index] + tokens + row.ids[row.prompt_index :]
    assert ours == plain(name, fill(whole, prompt=prompt, text=text))


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("template", ["{prompt} {text} it was", "{prompt} {text}. it was", "({text}) {prompt} it was"])
def test_ordinary_prompts_and_texts_are_never_refused(name: str, template: str) -> None:
    _, encoder = tokenizer_and_encoder(name)
    task = TaskSpec(template + (" {mask}" if name in CAUSAL else ""), ("bad", "great"))
    some = ("the film was very good", "who wrote this book ?", "it's 12 .", "caf\u00e9 \u4e2d\u6587", "<s> or [SEP]")
    rows = encoder.encode(task, Examples(some), 0, None)
    prompts = ("what kind of", "question", "a story of 3.5 people", "caf\u00e9", "is it so ?")
    for prompt, tokens in zip(prompts, encoder.encode_prompts(prompts, rows), strict=True):
        for row, text in zip(rows, some, strict=True):
            ours = row.ids[: row.prompt_index] + tokens + row.ids[row.prompt_index :]
            assert ours == plain(name, fill(template, prompt=prompt, text=text))
