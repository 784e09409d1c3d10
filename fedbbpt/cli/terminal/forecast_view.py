"""A forecast of what a run will use: as a table, and in a few lines before a run."""

from rich.table import Table
from rich.text import Text

from fedbbpt.cli.terminal.amounts import size
from fedbbpt.cli.terminal.console import err
from fedbbpt.federation.forecast import Forecast, Rate, forecast
from fedbbpt.federation.rehearsal import RehearsalPtm
from fedbbpt.federation.splits import Splits
from fedbbpt.types import Budget


def rehearsed(splits: Splits, ptm: RehearsalPtm, left: Budget, rate: Rate | None, seconds: float) -> Forecast:
    """Rehearses a run, and returns its forecast."""
    try:
        return forecast(splits, ptm, left=left, rate=rate, seconds=seconds)
    finally:
        ptm.release_all()


def warn(found: Forecast) -> None:
    """Prints a warning for each budget that a forecast exceeds."""
    for warning in found.warnings:
        err.print(Text.assemble(("warning: ", "bold yellow"), warning), soft_wrap=True)


def forecast_table(found: Forecast) -> Table:
    """Returns the table of a forecast."""
    about = f"{found.precision} ".lstrip()
    table = Table(title=f"forecast of {found.rounds} rounds of {found.method}", title_justify="left", box=None)
    table.show_header = False
    table.add_row("queries of the clients", f"{about}{found.queries:,}", style="bold")
    table.add_row("  of the client that asks most", f"{about}{found.queries_of_a_client:,}")
    table.add_row("  of the round that asks most", f"{about}{found.queries_of_a_round:,}")
    if found.cached_queries:
        table.add_row("  answered from the cache", f"about {found.cached_queries:,}")
    table.add_row("queries on test examples", f"{found.queries_evaluation:,}")
    table.add_row("tokens, all in all", f"{found.precision or 'about'} {found.tokens + found.tokens_evaluation:,}")
    table.add_row("price", _price(found))
    table.add_row("bytes up, per client and round", size(found.bytes_up_per_client_round))
    table.add_row("bytes down, per client and round", size(found.bytes_down_per_client_round))
    table.add_row("bytes up, per client, all in all", _bound(found) + size(found.bytes_up_per_client))
    table.add_row("bytes down, per client, all in all", _bound(found) + size(found.bytes_down_per_client))
    table.add_row("the model computes for", _time(found))
    return table


def remarks(found: Forecast) -> list[str]:
    """Returns what a reader of the table should know, in sentences."""
    others = "left out" if found.depends else "estimated"
    said = [f"{found.rehearsed} of {found.rounds} rounds were rehearsed; the others are {others}."]
    if found.rehearsed == found.rounds:
        said = ["Every round was rehearsed."]
    if found.depends:
        said.append(f"The number of queries is an estimate: {found.depends}.")
    if found.rate is not None:
        said.append(f"{found.rate.queries_per_second:,.0f} queries a second: {found.rate.source}.")
    if found.notes:
        said.append(f"Not included: {'; '.join(found.notes)}.")
    return said


def forecast_lines(found: Forecast) -> list[str]:
    """Says in two lines what a run is expected to use."""
    about = f"{found.precision} ".lstrip()
    asked = f"{about}{found.queries:,} queries, {found.queries_evaluation:,} more on test examples"
    up, down = (_bound(found) + size(count) for count in (found.bytes_up_per_client, found.bytes_down_per_client))
    tokens = found.tokens + found.tokens_evaluation
    return [
        f"forecast: {asked}, {found.precision or 'about'} {tokens:,} tokens; price: {_price(found)}",
        f"forecast: {up} up and {down} down per client; the model computes for {_time(found)}",
    ]


def _bound(found: Forecast) -> str:
    return "at least " if found.precision == "at least" else ""


def _price(found: Forecast) -> str:
    price = found.price
    cost = f"{found.precision or 'about'} {found.cost_micros / 1e6:,.2f} {price.currency}"
    return cost if price.currency else "free"


def _time(found: Forecast) -> str:
    seconds = found.seconds
    if seconds is None:
        return "an unknown time: its rate is not known"
    about = found.precision or "about"
    return f"{about} {seconds:.0f} s" if seconds < 90 else f"{about} {seconds / 60:,.0f} min"
