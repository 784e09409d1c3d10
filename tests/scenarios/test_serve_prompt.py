"""`fedbbpt serve-prompt` as a process gives the predictions of `fedbbpt predict`."""

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.command_line import CommandLine, write_job

TEXTS = ["where is parking", "my invoice, please", "naïve ☕"]


def test_it_predicts_what_predict_predicts(command_line: CommandLine, tmp_path: Path) -> None:
    write_job(tmp_path)
    assert command_line("simulate", "job.toml", "--out", "out").code == 0
    words = [word for text in TEXTS for word in ("--text", text)]
    predicted = json.loads(command_line("predict", "--prompt", "out/prompt.safetensors", *words, "--json").out)
    command = [sys.executable, "-m", "fedbbpt", "serve-prompt", "out/prompt.safetensors"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        body = json.dumps({"texts": TEXTS}).encode()
        asked = urllib.request.Request(f"{url}classify", body, {"content-type": "application/json"})
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked) as answer:
                found = json.load(answer)["predictions"]
        finally:
            server.send_signal(signal.SIGTERM)
    assert server.returncode == 128 + signal.SIGTERM
    for one, wanted in zip(found, predicted["predictions"], strict=True):
        assert one["label"] == wanted["label"]
        assert one["probabilities"] == pytest.approx(wanted["probabilities"], rel=1e-6)
