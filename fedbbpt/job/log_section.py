"""The section `[log]` of a job file: the tools that a run is shown in, besides its own files."""

import re
from typing import Literal

from pydantic import Field, model_validator

from fedbbpt.toml.section import Section, contradiction


class LogSection(Section):
    """`[log]`: the tools that a run is shown in, besides its own files."""

    tensorboard: str = Field(
        "", description="Folder for TensorBoard, inside the run's folder unless it is absolute. Empty: none."
    )
    mlflow: str = Field(
        "", description="Tracking URI of MLflow, such as http://127.0.0.1:5000 or sqlite:///mlflow.db. Empty: none."
    )
    mlflow_experiment: str = Field("fedbbpt", min_length=1, description="MLflow: the experiment of the run.")
    wandb: str = Field("", description="Project of Weights & Biases. Empty: none.")
    wandb_mode: Literal["online", "offline"] = Field(
        "online",
        description="Weights & Biases: offline writes to the folder wandb of the run's folder, for `wandb sync`.",
    )
    otlp: str = Field(
        "",
        description="URL of an OpenTelemetry collector that takes OTLP over HTTP, such as http://127.0.0.1:4318. "
        "It gets metrics, events, and a trace of each round. Empty: none.",
    )

    @property
    def anywhere(self) -> bool:
        """Whether the run is shown in any tool."""
        return bool(self.tensorboard or self.mlflow or self.wandb or self.otlp)

    @model_validator(mode="after")
    def _addresses_are_urls(self) -> "LogSection":
        if self.mlflow and not re.match(r"[a-z][a-z+]*:", self.mlflow):
            fix = "a tracking URI, such as http://127.0.0.1:5000 or sqlite:///mlflow.db"
            raise contradiction("mlflow", f"{self.mlflow!r} is no URI", fix)
        if self.otlp and not re.match(r"https?://[^/]", self.otlp):
            fix = "the URL of a collector, such as http://127.0.0.1:4318"
            raise contradiction("otlp", f"{self.otlp!r} is no HTTP URL", fix)
        return self
