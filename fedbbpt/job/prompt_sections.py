"""`[task.prompt]` of a job: each kind's settings, and the space that they make."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from fedbbpt import seeds
from fedbbpt.errors import InvalidJob
from fedbbpt.prompts.deep import DeepSpace
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.prompts.text import TextSpace
from fedbbpt.prompts.visual import ImageSpace
from fedbbpt.toml.section import Section, contradiction
from fedbbpt.types import Injection, Projection, ProjectionKind

TOKENS_PER_CANDIDATE = 8
"""The room that is left for one; only the model's tokenizer knows how many it takes."""


class LatentPromptSection(Section):
    kind: Literal["latent"] = Field(
        "latent", description="latent: soft tokens, initial + scale x deviation x (A z) / sqrt(dim)."
    )
    tokens: int = Field(8, ge=1, le=512, description="L, the length of the soft prompt.")
    dim: int = Field(100, ge=1, le=100_000, description="n, the length of the latent vector z.")
    initial_text: str = Field("", description="The prompt begins as this text's embeddings; empty: as zero vectors.")
    projection: ProjectionKind = Field(ProjectionKind.RADEMACHER, description="rademacher, or normal as in the papers.")
    scale: float = Field(1.0, gt=0, le=1000, description="How far sigma 1 moves a prompt, in embedding deviations.")
    injection: Injection = Field(
        Injection.PREFIX,
        description="How it enters: as a prefix; at the template's {prompt}; or behind the embedding LayerNorm (BBT).",
    )
    offsets: bool = Field(False, description="Search one offset for each class too; it costs no queries.")

    def space(self, seed: int, classes: int) -> LatentSpace:
        projection = Projection(
            self.projection,
            seeds.derive(seed, "projection"),
            self.tokens,
            self.scale,
            self.initial_text,
            self.injection,
        )
        offsets = classes if self.offsets else 0
        return LatentSpace(self.dim + offsets, projection, offsets)


class TextPromptSection(Section):
    kind: Literal["text"] = Field("text", description="text: words, chosen among candidates.")
    words: int = Field(10, ge=1, le=100, description="n, how many candidates make a prompt.")
    candidates: tuple[str, ...] = Field(
        (), description="Words or short word sequences to choose from; empty: taken from the server's own examples."
    )
    vocabulary: int = Field(200, ge=2, le=10_000, description="N, how many are taken: the most frequent n-grams.")

    @model_validator(mode="after")
    def _candidates_differ(self) -> "TextPromptSection":
        if len(self.candidates) == 1 or len(set(self.candidates)) != len(self.candidates):
            raise contradiction("candidates", "there is no choice between equal ones", "at least two, each once")
        return self

    def space(self, seed: int, classes: int) -> TextSpace:
        """Raises InvalidJob where the job leaves its candidates to data that are not here."""
        if not self.candidates:
            raise InvalidJob("task.prompt.candidates is empty", where="job", fix="at least two words")
        return TextSpace(self.words, self.candidates, TOKENS_PER_CANDIDATE * self.words)


class ImagePromptSection(Section):
    """The defaults are BlackVIP's decoder (arXiv 2303.14773), 9,920 weights for images of 3 x 224 x 224."""

    kind: Literal["image"] = Field("image", description="A picture on each image, drawn by a small net with weights z.")
    image: tuple[int, int, int] = Field((3, 224, 224), description="Channels, height and width of the model's images.")
    pooled: int = Field(16, ge=1, description="The net sees each image averaged to so many squares a side.")
    grid: int = Field(7, ge=1, description="Sides that the net begins with; each of its stages doubles them.")
    widths: tuple[int, ...] = Field(
        (32, 64, 32, 32, 16), min_length=1, max_length=10, description="Its channels, before each stage."
    )
    strength: float = Field(1.0, gt=0, le=100, description="What its picture is multiplied by; colours are 0 to 1.")

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
        place = seeds.derive(seed, "decoder")
        return ImageSpace(self.image, self.pooled, self.grid, self.widths, self.strength, place)


class DeepPromptSection(Section):
    """The defaults fit GPT2-XL, with the prefix of FedSP (arXiv 2311.06805): 6,144,000 numbers."""

    kind: Literal["deep"] = Field("deep", description="Keys and values in front of those of every layer.")
    tokens: int = Field(40, ge=1, le=512, description="L, the length of the prefix.")
    layers: int = Field(48, ge=1, le=1024, description="Layers of the model.")
    heads: int = Field(25, ge=1, le=1024, description="Its heads of keys and values.")
    width: int = Field(64, ge=1, le=4096, description="The width of one.")
    initial_std: float = Field(0.02, ge=0, le=100, description="The standard deviation of the random first prefix.")

    def space(self, seed: int, classes: int) -> DeepSpace:
        place = seeds.derive(seed, "prefix")
        return DeepSpace(self.layers, self.heads, self.width, self.tokens, place, self.initial_std)


PROMPTS: Mapping[
    str, type[LatentPromptSection] | type[TextPromptSection] | type[ImagePromptSection] | type[DeepPromptSection]
] = {
    "latent": LatentPromptSection,
    "text": TextPromptSection,
    "image": ImagePromptSection,
    "deep": DeepPromptSection,
}


def _prompt_kind(section: Any) -> str:
    """Latent where a job does not say."""
    kind = section.get("kind", "latent") if isinstance(section, dict) else getattr(section, "kind", "")
    return str(kind)


PromptSection = Annotated[
    Annotated[LatentPromptSection, Tag("latent")]
    | Annotated[TextPromptSection, Tag("text")]
    | Annotated[ImagePromptSection, Tag("image")]
    | Annotated[DeepPromptSection, Tag("deep")],
    Discriminator(_prompt_kind),
]
