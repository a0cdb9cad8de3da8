"""What the mistake in a gradient looks like, in words: a wrong array beside the right one.

What was seen is stated; what may have caused it is called a guess.
"""

import re

import numpy as np

CLOSE = 1e-6  # relative to the largest entry: two arrays that are so much alike are called the same
LISTED = 6  # so many places are named one by one


def diagnose(analytic, numerical, wrong, theta, others, along, right="the derivative", of="with respect to"):
    """What a wrong array, of a gradient say, has in common with the right one: a list of sentences, never empty.

    Parameters
    ----------
    analytic : array
        The gradient in question.
    numerical, wrong : arrays of its shape
        The derivative, NaN where it was not asked for or not to be had; whether an element is wrong, False there.
    theta : array of its shape
        The parameters themselves.
    others : dict of str to array
        The derivatives with respect to other arrays, by name.
    along : float or None
        By what factor the gradient is off along all random directions, if by one.
    right, of : str
        What the right array is called, and what stands between that and the name of another array.
    """
    known = np.isfinite(numerical)
    looked_at = "" if known.all() else " wherever it was compared"
    if not analytic.any():
        return ["it is zero everywhere", "a guess: it is never written, or the backward pass ends before it"]
    factor = factor_between(analytic[known], numerical[known]) if known.all() else along
    if factor is not None and abs(factor - 1) > CLOSE:
        return [f"it is {factor:.6g} times {right}", *causes(factor)]
    for seen, candidate in (rearranged(numerical, right) | named(others, f"{right} {of}")).items():
        if alike(analytic, candidate) and not alike(candidate, numerical):
            return [f"it is {seen}"]
    excess = analytic[known] - numerical[known]
    for what, penalty in {"the parameters themselves": theta, "their signs": np.sign(theta)}.items():
        weight = factor_between(excess, penalty[known])
        if weight is not None:
            guess = (
                "a guess: a penalty on the weights that the gradient has and the loss has not, or the other way round"
            )
            return [f"it is {right} plus {weight:.6g} times {what}{looked_at}", guess]
    if len(excess) > 1 and alike(excess, np.full_like(excess, excess[0])):
        return [f"it is {right} plus {excess[0]:.6g}{looked_at}"]
    place = where(wrong, known)
    if not analytic[wrong].any():
        return [f"{place}; there it is zero"]
    factor = factor_between(analytic[wrong], numerical[wrong])
    if factor is None:
        return [f"{place}; in no simple proportion"]
    if abs(factor - 1) <= CLOSE:
        return [f"{place}; by {np.abs(excess).max():.2g} at most"]
    return [f"{place}; there it is {factor:.6g} times {right}", *causes(factor)]


def alike(a, b):
    """Whether two arrays have one shape and, to `CLOSE`, the same numbers."""
    return a.shape == b.shape and bool(np.abs(a - b).max() <= CLOSE * np.abs(b).max())  # False for NaN


def factor_between(a, b):
    """The number c with a = c b, both (N,); None if there is none."""
    largest = np.abs(b).max()
    if not 0 < largest < np.inf:
        return None
    a, b = a / largest, b / largest  # so that no square overflows
    factor = float((a * b).sum() / (b * b).sum())
    return factor if factor and alike(a, factor * b) else None


def rearranged(numerical, right):
    """An array in the ways in which it is mistaken for itself: what that is called → array."""
    if numerical.ndim != 2:
        return {f"{right} in reverse order": numerical[::-1]} if numerical.ndim else {}
    square = numerical.shape[0] == numerical.shape[1]
    return ({f"{right} transposed": numerical.T} if square else {}) | {
        f"{right} transposed, its numbers laid out in the wrong shape": numerical.T.reshape(numerical.shape),
        f"{right} with its rows in reverse order": numerical[::-1],
        f"{right} with its columns in reverse order": numerical[:, ::-1],
    }


def named(others, right_of):
    return {f"{right_of} {name}: two arrays were mixed up?": array for name, array in others.items()}


def where(wrong, known):
    """Which elements are wrong, as a sentence, by slices along an axis if that says it in fewer words."""
    views = {"element": (wrong, known)}
    for axis, kind in enumerate(
        ("row", "column") if wrong.ndim == 2 else [f"slice along axis {i}" for i in range(wrong.ndim)]
    ):
        others = tuple(i for i in range(wrong.ndim) if i != axis)
        if others:
            views[kind] = wrong.any(others), known.any(others)
    kind = min(views, key=lambda kind: (views[kind][0][views[kind][1]].all(), views[kind][0].sum()))
    bad, asked = views[kind]
    only, compared = ("only ", "") if known.all() else ("", " compared")
    if bad[asked].all():
        return f"every element{compared} is wrong"
    places = [str(list(map(int, place)) if len(place) > 1 else int(place[0])) for place in np.argwhere(bad)]
    if bad.ndim == 1 and len(bad) % 2 == 0 and len(bad) > 2:
        half = np.arange(len(bad)) < len(bad) // 2
        for name, part in (("first", half), ("second", ~half)):
            if (bad == part)[asked].all():
                return f"{only}the {name} half of its {asked.sum()} {kind}s{compared} is wrong"
    if len(places) > LISTED:
        return f"{len(places)} of its {asked.sum()} {kind}s{compared} are wrong, the first {places[0]}"
    are = "are" if len(places) > 1 else "is"
    kinds = re.sub("^[a-z]+", r"\g<0>s", kind) if len(places) > 1 else kind  # rows; slices along axis 0
    return f"{only}{kinds} {', '.join(places)} of the {asked.sum()}{compared} {are} wrong"


def causes(factor):
    """Guesses at what makes a gradient so many times too large."""
    size, sign = abs(factor), ["a guess: a sign"] * (factor < 0)
    near = [n for n in (round(size), round(1 / size)) if n > 1 and min(abs(size / n - 1), abs(size * n - 1)) < CLOSE]
    if not near:
        return sign
    n, too_large = near[0], size > 1
    guesses = []
    if n == 2:
        guesses = (
            ["a guess: the ½ of a square is missing, or it counts twice"]
            if too_large
            else ["a guess: a ½ too many, or the 2 of a square is missing"]
        )
    mean = "a sum in the gradient, a mean" if too_large else "a mean in the gradient, a sum"
    return [*sign, *guesses, f"a guess: {mean} in the loss, over {n} things: a batch of {n}?"]
