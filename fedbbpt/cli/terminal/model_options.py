"""The options of a model that a command loads into this process: the same for every command, and as keys of `[ptm]`."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from fedbbpt.cli.terminal.bundles import PtmAccess
from fedbbpt.cli.terminal.options import MODEL
from fedbbpt.errors import InvalidInput
from fedbbpt.job.config import Job
from fedbbpt.types import PrecisionChoice


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """How a model that the command loads is read and computed. Options that are not given keep what is there."""

    family: Annotated[
        str | None,
        typer.Option(
            help="The family of a checkpoint, which decides how it is scored. By default its architecture decides.",
            show_default=False,
            rich_help_panel=MODEL,
        ),
    ] = None
    device: Annotated[
        str | None,
        typer.Option(
            help="The device that computes: cpu, or a name that torch knows, such as cuda.",
            show_default=False,
            rich_help_panel=MODEL,
        ),
    ] = None
    precision: Annotated[
        PrecisionChoice | None,
        typer.Option(
            help="Precision of the model's layers. auto takes bfloat16 where a measurement finds it faster and nearly "
            "as accurate.",
            show_default=False,
            rich_help_panel=MODEL,
        ),
    ] = None
    max_length: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="The most tokens of an input, prompt included. 0 means as many as the model takes.",
            show_default=False,
            rich_help_panel=MODEL,
        ),
    ] = None

    def given(self) -> dict[str, Any]:
        """Returns the options on the command line, in the form that `ptm.models.loading.load` takes."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def apply(self, job: Job) -> Job:
        """Returns the job with the given options. Raises InvalidInput if its model or its `ptm.address` has none."""
        ptm = job.ptm.model_copy(update=self.given())
        if self.given() and (misfit := ptm.find_misfit()) is not None:
            raise InvalidInput(misfit.what, where=option_name(misfit.key), fix=misfit.fix)
        return job.model_copy(update={"ptm": ptm})

    def check_loaded_here(self, service: PtmAccess) -> None:
        """Raises InvalidInput if options are given for a model that runs elsewhere."""
        if service.ptm and self.given():
            what = "a running service has decided this already"
            fix = "the option of `fedbbpt ptm serve` instead, or no --ptm"
            raise InvalidInput(what, where=", ".join(map(option_name, self.given())), fix=fix)


def option_name(key: str) -> str:
    """Returns the name of an option on the command line, such as --max-length for max_length."""
    return f"--{key.replace('_', '-')}"
