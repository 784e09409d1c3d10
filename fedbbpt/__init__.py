"""Federated black-box prompt tuning.

Organisations that hold private labelled data tune one prompt for a pre-trained model (PTM) that they can only query.
There are three roles: the coordinator (`server`), the clients, and the PTM service that answers queries.

    import fedbbpt

    run = fedbbpt.simulate(fedbbpt.load_job("job.toml"))
    for report in run:
        print(report.round, report.dev_loss)
    run.prompt().save("prompt.safetensors")

`__all__` lists the public names. Each is imported when it is first used, so that `import fedbbpt` loads neither torch
nor gRPC. To read the code, begin with `interfaces`.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "fedbbpt.api.finished": ("FinishedRun",),
    "fedbbpt.api.jobs": ("load_job", "make_job", "parse_job"),
    "fedbbpt.api.prompts": ("Prediction", "TunedPrompt", "load_prompt"),
    "fedbbpt.api.ptm": ("ask", "open_ptm"),
    "fedbbpt.api.runs": ("SimulatedRun", "simulate"),
    "fedbbpt.data.columns": ("Columns",),
    "fedbbpt.data.quality": ("DataWarning",),
    "fedbbpt.errors": ("FedbbptError",),
    "fedbbpt.federation.comparison": ("Comparison",),
    "fedbbpt.federation.evaluation": ("Answers", "Gain", "Measured"),
    "fedbbpt.federation.prompt_file": ("PromptCard",),
    "fedbbpt.interfaces": ("Backend", "ClientHalf", "Objectives", "PromptSpace", "Ptm", "ServerHalf", "WhiteBox"),
    "fedbbpt.job.config": ("Job",),
    "fedbbpt.methods.method": ("Method", "MethodConfig"),
    "fedbbpt.types": (
        "Examples",
        "LabelledExamples",
        "MethodSettings",
        "ModelCard",
        "Report",
        "Result",
        "Task",
        "TaskSpec",
        "Update",
        "merge",
        "unpack",
    ),
}
"""The modules of the public names. `__init__.pyi` says the same to type checkers, and a test compares the two."""

__all__ = sorted(["__version__", *(name for names in _HOMES.values() for name in names)])


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    for module, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(module), name)
            return value
    raise AttributeError(f"module 'fedbbpt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
