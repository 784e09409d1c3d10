"""Scores of each family, compared with the plain transformers model: its own tokenizer, padding, masks and logits."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.errors import InvalidExamples, InvalidInput, InvalidTask
from fedbbpt.ptm.models.loading import load
from fedbbpt.types import Examples, Scores, SoftPrompts, TaskSpec, TextPrompts, TokenPrompts
from tests.jobs import score

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXTS = ("the film was very good", "dull", "who wrote this long book", "where is paris", "a story so fine")
PROMPTS = ("which kind of", "what place")
Checkpoint = Callable[[str], Path]


def ask(folder: Path, task: TaskSpec, prompts: Any, examples: Examples | None = None) -> Scores:
    backend = load(str(folder), threads=1)
    backend.check(task)
    rows = backend.prepare(task, examples or Examples(TEXTS), 4, None)
    return score(backend, task, prompts, rows)


def plain(folder: Path, auto: Any, inputs: Sequence[str], **options: Any) -> tuple[Any, Any]:
    """Returns the model's full output on one padded batch, and the batch and its tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(list(inputs), padding=True, return_tensors="pt", return_token_type_ids=False)
    model = auto.from_pretrained(folder, **options).eval()
    with torch.no_grad():
        return model(**batch), (batch, tokenizer)


def assert_close(ours: Scores, theirs: Any) -> None:
    assert np.abs(ours - np.asarray(theirs).reshape(ours.shape)).max() < 1e-5 * max(1.0, np.abs(ours).max())


@pytest.mark.parametrize("name", ["bert-mlm", "roberta-mlm"])
def test_masked_lm_scores_as_plain_transformers(checkpoint: Checkpoint, name: str) -> None:
    words = ("bad", "great", "fine")
    mask = "[MASK]" if name == "bert-mlm" else "<mask>"
    inputs = [f"{prompt} {text} It was {mask}." for prompt in PROMPTS for text in TEXTS]
    output, (batch, tokenizer) = plain(checkpoint(name), transformers.AutoModelForMaskedLM, inputs)
    columns = [tokenizer(" " + word, add_special_tokens=False)["input_ids"][0] for word in words]
    at = batch["input_ids"] == tokenizer.mask_token_id
    ours = ask(checkpoint(name), TaskSpec("{prompt} {text} It was {mask}.", words), TextPrompts(PROMPTS))
    assert_close(ours, output.logits[at][:, columns])


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_causal_lm_scores_as_plain_transformers(checkpoint: Checkpoint, name: str) -> None:
    words = ("bad", "great", "fine")
    inputs = [f"{prompt} {text} It was" for prompt in PROMPTS for text in TEXTS]
    output, (batch, tokenizer) = plain(checkpoint(name), transformers.AutoModelForCausalLM, inputs)
    columns = [tokenizer(" " + word, add_special_tokens=False)["input_ids"][0] for word in words]
    last = batch["attention_mask"].sum(1) - 1
    ours = ask(checkpoint(name), TaskSpec("{prompt} {text} It was {mask}", words), TextPrompts(PROMPTS))
    assert_close(ours, output.logits[torch.arange(len(inputs)), last][:, columns])


@pytest.mark.parametrize(("name", "start"), [("t5", ["<pad>"]), ("bart", ["</s>", "<s>"])])
@pytest.mark.parametrize("words", [("bad", "great", "fine"), ("bad", "great film", "not so very fine")], ids=str)
def test_encoder_decoder_scores_as_plain_transformers(
    checkpoint: Checkpoint, name: str, start: list[str], words: tuple[str, ...]
) -> None:
    """`start` is what the model's own generation begins an answer with. Kills: an answer without BART's <s>."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint(name))
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(checkpoint(name)).eval()
    answers = [tokenizer(text_target=word, add_special_tokens=False)["input_ids"] for word in words]
    begun = tokenizer.convert_tokens_to_ids(start)
    theirs = []
    with torch.no_grad():
        for text in (f"{prompt} {text} It was" for prompt in PROMPTS for text in TEXTS):
            given = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
            for answer in answers:
                logits = model(**given, decoder_input_ids=torch.tensor([begun + answer])).logits[0, len(begun) - 1 :]
                scores = logits if max(map(len, answers)) == 1 else logits.log_softmax(-1)
                theirs.append(float(sum(scores[place, token] for place, token in enumerate(answer))))
    ours = ask(checkpoint(name), TaskSpec("{prompt} {text} It was", words), TextPrompts(PROMPTS))
    assert_close(ours, theirs)


def test_generation_begins_answers_as_they_are_scored(checkpoint: Checkpoint) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint("bart"))
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(checkpoint("bart")).eval()
    given = tokenizer("what the film was", return_tensors="pt", return_token_type_ids=False)
    made = model.generate(**given, max_new_tokens=2, min_new_tokens=2, output_logits=True, return_dict_in_generate=True)
    assert tokenizer.convert_ids_to_tokens(made.sequences[0, :2]) == ["</s>", "<s>"]
    words = ("bad", "great", "fine")
    columns = [token for word in words for token in tokenizer(word, add_special_tokens=False)["input_ids"]]
    task, examples = TaskSpec("{prompt} {text}", words), Examples(("the film was",))
    assert_close(ask(checkpoint("bart"), task, TextPrompts(("what",)), examples), made.logits[1][0, columns])


@pytest.mark.parametrize("name", ["bert-classifier", "roberta-classifier", "gpt2-classifier"])
def test_sequence_classifier_scores_as_plain_transformers(checkpoint: Checkpoint, name: str) -> None:
    inputs = [f"{prompt} {text}" for prompt in PROMPTS for text in TEXTS]
    output, _ = plain(checkpoint(name), transformers.AutoModelForSequenceClassification, inputs)
    ours = ask(checkpoint(name), TaskSpec("{text}", ("great", "bad")), TextPrompts(PROMPTS), _with_leading_spaces())
    assert_close(ours, output.logits[:, [2, 0]])


def _with_leading_spaces() -> Examples:
    """Puts a space before each text, which a template that begins with {text} does not have."""
    return Examples(tuple(f" {text}" for text in TEXTS))


def test_dual_encoder_scores_as_plain_transformers(checkpoint: Checkpoint) -> None:
    classes = ("a number", "a person in a place")

    def encode(inputs: Sequence[str]) -> Any:
        output, (batch, _) = plain(checkpoint("bert-encoder"), transformers.AutoModel, inputs)
        mask = batch["attention_mask"][..., None]
        return torch.nn.functional.normalize((output.last_hidden_state * mask).sum(1) / mask.sum(1))

    theirs = 20 * encode([f"{prompt} {text}" for prompt in PROMPTS for text in TEXTS]) @ encode(classes).T
    assert_close(ask(checkpoint("bert-encoder"), TaskSpec("{prompt} {text}", classes), TextPrompts(PROMPTS)), theirs)


@pytest.mark.parametrize("name", ["bert-mlm", "roberta-mlm"])
def test_vectors_join_after_the_first_special_token(checkpoint: Checkpoint, name: str) -> None:
    folder, words = checkpoint(name), ("bad", "great")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    vectors = np.random.default_rng(0).normal(0, 0.3, (2, 3, 32)).astype(np.float32)
    theirs = []
    with torch.no_grad():
        for prompt in vectors:
            for text in TEXTS:
                ids = tokenizer(f" {text} It was {tokenizer.mask_token}.", return_tensors="pt")["input_ids"]
                embedded = model.get_input_embeddings()(ids)
                joined = torch.cat([embedded[:, :1], torch.tensor(prompt)[None], embedded[:, 1:]], dim=1)
                at = 3 + int((ids[0] == tokenizer.mask_token_id).nonzero())
                logits = model(inputs_embeds=joined, attention_mask=torch.ones(joined.shape[:2])).logits[0, at]
                theirs.append([logits[tokenizer(" " + w, add_special_tokens=False)["input_ids"][0]] for w in words])
    # Vectors join at the front, even if the template's {prompt} is elsewhere.
    for template in ("{prompt} {text} It was {mask}.", " {text} It was {mask}.{prompt}"):
        assert_close(ask(folder, TaskSpec(template, words), SoftPrompts(vectors)), theirs)


@pytest.mark.parametrize("name", ["bert-encoder", "bert-mlm", "roberta-mlm", "gpt2", "llama", "bert-classifier"])
def test_tokens_are_the_vectors_of_their_embeddings(checkpoint: Checkpoint, name: str) -> None:
    ids = np.array([[9, 30, 31], [12, 13, 9]], np.int32)
    table = transformers.AutoModel.from_pretrained(checkpoint(name)).get_input_embeddings().weight.detach().numpy()
    mask = " {mask}" if name in ("bert-mlm", "roberta-mlm") else ""
    task = TaskSpec("{prompt} {text}" + mask, ("bad", "great", "fine") if "classifier" in name or mask else ("a", "so"))
    if name in ("gpt2", "llama"):
        task = TaskSpec("{prompt} {text} {mask}", ("bad", "great"))
    tokens, vectors = TokenPrompts(ids), SoftPrompts(table[ids])
    assert np.array_equal(ask(checkpoint(name), task, tokens), ask(checkpoint(name), task, vectors))


def test_text_prompt_joins_at_the_prompt_placeholder(checkpoint: Checkpoint) -> None:
    folder = checkpoint("bert-mlm")
    moved = ask(folder, TaskSpec("{text} {prompt} {mask}", ("bad", "great")), TextPrompts(("it was",)))
    fixed = ask(folder, TaskSpec("{text} it was {mask}", ("bad", "great")), TextPrompts(("",)))
    assert np.array_equal(moved, fixed)


def test_second_text_joins_at_its_placeholder(checkpoint: Checkpoint) -> None:
    folder, pairs = checkpoint("bert-mlm"), tuple(reversed(TEXTS))
    task = TaskSpec("{prompt} {text} ? {mask} , {text_pair}", ("bad", "great"))
    ours = ask(folder, task, TextPrompts(("what",)), Examples(TEXTS, pairs))
    inputs = [f"what {text} ? [MASK] , {pair}" for text, pair in zip(TEXTS, pairs, strict=True)]
    output, (batch, tokenizer) = plain(folder, transformers.AutoModelForMaskedLM, inputs)
    columns = tokenizer.convert_tokens_to_ids(["bad", "great"])
    assert_close(ours, output.logits[batch["input_ids"] == tokenizer.mask_token_id][:, columns])
    with pytest.raises(InvalidExamples, match="text_pair"):
        ask(folder, task, TextPrompts(("what",)))


def test_special_tokens_in_a_text_are_plain_text(checkpoint: Checkpoint) -> None:
    backend = load(str(checkpoint("bert-mlm")), threads=1)
    task = TaskSpec("{text} {mask}", ("bad", "great"))
    (row,) = backend.prepare(task, Examples(("the [MASK] was [SEP]",)), 0, None)
    assert [row.ids.count(token) for token in (2, 3, 4)] == [1, 1, 1]  # [CLS], [SEP] and [MASK] of the template only


@pytest.mark.parametrize(
    ("name", "task", "match"),
    [
        ("bert-mlm", TaskSpec("{prompt} {text}", ("bad", "great")), "no {mask}"),
        ("bert-mlm", TaskSpec("{text} {mask}", ("bad", "great film")), "one token"),
        ("bert-mlm", TaskSpec("{text} {mask}", ("bad", "\u4e2d")), "one token"),
        ("bert-mlm", TaskSpec("{text} {mask}", ("bad", "BAD")), "the same token"),
        ("gpt2", TaskSpec("{mask} {text}", (" bad", " great")), "before the end"),
        ("bert-encoder", TaskSpec("{text} {mask}", ("bad", "great")), "fills no masks"),
        ("t5", TaskSpec("{text} {mask}", ("bad", "great")), "begins its answer with the label word"),
        ("bert-encoder", TaskSpec("{text}", ("bad", "great " * 50)), "at most 48"),
        ("bert-classifier", TaskSpec("{text}", ("bad", "green")), "no labels"),
        ("bert-classifier", TaskSpec("{text} {mask}", ("bad", "great")), "fills no masks"),
    ],
    ids=str,
)
def test_task_that_a_family_cannot_score_is_refused(
    checkpoint: Checkpoint, name: str, task: TaskSpec, match: str
) -> None:
    with pytest.raises(InvalidTask, match=match):
        load(str(checkpoint(name)), threads=1).check(task)


@pytest.mark.parametrize(("name", "match"), [("bart-classifier", "cannot be asked with vectors")])
def test_model_that_cannot_be_split_is_refused(checkpoint: Checkpoint, name: str, match: str) -> None:
    """The split model is compared with the whole one when it is loaded, so that no score is silently wrong."""
    with pytest.raises(InvalidInput, match=match):
        load(str(checkpoint(name)), threads=1)


def test_a_model_without_the_head_is_refused(checkpoint: Checkpoint) -> None:
    """Otherwise its head would be random, without a warning."""
    with pytest.raises(InvalidInput, match="the weights lack"):
        load(str(checkpoint("bert-encoder")), family="masked-lm", threads=1)
    assert load(str(checkpoint("bert-mlm")), family="dual-encoder", threads=1).describe().family == "dual-encoder"


@pytest.mark.parametrize(
    ("name", "architecture", "family"),
    [
        ("t5", "T5ForConditionalGeneration", "seq2seq-lm"),
        ("bart", "BartModel", "seq2seq-lm"),
        ("bart-classifier", "BartForSequenceClassification", "sequence-classifier"),
    ],
)
def test_family_of_encoder_decoders(
    checkpoint: Checkpoint, tmp_path: Path, name: str, architecture: str, family: str
) -> None:
    folder = shutil.copytree(checkpoint(name), tmp_path / name)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": [architecture]}))
    if family == "seq2seq-lm":
        assert load(str(folder), threads=1).describe().family == family
    else:
        with pytest.raises(InvalidInput, match="vectors"):
            load(str(folder), threads=1)


def test_encoder_of_an_encoder_decoder_is_a_dual_encoder(tmp_path: Path, checkpoint: Checkpoint) -> None:
    """As Sentence-T5 and GTR are."""
    folder = shutil.copytree(checkpoint("t5"), tmp_path / "t5")
    transformers.T5EncoderModel.from_pretrained(folder).save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    assert load(str(folder), threads=1).describe().family == "dual-encoder"


def test_model_that_reads_more_than_text_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint("t5"), tmp_path / "llava")
    transformers.LlavaConfig(architectures=["LlavaForConditionalGeneration"]).save_pretrained(folder)
    with pytest.raises(InvalidInput, match="reads more than text"):
        load(str(folder), threads=1)


def test_label_word_without_a_vector_is_refused_by_an_encoder_decoder(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Kills: an IndexError on a token that was added to the tokenizer only."""
    folder = shutil.copytree(checkpoint("t5"), tmp_path / "t5")
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    model: Any = transformers.AutoConfig.from_pretrained(folder)
    tokenizer.add_tokens([f"<image{number}>" for number in range(model.vocab_size - len(tokenizer) + 1)])
    tokenizer.save_pretrained(folder)
    backend = load(str(folder), threads=1)
    with pytest.raises(InvalidTask, match="the model has no vector for"):
        backend.check(TaskSpec("{prompt} {text}", ("bad", tokenizer.convert_ids_to_tokens(len(tokenizer) - 1))))
