"""A run that reprograms an image classifier in ONNX, from files of images to a prompt file."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.federation.run_folder import PROMPT, SUMMARY
from fedbbpt.job.config import Job, read_job
from fedbbpt.job.job_file import job_text


def cli(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "fedbbpt", *arguments], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def job_file(tmp_path: Path, image_classifier: Path) -> Path:
    """Two classes of images that are brighter above or below, grey and of another size than the model's."""
    draw = np.random.default_rng(0)
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train", "dev", "test"):
        y = np.arange(16) % 2
        x = draw.integers(0, 60, (16, 6, 6))
        x[y == 0, :3] += 150
        x[y == 1, 3:] += 150
        np.savez(folder / f"{name}.npz", x=x.astype(np.uint8), y=np.array(["above", "below"])[y])
    job = Job.model_validate(
        {
            "run": {"rounds": 8},
            "ptm": {"model": str(image_classifier), "threads": 1},
            "task": {
                "mapping": "frequency",
                "prompt": {"kind": "image", "image": (3, 8, 8), "pooled": 2, "grid": 2, "widths": (4, 4)},
            },
            "data": {"source": str(folder), "shots_per_class": 0, "server_share": 0.25, "partition": "iid"},
            "cohort": {"clients": 2},
            "method": {"name": "fed-bbpt", "generator": "visual", "local_steps": 2, "a": 0.02, "c": 0.02},
        }
    )
    path = tmp_path / "job.toml"
    path.write_text(job_text(job))
    return path


@pytest.mark.slow
def test_processes_and_a_simulation_find_the_same_prompt_which_beats_no_prompt(job_file: Path, tmp_path: Path) -> None:
    for command in ("run", "simulate"):
        cli(command, str(job_file), "--out", str(tmp_path / command), "--json")
    assert (tmp_path / "run" / PROMPT).read_bytes() == (tmp_path / "simulate" / PROMPT).read_bytes()
    summary = json.loads((tmp_path / "run" / SUMMARY).read_text())
    assert summary["loss_after"] < summary["loss_before"]
    assert set(read_job(tmp_path / "run" / "job.toml").task.classes) < {"cat", "dog", "ship", "truck"}
    prompt, test = str(tmp_path / "run" / PROMPT), str(tmp_path / "data" / "test.npz")
    measured = json.loads(cli("evaluate", "--prompt", prompt, "--data", test, "--json"))
    assert measured["accuracy"] == summary["accuracy_after"]
    found = json.loads(cli("predict", "--prompt", prompt, "--images", test, "--json"))["predictions"]
    with np.load(test) as file:
        right = np.mean([one["label"] == label for one, label in zip(found, file["y"], strict=True)])
    assert right == measured["accuracy"]
