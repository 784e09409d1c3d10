"""`[task.prompt]` of a job: a section for each kind of prompt, and the space of prompts that it defines."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag, model_validator

from fedbbpt import seeds
from fedbbpt.errors import InvalidJob
from fedbbpt.prompts.deep import DeepSpace
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.prompts.text import TextSpace
from fedbbpt.prompts.visual import ImageSpace
from fedbbpt.toml.section import Section, contradiction
from fedbbpt.types import Injection, Projection, ProjectionKind

TOKENS_PER_CANDIDATE = 8
"""Room in the input for one candidate. How many tokens it really takes, only the model's tokenizer knows."""


class LatentPromptSection(Section):
    """A soft prompt, projected from a latent vector z."""

    kind: Literal["latent"] = Field(
        "latent", description="A soft prompt with the embeddings initial + scale x deviation x (A z) / sqrt(dim)."
    )
    tokens: int = Field(8, ge=1, le=512, description="L, the number of soft tokens.")
    dim: int = Field(100, ge=1, le=100_000, description="n, the length of the latent vector z.")
    initial_text: str = Field("", description="Text whose embeddings the prompt starts from. Empty: zero vectors.")
    projection: ProjectionKind = Field(
        ProjectionKind.RADEMACHER, description="Distribution of the entries of A. The papers use normal."
    )
    scale: float = Field(
        1.0,
        gt=0,
        le=1000,
        description="How far a step of sigma 1 moves the prompt, in standard deviations of the model's embeddings.",
    )
    injection: Literal["prefix", "add", "concat", "place"] = Field(
        "prefix",
        description="Where the prompt enters: before the text (prefix), at the template's {prompt} (place), or after "
        "the embedding LayerNorm as in BBT (add, concat).",
    )
    side: Literal["input", "class"] = Field(
        "input",
        description="Where the prompt enters with injection prefix: each text (input), or each class text (class), for "
        "dual encoders and CLIP.",
    )
    offsets: bool = Field(
        False, description="Whether to search for an offset of each class's score too, which costs no queries."
    )

    @model_validator(mode="after")
    def _injection_fits_the_side(self) -> "LatentPromptSection":
        if self.side == "class" and self.injection != "prefix":
            what = (
                f"{self.injection!r} is a place in the texts, but side = 'class' puts the prompt into the class texts"
            )
            raise contradiction("injection", what, '"prefix", or side = "input"')
        return self

    def space(self, seed: int, classes: int) -> LatentSpace:
        """Returns the space of the section's prompts, with an offset for each of `classes` if the job asks for it."""
        projection = Projection(
            self.projection,
            seeds.derive(seed, "projection"),
            self.tokens,
            self.scale,
            self.initial_text,
            Injection.CLASS if self.side == "class" else Injection(self.injection),
        )
        offsets = classes if self.offsets else 0
        return LatentSpace(self.dim + offsets, projection, offsets)


class TextPromptSection(Section):
    """A prompt of words."""

    kind: Literal["text"] = Field("text", description="A prompt of words, chosen from candidates.")
    words: int = Field(10, ge=1, le=100, description="n, the number of candidates in a prompt.")
    candidates: tuple[str, ...] = Field(
        (), description="Words or short word sequences to choose from. Empty: taken from the server's own examples."
    )
    vocabulary: int = Field(
        200, ge=2, le=10_000, description="N, the number of candidates to take: the most frequent n-grams."
    )

    @model_validator(mode="after")
    def _candidates_differ(self) -> "TextPromptSection":
        if len(self.candidates) == 1 or len(set(self.candidates)) != len(self.candidates):
            raise contradiction("candidates", "fewer than two, or two that are equal", "at least two, each once")
        return self

    def space(self, seed: int, classes: int) -> TextSpace:
        """Returns the space of the section's prompts. Raises InvalidJob if the candidates are left to the data."""
        if not self.candidates:
            raise InvalidJob("task.prompt.candidates is empty", where="job", fix="at least two words")
        return TextSpace(self.words, self.candidates, TOKENS_PER_CANDIDATE * self.words)


class ImagePromptSection(Section):
    """A picture that is added to each image.

    The defaults are BlackVIP's decoder (arXiv 2303.14773), with 9,920 weights for images of 3 x 224 x 224.
    """

    kind: Literal["image"] = Field(
        "image", description="A picture added to each image, drawn by a small network with the weights z."
    )
    image: tuple[int, int, int] = Field((3, 224, 224), description="Channels, height and width of the model's images.")
    pooled: int = Field(16, ge=1, description="Squares along a side of the averaged image that the network sees.")
    grid: int = Field(7, ge=1, description="Side of the network's first feature map. Each stage doubles it.")
    widths: tuple[int, ...] = Field(
        (32, 64, 32, 32, 16),
        min_length=1,
        max_length=10,
        description="Channels of the network before each of its stages.",
    )
    strength: float = Field(
        1.0, gt=0, le=100, description="Factor that the picture is multiplied by. Colours range from 0 to 1."
    )

    @model_validator(mode="after")
    def _sizes_fit(self) -> "ImagePromptSection":
        channels, height, width = self.image
        side = self.grid * 2 ** len(self.widths)
        if not (1 <= channels <= 4 and height == width == side):
            what = f"grid {self.grid} and {len(self.widths)} widths make {side} x {side}, image says {list(self.image)}"
            raise contradiction("image", what, "sides of grid x 2^(number of widths), 1 to 4 channels")
        if height % self.pooled or channels * self.pooled**2 >= self.widths[0] * self.grid**2:
            what = (
                f"{self.pooled} does not fit an image of {height} x {width} and {self.widths[0]} channels on the grid"
            )
            raise contradiction("pooled", what, "a divisor of the height, and channels x pooled^2 < widths[0] x grid^2")
        pairs = zip(self.widths, self.widths[1:], strict=False)
        if not all(0 < wide <= 1024 for wide in self.widths) or any(max(a, b) % a for a, b in pairs):
            what = f"{list(self.widths)}"
            raise contradiction("widths", what, "1 to 1024, each a divisor of the next or larger than it")
        return self

    def space(self, seed: int, classes: int) -> ImageSpace:
        """Returns the space of the section's prompts."""
        place = seeds.derive(seed, "decoder")
        return ImageSpace(self.image, self.pooled, self.grid, self.widths, self.strength, place)


class DeepPromptSection(Section):
    """A prefix of keys and values in every layer.

    The defaults fit GPT2-XL with the prefix of FedSP (arXiv 2311.06805), which has 6,144,000 numbers.
    """

    kind: Literal["deep"] = Field(
        "deep", description="A prefix of keys and values that precede those of the text in every layer."
    )
    tokens: int = Field(40, ge=1, le=512, description="L, the length of the prefix.")
    layers: int = Field(48, ge=1, le=1024, description="Number of the model's layers.")
    heads: int = Field(25, ge=1, le=1024, description="Key-value heads of each layer.")
    width: int = Field(64, ge=1, le=4096, description="Width of a head.")
    initial_std: float = Field(0.02, ge=0, le=100, description="Standard deviation of the random initial prefix.")
    first_layer: int = Field(
        0, ge=0, description="First layer whose prefix is tuned. Layers below it keep the initial prefix."
    )

    @model_validator(mode="after")
    def _some_layer_is_tuned(self) -> "DeepPromptSection":
        if self.first_layer >= self.layers:
            what = f"{self.first_layer} of layers 0 to {self.layers - 1}"
            raise contradiction("first_layer", what, "a layer that the model has")
        return self

    def space(self, seed: int, classes: int) -> DeepSpace:
        """Returns the space of the section's prompts."""
        place = seeds.derive(seed, "prefix")
        return DeepSpace(self.layers, self.heads, self.width, self.tokens, place, self.initial_std, self.first_layer)


class NoPromptSection(Section):
    """No prompt, for a run that fits a readout only."""

    kind: Literal["none"] = Field("none", description="No prompt.")

    def space(self, seed: int, classes: int) -> NoPrompt:
        """Returns the space without a prompt."""
        return NoPrompt()


AnyPromptSection: TypeAlias = (
    LatentPromptSection | TextPromptSection | ImagePromptSection | DeepPromptSection | NoPromptSection
)
PROMPTS: Mapping[str, type[AnyPromptSection]] = {
    "latent": LatentPromptSection,
    "text": TextPromptSection,
    "image": ImagePromptSection,
    "deep": DeepPromptSection,
    "none": NoPromptSection,
}


def _prompt_kind(section: Any) -> str:
    """The kind of prompt that a section's table or object has; latent by default."""
    kind = section.get("kind", "latent") if isinstance(section, dict) else getattr(section, "kind", "")
    return str(kind)


PromptSection = Annotated[
    Annotated[LatentPromptSection, Tag("latent")]
    | Annotated[TextPromptSection, Tag("text")]
    | Annotated[ImagePromptSection, Tag("image")]
    | Annotated[DeepPromptSection, Tag("deep")]
    | Annotated[NoPromptSection, Tag("none")],
    Discriminator(_prompt_kind),
]
