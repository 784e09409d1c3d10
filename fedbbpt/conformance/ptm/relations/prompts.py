"""Relations about what a kind of prompt means: latent vectors, soft vectors and deltas of pixels."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fedbbpt.conformance.ptm.inputs import DIM, LENGTH, MATERIAL
from fedbbpt.conformance.ptm.target import Refused
from fedbbpt.conformance.ptm.trial import Trial
from fedbbpt.conformance.results import Broken, Skipped
from fedbbpt.seeds import normals32, sign_bits, signs_of
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
    Prompts,
    SoftPrompts,
    TextPrompts,
)

GRID, REFINEMENTS = 24, 4
"""Factors tried in one call, and the number of calls; each searches a finer range."""
SMALLEST_STD, GREATEST_STD = 1e-3, 1e1
"""Range in which the standard deviation of word embeddings is sought."""
STD_TOLERANCE = 1e-3
PIXEL_TOLERANCE = 1e-3
"""Allowed difference of scores if pixels are added in another order."""


def _latent(trial: Trial, count: int = 2) -> LatentPrompts:
    prompts = trial.prompts(count, kind=PromptKind.LATENT)
    assert isinstance(prompts, LatentPrompts)
    return prompts


def _offers(card: ModelCard, *kinds: PromptKind) -> None:
    for kind in kinds:
        if kind not in card.prompt_kinds:
            raise Skipped(f"needs {kind} prompts as well")


def zero_is_the_initial_prompt(trial: Trial) -> None:
    """Checks that z = 0 gets the same answer with every projection."""
    first = _latent(trial, 1)
    zero = replace(first, z=np.zeros((1, DIM), np.float32))
    projection = replace(first.projection, kind=ProjectionKind.NORMAL, seed=2**64 - 1, scale=3.0)
    other = LatentPrompts(np.zeros((1, 2 * DIM + 1), np.float32), projection)
    trial.require_same(trial.ask(other, twin=True).answer, trial.ask(zero).answer, "z = 0 with two projections")


def zero_is_zero_vectors(trial: Trial) -> None:
    """Checks that z = 0 without an initial text gets the same answer as soft vectors of zeros."""
    _offers(trial.card, PromptKind.SOFT)
    if not trial.card.embedding_width:
        raise Skipped("the card does not tell the embedding width")
    first = _latent(trial, 1)
    zero = LatentPrompts(np.zeros((1, DIM), np.float32), replace(first.projection, initial_text=""))
    soft = SoftPrompts(np.zeros((1, LENGTH, trial.card.embedding_width), np.float32), trial.injection)
    trial.require_same(trial.ask(soft, twin=True).answer, trial.ask(zero).answer, "z = 0 and soft vectors of zeros")


def zero_is_the_text(trial: Trial) -> None:
    """Checks that z = 0 with a word as initial text gets the same answer as the word as a text prompt.

    The word must be one token, as the kit does not know how many tokens a longer text has. It tries several words, of
    which at least one is a single token.
    """
    _offers(trial.card, PromptKind.TEXT)
    if trial.injection in (Injection.CONCAT, Injection.CLASS) or not trial.me.inputs.prompt_first:
        raise Skipped(f"{trial.injection} does not insert vectors where a text prompt stands")
    first, problems = _latent(trial, 1), []
    for word in MATERIAL["words"]:
        projection = replace(first.projection, initial_text=word, tokens=1)
        zero = trial.ask(LatentPrompts(np.zeros((1, DIM), np.float32), projection))
        text = trial.ask(TextPrompts((word,)), twin=True)
        try:
            trial.require_same(
                text.answer, zero.answer, f"z = 0 with the initial text {word!r}, and the text prompt {word!r}"
            )
            return
        except Broken as problem:
            problems.append(str(problem))
    raise Broken(problems[0])


def zero_in_the_classes_is_their_text(trial: Trial) -> None:
    """Checks that z = 0 with a word as initial text, in the class texts, is the same as classes that begin with it.

    As above, the kit tries several words. The classes begin with white space, as they do after the word.
    """
    if Injection.CLASS not in trial.card.injections:
        raise Skipped("the card lists no injection class")
    task, examples = trial.me.inputs.task(), trial.me.inputs.examples(trial.rows)
    first, problems = _latent(trial, 1), []
    for word in MATERIAL["words"]:
        projection = replace(first.projection, initial_text=word, tokens=1, injection=Injection.CLASS)
        zero = LatentPrompts(np.zeros((1, DIM), np.float32), projection)
        spaced, longer = (
            replace(task, classes=tuple(f"{start} {text}" for text in task.classes)) for start in ("", word)
        )
        try:
            handles = [trial.register(one, examples) for one in (spaced, longer)]
        except Refused as refused:
            if refused.reason == "BudgetSpent":
                raise Skipped("needs more label tokens") from None
            raise
        found, wanted = (
            trial.score(handle, prompts, len(trial.rows)).answer
            for handle, prompts in zip(handles, (zero, _no_prompt(trial)), strict=True)
        )
        try:
            trial.require_same(found, wanted, f"z = 0 with {word!r} in the class texts, and classes with {word!r}")
            return
        except Broken as problem:
            problems.append(str(problem))
    raise Broken(problems[0])


def _no_prompt(trial: Trial) -> Prompts:
    if PromptKind.TEXT in trial.card.prompt_kinds:
        return TextPrompts(("",))
    _offers(trial.card, PromptKind.IMAGE)
    return _filled(trial, 0.0)


def scale_multiplies_z(trial: Trial) -> None:
    """Checks that a doubled scale is the same as a doubled z."""
    first = _latent(trial)
    scaled = replace(first, projection=replace(first.projection, scale=2 * first.projection.scale))
    doubled = replace(first, z=2 * first.z)
    trial.require_same(
        trial.ask(doubled, twin=True).answer, trial.ask(scaled).answer, "a doubled scale and a doubled z"
    )


def seed_and_z_matter(trial: Trial) -> None:
    """Checks that another seed, kind of projection or z changes the scores."""
    if trial.card.output is Output.LABEL_ARGMAX:
        raise Skipped("all prompts may choose the same class")
    first = _latent(trial)
    answer = trial.ask(first).answer
    for name, other in (
        ("seed", replace(first, projection=replace(first.projection, seed=first.projection.seed + 1))),
        ("kind", replace(first, projection=replace(first.projection, kind=ProjectionKind.NORMAL))),
        ("z", replace(first, z=first.z[:, ::-1].copy())),
    ):
        if np.array_equal(trial.ask(other).answer, answer):
            raise Broken(f"a different {name} gets the same scores")


def projection_is_the_protocols(trial: Trial) -> None:
    """Checks latent prompts against soft prompts that the kit projects by the formula of docs/protocol.md.

    The card does not report the standard deviation of the word embeddings, so it is fitted for two projections, and
    both must give the same value.
    """
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
        a = _projection_matrix(kind, seed, LENGTH * trial.card.embedding_width)
        vectors = a @ first.z[0] / np.sqrt(np.float32(DIM))
        stds.append(_fitting(trial, vectors.reshape(LENGTH, -1), wanted, f"{kind} matrix"))
    if not np.isclose(stds[0], stds[1], rtol=STD_TOLERANCE):
        raise Broken(f"one projection is scaled by {stds[0]:.6g}, another by {stds[1]:.6g}")


def _projection_matrix(kind: ProjectionKind, seed: int, rows: int) -> npt.NDArray[np.float32]:
    """Returns the matrix A `[rows, DIM]` of docs/protocol.md, whole, where the services compute it in blocks."""
    if kind is ProjectionKind.NORMAL:
        return normals32(seed, (rows, DIM))
    return signs_of(sign_bits(seed, rows * DIM), rows * DIM).astype(np.float32).reshape(rows, DIM)


def _fitting(trial: Trial, vectors: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32], what: str) -> float:
    """Returns the factor with which soft vectors get the wanted scores. Raises Broken if there is none."""
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
    trial.require_same(
        scores[best], wanted[0], f"latent prompts and the {what} of docs/protocol.md", tolerance=STD_TOLERANCE
    )
    return float(np.exp(grid[best]))


def place_in_front_is_prefix(trial: Trial) -> None:
    """Checks that both injections agree if the template begins with its prompt."""
    if not trial.me.inputs.prompt_first or not {Injection.PREFIX, Injection.PLACE} <= trial.card.injections:
        raise Skipped("needs injections prefix and place, and a template that begins with its prompt")
    prompts = trial.prompts()
    assert isinstance(prompts, SoftPrompts)
    prefix, place = (replace(prompts, injection=each) for each in (Injection.PREFIX, Injection.PLACE))
    trial.require_same(trial.ask(place, twin=True).answer, trial.ask(prefix).answer, "the injections place and prefix")


# Images


def _shape(trial: Trial) -> tuple[int, int, int]:
    assert trial.card.image_shape is not None, "the cases of these relations need a model of images"
    return trial.card.image_shape


def _filled(trial: Trial, value: float) -> ImagePrompts:
    return ImagePrompts(np.full((1, 1, *_shape(trial)), value, np.float32))


def one_delta_for_all_examples(trial: Trial) -> None:
    """Checks that one delta means the same as that delta for each example."""
    prompts = trial.prompts(2)
    assert isinstance(prompts, ImagePrompts)
    each = ImagePrompts(np.repeat(prompts.deltas, len(trial.rows), axis=1))
    what = "one delta for all examples, and the same delta for each"
    trial.require_same(trial.ask(each, twin=True).answer, trial.ask(prompts).answer, what)


def each_example_has_its_delta(trial: Trial) -> None:
    """Checks that deltas for each example are applied in order."""
    trial.require_scores_of_rows()
    rows = trial.rows[:2]
    apart = trial.prompts(2)
    assert isinstance(apart, ImagePrompts)
    alone = [trial.ask(ImagePrompts(apart.deltas[at : at + 1]), [row]).answer[0, 0] for at, row in enumerate(rows)]
    joined = trial.ask(ImagePrompts(np.swapaxes(apart.deltas, 0, 1)), rows, twin=True).answer[0]
    trial.require_same(
        joined, np.stack(alone), "a delta for each of two examples, and each example alone with its delta"
    )


def pixels_are_cut_off(trial: Trial) -> None:
    """Checks that a delta of 1 makes all images white, and one of -1 makes them black."""
    trial.require_scores_of_rows()
    for delta, colour in ((1.0, "white"), (-1.0, "black")):
        scores = trial.ask(_filled(trial, delta)).answer
        trial.require_same(scores, np.repeat(scores[:, :1], scores.shape[1], axis=1), f"images that are all {colour}")


def deltas_are_added(trial: Trial) -> None:
    """Checks deltas of whole 255ths against images to which the kit has added them."""
    examples = trial.me.inputs.examples(trial.rows)
    draw = np.random.default_rng(0)
    steps = draw.integers(-40, 41, _shape(trial))
    task, rows = trial.me.inputs.task(), len(trial.rows)
    sent = np.clip(examples.examples.pixels().astype(np.int64) + steps, 0, 255).astype(np.uint8)
    changed = ExampleSet(Examples(images=sent), 0, None, examples.labels)
    delta = ImagePrompts((steps / 255).astype(np.float32)[None, None])
    by_service = trial.score((task, examples), delta, rows)
    by_sender = trial.score((task, changed), _filled(trial, 0.0), rows)
    trial.require_same(
        by_service.answer,
        by_sender.answer,
        "an image with a delta, and an image to which it was added",
        tolerance=PIXEL_TOLERANCE,
    )
