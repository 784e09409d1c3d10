"""The section `[privacy]` of a job file: how much the run may reveal about one client, or about one example."""

from typing import Literal

from pydantic import Field

from fedbbpt.toml.section import Section


class PrivacySection(Section):
    """`[privacy]`: how much the run may reveal about one client, or about one example."""

    aggregation: Literal["plain", "secure"] = Field(
        "plain",
        description="plain: the coordinator reads each client's update. secure: it learns only the sum of a round's "
        "updates.",
    )
    threshold: float = Field(
        0.67,
        gt=0.5,
        le=1,
        description="secure: share of the clients that exchange keys with a client and must stay until its round ends.",
    )
    epsilon: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="Differential privacy: the most that the whole run may spend on its training examples. 0: no "
        "noise, and no guarantee.",
    )
    delta: float = Field(
        1e-5,
        gt=0,
        le=0.1,
        description="The probability with which the guarantee may fail; well below 1 / number of clients, or of "
        "examples.",
    )
    clip_norm: float = Field(
        1.0,
        gt=0,
        description="With an epsilon: largest Euclidean norm of what one client, or one example, adds to a round's "
        "sum. Longer contributions are scaled down to it.",
    )
    level: Literal["client", "example"] = Field(
        "client",
        description="What the guarantee protects: all training examples of a client together, or each example.",
    )
