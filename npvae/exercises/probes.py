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
    seen = Training(p, images, learning_rate)
    rng, asked, returned, t = np.random.default_rng(0), {}, {}, 0
    for epoch in ("first", "second"):
        seen.begin()
        with spied(train_epoch, {"forward": seen.forward, "backward": seen.backward, "adam_step": seen.adam_step}):
            result = train_epoch(seen.p, seen.moments, t, images, batch_size, rng, learning_rate)
        loss, t = loss_and_t(result)
        seen.end()
        losses, counts = np.array(seen.losses).T
        asked[f"the pixels of the {epoch} epoch"] = seen.pixels
        known = seen.pixels != "something else"
        asked[f"what the {epoch} epoch shows"] = shown(seen.order, len(images)) if known else "no image as it is"
        asked[f"the sizes of the batches of the {epoch} epoch"] = tuple(map(int, counts))
        returned[f"the loss returned by the {epoch} epoch is"] = kind(
            loss,
            the_mean_over_images=(losses * counts).sum() / counts.sum(),
            the_mean_over_batches=losses.mean(),
            the_sum_over_batches=losses.sum(),
            the_sum_over_images=(losses * counts).sum(),
            the_sum_over_batches_divided_by_the_number_of_images=losses.sum() / counts.sum(),
            that_of_the_last_batch=losses[-1],
        )
        returned[f"the t returned by the {epoch} epoch"] = int(t)
    first, second = seen.orders
    asked["the order is shuffled"] = len(set(np.diff(first) % len(images))) > 1  # nor turned round, nor rotated
    asked["the order is drawn anew in each epoch"] = first != second
    asked |= about_noise(seen.noise)
    began = first, seen.noise[: len(seen.noise) // 2]
    asked["order and noise come from rng"] = from_generator(train_epoch, began, p, images, batch_size, learning_rate)
    asked["the t of the steps"] = tuple(sorted(set(seen.t)))
    asked |= seen.facts
    asked["p holds the parameters after the last step"] = all(near(seen.p[name], seen.now[name][0]) for name in p)
    asked["moments hold those after the last step"] = all(
        near(seen.moments[name][i], seen.now[name][i + 1]) for name in p for i in (0, 1)
    )
    return asked | returned


class Training:
    """What can be seen of a training from the calls that it makes."""

    def __init__(self, p, images, learning_rate):
        self.p = {name: array.copy() for name, array in p.items()}
        self.images, self.learning_rate = images, learning_rate
        self.moments = {name: (np.zeros_like(array), np.zeros_like(array)) for name, array in p.items()}
        self.now = {name: (p[name].copy(), *map(np.copy, self.moments[name])) for name in p}  # after the last step
        self.groups = [*([name] for name in p), list(p), sorted(p)]  # one array, or all of them behind each other
        self.orders, self.noise, self.t, self.facts, self.gradient = [], [], [], {}, {}
        self.first_gradient, self.values, self.stepped = {}, None, []

    def begin(self):
        self.order, self.losses, self.pixels = [], [], RIGHT_PIXELS
        self.orders.append(self.order)

    def end(self):
        self.all_stepped()
        if not self.losses:
            raise Wrong("does not call forward of exercise 7")
        if not self.t:
            raise Wrong("does not call adam_step of exercise 8")

    def note(self, what, found, right=True):
        """Keep what was found; of several times, the first at which it was not right."""
        if self.facts.setdefault(what, right) == right:
            self.facts[what] = found

    def given_parameters(self, called, p):
        current = all(near(p[name], self.now[name][0]) for name in self.p)
        self.note(f"{called} is given the parameters after the last step", current)

    def all_stepped(self):
        """At the end of a batch."""
        if self.losses:
            once = sorted(self.stepped) == sorted(self.p)
            stepped = ONCE if once else ", ".join(sorted(self.stepped)) or "nothing"
            self.note("what is stepped for each batch", stepped, ONCE)
        self.stepped = []

    def forward(self, arguments, result):
        p, x, eps = arguments[:3]
        self.all_stepped()
        self.gradient, self.values = {}, result[1]
        x, images = np.asarray(x, float), self.images.astype(float)
        same = {what: (np.abs(x[:, None] - of(images)[None]) < 1e-6).all(axis=2) for what, of in PIXELS.items()}
        what = next((what for what, found in same.items() if found.any(axis=1).all()), "something else")
        self.pixels = what if what != RIGHT_PIXELS else self.pixels
        self.order += map(int, same.get(what, np.zeros((len(x), 1))).argmax(axis=1))
        self.noise.append(np.asarray(eps))
        self.losses.append((float(np.mean(result[0])), len(x)))
        self.given_parameters("forward", p)

    def backward(self, arguments, result):
        p, values = arguments[:2]
        self.gradient, self.first_gradient = dict(result), self.first_gradient or dict(result)
        self.given_parameters("backward", p)
        fresh = not isinstance(values, dict) or all(
            near(values[n], self.values[n]) for n in ("z", "logits") if n in values
        )
        self.note("backward is given what forward has just returned", fresh)

    def adam_step(self, arguments, result):
        theta, g, m, v, t = arguments[:5]
        self.t.append(int(t))
        of_size = [group for group in self.groups if sum(self.now[n][0].size for n in group) == np.size(theta)]
        group = next((group for group in of_size if near(theta, self.joined(group, 0))), None)
        self.note("adam_step is given the parameters after the last step", group is not None)
        group = group or next((group for group in of_size if self.of_batch(g, group) == BATCH), None)
        gradient = self.of_batch(g, group) if group else "something else"
        self.note("the gradient that adam_step is given", gradient, BATCH)
        moments = group is not None and near(m, self.joined(group, 1)) and near(v, self.joined(group, 2))
        self.note("adam_step is given the moments after the last step", moments)
        rate, *others = [f"{float(a):g}" for a in arguments[5:] if np.ndim(a) == 0] or ["none"]
        self.note("the learning rate that adam_step is given", rate, f"{self.learning_rate:g}")
        unusual = ", ".join(constant for constant in others if constant not in USUAL)
        self.note("the other constants that adam_step is given", unusual or "the usual ones", "the usual ones")
        self.stepped += group or []
        if group:
            ends = np.cumsum([self.now[name][0].size for name in group])[:-1]
            parts = [np.split(np.ravel(array), ends) for array in result]
            for name, *three in zip(group, *parts, strict=True):
                self.now[name] = tuple(part.reshape(self.now[name][0].shape).copy() for part in three)

    def joined(self, group, i):
        """The parameters (i = 0) or moments of these arrays after the last step, in one array if there are several."""
        return joined([self.now[name][i] for name in group])

    def of_batch(self, g, group):
        """Which gradient it is, in words."""
        if not self.gradient:
            return "that of an earlier batch" if self.first_gradient else "something else"
        right, first = (joined([d[name] for name in group]) for d in (self.gradient, self.first_gradient))
        ways = {
            BATCH: right,
            "the gradient with the other sign": -right,
            "zero": 0 * right,
            "that of the first batch": first,
        }
        return next((what for what, array in ways.items() if near(g, array)), "something else")


BATCH = "that of the batch"
ONCE = "every array of p, once"
USUAL = {"0.9", "0.999", "1e-08"}  # Adam's β₁, β₂ and ε
RIGHT_PIXELS = "those of images, from 0 to 1"
PIXELS = {
    RIGHT_PIXELS: lambda images: images / 255,
    "those of images, from 0 to 255": lambda images: images,
    "those of images, divided by 256": lambda images: images / 256,
    "those of images, with ink and paper swapped": lambda images: 1 - images / 255,
    "those of images, black and white": lambda images: np.round(images / 255),
}


def loss_and_t(result):
    """What `train_epoch` returned."""
    if not (isinstance(result, (tuple, list)) and len(result) == 2):
        raise Wrong(f"returns {described(result)}, expected two things: loss and t")
    loss, t = result
    if isinstance(loss, (int, np.integer)) and not isinstance(t, (int, np.integer)):
        raise Wrong("returns t and the loss, expected the loss and t")
    if not isinstance(t, (int, np.integer)) or np.ndim(loss):
        raise Wrong(f"returns {described(loss)} and {described(t)}, expected a loss and a whole number")
    return float(loss), t


def shown(order, count):
    """How often images were shown, in words that do not depend on how the order was drawn."""
    often = np.bincount(order, minlength=count)
    if often.max() == 1:
        return "every image once" if often.all() else f"{often.sum()} of the {count} images, once each"
    return "some images more than once" + (", and others never" if not often.all() else "")


def about_noise(noise):
    """What a list of eps (L, B, J) looks like."""
    flat = np.concatenate([eps.ravel() for eps in noise]).astype(float)
    images = [image for eps in noise for image in np.moveaxis(eps, -2, 0)]  # (L, J) each
    different = len({image.tobytes() for image in images})
    return {
        "the shape of eps": noise[0].shape,
        "noise is drawn anew for each batch": len({eps[..., :1, :].tobytes() for eps in noise}) == len(noise),
        "each image has noise of its own": different > len(noise) or different == len(images),
        "each latent has noise of its own": all(len(np.unique(image)) == image.size for image in images),
        # of a thousand numbers, these limits are at least five standard errors wide
        "noise has the mean 0": bool(abs(flat.mean()) < 0.2),
        "noise has the variance 1": bool(abs(flat.var() - 1) < 0.3),
        "noise is spread as normal numbers are": spread_as_normal(flat, 0.08),
    }


def spread_as_normal(numbers, width):
    """Whether as many of the numbers are beyond 1 (up to `width`) and beyond 2 as of draws from N(0, 1)."""
    beyond = [(np.abs(numbers) > limit).mean() for limit in (1, 2)]
    return bool(abs(beyond[0] - 0.317) < width and 0.01 < beyond[1] < 0.085)


def from_generator(train_epoch, began, p, images, batch_size, learning_rate):
    """Whether the same generator gives the order and noise of the first epoch again, and another gives others."""
    drawn = []
    for seed in (0, 1):
        seen = Training(p, images, learning_rate)
        seen.begin()
        with spied(train_epoch, {"forward": seen.forward}):
            train_epoch(seen.p, seen.moments, 0, images, batch_size, np.random.default_rng(seed), learning_rate)
        drawn.append((seen.order, seen.noise))
    (order, noise), (again, again_noise), (other, other_noise) = began, *drawn
    same = order == again and all(map(np.array_equal, noise, again_noise))
    return same and order != other and not any(map(np.array_equal, noise, other_noise))


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
        "z is spread as normal numbers are": spread_as_normal(z, 0.04),
        "every z is drawn by itself": len(np.unique(z)) == z.size and not (np.diff(z[:, 0]) >= 0).all(),
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


def near(a, b):
    if np.shape(a) != np.shape(b):
        return False
    return bool(((np.abs(a - b) <= 1e-5 * np.abs(b) + 1e-12) | (np.isnan(a) & np.isnan(b))).all())
