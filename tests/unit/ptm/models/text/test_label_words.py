"""Label words of several tokens score by their log-probability, compared with the plain transformers model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.errors import InvalidTask
from fedbbpt.ptm.models.loading import load
from fedbbpt.types import Examples, Prompts, Scores, SoftPrompts, TaskSpec, TextPrompts
from tests import jobs

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

Checkpoint = Callable[[str], Path]
WORDS = ("bad", "great film", "not so very fine", "great")
TEXTS = ("the film was very good", "dull", "who wrote this long book")
TASK = TaskSpec("{prompt} {text} It was {mask}", WORDS)


def ask(folder: Path, prompts: Prompts, task: TaskSpec = TASK) -> tuple[Scores, int]:
    """Returns the scores, and the number of tokens that were computed."""
    backend = load(str(folder), threads=1)
    backend.check(task)
    wanted = np.ones((len(prompts), len(TEXTS)), bool)
    job = backend.job(task, prompts, backend.prepare(task, Examples(TEXTS), 4, None), wanted)
    scores = jobs.run(backend, job, (*wanted.shape, len(task.classes)))
    return scores, sum(batch.tokens for batch in job.batches)


def assert_close(ours: Scores, theirs: list[Any]) -> None:
    assert np.abs(ours - np.reshape(theirs, ours.shape)).max() < 1e-5 * max(1.0, np.abs(ours).max())


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("soft", [False, True], ids=["text", "vectors"])
def test_a_word_scores_the_sum_of_its_tokens_log_probabilities(checkpoint: Checkpoint, name: str, soft: bool) -> None:
    """Kills: a mean; a first token that is not counted; keys and values of one word that leak into the next."""
    folder = checkpoint(name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    table = model.get_input_embeddings()
    vectors = np.random.default_rng(0).normal(0, 0.3, (2, 3, 32)).astype(np.float32)
    texts = ("which kind of", "what")
    theirs = []
    for prompt in range(2):
        for text in TEXTS:
            start = "" if soft else texts[prompt]
            before = tokenizer(f"{start} {text} It was", return_tensors="pt")["input_ids"]
            for word in WORDS:
                label = tokenizer(" " + word, return_tensors="pt")["input_ids"]
                embedded = table(torch.cat([before, label], dim=1))
                if soft:
                    embedded = torch.cat([torch.tensor(vectors[prompt])[None], embedded], dim=1)
                with torch.no_grad():
                    logs = model(inputs_embeds=embedded).logits[0].log_softmax(-1)
                predicted = logs[-label.shape[1] - 1 : -1]
                theirs.append(predicted.gather(1, label[0][:, None]).sum())
    scores, _ = ask(folder, SoftPrompts(vectors) if soft else TextPrompts(texts))
    assert_close(scores, theirs)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_single_tokens_have_one_softmax_by_logits_and_by_log_probabilities(checkpoint: Checkpoint, name: str) -> None:
    """Logits and log-probabilities differ by one number per pair, so their softmax over the classes is the same."""
    single = TaskSpec(TASK.template, ("bad", "great"))
    logits, tokens = ask(checkpoint(name), TextPrompts(("what",)), single)
    scores, more_tokens = ask(checkpoint(name), TextPrompts(("what",)))
    assert np.allclose(logits[..., 1] - logits[..., 0], scores[..., 3] - scores[..., 0], atol=1e-5)
    assert (scores < 0).all() and more_tokens == tokens + len(TEXTS) * (1 + 3)  # "great film" and "not so very fine"


def test_columns_of_a_word_are_all_its_tokens(checkpoint: Checkpoint) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint("llama"))
    backend = load(str(checkpoint("llama")), threads=1)
    assert backend.columns(TASK) == tuple(tuple(map(str, tokenizer(" " + word)["input_ids"])) for word in WORDS)
    assert backend.hidden_size == 32


def test_mask_takes_label_words_of_one_token(checkpoint: Checkpoint) -> None:
    with pytest.raises(InvalidTask, match="one token each"):
        load(str(checkpoint("bert-mlm")), threads=1).check(TaskSpec("{text} {mask}", WORDS))


@pytest.mark.parametrize("name", ["gpt1", "bert-decoder"])
def test_model_that_cannot_reuse_keys_and_values_takes_label_words_of_one_token(
    checkpoint: Checkpoint, name: str
) -> None:
    """GPT returns no keys and values; BERT's embeddings begin at position 0 even after a prefix."""
    backend = load(str(checkpoint(name)), family="causal-lm", threads=1)
    backend.check(TaskSpec("{text} {mask}", ("bad", "great")))
    with pytest.raises(InvalidTask, match="cannot continue"):
        backend.check(TaskSpec("{text} {mask}", ("bad", "great film")))


def test_label_word_longer_than_the_model_takes_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(InvalidTask, match="at most 47"):
        load(str(checkpoint("llama")), threads=1).check(TaskSpec("{text} {mask}", ("bad", "great " * 50)))
