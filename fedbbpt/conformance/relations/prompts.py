"""What a kind of prompt means: latent and soft vectors, changes of pixels."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fedbbpt.conformance.inputs import DIM, LENGTH, MATERIAL
from fedbbpt.conformance.trial import Broken, Skipped, Trial
from fedbbpt.prompts.projection import blocks
from fedbbpt.types import (
    Examples,
    ExampleSet,
    ImagePrompts,
    Injection,
    LatentPrompts,
    ModelCard,
    Output,
    ProjectionKind,
    PromptKind,
    SoftPrompts,
    TextPrompts,
)

GRID, REFINEMENTS = 24, 4
SMALLEST_STD, GREATEST_STD = 1e-3, 1e1
"""Between which a model's word embeddings have theirs."""
STD_TOLERANCE = 1e-3
PIXEL_TOLERANCE = 1e-3
"""Where pixels are reckoned in another order."""


def _latent(trial: Trial, count: int = 2) -> LatentPrompts:
    prompts = trial.prompts(count, kind=PromptKind.LATENT)
    assert isinstance(prompts, LatentPrompts)
    return prompts


def _offers(card: ModelCard, *kinds: PromptKind) -> None:
    for kind in kinds:
        if kind not in card.prompt_kinds:
            raise Skipped(f"needs {kind} prompts too")


def zero_is_the_initial_prompt(trial: Trial) -> None:
    """Whatever the matrix is that z = 0 is multiplied with."""
    first = _latent(trial, 1)
    zero = replace(first, z=np.zeros((1, DIM), np.float32))
    projection = replace(first.projection, kind=ProjectionKind.NORMAL, seed=2**64 - 1, scale=3.0)
    other = LatentPrompts(np.zeros((1, 2 * DIM + 1), np.float32), projection)
    trial.same(trial.ask(other, twin=True).answer, trial.ask(zero).answer, "z = 0 under two projections")


def zero_is_zero_vectors(trial: Trial) -> None:
    """Without an initial text."""
    _offers(trial.card, PromptKind.SOFT)
    if not trial.card.embedding_width:
        raise Skipped("the card does not tell the embedding width")
    first = _latent(trial, 1)
    zero = LatentPrompts(np.zeros((1, DIM), np.float32), replace(first.projection, initial_text=""))
    soft = SoftPrompts(np.zeros((1, LENGTH, trial.card.embedding_width), np.float32), trial.injection)
    trial.same(trial.ask(soft, twin=True).answer, trial.ask(zero).answer, "z = 0 and zero vectors")


def zero_is_the_text(trial: Trial) -> None:
    """Of one token: of longer texts the kit does not know the length. One word of several, at least, is one token."""
    _offers(trial.card, PromptKind.TEXT)
    if trial.injection is Injection.CONCAT or not trial.me.inputs.prompt_first:
        raise Skipped(f"by {trial.injection} the vectors stand elsewhere than a text")
    first, problems = _latent(trial, 1), []
    for word in MATERIAL["words"]:
        projection = replace(first.projection, initial_text=word, tokens=1)
        zero = trial.ask(LatentPrompts(np.zeros((1, DIM), np.float32), projection))
        text = trial.ask(TextPrompts((word,)), twin=True)
        try:
            trial.same(text.answer, zero.answer, f"z = 0 around {word!r}, and {word!r} itself")
            return
        except Broken as problem:
            problems.append(str(problem))
    raise Broken(problems[0])


def scale_multiplies_z(trial: Trial) -> None:
    first = _latent(trial)
    scaled = replace(first, projection=replace(first.projection, scale=2 * first.projection.scale))
    doubled = replace(first, z=2 * first.z)
    trial.same(trial.ask(doubled, twin=True).answer, trial.ask(scaled).answer, "a scale of 2 and z times 2")


def seed_and_z_matter(trial: Trial) -> None:
    if trial.card.output is Output.LABEL_ARGMAX:
        raise Skipped("a class may be the same for all")
    first = _latent(trial)
    answer = trial.ask(first).answer
    for name, other in (
        ("seed", replace(first, projection=replace(first.projection, seed=first.projection.seed + 1))),
        ("kind", replace(first, projection=replace(first.projection, kind=ProjectionKind.NORMAL))),
        ("z", replace(first, z=first.z[:, ::-1].copy())),
    ):
        if np.array_equal(trial.ask(other).answer, answer):
            raise Broken(f"another {name} gives the same scores")


def projection_is_the_protocols(trial: Trial) -> None:
    """The card does not tell the std of the word embeddings: it is sought with one projection, and tried on another."""
    _offers(trial.card, PromptKind.SOFT)
    if not trial.card.output.scores:
        raise Skipped("needs scores")
    if not trial.card.embedding_width:
        raise Skipped("the card does not tell the embedding width")
    stds = []
    for kind, seed in ((ProjectionKind.RADEMACHER, 2**63 + 5), (ProjectionKind.NORMAL, 11)):
        first = _latent(trial, 1)
        projection = replace(first.projection, kind=kind, seed=seed, initial_text="")
        wanted = trial.ask(LatentPrompts(first.z, projection), trial.rows[:2]).answer
        a = np.concatenate(list(blocks(kind, seed, LENGTH * trial.card.embedding_width, DIM)))
        vectors = a @ first.z[0] / np.sqrt(np.float32(DIM))
        stds.append(_fitting(trial, vectors.reshape(LENGTH, -1), wanted, f"{kind} matrix"))
    if not np.isclose(stds[0], stds[1], rtol=STD_TOLERANCE):
        raise Broken(f"scaled by {stds[0]:.6g} with one projection, and by {stds[1]:.6g} with another")


def _fitting(trial: Trial, vectors: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32], what: str) -> float:
    """The factor with which soft vectors score as wanted. Raises Broken where none does."""
    low, high = np.log(SMALLEST_STD), np.log(GREATEST_STD)
    count = min(GRID, trial.card.max_prompts)
    if count < 3:
        raise Skipped("needs calls of three prompts")
    for _ in range(REFINEMENTS):
        grid = np.linspace(low, high, count)
        soft = SoftPrompts((np.exp(grid)[:, None, None] * vectors).astype(np.float32), trial.injection)
        scores = trial.ask(soft, trial.rows[:2]).answer
        best = int(np.abs(scores - wanted).max(axis=(1, 2)).argmin())
        low, high = grid[max(0, best - 1)], grid[min(count - 1, best + 1)]
    trial.same(scores[best], wanted[0], f"latent prompts and the {what} of docs/protocol.md", tolerance=STD_TOLERANCE)
    return float(np.exp(grid[best]))


def place_in_front_is_prefix(trial: Trial) -> None:
    if not trial.me.inputs.prompt_first or not {Injection.PREFIX, Injection.PLACE} <= trial.card.injections:
        raise Skipped("needs injections prefix and place, and a template that begins with its prompt")
    prompts = trial.prompts()
    assert isinstance(prompts, SoftPrompts)
    prefix, place = (replace(prompts, injection=each) for each in (Injection.PREFIX, Injection.PLACE))
    trial.same(trial.ask(place, twin=True).answer, trial.ask(prefix).answer, "injections place and prefix")


# Images


def _shape(trial: Trial) -> tuple[int, int, int]:
    assert trial.card.image_shape is not None, "its cases say that inputs are images"
    return trial.card.image_shape


def _filled(trial: Trial, value: float) -> ImagePrompts:
    return ImagePrompts(np.full((1, 1, *_shape(trial)), value, np.float32))


def one_delta_for_all_examples(trial: Trial) -> None:
    prompts = trial.prompts(2)
    assert isinstance(prompts, ImagePrompts)
    each = ImagePrompts(np.repeat(prompts.deltas, len(trial.rows), axis=1))
    what = "one delta for all examples, and the same for each"
    trial.same(trial.ask(each, twin=True).answer, trial.ask(prompts).answer, what)


def each_example_has_its_delta(trial: Trial) -> None:
    trial.need_rows()
    rows = trial.rows[:2]
    apart = trial.prompts(2)
    assert isinstance(apart, ImagePrompts)
    alone = [trial.ask(ImagePrompts(apart.deltas[at : at + 1]), [row]).answer[0, 0] for at, row in enumerate(rows)]
    joined = trial.ask(ImagePrompts(np.swapaxes(apart.deltas, 0, 1)), rows, twin=True).answer[0]
    trial.same(joined, np.stack(alone), "a delta for each of two examples, and each alone with its own")


def pixels_are_cut_off(trial: Trial) -> None:
    """With 1 more all images are white, with 1 less black."""
    trial.need_rows()
    for delta, colour in ((1.0, "white"), (-1.0, "black")):
        scores = trial.ask(_filled(trial, delta)).answer
        trial.same(scores, np.repeat(scores[:, :1], scores.shape[1], axis=1), f"images that are all {colour}")


def deltas_are_added(trial: Trial) -> None:
    """Of 255 steps: to an image, or by its sender."""
    examples = trial.me.inputs.examples(trial.rows)
    assert examples.examples.images is not None
    draw = np.random.default_rng(0)
    steps = draw.integers(-40, 41, _shape(trial))
    task, rows = trial.me.inputs.task(), len(trial.rows)
    sent = np.clip(examples.examples.images.astype(np.int64) + steps, 0, 255).astype(np.uint8)
    changed = ExampleSet(Examples(images=sent), 0, None, examples.labels)
    delta = ImagePrompts((steps / 255).astype(np.float32)[None, None])
    by_service = trial.score((task, examples), delta, rows)
    by_sender = trial.score((task, changed), _filled(trial, 0.0), rows)
    trial.same(by_service.answer, by_sender.answer, "a delta, and an image with it", tolerance=PIXEL_TOLERANCE)
