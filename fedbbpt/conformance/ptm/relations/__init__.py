"""The relations that cases name, a module for each subject.

A relation returns if it holds for the trial. Else it raises trial.Broken, or the error of a call.
"""

from collections.abc import Callable, Mapping
from types import ModuleType

from fedbbpt.conformance.ptm.relations import answers, metering, operation, prompts
from fedbbpt.conformance.ptm.trial import Trial


def _named(*modules: ModuleType) -> Mapping[str, Callable[[Trial], None]]:
    """Returns each public function of the modules by its name, with hyphens."""
    return {
        name.replace("_", "-"): function
        for module in modules
        for name, function in vars(module).items()
        if callable(function) and not name.startswith("_") and function.__module__ == module.__name__
    }


RELATIONS = _named(answers, metering, operation, prompts)
