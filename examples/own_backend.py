"""A backend of your own in one file: a model that counts the words that an input shares with each class.

A word counts more for a class that also shares words with the prompt. The model reads prompts of words, so fed-bbpt
with a categorical generator can tune one for it.

    python examples/own_backend.py

simulates that. To serve the model with `fedbbpt ptm serve --model word-count:v1`, or to name it in a job, package this
file and install the package where the service runs. Its pyproject.toml offers `load` under the prefix of the name:

    [project.entry-points."fedbbpt.backends"]
    word-count = "own_backend:load"
"""

import hashlib
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

import fedbbpt
from fedbbpt.errors import UnsupportedPrompt
from fedbbpt.ptm.scheduling.planner import PlannedJob, plan
from fedbbpt.types import MicroBatch, Perturbation, Precision, PromptKind, Prompts, Scores, TextPrompts

MAX_WORDS = 256
CLASSES = {
    "scheduling": "when day date how soon",
    "wayfinding": "where which building",
    "billing": "cost fee cheaper pay",
    "staff directory": "who whom",
    "instructions": "how do I must",
    "medical advice": "why what for",
    "house rules": "may could would let forbidden",
}
"""The labels of the demo's questions, and words that the questions use."""
Row = tuple[str, ...]


def words(text: str) -> Row:
    """Returns the words of a text, at most as many as the model reads."""
    return tuple(re.findall(r"\w+", text.lower())[:MAX_WORDS])


class WordCount:
    """Implements `fedbbpt.Backend`. A row is the words of one input."""

    threads = 1
    hidden_size = 0

    def describe(self) -> fedbbpt.ModelCard:
        return fedbbpt.ModelCard(
            model="word-count",
            revision="1",
            family="word-count",
            prompt_kinds=frozenset({PromptKind.TEXT}),
            injections=frozenset(),
            max_tokens=2 * MAX_WORDS,
            max_prompts=64,
            max_examples=10_000,
            max_message_bytes=4 * 1024 * 1024,
            embedding_width=0,
            score_noise=0.0,
        )

    def check(self, task: fedbbpt.TaskSpec) -> None:
        """Every task will do."""

    def columns(self, task: fedbbpt.TaskSpec) -> tuple[tuple[str, ...], ...]:
        return tuple((text,) for text in task.classes)

    def prepare(
        self, task: fedbbpt.TaskSpec, examples: fedbbpt.Examples, prompt_tokens: int, perturbation: Perturbation | None
    ) -> Sequence[Row]:
        return [words(text) for text in examples.texts]

    def tokens(self, row: Row) -> int:
        return len(row)

    def identity(self, row: Row) -> bytes:
        return hashlib.sha256(" ".join(row).encode()).digest()

    def job(
        self, task: fedbbpt.TaskSpec, prompts: Prompts, rows: Sequence[Row], wanted: npt.NDArray[np.bool_]
    ) -> PlannedJob:
        if not isinstance(prompts, TextPrompts):
            raise UnsupportedPrompt("word-count reads prompts in words", where="prompts", fix="text prompts")
        read, classes = [words(text) for text in prompts.texts], [set(words(text)) for text in task.classes]
        lengths = [len(prompt) for prompt in read], [len(row) for row in rows]
        batches = plan(*lengths, wanted, max_tokens=2 * MAX_WORDS, token_budget=1024)

        def run(batch: MicroBatch) -> Scores:
            pairs = [(set(read[p]), set(rows[b])) for p, b in zip(batch.prompts, batch.rows, strict=True)]
            scores = [[len(row & text) * (1 + len(prompt & text)) for text in classes] for prompt, row in pairs]
            return np.array(scores, np.float32)

        return PlannedJob(batches, run)


def load(name: str, *, threads: int, precision: Precision, device: str) -> WordCount:
    """Returns the model that a job calls "word-count:NAME"; there is only one."""
    return WordCount()


def main() -> None:
    """Asks the model, and tunes a prompt for it."""
    tables = {
        "run": {"rounds": 6},
        "task": {
            "labels": list(CLASSES),
            "classes": list(CLASSES.values()),
            "prompt": {"kind": "text", "words": 4, "vocabulary": 40},
        },
        "data": {"server_share": 0.2},
        "method": {"name": "fed-bbpt", "generator": "categorical", "learning_rate": 0.5},
    }
    with fedbbpt.open_ptm(WordCount()) as ptm:
        print(fedbbpt.ask(ptm, ["why this invoice"], ["visits", "an invoice or a bill"]))
        run = fedbbpt.simulate(fedbbpt.make_job(tables), ptm)
        for report in run:
            print(f"round {report.round}: dev loss {report.dev_loss:.3f}")
        print("accuracy with the prompt:", run.finish().comparison.tuned.accuracy)


if __name__ == "__main__":
    main()
