"""Exercise 11: log p(x) by importance sampling."""

import numpy as np

from npvae.exercises.course import Case, Function, Mistake
from npvae.exercises.lessons.ex07_vae import parameters

READ = "notebook 9, “Average inside the logarithm”"
WEIGHTS = "notebook 9, “Look at the weights”"
rng = np.random.default_rng(11)
a = rng.normal(size=(5, 3))
mu, logvar = rng.normal(size=(4, 2)), rng.normal(size=(4, 2))
UNDERFLOW = (
    "e⁻¹⁰⁰⁰ is 0 and e¹⁰⁰⁰ is inf. Take the largest out of the exponentials, and put it back behind the logarithm."
)
COLUMNS = [
    Case("in a typical case", a=a),
    Case("in a typical case, with as many draws as examples", a=rng.normal(size=(4, 4))),
    Case("with one draw", a=a[:1]),
    Case("with one example", a=a[:, :1]),
    Case("with elements near −1000", a=a - 1000),
    Case("with elements near 1000", a=a + 1000),
    Case("with draws of very different size", a=a + np.array([[-2000.0], [0], [1000], [-1000], [0]])),
    Case("with columns of very different size", a=a + np.array([-2000.0, 0, 2000])),
]


def of_model(name, K, B, factor=1):
    p = parameters(6, 5, 2, rng)
    p["W4"] *= factor
    return Case(name, p=p, x=rng.uniform(size=(B, 6)), eps=rng.normal(size=(K, B, 2)))


FUNCTIONS = {
    "log_mean_exp": Function(
        outputs=("log mean exp",),
        read=READ,
        cases=COLUMNS,
        mistakes=[
            Mistake(
                "the maximum is not taken out",
                UNDERFLOW,
                ("highest + np.log(np.exp(a - highest).mean(axis=0))", "np.log(np.exp(a).mean(axis=0))"),
            ),
            Mistake(
                "the maximum is not put back",
                "What was taken out of the exponentials, exp(a − max), must be added behind the logarithm.",
                ("highest + np.log", "np.log"),
            ),
            Mistake(
                "the maximum is subtracted once more",
                "Taken out means − inside, and + behind the logarithm.",
                ("highest + np.log", "-highest + np.log"),
            ),
            Mistake(
                "it is a sum, not a mean",
                "The bound has 1/K in it: −log K is missing. With a sum, more draws make it grow without limit.",
                (".mean(axis=0)", ".sum(axis=0)"),
            ),
            Mistake(
                "it is the mean of a: the logarithm of each, then averaged",
                "log mean w is not mean log w: the second is the ELBO, and smaller (Jensen).",
                ("highest + np.log(np.exp(a - highest).mean(axis=0))", "a.mean(axis=0)"),
            ),
            Mistake("it is the maximum alone", "", ("highest + np.log(np.exp(a - highest).mean(axis=0))", "highest")),
            Mistake(
                "the mean is over the examples",
                "Draws are axis 0.",
                ("a.max(axis=0)", "a.max(axis=1)"),
                (
                    "highest + np.log(np.exp(a - highest).mean(axis=0))",
                    "highest + np.log(np.exp(a.T - highest).mean(axis=0))",
                ),
            ),
            Mistake("the mean is over everything", "Each example has a mean of its own.", (".mean(axis=0)", ".mean()")),
            Mistake(
                "one maximum is taken for all examples",
                "A column that is 2000 below the largest of all is 0 everywhere; each example needs its own maximum.",
                ("a.max(axis=0)", "a.max()"),
            ),
            Mistake(
                "what is taken out is not the maximum",
                "What is left must be 0 at most, so that nothing overflows: take the maximum.",
                ("a.max(axis=0)", "a.min(axis=0)"),
            ),
            Mistake(
                "the logarithm is forgotten",
                "",
                ("np.log(np.exp(a - highest).mean(axis=0))", "np.exp(a - highest).mean(axis=0)"),
            ),
            Mistake("the logarithm is to base 2", "Nats are natural logarithms.", ("np.log(", "np.log2(")),
        ],
        hints=[
            "np.exp(-1000) is 0: what does the logarithm of a mean of such numbers become?",
            "log mean exp(a) = c + log mean exp(a − c) for any c. Which c makes overflow impossible?",
            "highest = a.max(axis=0);  highest + np.log(np.exp(a - highest).mean(axis=0))",
        ],
    ),
    "normalized_weights": Function(
        outputs=("w",),
        read=WEIGHTS,
        cases=[Case(case.name, log_w=case.arguments["a"]) for case in COLUMNS],
        mistakes=[
            Mistake(
                "the weights are not normalized", "Their sum over the draws must be 1.", ("w / w.sum(axis=0)", "w")
            ),
            Mistake(
                "the maximum is not taken out",
                "e⁻¹⁰⁰⁰ is 0 and e¹⁰⁰⁰ is inf, and both quotients are nan. Take the largest out of the exponentials: in a quotient nothing needs to be put back.",
                ("log_w - log_w.max(axis=0)", "log_w"),
            ),
            Mistake(
                "what is taken out is not the maximum",
                "What is left must be 0 at most, so that nothing overflows: take the maximum.",
                ("log_w.max(axis=0)", "log_w.min(axis=0)"),
            ),
            Mistake(
                "they are normalized over the examples",
                "Each example's weights, over the draws (axis 0), add up to 1.",
                ("w / w.sum(axis=0)", "w / w.sum(axis=1, keepdims=True)"),
            ),
            Mistake(
                "they are normalized over everything",
                "Each example's weights add up to 1, not all together.",
                ("log_w.max(axis=0)", "log_w.max()"),
                ("w.sum(axis=0)", "w.sum()"),
            ),
            Mistake(
                "they are divided by the sum over everything",
                "Each example's weights add up to 1, not all together.",
                ("w.sum(axis=0)", "w.sum()"),
            ),
            Mistake(
                "they are divided by the mean, not the sum",
                "Their sum over the draws must be 1, not K.",
                ("w.sum(axis=0)", "w.mean(axis=0)"),
            ),
            Mistake(
                "one maximum is taken for all examples",
                "Each example needs its own.",
                ("log_w.max(axis=0)", "log_w.max()"),
            ),
            Mistake(
                "the logarithms are normalized, not the weights", "", ("np.exp(log_w - log_w.max(axis=0))", "log_w * 1")
            ),
            Mistake(
                "the logarithm of the normalized weights is returned",
                "",
                ("return w / w.sum(axis=0)", "return np.log(w / w.sum(axis=0))"),
            ),
            Mistake("the weights are squared", "", ("return w / w.sum(axis=0)", "return (w / w.sum(axis=0)) ** 2")),
            Mistake(
                "all draws get the same weight",
                "Those are the weights of the ELBO; here a draw that explains x better counts more.",
                ("np.exp(log_w - log_w.max(axis=0))", "np.ones_like(log_w)"),
            ),
            Mistake(
                "the sign of log w is turned round",
                "The largest weight belongs to the best draw.",
                ("np.exp(log_w - log_w.max(axis=0))", "np.exp(log_w.min(axis=0) - log_w)"),
            ),
        ],
        hints=[
            "w / Σ w does not change if all w of a column are multiplied by the same number.",
            "Multiply by exp(−max log w): then the largest is 1, and nothing overflows.",
            "w = np.exp(log_w - log_w.max(axis=0));  w / w.sum(axis=0)",
        ],
    ),
    "log_weights": Function(
        outputs=("log w",),
        read=READ,
        cases=[
            Case(
                "in a typical case, with K = 3",
                log_p_x=rng.normal(size=(3, 4)) - 9,
                z=rng.normal(size=(3, 4, 2)),
                mu=mu,
                logvar=logvar,
            ),
            Case("with one draw", log_p_x=rng.normal(size=(1, 4)), z=rng.normal(size=(1, 4, 2)), mu=mu, logvar=logvar),
            Case(
                "with one example",
                log_p_x=rng.normal(size=(3, 1)),
                z=rng.normal(size=(3, 1, 2)),
                mu=mu[:1],
                logvar=logvar[:1],
            ),
            Case(
                "where q is very narrow, with logvar of −30",
                log_p_x=rng.normal(size=(2, 4)),
                z=mu + rng.normal(size=(2, 4, 2)) * np.exp(-15),
                mu=mu,
                logvar=np.full((4, 2), -30.0),
            ),
        ],
        mistakes=[
            Mistake(
                "the prior is forgotten",
                "w = p(x|z) p(z) / q(z|x): p(x, z) is p(x|z) p(z).",
                ("log_p_x + log_p_z - log_q_z", "log_p_x - log_q_z"),
            ),
            Mistake(
                "q is forgotten",
                "The draws came from q, so each is to be divided by how often it comes.",
                ("log_p_x + log_p_z - log_q_z", "log_p_x + log_p_z"),
            ),
            Mistake("log q is added, not subtracted", "w = p(x|z) p(z) / q(z|x).", ("- log_q_z", "+ log_q_z")),
            Mistake(
                "the prior and q are swapped",
                "p(z) is above the line, q(z|x) below it.",
                ("log_p_x + log_p_z - log_q_z", "log_p_x - log_p_z + log_q_z"),
            ),
            Mistake("the likelihood is forgotten", "", ("log_p_x + log_p_z", "log_p_z")),
            Mistake(
                "log σ² is forgotten in log q",
                "log N(z; mu, σ²) = −½ (log 2π + log σ² + (z − mu)²/σ²).",
                (" + logvar", ""),
            ),
            Mistake(
                "σ is in the place of σ²",
                "(z − mu)² is divided by σ² = exp(logvar).",
                ("np.exp(logvar)", "np.exp(logvar / 2)"),
            ),
            Mistake(
                "(z − mu)² is multiplied by σ², not divided", "", ("(z - mu) ** 2 / np.exp", "(z - mu) ** 2 * np.exp")
            ),
            Mistake("mu is forgotten in q", "q is around mu; the prior is around 0.", ("(z - mu) ** 2", "z**2")),
            Mistake("the square is missing in q", "", ("(z - mu) ** 2", "(z - mu)")),
            Mistake(
                "the ½ of both densities is missing",
                "log N has −½ in front of everything.",
                ("log_p_z = -0.5", "log_p_z = -1.0"),
                ("log_q_z = -0.5", "log_q_z = -1.0"),
            ),
            Mistake(
                "the ½ of log q is missing",
                "log N has −½ in front of everything.",
                ("log_q_z = -0.5", "log_q_z = -1.0"),
            ),
            Mistake(
                "the ½ of the prior is missing",
                "log N has −½ in front of everything.",
                ("log_p_z = -0.5", "log_p_z = -1.0"),
            ),
            Mistake(
                "log 2π is only in one of the densities",
                "It cancels only if it is in both.",
                ("log_p_z = -0.5 * (np.log(2 * np.pi) + z**2)", "log_p_z = -0.5 * (z**2)"),
            ),
            Mistake(
                "the latents of both densities are averaged, not summed",
                "The density of independent latents is a product.",
                ("(np.log(2 * np.pi) + z**2).sum", "(np.log(2 * np.pi) + z**2).mean"),
                ("/ np.exp(logvar)).sum", "/ np.exp(logvar)).mean"),
            ),
            Mistake("log σ is in the place of log σ²", "log σ² is logvar itself.", ("+ logvar +", "+ logvar / 2 +")),
            Mistake(
                "the densities are summed over the draws, not the latents",
                "The latents are the last axis.",
                ("z**2).sum(axis=-1)", "z**2).sum(axis=0)"),
                ("np.exp(logvar)).sum(axis=-1)", "np.exp(logvar)).sum(axis=0)"),
            ),
            Mistake(
                "the exponential of the weights is returned",
                "They are of the size e⁻¹⁰⁰: stay with logarithms.",
                ("return log_p_x + log_p_z - log_q_z", "return np.exp(log_p_x + log_p_z - log_q_z)"),
            ),
        ],
        hints=[
            "Two normal log-densities of z: one around 0 with variance 1, one around mu with variance exp(logvar). Both summed over the latents.",
            "log N(z; mu, σ²) = −½ (log 2π + log σ² + (z − mu)² / σ²).",
            "log_p_x - 0.5 * (z**2).sum(axis=-1) + 0.5 * (logvar + (z - mu) ** 2 / np.exp(logvar)).sum(axis=-1): log 2π cancels",
        ],
    ),
    "log_likelihood": Function(
        outputs=("log p(x)",),
        read="notebook 9, “Know the truth, once”",
        cases=[
            of_model("in a typical case, with K = 7", 7, 4),
            of_model("in a typical case, with K = 3", 3, 3),
            of_model("with one draw", 1, 4),
            of_model("with one example", 5, 1),
            of_model("where log p(x) is below −1000", 4, 3, 900),
            of_model("where log p(x) is below −1000", 4, 3, 900),
        ],
        mistakes=[
            Mistake(
                "the logarithms of the weights are averaged",
                "That is the ELBO. log p(x) is the logarithm of the averaged weights.",
                (
                    "log_mean_exp(log_weights(log_p_x, z, mu, logvar))",
                    "log_weights(log_p_x, z, mu, logvar).mean(axis=0)",
                ),
            ),
            Mistake(
                "the weights are summed, not averaged",
                "−log K is missing.",
                ("return log_mean_exp(", "return np.log(K) + log_mean_exp("),
            ),
            Mistake(
                "the prior and q are forgotten",
                "The mean of p(x|z) over draws from q is not p(x): weight them with p(z) / q(z|x).",
                ("log_weights(log_p_x, z, mu, logvar)", "log_p_x"),
            ),
            Mistake(
                "z is the noise itself: draws from the prior, weighted as if they came from q",
                "z = mu + σ · eps.",
                ("reparameterize(mu, logvar, eps)", "eps"),
            ),
            Mistake(
                "all draws are the mean of q", "z = mu + σ · eps.", ("reparameterize(mu, logvar, eps)", "mu + 0 * eps")
            ),
            Mistake(
                "the sign is turned round", "log p(x), not the loss.", ("return log_mean_exp", "return -log_mean_exp")
            ),
            Mistake(
                "the maximum is not taken out",
                UNDERFLOW,
                (
                    "log_mean_exp(log_weights(log_p_x, z, mu, logvar))",
                    "np.log(np.exp(log_weights(log_p_x, z, mu, logvar)).mean(axis=0))",
                ),
            ),
            Mistake(
                "the batch is averaged",
                "Each image has an estimate of its own.",
                (
                    "return log_mean_exp(log_weights(log_p_x, z, mu, logvar))",
                    "return log_mean_exp(log_weights(log_p_x, z, mu, logvar)).mean()",
                ),
            ),
            Mistake(
                "the draws and the examples are swapped",
                "The rows of the decoder come back as (K, B, D), in the order in which they went.",
                ("logits.reshape(K, B, D)", "logits.reshape(B, K, D).swapaxes(0, 1)"),
            ),
            Mistake(
                "the examples are averaged, not the draws",
                "",
                (
                    "log_mean_exp(log_weights(log_p_x, z, mu, logvar))",
                    "log_mean_exp(log_weights(log_p_x, z, mu, logvar).T)",
                ),
            ),
            Mistake(
                "p(x) is returned, not its logarithm",
                "",
                (
                    "return log_mean_exp(log_weights(log_p_x, z, mu, logvar))",
                    "return np.exp(log_mean_exp(log_weights(log_p_x, z, mu, logvar)))",
                ),
            ),
        ],
        hints=[
            "Encode, draw K times, decode all draws at once as K · B rows, weigh, average.",
            "log p(x|z) is (K, B): bernoulli_log_density with logits of shape (K, B, D).",
            "log_mean_exp(log_weights(bernoulli_log_density(x, logits), z, mu, logvar))",
        ],
    ),
}
