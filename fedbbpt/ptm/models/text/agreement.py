"""Tells whether two ways of computing the same numbers agree, except for rounding."""

from torch import Tensor

RELATIVE_TOLERANCE, ROUNDING = 1e-3, 1e-5
"""Largest differences: relative to the range of an answer's numbers, and relative to the largest of them."""


def difference(ours: Tensor, theirs: Tensor) -> str | None:
    """Returns None if two answers `[..., K]` are the same except for rounding, otherwise a description.

    The tolerance follows the range of the numbers, since softmax ignores what all of them have in common.
    """
    largest, spread = float(theirs.abs().max()), float((theirs.amax(-1) - theirs.amin(-1)).max())
    gap = float((ours - theirs).abs().max())
    if gap <= RELATIVE_TOLERANCE * spread + ROUNDING * largest:  # false for NaN
        return None
    return f"by {gap:.2g}, where scores range over {spread:.2g}"
