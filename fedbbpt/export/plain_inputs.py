"""How a model's own tokenizer makes the inputs that fedbbpt scores: a filled template, some of whose tokens go.

fedbbpt tokenises an example as next to a prompt whose place a stand-in takes ("a film" for "{prompt} film"), and takes
the stand-in's tokens out again. Where these always stand at the same place, anybody can do the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedbbpt.errors import UnsupportedPrompt
from fedbbpt.export.templates import fill
from fedbbpt.ptm.models.template import Placeholder, parse
from fedbbpt.ptm.models.text.encoding import TokenisedExample
from fedbbpt.ptm.models.text.filling import STAND_INS
from fedbbpt.types import Examples, TaskSpec

PROBES = (
    "It was a very good film.",
    "where is the book",
    "Who wrote 3 of these (old) books?",
    "naïve “quoted” text",
    "x",
)
"""Texts with which inputs and scores are compared."""

Tokenise = Callable[[str], list[int]]
"""Returns the token ids of a text, with the model's special tokens."""


@dataclass(frozen=True, slots=True)
class PlainInput:
    """How to make the token ids of an example, and where the prompt joins them."""

    template: str
    """The input, with {text} and perhaps {text_pair}."""
    prompted: bool
    """Whether the prompt joins it."""
    end: int
    """Number of special tokens at the end that are left out."""
    remove: tuple[int, int]
    """The tokens from the first index up to the second one are left out, after those at the end."""
    at: int
    """The index before which the prompt joins, in what is left."""

    def ids(self, tokenise: Tokenise, text: str, text_pair: str = "") -> list[int]:
        """Returns the token ids of an example, without the prompt."""
        ids = tokenise(self.template.format(text=text, text_pair=text_pair))
        ids = ids[: len(ids) - self.end]
        return ids[: self.remove[0]] + ids[self.remove[1] :]


def probes(task: TaskSpec) -> Examples:
    """Returns the examples with which inputs are compared."""
    paired = any(piece.placeholder is Placeholder.TEXT_PAIR for piece in parse(task))
    return Examples(PROBES, PROBES[::-1] if paired else None)


def find_input(
    tokenise: Tokenise, task: TaskSpec, rows: Sequence[TokenisedExample], mask: str, view: str | None, *, in_front: bool
) -> PlainInput:
    """Returns how to make the inputs of a task.

    Args:
        tokenise: The model's own tokenizer.
        task: The task.
        rows: The inputs of `probes` as the PTM service makes them.
        mask: The tokenizer's mask token; "" for a causal model.
        view: The text prompt of the inputs; None for a prompt of vectors.
        in_front: Whether a prompt of vectors joins at the front, and not at the template's {prompt}.

    Raises:
        UnsupportedPrompt: The inputs cannot be made so.
    """
    examples = probes(task)
    if any(row.segments for row in rows):
        what = "the template puts two texts into segments of their own, which plain inputs do not tell apart"
        raise UnsupportedPrompt(what, where="task.template", fix="`fedbbpt predict`")
    joins = {row.front_index if in_front else row.prompt_index for row in rows}
    if view is None and len(joins) > 1:
        what = "the prompt joins after a text, at another place in each input"
        raise UnsupportedPrompt(what, where="task.template", fix="{prompt} before {text}, or `fedbbpt predict`")
    for word in ("", *STAND_INS) if not view else (view,):
        template = fill(task, word, mask)
        plain = [tokenise(template.format(text=text, text_pair=pair)) for text, pair in examples.text_pairs]
        for end in (0, 1):
            found = _compare([ids[: len(ids) - end] for ids in plain], rows, keep=bool(view))
            if found is not None:
                return PlainInput(template, view is None, end, found, min(joins))
    what = "the model's own tokenizer reads the filled template differently where the prompt is missing"
    fix = "a template with white space around {prompt}, before {text}; or `fedbbpt predict`"
    raise UnsupportedPrompt(what, where="task.template", fix=fix)


def _compare(plain: list[list[int]], rows: Sequence[TokenisedExample], *, keep: bool) -> tuple[int, int] | None:
    """Returns which tokens to take out of plain inputs to make rows of them, which `keep` leaves in; None if no range
    does it for all of them."""
    found = set()
    for ids, row in zip(plain, rows, strict=True):
        more, place = len(ids) - len(row.ids), row.prompt_index
        if more < 0 or (*ids[:place], *ids[place + more :]) != row.ids:
            return None
        found.add((place, place + more) if more and not keep else (0, 0))
    return found.pop() if len(found) == 1 else None
