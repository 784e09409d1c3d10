"""Commands of a caller of a PTM service: `ptm describe` shows the model's card, `ptm usage` the caller's account."""

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.table import Table

from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.bundles import PtmService, with_bundles
from fedbbpt.cli.terminal.console import out, show
from fedbbpt.cli.terminal.logs import log_to_stderr
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.types import ModelCard, Output, Price, Statement

_LABELS_SHOWN = 20


@with_bundles
def describe(access: PtmService, json: options.Json = False) -> None:
    """Show the card of a PTM service's model: what it takes, what it returns, its limits and prices.

    Example: fedbbpt ptm describe ptm.example.org:7001 --ptm-tls-ca ca.pem --ptm-token-file token
    """
    with _open(access) as ptm:
        card = ptm.describe()
    show(_all(card) if json else _for_people(card), json, title=card.model)


@with_bundles
def usage(access: PtmService, json: options.Json = False) -> None:
    """Show what you have used at a PTM service, and what is left of your budget.

    If several services share the address, it is the account at one of them.

    Example: fedbbpt ptm usage ptm.example.org:7001 --ptm-tls-ca ca.pem --ptm-token-file token
    """
    with _open(access) as ptm:
        statement, price = ptm.statement(), ptm.describe().price
    if json:
        show(dataclasses.asdict(statement) | {"currency": price.currency}, as_json=True)
    else:
        _print_statement(statement, price)


@contextmanager
def _open(access: PtmService) -> Iterator[RemotePtm]:
    log_to_stderr(logging.WARNING)
    with access.connect() as channel:
        yield RemotePtm(channel, patience_seconds=0.0)


def _all(card: ModelCard) -> dict[str, Any]:
    """Returns every field of the card, for JSON."""
    fields = dataclasses.asdict(card)
    return fields | {name: sorted(value) for name, value in fields.items() if isinstance(value, frozenset)}


def _for_people(card: ModelCard) -> dict[str, Any]:
    """Returns the fields that say something about this model."""
    rows: dict[str, Any] = {
        "revision": card.revision,
        "family": card.family,
        "precision": card.precision or "not told",
        "output": card.output,
        "prompt_kinds": ", ".join(sorted(card.prompt_kinds)),
        "injections": ", ".join(sorted(card.injections)),
        "tokens_of_prompt_and_input": card.max_tokens,
        "prompts_per_call": card.max_prompts,
        "examples_per_handle": card.max_examples,
        "pairs_per_call": card.max_pairs or "no limit",
        "bytes_per_message": card.max_message_bytes,
        "embedding_width": card.embedding_width or "not told",
        "noise_of_scores": card.score_noise,
        "largest_element_of_z": f"{card.max_latent:,g}",
    }
    if card.image_shape is not None:
        rows["images"] = " x ".join(map(str, card.image_shape))
        del rows["tokens_of_prompt_and_input"]
    if card.prefix_shape is not None:
        rows["deep_prompts"] = "{} layers, {} heads, {} wide".format(*card.prefix_shape)
    if card.labels:
        more = len(card.labels) - _LABELS_SHOWN
        rows["labels"] = ", ".join(card.labels[:_LABELS_SHOWN]) + (f", and {more:,} more" if more > 0 else "")
    if card.output is Output.LOSS_ONLY:
        rows["different_examples_per_handle"] = f"at least {card.min_examples}"
    return rows | {"price": _prices(card.price)}


def _prices(price: Price) -> str | dict[str, str]:
    """Returns what queries cost, in units of the currency."""
    if not price.currency:
        return "free"
    rates = {
        "a query": price.micros_per_query,
        "a query answered from the cache": price.micros_per_cached_query,
        "1,000 tokens": price.micros_per_thousand_tokens,
    }
    return {name: _money(micros, price) for name, micros in rates.items()}


def _money(micros: int, price: Price) -> str:
    return f"{micros / 1e6:,.6f} {price.currency}".rstrip()


def _print_statement(statement: Statement, price: Price) -> None:
    used, left = statement.usage, statement.left
    table = Table(box=None, header_style="dim")
    table.add_column("")
    for name in ("used", "left"):
        table.add_column(name, justify="right")
    table.add_row("queries", f"{used.queries:,}", _limit(left.queries))
    table.add_row("  from the cache", f"{used.cached_queries:,}", "")
    table.add_row("tokens", f"{used.tokens:,}", _limit(left.tokens))
    table.add_row("label tokens", "", _limit(left.label_tokens))
    if price.currency:
        table.add_row("cost", _money(used.cost_micros, price), "")
    table.add_row("seconds of computing", f"{used.compute_seconds:,.1f}", "")
    out.print(table)
    out.print(f"{len(statement.tasks):,} tasks, {statement.handles:,} handles of examples", highlight=False)


def _limit(left: int | None) -> str:
    return "unlimited" if left is None else f"{left:,}"
