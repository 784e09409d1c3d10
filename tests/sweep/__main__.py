"""Prints what becomes of model types: `python -m tests.sweep FAMILY [TYPE ...]`."""

import sys
import tempfile
import warnings
from pathlib import Path
from time import perf_counter

import transformers

from tests.sweep.comparison import sweep
from tests.sweep.tiny_models import TYPES

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity(50)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it has no types
    family, *chosen = sys.argv[1:]
    for name in TYPES if family == "all" else [family]:
        for model_type in (each for each in TYPES[name] if each in chosen or not chosen):
            started = perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                outcome = sweep(name, model_type, Path(folder))
            print(f"{name}\t{model_type}\t{perf_counter() - started:.1f} s\t{outcome}", flush=True)
