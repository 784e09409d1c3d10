"""Templates with the prompt in them, and braces for what remains to be filled in."""

from fedbbpt.ptm.models.template import Piece, Placeholder, parse
from fedbbpt.types import TaskSpec


def fill(task: TaskSpec, prompt: str, mask: str) -> str:
    """Returns the template with a prompt and a mask in it, and braces for {text} and {text_pair} only.

    Without a mask, the white space before it is left out as well: it belongs to the label words.
    """
    pieces = [piece for piece in parse(task) if mask or piece.placeholder is not Placeholder.MASK]
    return "".join(_escaped(piece.text) + _inserted(piece, _escaped(prompt), _escaped(mask)) for piece in pieces)


def fill_for_people(task: TaskSpec, prompt: str) -> str:
    """Returns the template with a prompt, and with {text}, {text_pair} and {mask} as they are.

    White space before an empty prompt is left out.
    """
    pieces = [piece for piece in parse(task) if prompt or piece.placeholder is not Placeholder.PROMPT]
    return "".join(_escaped(piece.text) + _inserted(piece, _escaped(prompt), "{mask}") for piece in pieces)


def _inserted(piece: Piece, prompt: str, mask: str) -> str:
    if piece.placeholder is None:
        return ""
    values = {Placeholder.PROMPT: prompt, Placeholder.MASK: mask}
    return values.get(piece.placeholder, f"{{{piece.placeholder}}}")


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
