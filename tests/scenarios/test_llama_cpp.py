"""The OpenAI protocol as a real server speaks it: llama.cpp with SmolLM2, against the same weights in transformers.

llama.cpp multiplies 4-bit weights with activations of 8 bits, and transformers with float32 ones. That moves a
log-probability by about 0.1 nats, and those after a text of a few tokens by more.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("httpx2")
pytest.importorskip("gguf")
pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from fedbbpt.errors import InvalidTask, PromptTooLong
from fedbbpt.ptm.models.openai.backend import OpenAICompatible, connect
from fedbbpt.types import Examples, TaskSpec, TextPrompts
from tests import jobs
from tests.command_line import CommandLine
from tests.llama_cpp import CONTEXT, FILE, NAME, llama_server, model_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # a busy machine takes a minute to start the server

MEAN_ERROR, LARGEST_ERROR = 0.2, 0.8
"""Bounds of the difference of a log-probability, in nats; measured were 0.08 and 0.25."""
TEXTS = (
    "the film was very good",
    "A wonderful dinner. Delicious, and such kind people.",
    "I waited for an hour; the soup was cold.",
    "12 rooms, 3 bugs\nnever again!",
    "Plus jamais, c'était trop cher. 🙁",
)
TASK = TaskSpec("{prompt} {text} It was {mask}", ("bad", "great"))
CHAT = TaskSpec("{prompt}\n{text}\nGood or bad? Answer with one word.", ("good", "bad"))
PROMPTS = TextPrompts(("Review:", "My opinion of this place is the following."))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with llama_server() as found:
        yield found


@pytest.fixture(scope="module")
def completions(url: str) -> Iterator[OpenAICompatible]:
    backend = connect(f"openai:{NAME}@{url}", threads=2)
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def chat(url: str) -> Iterator[OpenAICompatible]:
    backend = connect(f"openai-chat:{NAME}@{url}", threads=2)
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(model_file().parent, gguf_file=FILE)


@pytest.fixture(scope="module")
def after(tokenizer: Any) -> Callable[[list[int]], npt.NDArray[np.float64]]:
    """Returns the probabilities of the next token after token ids, by the dequantised model in transformers."""
    model = transformers.AutoModelForCausalLM.from_pretrained(model_file().parent, gguf_file=FILE, dtype=torch.float32)

    def probabilities(ids: list[int]) -> npt.NDArray[np.float64]:
        with torch.inference_mode():
            found: npt.NDArray[np.float64] = model(torch.tensor([ids])).logits[0, -1].double().softmax(-1).numpy()
        return found

    return probabilities


def require_close(ours: npt.NDArray[np.floating], theirs: npt.NDArray[np.float64]) -> None:
    error = np.abs(ours - np.log(theirs))
    assert error.mean() < MEAN_ERROR and error.max() < LARGEST_ERROR, error.round(2)
    centred = np.log(theirs) - np.log(theirs).mean(axis=(0, 1))
    assert np.corrcoef((ours - ours.mean(axis=(0, 1))).ravel(), centred.ravel())[0, 1] > 0.9


def test_server_tokenises_as_transformers(completions: OpenAICompatible, tokenizer: Any) -> None:
    endpoint = completions._endpoint
    for text in (*TEXTS, *(f"{text} It was great" for text in TEXTS), " leading", "trailing ", "\n\n"):
        assert list(endpoint.tokenise(text, special=True)) == tokenizer(text)["input_ids"], text


def test_completions_score_as_the_same_weights_in_process(
    completions: OpenAICompatible, tokenizer: Any, after: Any
) -> None:
    completions.check(TASK)
    rows = completions.prepare(TASK, Examples(TEXTS), 12, None)
    ours = jobs.score(completions, TASK, PROMPTS, rows)
    ids = [[tokenizer(f"{prompt} {text} It was")["input_ids"] for text in TEXTS] for prompt in PROMPTS.texts]
    columns = [tokenizer(f" {word}")["input_ids"][0] for word in TASK.classes]
    require_close(ours, np.array([[after(one)[columns] for one in of_prompt] for of_prompt in ids]))


def test_chat_scores_as_the_same_weights_in_process(chat: OpenAICompatible, tokenizer: Any, after: Any) -> None:
    chat.check(CHAT)
    rows = chat.prepare(CHAT, Examples(TEXTS), 12, None)
    ours = jobs.score(chat, CHAT, PROMPTS, rows)
    shown = np.array([tokenizer.decode([token]).removeprefix(" ") for token in range(len(tokenizer))])
    spelled = [(shown == word) | (shown == word.capitalize()) for word in CHAT.classes]

    def of(prompt: str, text: str) -> list[float]:
        user = f"{text}\nGood or bad? Answer with one word."
        messages = [{"role": "system", "content": prompt}, {"role": "user", "content": user}]
        filled = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        likely = after(tokenizer(filled)["input_ids"])[: len(shown)]
        return [float(likely[mine].sum()) for mine in spelled]

    require_close(ours, np.array([[of(prompt, text) for text in TEXTS] for prompt in PROMPTS.texts]))


def test_whole_vocabulary_is_asked_for_a_missing_label_word(completions: OpenAICompatible) -> None:
    """Kills: a bound where llama.cpp would have told the score."""
    assert completions._form.most_logprobs == 49152
    rows = completions.prepare(TASK, Examples(TEXTS[:2]), 12, None)
    exact = jobs.score(completions, TASK, PROMPTS, rows)
    few = dataclasses.replace(completions._form, top_logprobs=3)
    for form, close in ((few, True), (dataclasses.replace(few, most_logprobs=0), False)):
        backend = OpenAICompatible.__new__(OpenAICompatible)
        backend.__dict__.update(completions.__dict__, _form=form)
        found = jobs.score(backend, TASK, PROMPTS, rows)
        assert np.allclose(found, exact, atol=0.02) == close
        assert (found > exact - 0.02).all(), "a bound is never below the score"


def test_limits_are_those_that_the_server_states(completions: OpenAICompatible, chat: OpenAICompatible) -> None:
    assert completions.describe().max_tokens == CONTEXT - 1 and chat.describe().max_tokens == CONTEXT - 64
    endless = Examples(("good story " * 2000,))
    for backend, task in ((completions, TASK), (chat, CHAT)):
        (row,) = backend.prepare(task, endless, 12, None)
        assert CONTEXT // 2 < backend.tokens(row) < CONTEXT
        assert np.isfinite(jobs.score(backend, task, PROMPTS, [row])).all()
        with pytest.raises(PromptTooLong):
            jobs.score(backend, task, TextPrompts(("very " * CONTEXT,)), [row])
        with pytest.raises(InvalidTask, match="is not one token"):
            backend.check(TaskSpec(task.template, ("good", "extraordinarily dull")))


@pytest.mark.parametrize(("prefix", "task"), [("openai", TASK), ("openai-chat", CHAT)])
def test_categorical_search_runs_end_to_end(
    prefix: str, task: TaskSpec, url: str, command_line: CommandLine, tmp_path: Path
) -> None:
    """Kills: a method, a run folder or an evaluation that does not take such a model."""
    lines = [{"text": f"{text} ({index})", "label": "ab"[index % 2]} for index, text in enumerate(TEXTS[:4] * 4)]
    (tmp_path / "reviews.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "job.toml").write_text(
        f"""
        [run]
        rounds = 1
        [ptm]
        model = "{prefix}:{NAME}@{url}"
        [data]
        source = "{tmp_path / "reviews.jsonl"}"
        shots_per_class = 2
        [task]
        template = {json.dumps(task.template)}
        labels = ["a", "b"]
        classes = {json.dumps(task.classes)}
        [task.prompt]
        kind = "text"
        words = 2
        candidates = ["Honestly", "Review", "I", "say", "critic"]
        [method]
        name = "fed-bbpt"
        generator = "categorical"
        samples = 2
        [cohort]
        clients = 2
        """
    )
    ended = command_line("run", str(tmp_path / "job.toml"), "--out", str(tmp_path / "out"), "--json")
    assert ended.code == 0, ended.message
    assert (tmp_path / "out" / "prompt.safetensors").exists()
