"""A tenant: an organisation that may ask the model, with the answers, limits and prices that were agreed with it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedbbpt.identity.roles import Role
from fedbbpt.limits import MAX_BUDGET, MAX_PRICE_MICROS
from fedbbpt.toml.section import Section, contradiction
from fedbbpt.types import Output, Price


class Tenant(Section):
    """The agreement with one tenant. Its fields are the keys of the tenants file."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9._@-]{0,64}$", description="The tenant's name in usage, metrics and the audit log."
    )
    role: Role = Field(Role.CLIENT, description="What the tenant may call: an observer may call Describe and GetUsage.")
    output: Output = Field(Output.LABEL_LOGITS, description="Kind of answer that the service gives.")
    min_examples: int = Field(8, ge=2, description="Fewest different examples of a handle if the output is loss-only.")
    overlaps: bool = Field(
        True, description="Whether two handles may differ in only a few inputs if the output is loss-only."
    )
    label_tokens: Annotated[int, Field(ge=2, le=MAX_BUDGET)] | Literal["all"] | None = Field(
        None, description="Different label tokens over all tasks, for the tenant's lifetime."
    )
    max_queries: int | None = Field(None, ge=0, le=MAX_BUDGET, description="Queries for the tenant's lifetime.")
    max_tokens: int | None = Field(
        None, ge=0, le=MAX_BUDGET, description="Tokens that the model computes, for the tenant's lifetime."
    )
    max_example_bytes: int = Field(
        1 << 30, ge=1 << 20, le=1 << 40, description="Estimated memory of the examples that are registered at a time."
    )
    queries_per_second: float | None = Field(None, gt=0, description="Long-term rate limit.")
    burst_queries: int | None = Field(None, ge=1, description="Queries that may come at once after a pause.")
    currency: str = Field("", pattern=r"^([A-Z]{3})?$", description="ISO 4217 code of the prices' currency.")
    micros_per_query: int = Field(0, ge=0, le=MAX_PRICE_MICROS, description="Price of a query that the model computes.")
    micros_per_cached_query: int = Field(0, ge=0, le=MAX_PRICE_MICROS, description="Price of a repeated query.")
    micros_per_thousand_tokens: int = Field(0, ge=0, le=MAX_PRICE_MICROS, description="Price of computed tokens.")

    @model_validator(mode="after")
    def _consistent(self) -> "Tenant":
        if self.burst_queries is not None and self.queries_per_second is None:
            raise contradiction("burst_queries", "a burst without a rate limit", "queries_per_second as well")
        prices = self.micros_per_query, self.micros_per_cached_query, self.micros_per_thousand_tokens
        if any(prices) and not self.currency:
            raise contradiction("currency", "prices without a currency", 'for example "EUR"')
        return self

    @property
    def price(self) -> Price:
        """The prices of queries and tokens."""
        return Price(
            self.currency, self.micros_per_query, self.micros_per_cached_query, self.micros_per_thousand_tokens
        )

    @property
    def burst(self) -> float:
        """Queries that may come at once after a pause; infinite without a rate limit."""
        if self.queries_per_second is None:
            return float("inf")
        return float(self.burst_queries or max(1.0, self.queries_per_second))

    def max_label_tokens(self, hidden_size: int) -> int | None:
        """Returns how many columns of the model's output layer the tenant may see, or None for all.

        Scores over as many columns as the hidden size reveal the layer up to a rotation (Carlini et al. 2024,
        arXiv 2403.06634). The default, fewer than a quarter of them, leaves the rest unknown.

        Args:
            hidden_size: The width of the output layer's input; 0 if there is no layer to protect, or it is unknown.
        """
        if self.label_tokens == "all":
            return None
        if self.label_tokens is not None:
            return self.label_tokens
        return max(2, hidden_size // 4 - 1) if hidden_size else None


IN_PROCESS = Tenant(name="", label_tokens="all")
"""The tenant of callers in the model's own process. It has no limits, because they have the weights anyway."""

ANYONE = Tenant(name="anyone")
"""The tenant of all callers of a service that requires no token."""
