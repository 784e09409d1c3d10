"""Shared prefixes of causal models: scores, token counts, and the cache of keys and values."""

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Any
from weakref import ref

import numpy as np
import pytest

from fedbbpt.ptm.models.loading import load
from fedbbpt.types import Examples, Injection, Prompts, Scores, SoftPrompts, TaskSpec
from tests import jobs

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from fedbbpt.ptm.models.text.key_value_cache import CacheSlot, KeyValueCache, Prefix  # noqa: E402

Checkpoint = Callable[[str], Path]
TEXTS = (
    "the film was very good and so long that how many people live in this place",
    "who wrote this long film which is so dull and not very great question story",
    "dull",
)
VECTORS = np.random.default_rng(0).normal(0, 0.3, (3, 18, 32)).astype(np.float32)
TEMPLATES = {
    "input first": "{text} It was {prompt} to {mask}",
    "prompt first": "So {prompt} {text} {mask}",
    "prompt at the end": "{text} {prompt} {mask}",
}
WORDS = {"one token each": ("bad", "great"), "several": ("bad", "great film", "not so very fine")}
each_number_of_tokens = pytest.mark.parametrize(
    "words",
    [
        pytest.param(WORDS["one token each"], id="one token each", marks=pytest.mark.slow),
        pytest.param(WORDS["several"], id="several"),
    ],
)
ROOM = 18


def prompts(*which: int) -> SoftPrompts:
    return SoftPrompts(VECTORS[list(which or range(3))], Injection.PLACE)


def plain_scores(folder: Path, rows: Sequence[Any], classes: tuple[str, ...]) -> list[list[list[float]]]:
    """Returns logits of single tokens, or else log-probabilities, by one pass of the unsplit model over each pair."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    table = model.get_input_embeddings()
    words = [tokenizer(" " + word, add_special_tokens=False)["input_ids"] for word in classes]
    single = max(map(len, words)) == 1

    def score(prompt: Any, row: Any, word: list[int]) -> float:
        embedded = table(torch.tensor([*row.ids, *word]))
        embedded = torch.cat([embedded[: row.prompt_index], torch.tensor(prompt), embedded[row.prompt_index :]])
        logits = model(inputs_embeds=embedded[None]).logits[0, -len(word) - 1 : -1]
        found = logits if single else logits.log_softmax(-1)
        return sum(float(found[i, token]) for i, token in enumerate(word))

    with torch.no_grad():
        return [[[score(prompt, row, word) for word in words] for row in rows] for prompt in VECTORS]


def ask(backend: Any, task: TaskSpec, vectors: Prompts, texts: tuple[str, ...] = TEXTS) -> Scores:
    return jobs.score(backend, task, vectors, backend.prepare(task, Examples(texts), ROOM, None))


@each_number_of_tokens
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral"])
def test_scores_are_those_of_one_pass_over_the_whole_pair(
    checkpoint: Checkpoint, name: str, template: str, words: tuple[str, ...]
) -> None:
    """Kills: positions that restart after the prefix; keys and values that one pair changes for the next, or that are
    another example's. (Mistral's window is shorter than the prefix.)"""
    task, backend = TaskSpec(template, words), load(str(checkpoint(name)), threads=1)
    rows = backend.prepare(task, Examples(TEXTS), ROOM, None)
    theirs = np.array(plain_scores(checkpoint(name), rows, words))
    ours = jobs.score(backend, task, prompts(), rows)
    assert np.abs(ours - theirs).max() < 1e-5 * max(1.0, np.abs(theirs).max())


@each_number_of_tokens
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_pair_scores_the_same_bits_alone_and_in_a_batch(
    checkpoint: Checkpoint, template: str, words: tuple[str, ...]
) -> None:
    """Kills: a prefix that depends on how many pairs share it; prefixes that are computed in one batch."""
    backend, task = load(str(checkpoint("llama")), threads=3), TaskSpec(template, words)
    together = ask(backend, task, prompts())
    for p, b in np.ndindex(3, len(TEXTS)):
        assert np.array_equal(ask(backend, task, prompts(p), TEXTS[b : b + 1])[0, 0], together[p, b])


def tokens(backend: Any, task: TaskSpec, rows: Any, count: int = 3) -> int:
    job = backend.job(task, prompts(*range(count)), rows, np.ones((count, len(rows)), bool))
    jobs.run(backend, job, (count, len(rows), len(task.classes)))
    return sum(batch.tokens for batch in job.batches)


def test_tokens_of_a_shared_prefix_count_once(checkpoint: Checkpoint) -> None:
    backend = load(str(checkpoint("llama")), threads=1)
    task = TaskSpec("{text} It was {prompt} {mask}", WORDS["one token each"])
    rows, others = (backend.prepare(task, Examples(TEXTS[:2]), ROOM, None) for _ in range(2))
    read = sum(map(backend.tokens, rows))
    assert tokens(backend, task, rows) == read + 3 * 2 * 18
    assert tokens(backend, task, rows) == read + 3 * 2 * 18, "the cost of a job depends on no other job"
    assert tokens(backend, task, others) == read + 3 * 2 * 18  # equal examples of another registration share nothing

    task = TaskSpec("{prompt} {text} It was {mask}", WORDS["one token each"])
    rows = backend.prepare(task, Examples(TEXTS), ROOM, None)
    for _ in range(2):  # a prompt's keys and values are kept within its job only
        assert tokens(backend, task, rows) == 3 * 18 + 3 * sum(map(backend.tokens, rows))


def test_keys_that_depend_on_the_whole_length_are_not_shared(checkpoint: Checkpoint) -> None:
    backend = load(str(checkpoint("llama-by-length")), threads=1)
    task = TaskSpec("{text} It was {prompt} {mask}", WORDS["one token each"])
    rows = backend.prepare(task, Examples(TEXTS), ROOM, None)
    assert tokens(backend, task, rows) == 3 * sum(18 + backend.tokens(row) for row in rows)


def new_prefix() -> Prefix:
    return Prefix(CacheSlot(), lambda: torch.zeros(4, 2), outlives_job=True)


def some_key_values() -> Any:
    return ((torch.zeros(1, 1, 4, 2), torch.zeros(1, 1, 4, 2)),)  # 64 bytes


def test_cache_waits_for_a_prefix_that_another_thread_computes() -> None:
    """It computes other prefixes meanwhile."""
    slow, other, computed = new_prefix(), new_prefix(), []
    begun, done = Event(), Event()

    def compute(some: Any) -> Any:
        computed.extend(some)
        if some == [slow] and computed.count(slow) == 1:
            begun.set()
            assert done.wait(60)
        if some == [other]:
            done.set()
        return [some_key_values() for _ in some]

    cache = KeyValueCache(10**6, compute)
    first = Thread(target=lambda: cache.get([slow]))
    first.start()
    assert begun.wait(60)
    pasts = cache.get([slow, other])
    first.join()
    assert computed == [slow, other]
    assert pasts[0] is slow.slot.key_values and pasts[1] is other.slot.key_values


def test_computation_that_failed_is_tried_again() -> None:
    fails = [True]

    def read(some: Any) -> Any:
        if fails.pop():
            fails.append(False)
            raise RuntimeError("out of memory")
        return [some_key_values() for _ in some]

    cache, one = KeyValueCache(10**6, read), new_prefix()
    with pytest.raises(RuntimeError):
        cache.get([one])
    assert len(cache.get([one])) == 1


def test_least_recently_used_slots_are_emptied() -> None:
    cache = KeyValueCache(3 * 64, lambda some: [some_key_values() for _ in some])
    first, second, third, fourth = (new_prefix() for _ in range(4))
    cache.get([first, second, third])
    cache.get([first])
    cache.get([fourth])
    assert [one.slot.key_values is None for one in (first, second, third, fourth)] == [False, True, False, False]


def test_dropped_example_frees_its_keys_and_values() -> None:
    cache = KeyValueCache(2 * 64, lambda some: [some_key_values() for _ in some])
    first, second = new_prefix(), new_prefix()
    freed = ref(cache.get([first])[0][0][0])
    del first
    gc.collect()
    assert freed() is None
    third = new_prefix()
    cache.get([second, third])  # there is room for both
    assert second.slot.key_values is not None and third.slot.key_values is not None
