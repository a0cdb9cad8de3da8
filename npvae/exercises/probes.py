"""What returned arrays alone do not tell: how a function draws and whom it calls, seen by wrapping what it uses."""

import contextlib
import functools
import inspect
import sys

import numpy as np

from npvae.exercises.course import MODULES
from npvae.exercises.outcome import Wrong, described, names_of


@contextlib.contextmanager
def spied(function, watch):
    """Let `watch`, name → function of (arguments, result), see each call of these names that `function` makes.

    They are wrapped where the function looks them up: among the names of its module, or in an earlier exercise's.
    """
    places = [names_of(function)]
    places += [sys.modules[module].__dict__ for module in MODULES if module in sys.modules]
    before = [(place, name, place[name]) for place in places for name in watch if callable(place.get(name))]

    def wrapped(called, see):
        signature = inspect.signature(called)

        @functools.wraps(called)
        def wrapper(*arguments, **named):
            given = copied((arguments, named))
            result = called(*arguments, **named)
            in_order, keywords = given
            if keywords:  # which come in any order
                bound = signature.bind(*in_order, **keywords)
                in_order = bound.args + tuple(bound.kwargs.values())
            see(in_order, copied(result))
            return result

        return wrapper

    try:
        for place, name, called in before:
            place[name] = wrapped(called, watch[name])
        yield
    finally:
        for place, name, called in before:
            place[name] = called


def copied(value):
    """A copy of arrays, and of tuples, lists and dicts of them."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {name: copied(item) for name, item in value.items()}
    return type(value)(map(copied, value)) if type(value) in (tuple, list) else value


def kind(array, **candidates):
    """Which of the candidates an array is equal to, in words; 'something else' if none."""
    for name, candidate in candidates.items():
        if np.shape(array) == np.shape(candidate) and np.allclose(array, candidate, rtol=1e-4, atol=1e-6):
            return name.replace("_", " ")
    return "something else"


def initialized(initialize, pixels, hidden, latent):
    """How initial parameters are distributed."""
    p = initialize(pixels, hidden, latent, np.random.default_rng(0))
    other = initialize(pixels, hidden, latent, np.random.default_rng(1))
    if not isinstance(p, dict):
        raise Wrong(f"returns a {type(p).__name__}, expected a dict")
    sizes = {"1": (pixels, hidden), "2": (hidden, 2 * latent), "3": (latent, hidden), "4": (hidden, pixels)}
    asked = {}
    for layer, (inputs, outputs) in sizes.items():
        for name, shape in {f"W{layer}": (inputs, outputs), f"b{layer}": (outputs,)}.items():
            if name not in p:
                raise Wrong(f"{name} is missing in what it returns")
            array = np.asarray(p[name])
            if array.shape != shape:
                hint = ["Is it transposed?"] if array.shape == shape[::-1] else []
                raise Wrong(f"{name} has the shape {array.shape}, expected {shape}", *hint)
            asked[f"the dtype of {name}"] = str(array.dtype)
            scaled = array.astype(float) * np.sqrt(inputs)
            largest = np.abs(scaled).max()
            if name.startswith("W"):
                asked[f"the largest of {name}, in units of 1/√I"] = _rounded(largest)
                asked[f"the mean of {name}, in units of 1/√I"] = _rounded(scaled.mean())
                asked[f"the standard deviation of {name}, in units of 1/√I"] = _rounded(scaled.std())
            else:
                asked[f"{name} is within ±1/√I"] = bool(largest <= 1.001)
                asked[f"{name} fills this interval"] = bool(scaled.max() > 0.5 and scaled.min() < -0.5)
            asked[f"{name} is another with another generator"] = not np.array_equal(array, other[name])
    return asked


def _rounded(number):
    """To one digit behind the point: two, random by their nature, are compared."""
    return round(float(number), 1) + 0.0


def trained(train_epoch, p, images, batch_size, learning_rate):
    """What two epochs of training do: which images they show, with which noise, and how they step."""
    steps, shown, noise, losses, ok = [], [], [], [], {}
    gradient, p, moments = (
        {},
        dict(p),
        {name: (np.zeros_like(array), np.zeros_like(array)) for name, array in p.items()},
    )
    now = {name: (p[name].copy(), *map(np.copy, moments[name])) for name in p}
    groups = [*([name] for name in p), list(p), sorted(p)]  # one array, or all of them behind each other in one
    sizes = [sum(p[name].size for name in group) for group in groups]

    def expect(what, right):
        ok[what] = ok.get(what, True) and bool(right)

    def saw_forward(arguments, result):
        given, x, eps = arguments[:3]
        gradient.clear()
        pixels = np.rint(np.asarray(x, float) * 255)
        match = (pixels[:, None] == images[None]).all(axis=2)
        shown.append([int(row.argmax()) if row.any() else -1 for row in match])
        noise.append(np.asarray(eps))
        losses.append((float(np.mean(result[0])), len(pixels)))
        expect(
            "forward is given the parameters after the last step", all(_near(given[name], now[name][0]) for name in now)
        )

    def saw_backward(arguments, result):
        gradient.clear()
        gradient.update(result)
        expect(
            "backward is given the parameters after the last step",
            all(_near(arguments[0][name], now[name][0]) for name in now),
        )

    def saw_step(arguments, result):
        theta, g, m, v, t = arguments[:5]
        steps.append(int(t))

        def nth(group, i):
            return joined([now[name][i] for name in group])

        def of_batch(group):
            return gradient and _near(g, joined([gradient[name] for name in group]))

        of_size = [group for group, size in zip(groups, sizes, strict=True) if size == np.size(theta)]
        group = next((group for group in of_size if _near(theta, nth(group, 0))), None)
        expect("adam_step is given the parameters after the last step", group)
        group = group or next(filter(of_batch, of_size), None)
        expect("adam_step is given the gradient of the batch", group and of_batch(group))
        expect(
            "adam_step is given the moments after the last step",
            group and _near(m, nth(group, 1)) and _near(v, nth(group, 2)),
        )
        expect("adam_step is given the learning rate", learning_rate in [a for a in arguments[5:] if np.ndim(a) == 0])
        if group and len(group) == 1:
            now[group[0]] = tuple(map(np.copy, result))
        elif group:
            ends = np.cumsum([now[name][0].size for name in group])[:-1]
            parts = [np.split(np.ravel(array), ends) for array in result]
            for name, *three in zip(group, *parts, strict=True):
                now[name] = tuple(part.reshape(now[name][0].shape).copy() for part in three)

    rng, t, asked, returned = np.random.default_rng(0), 0, {}, {}
    for epoch in ("first", "second"):
        began = len(losses)
        result = None
        with spied(train_epoch, {"forward": saw_forward, "backward": saw_backward, "adam_step": saw_step}):
            result = train_epoch(p, moments, t, images, batch_size, rng, learning_rate)
        if not (isinstance(result, (tuple, list)) and len(result) == 2):
            raise Wrong(f"returns {described(result)}, expected two things: loss and t")
        if len(losses) == began:
            raise Wrong("does not call forward of exercise 7")
        if not steps:
            raise Wrong("does not call adam_step of exercise 8")
        loss, t = result
        epoch_losses = losses[began:]
        values, counts = np.array(epoch_losses).T
        order = [i for batch in shown[began:] for i in batch]
        asked[f"what the {epoch} epoch shows"] = _shown([i for i in order if i >= 0], len(images))
        asked[f"pixels of the {epoch} epoch that are no image's, scaled"] = order.count(-1)
        asked[f"the sizes of the batches of the {epoch} epoch"] = tuple(len(batch) for batch in shown[began:])
        returned[f"the loss returned by the {epoch} epoch is"] = kind(
            loss,
            the_mean_over_images=(values * counts).sum() / counts.sum(),
            the_mean_over_batches=values.mean(),
            the_sum_over_batches=values.sum(),
            the_sum_over_images=(values * counts).sum(),
            that_of_the_last_batch=values[-1],
        )
        returned[f"the t returned by the {epoch} epoch"] = int(t)
    half = len(shown) // 2
    first, second = ([i for batch in part for i in batch] for part in (shown[:half], shown[half:]))
    asked["the order is shuffled"] = first != sorted(first)
    asked["the order is drawn anew in each epoch"] = first != second
    asked["the shape of eps"] = noise[0].shape
    flat = np.concatenate([eps.ravel() for eps in noise])
    asked["noise is drawn anew for each batch"] = len({eps[..., :1, :].tobytes() for eps in noise}) == len(noise)
    asked["each image of a batch has noise of its own"] = all(
        len({row.tobytes() for row in np.moveaxis(eps, -2, 0)}) == eps.shape[-2] for eps in noise
    )
    asked["noise has the mean 0"] = bool(abs(flat.mean()) < 0.2)
    asked["noise has the variance 1"] = bool(abs(flat.var() - 1) < 0.3)
    asked["the t of the steps"] = tuple(sorted(set(steps)))
    asked |= ok
    asked["p holds the parameters after the last step"] = all(_near(p[name], now[name][0]) for name in now)
    asked["moments hold those after the last step"] = all(
        _near(moments[name][0], now[name][1]) and _near(moments[name][1], now[name][2]) for name in now
    )
    return asked | returned


def _shown(order, count):
    """How often images were shown, in words that do not depend on how the order was drawn."""
    often = np.bincount(order, minlength=count)
    if often.max() == 1:
        shown = int(often.sum())
        return "every image once" if shown == count else f"{shown} of the {count} images, once each"
    return "some images more than once" + (", and others never" if not often.all() else "")


def sampled(sample, p, count):
    """What new images are decoded from, and what is returned of them."""
    seen = []
    with spied(sample, {"decode": lambda arguments, result: seen.append((np.asarray(arguments[1]), result[1]))}):
        images = sample(p, count, np.random.default_rng(0))
    again = sample(p, count, np.random.default_rng(1))
    if not seen:
        raise Wrong("does not call decode of exercise 7")
    if images is None:
        raise Wrong("returns None", "Is a `return` missing?")
    images = np.asarray(images)
    z, logits = (np.concatenate(arrays) for arrays in zip(*seen, strict=True))
    if images.shape != (count, p["W4"].shape[1]):
        raise Wrong(f"the images have the shape {images.shape}, expected {(count, p['W4'].shape[1])}")
    return {
        "the shape of z": z.shape,
        "the mean of z": _rounded(z.mean()),
        "the variance of z": _rounded(z.var()),
        "z can be negative": bool((z < 0).any()),
        "what is returned": kind(
            images,
            the_sigmoid_of_the_logits=(1 + np.tanh(logits / 2)) / 2,
            the_logits=logits,
            the_softplus_of_the_logits=np.logaddexp(0, logits),
            the_tanh_of_the_logits=np.tanh(logits),
            black_and_white_pixels=np.where(np.isin(images, [0, 1]), images, -1),
        ),
        "another generator gives other images": not np.array_equal(images, again),
    }


def joined(arrays):
    """Several arrays behind each other in one; one alone as it is."""
    return arrays[0] if len(arrays) == 1 else np.concatenate([array.ravel() for array in arrays])


def _near(a, b):
    if np.shape(a) != np.shape(b):
        return False
    return bool(((np.abs(a - b) <= 1e-5 * np.abs(b) + 1e-12) | (np.isnan(a) & np.isnan(b))).all())
