"""Exercise 10: new images, images decoded again, and the way from one to another."""

import numpy as np

from npvae.exercises import probes
from npvae.exercises.course import Case, Function, Mistake
from npvae.exercises.lessons.ex07_vae import parameters

READ = "notebook 8, “Draw something new”"
WALK = "notebook 8, “Walk from one image to another”"
SOFTPLUS = "notebook 10, “13. Softplus taken for a sigmoid when sampling”"
rng = np.random.default_rng(10)
P = parameters(6, 5, 3, rng)
X = rng.uniform(size=(7, 6))
SIGMOID = ("return sigmoid(logits)", "return logits")


def ways(*others):
    """What may be returned in place of the sigmoid of the logits."""
    return [
        Mistake(
            "the logits are returned", "A logit may be any number; sigmoid makes the probability of ink of it.", SIGMOID
        ),
        Mistake(
            "softplus is taken for a sigmoid",
            "The softplus is larger than the sigmoid, and exceeds 1 from a logit of 0.54 on: bolder strokes, and more of them.",
            ("sigmoid(logits)", "np.logaddexp(0, logits)"),
            read=SOFTPLUS,
        ),
        Mistake(
            "tanh is taken for a sigmoid",
            "tanh goes from −1 to 1, a probability from 0 to 1.",
            ("sigmoid(logits)", "np.tanh(logits)"),
        ),
        *others,
    ]


FUNCTIONS = {
    "sample": Function(
        read=READ,
        probe=probes.sampled,
        float32=False,
        cases=[Case("in a typical case, of 2,000 images", p=P, count=2000)],
        mistakes=ways(
            Mistake(
                "z is uniform between 0 and 1",
                "The prior is N(0, 1): the model was trained to spread its images over that.",
                ('rng.standard_normal((count, p["W3"].shape[0]))', 'rng.random((count, p["W3"].shape[0]))'),
                read="notebook 10, “1. Uniform noise”",
            ),
            Mistake(
                "z is uniform between −1 and 1",
                "The prior is N(0, 1).",
                ('rng.standard_normal((count, p["W3"].shape[0]))', 'rng.uniform(-1, 1, (count, p["W3"].shape[0]))'),
            ),
            Mistake(
                "z is 0",
                "All images are then the same.",
                ('rng.standard_normal((count, p["W3"].shape[0]))', 'np.zeros((count, p["W3"].shape[0]))'),
            ),
            Mistake(
                "z is twice as wide as the prior", "", ("rng.standard_normal((count", "2 * rng.standard_normal((count")
            ),
            Mistake(
                "the absolute values of normal numbers are taken",
                "",
                (
                    'rng.standard_normal((count, p["W3"].shape[0]))',
                    'np.abs(rng.standard_normal((count, p["W3"].shape[0])))',
                ),
            ),
            Mistake(
                "the pixels are black or white",
                "The probability of ink itself was asked for: a grey image.",
                ("sigmoid(logits)", "(rng.random(logits.shape) < sigmoid(logits)).astype(float)"),
            ),
            Mistake(
                "the generator is not used",
                "With a generator of its own, made with a fixed seed, the images are always the same.",
                ("z = rng.standard_normal", "z = np.random.default_rng(0).standard_normal"),
            ),
        ),
        hints=[
            "The prior of z is N(0, 1), one number for each latent. J is the number of rows of W3.",
            "z of shape (count, J) from rng.standard_normal; decode gives g and logits; ink is sigmoid(logits).",
            '_, logits = decode(p, rng.standard_normal((count, p["W3"].shape[0])));  sigmoid(logits)',
        ],
    ),
    "reconstruct": Function(
        outputs=("images",),
        read=READ,
        cases=[Case("in a typical case", p=P, x=X), Case("with one example", p=P, x=X[:1])],
        mistakes=ways(
            Mistake(
                "logvar is decoded, not mu", "encode returns h, mu, logvar.", ("_, mu, _ = encode", "_, _, mu = encode")
            ),
            Mistake("x is returned", "", ("return sigmoid(logits)", "return x.copy()")),
            Mistake("ink and paper are swapped", "", ("sigmoid(logits)", "1 - sigmoid(logits)")),
            Mistake(
                "the pixels are rounded",
                "The probability of ink itself was asked for.",
                ("sigmoid(logits)", "np.round(sigmoid(logits))"),
            ),
            Mistake(
                "the sigmoid is taken twice",
                "A probability is no logit.",
                ("sigmoid(logits)", "sigmoid(sigmoid(logits))"),
            ),
            Mistake("z is 0, whatever the image", "", ("decode(p, mu)", "decode(p, 0 * mu)")),
        ),
        hints=[
            "Encode, take the mean, decode.",
            "encode returns h, mu, logvar; decode returns g, logits.",
            "sigmoid(decode(p, encode(p, x)[1])[1])",
        ],
    ),
    "interpolate": Function(
        outputs=("images",),
        read=WALK,
        cases=[
            Case("in a typical case, in 5 steps", p=P, first=X[0], last=X[1], steps=5),
            Case("in two steps, which are the ends", p=P, first=X[2], last=X[3], steps=2),
            Case("between an image and itself", p=P, first=X[4], last=X[4], steps=3),
        ],
        mistakes=ways(
            Mistake(
                "the pixels are mixed, not the latents",
                "A mixture of two images shows both, one through the other; the way between them is in z.",
                (
                    "_, logits = decode(p, (1 - t) * mu[0] + t * mu[1])\n    return sigmoid(logits)",
                    "return (1 - t) * first + t * last",
                ),
            ),
            Mistake(
                "the pixels are mixed before they are encoded",
                "The straight line is between the two means, in z.",
                ("decode(p, (1 - t) * mu[0] + t * mu[1])", "decode(p, encode(p, (1 - t) * first + t * last)[1])"),
            ),
            Mistake(
                "the decoded images are mixed",
                "The straight line is in z, before the decoder.",
                (
                    "_, logits = decode(p, (1 - t) * mu[0] + t * mu[1])\n    return sigmoid(logits)",
                    "_, logits = decode(p, mu)\n    return (1 - t) * sigmoid(logits)[0] + t * sigmoid(logits)[1]",
                ),
            ),
            Mistake(
                "the logits are mixed",
                "The straight line is in z, before the decoder.",
                (
                    "_, logits = decode(p, (1 - t) * mu[0] + t * mu[1])",
                    "_, logits = decode(p, mu)\n    logits = (1 - t) * logits[0] + t * logits[1]",
                ),
            ),
            Mistake(
                "the last end is left out",
                "Both ends are included: np.linspace(0, 1, steps).",
                ("np.linspace(0, 1, steps)", "np.linspace(0, 1, steps, endpoint=False)"),
            ),
            Mistake(
                "both ends are left out",
                "Both ends are included: np.linspace(0, 1, steps).",
                ("np.linspace(0, 1, steps)", "np.linspace(0, 1, steps + 2)[1:-1]"),
            ),
            Mistake(
                "there is one image too few",
                "`steps` images, both ends among them.",
                ("np.linspace(0, 1, steps)", "np.linspace(0, 1, steps - 1)"),
            ),
            Mistake(
                "it goes from the last to the first", "", ("(1 - t) * mu[0] + t * mu[1]", "t * mu[0] + (1 - t) * mu[1]")
            ),
            Mistake(
                "there is one image too many",
                "`steps` images, both ends among them.",
                ("np.linspace(0, 1, steps)", "np.linspace(0, 1, steps + 1)"),
            ),
            Mistake(
                "the weights do not add up to 1",
                "(1 − t) of the one and t of the other.",
                ("(1 - t) * mu[0] + t * mu[1]", "mu[0] + t * mu[1]"),
            ),
            Mistake(
                "logvar is taken, not mu", "encode returns h, mu, logvar.", ("_, mu, _ = encode", "_, _, mu = encode")
            ),
        ),
        hints=[
            "A straight line from a to b: (1 − t) a + t b with t from 0 to 1. Between which two points is it here?",
            "Encode both images; t = np.linspace(0, 1, steps)[:, None] gives a row for each step.",
            "sigmoid(decode(p, (1 - t) * mu[0] + t * mu[1])[1])",
        ],
    ),
}
