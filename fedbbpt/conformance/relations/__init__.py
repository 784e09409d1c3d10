"""The relations that cases name. Each returns where it holds, and raises trial.Broken or what came in between else."""

from collections.abc import Callable, Mapping
from types import ModuleType

from fedbbpt.conformance.relations import answers, metering, prompts, service
from fedbbpt.conformance.trial import Trial


def _named(*modules: ModuleType) -> Mapping[str, Callable[[Trial], None]]:
    """Each public function under its name, with hyphens."""
    return {
        name.replace("_", "-"): function
        for module in modules
        for name, function in vars(module).items()
        if callable(function) and not name.startswith("_") and function.__module__ == module.__name__
    }


RELATIONS = _named(answers, metering, prompts, service)
