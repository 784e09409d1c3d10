"""The runs and the examples of the cases. Each text is another, so that a text names its example."""

import json
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from fedbbpt.conformance.client.cases import Case
from fedbbpt.v1 import coordinator_pb2 as pb

RUNS: Mapping[str, Any] = tomllib.loads(resources.files(__package__).joinpath("runs.toml").read_text("utf-8"))
TRAIN, DEV = 32, 12
"""Numbers of examples in the two files."""
RUN_ID = "conformance-1"


def examples(response: pb.JoinResponse) -> dict[str, int]:
    """Returns all texts with the indices of their classes: first those of `data`, then those of `dev`."""
    classes = len(response.task.labels)
    names = ("ward", "desk", "gate", "shop", "roof", "hall", "yard")
    return {
        f"{names[i % len(names)]} number {i} on floor {i * i % 11}": (i * i + i // classes) % classes
        for i in range(TRAIN + DEV)
    }


def write(response: pb.JoinResponse, folder: Path) -> None:
    """Writes the files of a client's examples."""
    labels = list(response.task.labels)
    lines = [json.dumps({"text": text, "label": labels[label]}) for text, label in examples(response).items()]
    (folder / "data.jsonl").write_text("\n".join(lines[:TRAIN]) + "\n", encoding="utf-8")
    (folder / "dev.jsonl").write_text("\n".join(lines[TRAIN:]) + "\n", encoding="utf-8")


def joined(case: Case) -> pb.JoinResponse:
    """Returns what the coordinator of a case answers to Join, without session and addresses."""
    response = pb.JoinResponse()
    json_format.ParseDict(RUNS[case.run], response)
    change(response, case.change)
    response.run_id = RUN_ID
    response.run_name = response.run_name or "conformance"
    return response


def change(message: Message, changes: Mapping[str, Any]) -> None:
    """Replaces fields of a message, by their paths, by values in JSON."""
    for path, value in changes.items():
        *parents, last = path.split(".")
        part: Any = message
        for step in parents:
            part = getattr(part, step)
        part.ClearField(last)
        json_format.ParseDict({last: value}, part)
