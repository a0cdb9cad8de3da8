"""Exercise 6: the reparameterization trick."""

import numpy as np

from npvae.exercises.course import Case, Function, Mistake

READ = "notebook 3, “Second idea: move the noise outside”"
BACKWARD = "notebook 3, “Write it as the VAE does”"
SIGMA = "notebook 10, “3. exp(logvar) used as a standard deviation”"
rng = np.random.default_rng(6)


def forward(name, L, B, J):
    return Case(name, mu=rng.normal(size=(B, J)), logvar=rng.normal(size=(B, J)), eps=rng.normal(size=(L, B, J)))


def backward(name, L, B, J):
    return Case(name, d_z=rng.normal(size=(L, B, J)), logvar=rng.normal(size=(B, J)), eps=rng.normal(size=(L, B, J)))


FUNCTIONS = {
    "reparameterize": Function(
        outputs=("z",),
        read=READ,
        cases=[
            forward("in a typical case, with L = 1", 1, 4, 3),
            forward("with L = 3 draws", 3, 4, 2),
            forward("with one example", 1, 1, 3),
            Case(
                "where q is very narrow or very wide, with logvar of ±30",
                mu=np.ones((2, 2)),
                logvar=np.array([[-30.0, 30.0]] * 2),
                eps=rng.normal(size=(1, 2, 2)),
            ),
        ],
        mistakes=[
            Mistake(
                "exp(logvar), the variance, is used as the standard deviation",
                "σ = exp(logvar / 2). The draws are too wide where σ > 1, too narrow where σ < 1. Made in the derivative as well, no gradient check sees it.",
                ("logvar / 2", "logvar"),
                read=SIGMA,
            ),
            Mistake(
                "logvar itself is used as the standard deviation",
                "logvar can be negative; σ = exp(logvar / 2).",
                ("np.exp(logvar / 2)", "logvar"),
                read=SIGMA,
            ),
            Mistake(
                "the sign in the exponent is turned round", "exp(−logvar / 2) is 1/σ.", ("logvar / 2", "-logvar / 2")
            ),
            Mistake(
                "the ½ is a 2",
                "logvar = log σ² = 2 log σ, so log σ is its half.",
                ("logvar / 2", "logvar * 2"),
                read=SIGMA,
            ),
            Mistake("mu is forgotten", "The draws are around mu.", ("mu + ", "0 * mu + ")),
            Mistake(
                "the noise is forgotten",
                "Then z is always mu, and nothing tells the encoder how sure to be.",
                (" * eps", " * 0 * eps"),
            ),
            Mistake("σ is forgotten", "Then every image has σ = 1.", ("np.exp(logvar / 2) * eps", "eps")),
            Mistake(
                "σ is added to the noise, not multiplied",
                "σ scales the noise.",
                ("np.exp(logvar / 2) * eps", "np.exp(logvar / 2) + eps"),
            ),
            Mistake(
                "mu is scaled by the noise, and σ is added",
                "z = mu + σ · eps: the noise belongs to σ.",
                ("mu + np.exp(logvar / 2) * eps", "mu * eps + np.exp(logvar / 2)"),
            ),
            Mistake(
                "the noise is subtracted",
                "The distribution is the same, because noise is symmetric, but z = mu + σ · eps was asked for, and the derivative follows from it.",
                ("mu + ", "mu - "),
            ),
            Mistake("the noise is squared", "", ("* eps", "* eps**2")),
        ],
        hints=[
            "Scale noise of variance 1 so that it has variance σ², then shift it.",
            "logvar = log σ², so log σ is its half: σ = exp(logvar / 2).",
            "mu + np.exp(logvar / 2) * eps",
        ],
    ),
    "reparameterize_gradient": Function(
        outputs=("d_mu", "d_logvar"),
        read=BACKWARD,
        cases=[
            backward("in a typical case, with L = 1", 1, 4, 3),
            backward("with L = 3 draws", 3, 4, 2),
            backward("with one example", 1, 1, 3),
        ],
        mistakes=[
            Mistake(
                "the ½ of d_logvar is missing",
                "σ = exp(logvar / 2), whose derivative with respect to logvar is σ / 2.",
                ("np.exp(logvar / 2) / 2", "np.exp(logvar / 2)"),
            ),
            Mistake(
                "it is the derivative with respect to σ",
                "dz/dσ = eps; logvar reaches z through σ, so dσ/dlogvar = σ / 2 is to be multiplied in.",
                (" * np.exp(logvar / 2) / 2", ""),
            ),
            Mistake(
                "exp(logvar), the variance, is used as the standard deviation",
                "σ = exp(logvar / 2).",
                ("np.exp(logvar / 2) / 2", "np.exp(logvar) / 2"),
                read=SIGMA,
            ),
            Mistake(
                "it is the derivative of a z with exp(logvar) as its standard deviation",
                "σ = exp(logvar / 2), in z and in its derivative.",
                ("np.exp(logvar / 2) / 2", "np.exp(logvar)"),
                read=SIGMA,
            ),
            Mistake("σ is forgotten", "dz/dlogvar = eps · σ / 2.", ("np.exp(logvar / 2) / 2", "0.5")),
            Mistake(
                "the noise is forgotten",
                "dz/dlogvar = eps · σ / 2: how z moves depends on the noise.",
                ("(d_z * eps)", "(d_z)"),
            ),
            Mistake(
                "d_z is forgotten in d_logvar",
                "The chain rule multiplies by what comes from behind.",
                ("(d_z * eps)", "(eps)"),
            ),
            Mistake(
                "the draws are averaged, not summed",
                "mu is used in every draw, so the derivatives add up. The 1/L of the loss is in d_z already.",
                ("d_z.sum(axis=0)", "d_z.mean(axis=0)"),
                ("(d_z * eps).sum", "(d_z * eps).mean"),
            ),
            Mistake(
                "the draws of d_mu are averaged, not summed",
                "mu is used in every draw, so the derivatives add up.",
                ("d_z.sum(axis=0)", "d_z.mean(axis=0)"),
            ),
            Mistake(
                "the draws of d_logvar are averaged, not summed",
                "logvar is used in every draw, so the derivatives add up.",
                ("(d_z * eps).sum", "(d_z * eps).mean"),
            ),
            Mistake(
                "only the first draw is taken",
                "Every draw has a part in the loss; they add up.",
                ("d_z.sum(axis=0)", "d_z[0]"),
                ("(d_z * eps).sum(axis=0)", "(d_z * eps)[0]"),
            ),
            Mistake(
                "the draws are not summed",
                "mu and logvar are (B, J): sum over the L draws.",
                ("d_z.sum(axis=0)", "d_z"),
                ("(d_z * eps).sum(axis=0)", "(d_z * eps)"),
            ),
            Mistake(
                "d_mu is scaled by σ",
                "dz/dmu = 1.",
                ("d_mu = d_z.sum(axis=0)", "d_mu = d_z.sum(axis=0) * np.exp(logvar / 2)"),
            ),
            Mistake(
                "d_mu is multiplied by the noise",
                "dz/dmu = 1; the noise belongs to σ.",
                ("d_mu = d_z.sum(axis=0)", "d_mu = (d_z * eps).sum(axis=0)"),
            ),
            Mistake("the sign of d_logvar is turned round", "", ("d_logvar = (d_z", "d_logvar = (-d_z")),
            Mistake(
                "the two are returned in the wrong order",
                "d_mu comes first.",
                ("return d_mu, d_logvar", "return d_logvar, d_mu"),
            ),
            Mistake(
                "sum and product are in the wrong order",
                "Each draw has its own noise: multiply first, then sum over the draws.",
                ("(d_z * eps).sum(axis=0)", "d_z.sum(axis=0) * eps.sum(axis=0)"),
            ),
        ],
        hints=[
            "z = mu + σ · eps with eps fixed. What is dz/dmu? And dz/dσ?",
            "σ = exp(logvar / 2), so dσ/dlogvar = σ / 2. Every one of the L draws uses the same mu and logvar: their derivatives add up.",
            "d_mu = d_z.sum(axis=0),  d_logvar = (d_z * eps).sum(axis=0) * np.exp(logvar / 2) / 2",
        ],
    ),
}
