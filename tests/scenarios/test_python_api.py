"""The Python API in a process of its own, and before a service."""

import subprocess
import sys

import pytest

import fedbbpt
from fedbbpt.errors import PtmUnavailable


def test_importing_and_reading_a_job_loads_neither_torch_nor_grpc() -> None:
    code = (
        "import sys, fedbbpt; light = set(sys.modules); fedbbpt.make_job({}); heavy = {'torch', 'grpc', 'transformers'}"
        "; sys.exit(bool(heavy & set(sys.modules) or {'numpy', 'pydantic'} & light))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_service_that_is_down_is_reported() -> None:
    opened = fedbbpt.open_ptm(address="127.0.0.1:9", patience_seconds=0.01)
    with pytest.raises(PtmUnavailable, match="no answer"), opened:
        pass
