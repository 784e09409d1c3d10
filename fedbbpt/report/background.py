"""The parts of the page about the run: cost, prompt, privacy, warnings, settings."""

from pydantic import BaseModel

from fedbbpt.federation.prompt_file import raising
from fedbbpt.job.job_file import tables_of
from fedbbpt.prompts import without_readout
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.prompts.text import TextSpace
from fedbbpt.report.figures import decimal, duration, number, size
from fedbbpt.report.html import Html, element, join
from fedbbpt.report.run_data import RunData
from fedbbpt.report.tables import facts, table
from fedbbpt.types import Examples


def cost(run: RunData) -> Html:
    """Returns what the run has used."""
    summary, reports = run.summary, run.reports
    up, down = summary["bytes_up_per_client_round"], summary["bytes_down_per_client_round"]
    answers = sum(report.clients for report in reports)
    evaluated = summary.get("queries_evaluation")
    return facts(
        [
            ("queries of the clients", number(summary["queries"])),
            ("queries on test examples", number(evaluated) if evaluated is not None else "none"),
            ("answers of clients that counted", number(answers)),
            ("bytes up, per client and round", size(up)),
            ("bytes down, per client and round", size(down)),
            ("bytes in all", size(None if up is None or down is None else (up + down) * answers)),
            ("time", duration(summary["seconds"])),
            (
                "loss on test examples",
                f"{decimal(summary['loss_before'])} with no prompt, {decimal(summary['loss_after'])} with the result"
                if "loss_after" in summary
                else "not measured",
            ),
        ]
    )


def about(run: RunData) -> Html:
    """Returns who took part, with which model."""
    card = run.card
    return facts(
        [
            ("method", card.method),
            ("model", card.ptm),
            ("revision", element("code", card.ptm_revision)),
            ("precision", card.ptm_precision or "not told"),
            ("clients", number(card.clients)),
            ("training examples", number(card.examples)),
            ("rounds", f"{card.rounds:,}; round {card.best_round} is the result"),
            ("seed", str(card.seed)),
        ]
    )


def prompt(run: RunData) -> Html:
    """Returns what the prompt is, in words as far as there are any."""
    card, space = run.card, run.card.space
    inner = without_readout(space)
    parts = [facts([("the prompt", str(space)), ("template", element("code", card.template))])]
    z = run.z[: inner.dim][None]
    if isinstance(inner, TextSpace):
        prompted = inner.prompts(z, Examples())
        parts.append(element("p", "Its words: ", element("code", prompted.texts[0])))
    elif isinstance(inner, LatentSpace) and run.words:
        rows = [([str(place + 1), ", ".join(words)], "") for place, words in enumerate(run.words)]
        parts.append(element("h3", "The words nearest to each vector of the prompt"))
        parts.append(table(["vector", "words, the nearest first"], rows, left=(1,)))
        said = "By the cosine to the model's own word vectors. Soft prompts seldom lie near words that explain them."
        parts.append(element("p", said, class_="muted"))
    elif isinstance(inner, LatentSpace):
        parts.append(
            element(
                "p",
                "The words nearest to its vectors are not shown, because a black box does not show its word vectors. "
                "If this machine has the model, ",
                element("code", "fedbbpt report --words"),
                " looks them up.",
                class_="muted",
            )
        )
    named = zip(card.labels, card.classes, raising(card, run.z), strict=True)
    rows = [([label, text, "; ".join(raised)], "") for label, text, raised in named]
    head = ["class", "described to the model as", "raised by the scores of"]
    if not any(row[2] for row, _ in rows):
        head, rows = head[:2], [(row[:2], kind) for row, kind in rows]
    return join([*parts, element("h3", "Classes"), table(head, rows, left=range(3))])


def privacy(run: RunData) -> Html:
    """Returns what the run guarantees about single examples or clients."""
    stated = run.card.privacy
    secure = run.job is not None and run.job.privacy.aggregation == "secure"
    summed = (
        "The coordinator learnt only sums over clients (secure aggregation)."
        if secure
        else "The coordinator saw each client's update: arrays, losses and counts, never a text or a label."
    )
    if stated is None:
        said = (
            "No noise was added, so nothing is guaranteed about a single example or client (no differential privacy)."
        )
        return join([element("p", summed), element("p", said)])
    rows: list[tuple[str, str]] = [
        ("level", f"each {stated.level}"),
        ("epsilon", f"{stated.epsilon:.3g} of {stated.epsilon_limit:g}"),
        ("delta", f"{stated.delta:g}"),
        ("clipped to a norm of", f"{stated.clip_norm:g}"),
        ("covered", stated.covers),
        ("not covered", "; ".join(stated.does_not_cover)),
    ]
    return join([element("p", summed), facts(rows)])


def warnings(run: RunData) -> Html:
    """Returns what to look at in the data."""
    found = run.summary.get("warnings", [])
    if not found:
        return element("p", "None.", class_="muted")
    return element("ul", *(element("li", str(warning["message"])) for warning in found))


def settings(run: RunData) -> Html:
    """Returns the settings that are not the defaults, and the whole job."""
    if run.job is None:
        return element("p", "The folder holds no job.", class_="muted")
    rows = []
    for name, section in tables_of(run.job):
        for key, value in section:
            default = type(section).model_fields[key].get_default(call_default_factory=True)
            if not isinstance(value, BaseModel) and value != default:
                rows.append(([element("code", f"{name}.{key}"), _shown(value)], ""))
    whole = element("details", element("summary", "The whole job"), element("pre", run.job_toml))
    return join([table(["key", "value"], rows, left=(0, 1)), whole])


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
