"""Exercise 7: the whole VAE, forward and backward."""

import numpy as np

from npvae.exercises.course import Case, Function, Mistake, solved

FORWARD = "notebook 5, “Go forward”"
DECODER = "notebook 5, “Go backward through the decoder”"
NOISE = "notebook 5, “Go backward through the noise”"
ENCODER = "notebook 5, “Go backward through the encoder”"
MUSEUM = "notebook 10, “{}”"
SKIPPED = MUSEUM.format("7. A skipped activation")
rng = np.random.default_rng(7)


def parameters(D, H, J, rng):
    """Random parameters, the biases too: with biases of zero, a forgotten bias would go unnoticed."""
    shapes = {"W1": (D, H), "b1": (H,), "W2": (H, 2 * J), "b2": (2 * J,)}
    shapes |= {"W3": (J, H), "b3": (H,), "W4": (H, D), "b4": (D,)}
    return {name: rng.normal(0, 0.5, shape) for name, shape in shapes.items()}


P = parameters(6, 5, 3, rng)
BACK = parameters(6, 5, 3, rng)
SQUARE = parameters(4, 4, 4, rng)


def inputs(L, B, D, J):
    return {"x": rng.uniform(size=(B, D)), "eps": rng.normal(size=(L, B, J))}


def with_more_values(names, p, values):
    """What else a learner's own `forward` keeps for his `backward`, beside the values that it must."""
    kept = names["forward"](p, values["x"], values["eps"])[1]
    return {"p": p, "values": kept | values}


def backward(name, p, L, B):
    x, eps = inputs(L, B, len(p["W1"]), len(p["W3"])).values()
    return Case(name, p=p, values=solved()["ex07_vae"].forward(p, x, eps)[1])


def certain(p, factor):
    """Parameters with which the decoder is sure of its pixels."""
    return p | {"W4": factor * p["W4"], "b4": factor * p["b4"]}


def single(arrays):
    return {name: array.astype(np.float32) for name, array in arrays.items()}


FUNCTIONS = {
    "encode": Function(
        outputs=("h", "mu", "logvar"),
        read=FORWARD,
        cases=[
            Case("in a typical case", p=P, x=rng.uniform(size=(4, 6))),
            Case("in a typical case, with all sizes the same", p=SQUARE, x=rng.uniform(size=(4, 4))),
            Case("with one example", p=P, x=rng.uniform(size=(1, 6))),
        ],
        mistakes=[
            Mistake(
                "the tanh is skipped",
                "Two linear layers behind each other are one linear layer. Skipped in the way back as well, it is a correct VAE, only not the one that was meant, and no gradient check sees it.",
                ('tanh(dense(x, p["W1"], p["b1"]))', 'dense(x, p["W1"], p["b1"])'),
                read=SKIPPED,
            ),
            Mistake(
                "mu and logvar are swapped",
                "The first J columns are mu.",
                ("mu, logvar = np.split", "logvar, mu = np.split"),
            ),
            Mistake(
                "mu and logvar are every other column",
                "The first J columns are mu, the last J are logvar.",
                (
                    'np.split(dense(h, p["W2"], p["b2"]), 2, axis=1)',
                    'dense(h, p["W2"], p["b2"])[:, ::2], dense(h, p["W2"], p["b2"])[:, 1::2]',
                ),
            ),
            Mistake(
                "there is a tanh at the outputs, too",
                "mu and logvar may be any numbers; a tanh would keep them within ±1.",
                (
                    'np.split(dense(h, p["W2"], p["b2"]), 2, axis=1)',
                    'np.split(tanh(dense(h, p["W2"], p["b2"])), 2, axis=1)',
                ),
            ),
            Mistake("the second layer's b is forgotten", "", ('p["b2"]', '0 * p["b2"]')),
            Mistake("the first layer's b is forgotten", "", ('p["b1"]', '0 * p["b1"]')),
            Mistake(
                "the exponential of logvar is returned",
                "The network gives log σ²; the exponential is taken where σ is needed.",
                ("return h, mu, logvar", "return h, mu, np.exp(logvar)"),
            ),
            Mistake(
                "logvar is halved",
                "The network gives log σ²; half of it is log σ, which is taken where σ is needed.",
                ("return h, mu, logvar", "return h, mu, logvar / 2"),
            ),
            Mistake(
                "h is what goes into the tanh",
                "h is what comes out of it.",
                ("return h, mu, logvar", 'return dense(x, p["W1"], p["b1"]), mu, logvar'),
            ),
        ],
        hints=[
            "Two dense layers with a tanh between them. Then split the columns.",
            "dense(h, W2, b2) is (B, 2J): mu is [:, :J], logvar is [:, J:].",
            'h = tanh(dense(x, p["W1"], p["b1"]));  mu, logvar = np.split(dense(h, p["W2"], p["b2"]), 2, axis=1)',
        ],
    ),
    "decode": Function(
        outputs=("g", "logits"),
        read=FORWARD,
        cases=[
            Case("in a typical case", p=P, z=rng.normal(size=(5, 3))),
            Case("in a typical case, with all sizes the same", p=SQUARE, z=rng.normal(size=(4, 4))),
            Case("with one example", p=P, z=rng.normal(size=(1, 3))),
        ],
        mistakes=[
            Mistake(
                "the tanh is skipped",
                "Two linear layers behind each other are one linear layer.",
                ('tanh(dense(z, p["W3"], p["b3"]))', 'dense(z, p["W3"], p["b3"])'),
                read=SKIPPED,
            ),
            Mistake(
                "the probabilities are returned, not the logits",
                "From logits the log-likelihood cannot overflow; the sigmoid is for looking at images.",
                ('return g, dense(g, p["W4"], p["b4"])', 'return g, (1 + np.tanh(dense(g, p["W4"], p["b4"]) / 2)) / 2'),
            ),
            Mistake(
                "there is a tanh at the outputs, too",
                "A logit may be any number: within ±1 no pixel could ever be sure.",
                ('return g, dense(g, p["W4"], p["b4"])', 'return g, tanh(dense(g, p["W4"], p["b4"]))'),
            ),
            Mistake("the second layer's b is forgotten", "", ('p["b4"]', '0 * p["b4"]')),
            Mistake("the first layer's b is forgotten", "", ('p["b3"]', '0 * p["b3"]')),
            Mistake(
                "the two are returned in the wrong order",
                "g comes first.",
                ('return g, dense(g, p["W4"], p["b4"])', 'return dense(g, p["W4"], p["b4"]), g'),
            ),
            Mistake(
                "there is a softplus in the place of the tanh",
                "",
                ('tanh(dense(z, p["W3"], p["b3"]))', 'np.logaddexp(0, dense(z, p["W3"], p["b3"]))'),
            ),
        ],
        hints=[
            "The same form as the encoder, in the other direction. Is the last layer followed by anything?",
            "Logits are the outputs of the last dense layer as they are.",
            'g = tanh(dense(z, p["W3"], p["b3"]));  logits = dense(g, p["W4"], p["b4"])',
        ],
    ),
    "forward": Function(
        outputs=("loss", "values"),
        read=FORWARD,
        cases=[
            Case("in a typical case, with L = 1", p=P, **inputs(1, 4, 6, 3)),
            Case("with L = 3 draws", p=P, **inputs(3, 4, 6, 3)),
            Case("with one example", p=P, **inputs(1, 1, 6, 3)),
            Case("where pixels are certain, with logits of some thousands", p=certain(P, 4000), **inputs(1, 4, 6, 3)),
            Case("in float32, with logits of some tens", p=single(certain(P, 20)), **single(inputs(1, 4, 6, 3))),
        ],
        mistakes=[
            Mistake(
                "the KL is forgotten",
                "Nothing then keeps q near the prior: it is an autoencoder, and images decoded from the prior are no digits.",
                ("gaussian_kl(mu, logvar) - log_p_x.mean(axis=0)", "-log_p_x.mean(axis=0)"),
            ),
            Mistake(
                "the KL has the wrong sign",
                "The loss is −ELBO = KL − log p(x|z). With −KL the model is paid for moving away from the prior, without limit.",
                ("gaussian_kl(mu, logvar) - ", "-gaussian_kl(mu, logvar) - "),
                read=MUSEUM.format("5. KL with the wrong sign"),
            ),
            Mistake(
                "log p(x|z) has the wrong sign",
                "The loss is −ELBO = KL − log p(x|z).",
                ("- log_p_x.mean", "+ log_p_x.mean"),
            ),
            Mistake(
                "it is the ELBO, not −ELBO",
                "The loss is what descent makes smaller.",
                (
                    "loss = (gaussian_kl(mu, logvar) - log_p_x.mean(axis=0)).mean()",
                    "loss = -(gaussian_kl(mu, logvar) - log_p_x.mean(axis=0)).mean()",
                ),
            ),
            Mistake("log p(x|z) is forgotten", "", (" - log_p_x.mean(axis=0)", "")),
            Mistake(
                "the loss is summed over the images, not averaged",
                "In nats per image it does not depend on the size of the batch, and neither does the gradient.",
                ("- log_p_x.mean(axis=0)).mean()", "- log_p_x.mean(axis=0)).sum()"),
            ),
            Mistake(
                "log p(x|z) is averaged over the pixels",
                "It is summed over the pixels; with a mean the KL weighs D times too much, and the posterior collapses.",
                ("bernoulli_log_density(x, logits)", "bernoulli_log_density(x, logits) / D"),
                read=MUSEUM.format("6. A mean where a sum belongs"),
            ),
            Mistake(
                "the KL is averaged over the latents",
                "It is summed over the latents.",
                ("gaussian_kl(mu, logvar) - ", "gaussian_kl(mu, logvar) / J - "),
            ),
            Mistake(
                "the KL counts twice",
                "Is there a ½ too few, or is the KL summed twice? As it is, β = 2.",
                ("gaussian_kl(mu, logvar) - ", "2 * gaussian_kl(mu, logvar) - "),
                read=MUSEUM.format("4. KL without its ½"),
            ),
            Mistake("the KL counts half", "", ("gaussian_kl(mu, logvar) - ", "gaussian_kl(mu, logvar) / 2 - ")),
            Mistake(
                "the draws are summed, not averaged",
                "With L draws there is a 1/L.",
                ("log_p_x.mean(axis=0)", "log_p_x.sum(axis=0)"),
            ),
            Mistake(
                "the decoder is given mu, not z",
                "Without noise it is an ordinary autoencoder with a penalty.",
                ("z = reparameterize(mu, logvar, eps)", "z = mu + 0 * eps"),
            ),
            Mistake(
                "mu is decoded, not z, though z is right",
                "Without noise it is an ordinary autoencoder with a penalty.",
                ("decode(p, z.reshape(L * B, J))", "decode(p, np.broadcast_to(mu, z.shape).reshape(L * B, J))"),
            ),
            Mistake(
                "the logits come back with draws and examples swapped",
                "The rows must come back in the order in which they went: reshape (L · B, D) to (L, B, D).",
                ("logits.reshape(L, B, D)", "logits.reshape(B, L, D).swapaxes(0, 1)"),
            ),
            Mistake(
                "the decoder is given the noise, not z",
                "Then the images have no way through z at all.",
                ("z = reparameterize(mu, logvar, eps)", "z = 0 * mu + eps"),
            ),
            Mistake(
                "exp(logvar), the variance, is used as the standard deviation",
                "σ = exp(logvar / 2).",
                ("reparameterize(mu, logvar, eps)", "reparameterize(mu, 2 * logvar, eps)"),
                read=MUSEUM.format("3. exp(logvar) used as a standard deviation"),
            ),
            Mistake(
                "draws and examples are swapped in the rows that the decoder is given",
                "The rows must come back in the order in which they went: reshape (L, B, J) to (L · B, J), and (L · B, D) back to (L, B, D).",
                ("z.reshape(L * B, J)", "z.swapaxes(0, 1).reshape(L * B, J)"),
            ),
            Mistake(
                "y is computed and its logarithm taken",
                "Where y is exactly 0 or 1, log 0 is −inf and 0 · inf is nan. `bernoulli_log_density` knows about that.",
                (
                    "bernoulli_log_density(x, logits)",
                    "(x * np.log(1 / (1 + np.exp(-logits))) + (1 - x) * np.log(1 - 1 / (1 + np.exp(-logits)))).sum(axis=-1)",
                ),
            ),
            Mistake(
                "the (1 − x) term of log p(x|z) is missing",
                "x log y pays for ink where it should be, and nothing for ink anywhere else.",
                ("bernoulli_log_density(x, logits)", "(x * (logits - np.logaddexp(0, logits))).sum(axis=-1)"),
                read=MUSEUM.format("8. The (1 − x) term is missing"),
            ),
            Mistake(
                "the loss is that of the first image only",
                "",
                ("- log_p_x.mean(axis=0)).mean()", "- log_p_x.mean(axis=0))[0]"),
            ),
            Mistake(
                "the loss is divided by the number of pixels",
                "The unit is nats per image. As a step of Adam it is the same; as a number it is not a log-probability.",
                ("- log_p_x.mean(axis=0)).mean()", "- log_p_x.mean(axis=0)).mean() / D"),
            ),
        ],
        hints=[
            "Five lines: encode, reparameterize, decode, log p(x|z), and the loss of KL and log p(x|z).",
            "decode takes rows: z.reshape(L * B, J), and its logits come back by reshape(L, B, D). log p(x|z) is then (L, B), the KL (B,).",
            "loss = (gaussian_kl(mu, logvar) - bernoulli_log_density(x, logits).mean(axis=0)).mean(), and a dict with x, eps, h, mu, logvar, z, g, logits",
        ],
    ),
    "backward": Function(
        read=NOISE,
        extended=with_more_values,
        cases=[
            backward("in a typical case, with L = 1", P, 1, 4),
            backward("in a typical case, with L = 3 draws", BACK, 3, 4),
            backward("with all sizes the same", SQUARE, 1, 4),
            backward("with one example", P, 1, 1),
            backward("where pixels are certain, with logits of some thousands", certain(P, 4000), 1, 4),
        ],
        mistakes=[
            Mistake(
                "the 1/B of log p(x|z) is missing",
                "The loss is a mean over the images, so its derivative has a 1/B, in both of its terms.",
                ("/ (L * B)", "/ L"),
                read=DECODER,
            ),
            Mistake(
                "the 1/B of the KL is missing",
                "The loss is a mean over the images: the KL's derivative has a 1/B, too. (d_z has its own already.)",
                ("kl_d_mu / B", "kl_d_mu"),
                ("kl_d_logvar / B", "kl_d_logvar"),
            ),
            Mistake(
                "the 1/B is missing everywhere",
                "It is the derivative of a sum over the images; the loss is their mean.",
                ("/ (L * B)", "/ L"),
                ("kl_d_mu / B", "kl_d_mu"),
                ("kl_d_logvar / B", "kl_d_logvar"),
            ),
            Mistake("the 1/L is missing", "The loss is a mean over the draws.", ("/ (L * B)", "/ B")),
            Mistake(
                "the KL's derivative is forgotten",
                "mu and logvar reach the loss along two roads: through z, and straight through the KL.",
                ("    d_mu = d_mu + kl_d_mu / B\n", ""),
                ("    d_logvar = d_logvar + kl_d_logvar / B\n", ""),
            ),
            Mistake(
                "the KL's derivative with respect to mu is forgotten",
                "mu reaches the loss along two roads.",
                ("    d_mu = d_mu + kl_d_mu / B\n", ""),
            ),
            Mistake(
                "the KL's derivative with respect to logvar is forgotten",
                "logvar reaches the loss along two roads.",
                ("    d_logvar = d_logvar + kl_d_logvar / B\n", ""),
            ),
            Mistake(
                "what comes back through z is forgotten",
                "mu and logvar reach the loss along two roads; without the first, the encoder never learns what the decoder needs.",
                ("d_mu + kl_d_mu / B", "kl_d_mu / B"),
                ("d_logvar + kl_d_logvar / B", "kl_d_logvar / B"),
            ),
            Mistake(
                "what comes back through z to logvar is forgotten",
                "logvar reaches the loss along two roads.",
                ("d_logvar + kl_d_logvar / B", "kl_d_logvar / B"),
            ),
            Mistake(
                "the KL's derivative is subtracted",
                "The loss is KL − log p(x|z): the KL counts with a plus.",
                ("d_mu + kl_d_mu / B", "d_mu - kl_d_mu / B"),
                ("d_logvar + kl_d_logvar / B", "d_logvar - kl_d_logvar / B"),
                read=MUSEUM.format("5. KL with the wrong sign"),
            ),
            Mistake(
                "the sign of the KL's derivative with respect to logvar is turned round",
                "",
                ("d_logvar + kl_d_logvar / B", "d_logvar - kl_d_logvar / B"),
            ),
            Mistake(
                "the derivative of log p(x|z) has the wrong sign",
                "The loss has −log p(x|z): d_logits = (y − x) / (L B).",
                ("-bernoulli_log_density_gradient", "bernoulli_log_density_gradient"),
                read=DECODER,
            ),
            Mistake(
                "the tanh of the decoder is skipped",
                "What comes from behind g must pass the tanh before it reaches the dense layer.",
                ("d_a = tanh_backward(d_g, g)", "d_a = d_g"),
                read=DECODER,
            ),
            Mistake(
                "the tanh of the encoder is skipped",
                "What comes from behind h must pass the tanh before it reaches the dense layer.",
                ("dense_backward(tanh_backward(d_h, h), x", "dense_backward(d_h, x"),
                read=ENCODER,
            ),
            Mistake(
                "both tanh are skipped",
                "What comes from behind h and g must pass the tanh before it reaches the dense layer.",
                ("d_a = tanh_backward(d_g, g)", "d_a = d_g"),
                ("dense_backward(tanh_backward(d_h, h), x", "dense_backward(d_h, x"),
                read=SKIPPED,
            ),
            Mistake(
                "mu and logvar are joined in the wrong order",
                "The first J columns belong to mu, forward and backward.",
                ("[d_mu, d_logvar]", "[d_logvar, d_mu]"),
                read=ENCODER,
            ),
            Mistake(
                "the derivative of the sigmoid is multiplied in once more",
                "In x − y it has cancelled already.",
                (
                    "-bernoulli_log_density_gradient(x, logits)",
                    "-bernoulli_log_density_gradient(x, logits) / np.cosh(logits / 2) ** 2 / 4",
                ),
                read=MUSEUM.format("9. An extra y (1 − y)"),
            ),
            Mistake(
                "the derivative of log p(x|z) is divided by the number of pixels",
                "log p(x|z) is summed over the pixels.",
                ("/ (L * B)", "/ (L * B * D)"),
                read=MUSEUM.format("6. A mean where a sum belongs"),
            ),
            Mistake(
                "the KL's derivative is twice what it should be",
                "",
                ("kl_d_mu / B", "2 * kl_d_mu / B"),
                ("kl_d_logvar / B", "2 * kl_d_logvar / B"),
                read=MUSEUM.format("4. KL without its ½"),
            ),
            Mistake(
                "the draws of d_z are swapped with the examples",
                "Rows come back in the order in which they went.",
                ("d_z.reshape(L, B, J)", "d_z.reshape(B, L, J).swapaxes(0, 1)"),
            ),
            Mistake(
                "the derivative goes uphill",
                "It is the derivative of the ELBO; the loss is −ELBO.",
                ("    return d", "    return {name: -array for name, array in d.items()}"),
            ),
        ],
        hints=[
            "Walk `forward` back, line for line. Which of its lines has the loss in it, and what does it depend on?",
            "d_logits = −bernoulli_log_density_gradient(x, logits) / (L B); then the decoder's two layers; then d_mu and d_logvar: each has two terms, one through z, and one from the KL, over B.",
            "d_mu, d_logvar = reparameterize_gradient(d_z.reshape(L, B, J), logvar, eps), plus gaussian_kl_gradient(mu, logvar) / B; joined by np.concatenate(…, axis=1) they are what dense_backward of W2 is given",
        ],
    ),
}
