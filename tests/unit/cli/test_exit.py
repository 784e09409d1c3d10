"""A command that has done its work ends."""

import subprocess
import sys

# A stream of gRPC that is part of a cycle, as every stream is that has failed. A thread holds its lock at the end.
LEFT_STREAM = """
import gc, sys, threading
from fedbbpt import cli

class Stream:
    def __init__(self):
        self.lock, self.itself = threading.Lock(), self
        self.lock.acquire()

    def __del__(self):
        self.lock.acquire()

gc.disable()
Stream()
sys.argv = ["fedbbpt", "--version"]
cli.main()
"""


def test_a_stream_that_is_left_does_not_hold_up_the_end() -> None:
    ended = subprocess.run([sys.executable, "-c", LEFT_STREAM], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "") and ended.stdout.startswith("fedbbpt ")
