"""What causal pairs begin with is read once: scores are those of the plain transformers model, in any company."""

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
    "prompt at the end": "{text} {prompt}{mask}",
}
WORDS = {"one token each": ("bad", "great"), "several": ("bad", "great film", "not so very fine")}
ROOM = 18


def prompts(*which: int) -> SoftPrompts:
    return SoftPrompts(VECTORS[list(which or range(3))], Injection.PLACE)


def plain(folder: Path, rows: Sequence[Any], space: str, classes: tuple[str, ...]) -> list[list[list[float]]]:
    """Logits of single tokens, or log-probabilities, each by one pass of the untouched model over all of it."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    table = model.get_input_embeddings()
    words = [tokenizer(space + word, add_special_tokens=False)["input_ids"] for word in classes]
    single = max(map(len, words)) == 1

    def score(prompt: Any, row: Any, word: list[int]) -> float:
        embedded = table(torch.tensor([*row.ids, *word]))
        embedded = torch.cat([embedded[: row.prompt_index], torch.tensor(prompt), embedded[row.prompt_index :]])
        logits = model(inputs_embeds=embedded[None]).logits[0, -len(word) - 1 : -1]
        found = logits if single else logits.log_softmax(-1)
        return sum(float(found[i, token]) for i, token in enumerate(word))

    with torch.no_grad():
        return [[[score(prompt, row, word) for word in words] for row in rows] for prompt in VECTORS]


def ask(backend: Any, task: TaskSpec, asked: Prompts, texts: tuple[str, ...] = TEXTS) -> Scores:
    return jobs.score(backend, task, asked, backend.prepare(task, Examples(texts), ROOM, None))


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral"])
def test_scores_are_those_of_one_pass_over_everything(
    checkpoint: Checkpoint, name: str, template: str, words: tuple[str, ...]
) -> None:
    """Kills: positions that begin anew behind the cut; a past that one pair changes for the next; keys and values of
    another row. (Mistral's window is shorter than what stands before the cut.)"""
    task, backend = TaskSpec(template, words), load(str(checkpoint(name)), threads=1)
    rows = backend.prepare(task, Examples(TEXTS), ROOM, None)
    theirs = np.array(plain(checkpoint(name), rows, " " * (" {mask}" in template), words))
    ours = jobs.score(backend, task, prompts(), rows)
    assert np.abs(ours - theirs).max() < 1e-5 * max(1.0, np.abs(theirs).max())


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_pair_scores_the_same_bits_alone_and_in_company(
    checkpoint: Checkpoint, template: str, words: tuple[str, ...]
) -> None:
    """Kills: a cut that hangs on how many pairs share it; beginnings read beside each other."""
    backend, task = load(str(checkpoint("llama")), threads=3), TaskSpec(template, words)
    together = ask(backend, task, prompts())
    for p, b in np.ndindex(3, len(TEXTS)):
        assert np.array_equal(ask(backend, task, prompts(p), TEXTS[b : b + 1])[0, 0], together[p, b])


def tokens(backend: Any, task: TaskSpec, rows: Any, count: int = 3) -> int:
    job = backend.job(task, prompts(*range(count)), rows, np.ones((count, len(rows)), bool))
    jobs.run(backend, job, (count, len(rows), len(task.classes)))
    return sum(batch.tokens for batch in job.batches)


def test_what_is_shared_counts_once(checkpoint: Checkpoint) -> None:
    backend = load(str(checkpoint("llama")), threads=1)
    task = TaskSpec("{text} It was {prompt} {mask}", WORDS["one token each"])
    rows, others = (backend.prepare(task, Examples(TEXTS[:2]), ROOM, None) for _ in range(2))
    read = sum(map(backend.tokens, rows))
    assert tokens(backend, task, rows) == read + 3 * 2 * 18
    assert tokens(backend, task, rows) == read + 3 * 2 * 18, "what a job costs hangs on no other job"
    assert tokens(backend, task, others) == read + 3 * 2 * 18  # but not those that say the same

    task = TaskSpec("{prompt} {text} It was {mask}", WORDS["one token each"])
    rows = backend.prepare(task, Examples(TEXTS), ROOM, None)
    for _ in range(2):  # a prompt is known within its job only
        assert tokens(backend, task, rows) == 3 * 18 + 3 * sum(map(backend.tokens, rows))


def test_keys_that_hang_on_the_whole_length_are_not_shared(checkpoint: Checkpoint) -> None:
    backend = load(str(checkpoint("llama-by-length")), threads=1)
    task = TaskSpec("{text} It was {prompt} {mask}", WORDS["one token each"])
    rows = backend.prepare(task, Examples(TEXTS), ROOM, None)
    assert tokens(backend, task, rows) == 3 * sum(18 + backend.tokens(row) for row in rows)


def start(read: CacheSlot | None = None) -> Prefix:
    return Prefix(read or CacheSlot(), lambda: torch.zeros(4, 2), outlives_job=True)


def some_past() -> Any:
    return ((torch.zeros(1, 1, 4, 2), torch.zeros(1, 1, 4, 2)),)  # 64 bytes


def test_what_one_thread_reads_another_waits_for() -> None:
    """And reads something else meanwhile."""
    slow, other, read = start(), start(), []
    begun, done = Event(), Event()

    def reading(some: Any) -> Any:
        read.extend(some)
        if some == [slow] and read.count(slow) == 1:
            begun.set()
            assert done.wait(60)
        if some == [other]:
            done.set()
        return [some_past() for _ in some]

    memory = KeyValueCache(10**6, reading)
    first = Thread(target=lambda: memory.get([slow]))
    first.start()
    assert begun.wait(60)
    pasts = memory.get([slow, other])
    first.join()
    assert read == [slow, other]
    assert pasts[0] is slow.slot.key_values and pasts[1] is other.slot.key_values


def test_a_reading_that_fails_is_tried_again() -> None:
    fails = [True]

    def read(some: Any) -> Any:
        if fails.pop():
            fails.append(False)
            raise RuntimeError("out of memory")
        return [some_past() for _ in some]

    memory, one = KeyValueCache(10**6, read), start()
    with pytest.raises(RuntimeError):
        memory.get([one])
    assert len(memory.get([one])) == 1


def test_the_least_recently_used_give_way() -> None:
    memory = KeyValueCache(3 * 64, lambda some: [some_past() for _ in some])
    first, second, third, fourth = (start() for _ in range(4))
    memory.get([first, second, third])
    memory.get([first])
    memory.get([fourth])
    assert [one.slot.key_values is None for one in (first, second, third, fourth)] == [False, True, False, False]


def test_a_row_that_is_gone_takes_what_was_read_of_it(checkpoint: Checkpoint) -> None:
    memory = KeyValueCache(2 * 64, lambda some: [some_past() for _ in some])
    first, second = start(), start()
    freed = ref(memory.get([first])[0][0][0])
    del first
    gc.collect()
    assert freed() is None
    third = start()
    memory.get([second, third])  # there is room for both
    assert second.slot.key_values is not None and third.slot.key_values is not None
