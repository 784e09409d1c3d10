"""Opens the sinks of a job. Their packages are imported for a job that uses them, and for no other."""

import netrc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from fedbbpt.errors import InvalidInput
from fedbbpt.host.extras import require_package
from fedbbpt.job.log_section import LogSection
from fedbbpt.sinks.sink import Sink


def sinks_of(section: LogSection, folder: Path) -> Iterator[tuple[str, Callable[[], Sink]]]:
    """Yields the name of each tool that the section names, and what opens its sink.

    Opening imports a package for seconds, so the caller leaves it to another thread.

    Args:
        section: The job's `[log]`.
        folder: The run's folder.

    Raises:
        InvalidInput: A package is not installed, or an account is not set up.
    """
    if section.tensorboard:
        require_package("tensorboardX", "tensorboard", where="log.tensorboard")
        yield "log.tensorboard", lambda: _tensorboard(folder / section.tensorboard)
    if section.mlflow:
        require_package("mlflow", "mlflow", where="log.mlflow")
        yield "log.mlflow", lambda: _mlflow(section.mlflow, section.mlflow_experiment)
    if section.wandb:
        require_package("wandb", "wandb", where="log.wandb")
        offline = section.wandb_mode == "offline"
        if not offline and not _has_wandb_account():
            fix = 'WANDB_API_KEY in the environment, `wandb login`, or log.wandb_mode = "offline"'
            raise InvalidInput("no account of Weights & Biases is set up", where="log.wandb", fix=fix)
        yield "log.wandb", lambda: _wandb(section.wandb, folder, offline)
    if section.otlp:
        require_package("opentelemetry.exporter.otlp.proto.http", "otel", where="log.otlp")
        yield "log.otlp", lambda: _otlp(section.otlp)


def _tensorboard(folder: Path) -> Sink:
    from fedbbpt.sinks.tensorboard import TensorBoard

    return TensorBoard(folder)


def _mlflow(uri: str, experiment: str) -> Sink:
    from fedbbpt.sinks.mlflow import Mlflow

    return Mlflow(uri, experiment)


def _wandb(project: str, folder: Path, offline: bool) -> Sink:
    from fedbbpt.sinks.wandb import Wandb

    return Wandb(project, folder, offline=offline)


def _otlp(url: str) -> Sink:
    from fedbbpt.sinks.otlp import Otlp

    return Otlp(url)


def _has_wandb_account() -> bool:
    """Returns whether W&B finds a key without asking a person, who would not see the question."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").partition("://")[2].partition("/")[0]
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
