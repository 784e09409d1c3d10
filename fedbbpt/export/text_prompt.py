"""A prompt in words as plain text: the template with the prompt in it, for any program that reads text."""

from typing import Any

from fedbbpt.errors import UnsupportedPrompt
from fedbbpt.export.templates import fill_for_people
from fedbbpt.export.tuned import Tuned
from fedbbpt.prompts.text import TextSpace
from fedbbpt.types import Examples

NAME = "prompt.txt"


def templates(tuned: Tuned) -> list[str]:
    """Returns the template under each view, and under the prompt, with {text} and perhaps {text_pair} and {mask}.

    Raises:
        UnsupportedPrompt: The result uses a prompt that is not in words.
    """
    texts = list(tuned.views)
    if tuned.prompted:
        if not isinstance(tuned.space, TextSpace):
            what = f"the prompt is not in words ({tuned.space.kind})"
            raise UnsupportedPrompt(what, where="--to text", fix="--to peft, vllm, hf or onnx")
        texts += tuned.space.prompts(tuned.z[None], Examples()).texts
    return [fill_for_people(tuned.card.task(), text) for text in texts]


def describe_templates(tuned: Tuned) -> dict[str, Any]:
    """Returns the keys for readout.json."""
    return {"inputs": [{"template": template} for template in templates(tuned)]}
