"""Exercise 5: the KL divergence from the prior, in closed form."""

import numpy as np

from npvae.exercises.course import Case, Function, Mistake

READ = "notebook 4, “Take the KL in closed form”"
MUSEUM = "notebook 10, “{}”"
rng = np.random.default_rng(5)
mu, logvar = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
CASES = [
    Case("in a typical case", mu=mu, logvar=logvar),
    Case("in a typical case, with as many examples as latents", mu=mu[:3], logvar=logvar[:3]),
    Case("with one example", mu=mu[:1], logvar=logvar[:1]),
    Case("with one latent", mu=mu[:, :1], logvar=logvar[:, :1]),
    Case("where q is the prior", mu=np.zeros((2, 3)), logvar=np.zeros((2, 3))),
    Case("where q is very narrow or very wide, with logvar of ±30", mu=mu[:2], logvar=np.array([[-30.0, 0, 30]] * 2)),
]

FUNCTIONS = {
    "gaussian_kl": Function(
        outputs=("KL",),
        read=READ,
        cases=CASES,
        mistakes=[
            Mistake(
                "the ½ is missing",
                "The KL then counts twice, as with β = 2: a higher loss, and another balance of the two terms. Made in the derivative as well, no gradient check sees it.",
                ("-0.5 * (", "-("),
                read=MUSEUM.format("4. KL without its ½"),
            ),
            Mistake(
                "the sign is turned round",
                "The KL is never negative. With a minus the model is paid for moving away from the prior, without limit.",
                ("-0.5", "0.5"),
                read=MUSEUM.format("5. KL with the wrong sign"),
            ),
            Mistake(
                "logvar is taken for log σ",
                "σ² = exp(logvar), and log σ² = logvar: no factor of 2 anywhere.",
                ("1 + logvar - mu**2 - np.exp(logvar)", "1 + 2 * logvar - mu**2 - np.exp(2 * logvar)"),
                read=MUSEUM.format("3. exp(logvar) used as a standard deviation"),
            ),
            Mistake(
                "exp(logvar / 2), that is σ, is in the place of σ²",
                "The formula has σ² = exp(logvar).",
                ("np.exp(logvar)", "np.exp(logvar / 2)"),
                read=MUSEUM.format("3. exp(logvar) used as a standard deviation"),
            ),
            Mistake(
                "exp(logvar) is taken for σ and squared",
                "exp(logvar) is σ² already.",
                ("np.exp(logvar)", "np.exp(logvar) ** 2"),
                read=MUSEUM.format("3. exp(logvar) used as a standard deviation"),
            ),
            Mistake(
                "latents are averaged, not summed",
                "The KL of independent latents is the sum of theirs.",
                (".sum(axis=-1)", ".mean(axis=-1)"),
                read=MUSEUM.format("6. A mean where a sum belongs"),
            ),
            Mistake(
                "everything is summed, examples too",
                "Each example has a KL of its own: sum over the last axis.",
                (".sum(axis=-1)", ".sum()"),
            ),
            Mistake(
                "everything is averaged",
                "Each example has a KL of its own, summed over its latents.",
                (".sum(axis=-1)", ".mean()"),
            ),
            Mistake("it is summed over the examples", "Latents are the last axis.", (".sum(axis=-1)", ".sum(axis=0)")),
            Mistake("nothing is summed", "The KL of an image is the sum over its latents.", (".sum(axis=-1)", "")),
            Mistake("the 1 is missing", "Then the KL of the prior from itself is not 0.", ("(1 + logvar", "(logvar")),
            Mistake("mu is not squared", "A mean of −1 is as far from the prior as one of 1.", ("mu**2", "mu")),
            Mistake("mu² has the wrong sign", "A mean away from 0 must cost something.", ("- mu**2", "+ mu**2")),
            Mistake(
                "logvar has the wrong sign",
                "Then a narrow q is paid for, without limit.",
                ("+ logvar", "- logvar"),
            ),
            Mistake("exp(logvar) has the wrong sign", "", ("- np.exp", "+ np.exp")),
            Mistake("the exponential is forgotten", "σ² = exp(logvar).", ("np.exp(logvar)", "logvar")),
            Mistake(
                "the two distributions are swapped",
                "KL(q ‖ p) is not KL(p ‖ q): the average is over q.",
                ("-0.5 * (1 + logvar - mu**2 - np.exp(logvar))", "-0.5 * (1 - logvar - (1 + mu**2) * np.exp(-logvar))"),
            ),
        ],
        hints=[
            "Everything that you need is in the formula at the top of the file. What is log σ² called here, and what is σ²?",
            "log σ² is logvar itself, and σ² is exp(logvar). Sum over the last axis, the latents; the examples stay apart.",
            "-0.5 * (1 + logvar - mu**2 - np.exp(logvar)).sum(axis=-1)",
        ],
    ),
    "gaussian_kl_gradient": Function(
        outputs=("d_mu", "d_logvar"),
        read=READ,
        cases=CASES,
        mistakes=[
            Mistake(
                "the ½ of d_logvar is missing",
                "The ½ of mu² cancels with the 2 of the square; that of σ² stays.",
                ("(np.exp(logvar) - 1) / 2", "np.exp(logvar) - 1"),
            ),
            Mistake(
                "both are twice what they should be",
                "It is the derivative of a KL without its ½.",
                ("mu.copy()", "2 * mu"),
                ("(np.exp(logvar) - 1) / 2", "np.exp(logvar) - 1"),
                read=MUSEUM.format("4. KL without its ½"),
            ),
            Mistake(
                "d_mu has a 2 too many", "½ mu² has the derivative mu: the ½ and the 2 cancel.", ("mu.copy()", "2 * mu")
            ),
            Mistake(
                "d_mu has a ½ too many", "½ mu² has the derivative mu: the ½ and the 2 cancel.", ("mu.copy()", "mu / 2")
            ),
            Mistake(
                "the sign of both is turned round",
                "The KL has a minus in front of its bracket, and minuses in it.",
                ("mu.copy()", "-mu"),
                ("(np.exp(logvar) - 1) / 2", "(1 - np.exp(logvar)) / 2"),
                read=MUSEUM.format("5. KL with the wrong sign"),
            ),
            Mistake(
                "the sign of d_logvar is turned round",
                "Where σ is large, more σ costs more: the derivative is positive there.",
                ("np.exp(logvar) - 1", "1 - np.exp(logvar)"),
            ),
            Mistake("the sign of d_mu is turned round", "The KL grows as mu goes away from 0.", ("mu.copy()", "-mu")),
            Mistake(
                "the −1 is missing",
                "It is the derivative of log σ² = logvar. With it the derivative is 0 at the prior.",
                ("np.exp(logvar) - 1", "np.exp(logvar)"),
            ),
            Mistake(
                "the −1 is a +1", "At the prior the derivative must be 0.", ("np.exp(logvar) - 1", "np.exp(logvar) + 1")
            ),
            Mistake(
                "exp(logvar / 2), that is σ, is in the place of σ²",
                "The KL has σ² = exp(logvar), whose derivative is itself.",
                ("np.exp(logvar)", "np.exp(logvar / 2)"),
                read=MUSEUM.format("3. exp(logvar) used as a standard deviation"),
            ),
            Mistake(
                "logvar is taken for log σ",
                "exp(2 logvar) would be σ² if logvar were log σ.",
                ("(np.exp(logvar) - 1) / 2", "np.exp(2 * logvar) - 1"),
                read=MUSEUM.format("3. exp(logvar) used as a standard deviation"),
            ),
            Mistake(
                "it is the derivative with respect to σ",
                "σ − 1/σ is with respect to σ; with respect to logvar it is (σ² − 1) / 2.",
                ("(np.exp(logvar) - 1) / 2", "np.exp(logvar / 2) - np.exp(-logvar / 2)"),
            ),
            Mistake(
                "it is the derivative with respect to σ²",
                "½ (1 − 1/σ²) is with respect to σ²; with respect to its logarithm a factor σ² comes in.",
                ("(np.exp(logvar) - 1) / 2", "(1 - np.exp(-logvar)) / 2"),
            ),
            Mistake(
                "both are divided by the number of examples",
                "Here each image has a KL of its own; the average over the batch comes later, once.",
                ("mu.copy()", "mu / len(mu)"),
                ("(np.exp(logvar) - 1) / 2", "(np.exp(logvar) - 1) / 2 / len(mu)"),
            ),
            Mistake(
                "both are divided by the number of latents",
                "The KL is summed over latents.",
                ("mu.copy()", "mu / mu.shape[1]"),
                ("(np.exp(logvar) - 1) / 2", "(np.exp(logvar) - 1) / 2 / mu.shape[1]"),
                read=MUSEUM.format("6. A mean where a sum belongs"),
            ),
            Mistake(
                "the two are returned in the wrong order",
                "d_mu comes first.",
                ("return mu.copy(), (np.exp(logvar) - 1) / 2", "return (np.exp(logvar) - 1) / 2, mu.copy()"),
            ),
        ],
        hints=[
            "Each latent's KL depends on its own mu and logvar only: differentiate the formula term by term.",
            "d exp(logvar) / d logvar = exp(logvar). At the prior, mu = 0 and logvar = 0, both derivatives must be 0.",
            "d_mu = mu,  d_logvar = (np.exp(logvar) - 1) / 2",
        ],
    ),
}
