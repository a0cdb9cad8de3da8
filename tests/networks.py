"""Networks of plain NumPy with a gradient by hand, as someone would write them who does not know npvae."""

import itertools

import numpy as np

ACTIVATIONS = {  # a function that holds for complex numbers, or does not (abs), and its derivative
    "tanh": (np.tanh, lambda a: 1 - np.tanh(a) ** 2),
    "relu": (lambda a: np.maximum(a, 0), lambda a: (a > 0) * 1.0),
    "masked relu": (lambda a: a * (a.real > 0), lambda a: (a > 0) * 1.0),
    "leaky relu": (lambda a: np.where(a.real > 0, a, 0.1 * a), lambda a: np.where(a > 0, 1, 0.1)),
    "sigmoid": (lambda a: 1 / (1 + np.exp(-a)), lambda a: np.exp(-a) / (1 + np.exp(-a)) ** 2),
    "softplus": (lambda a: np.log1p(np.exp(a)), lambda a: 1 / (1 + np.exp(-a))),
    "sin": (np.sin, np.cos),
    "abs": (np.abs, np.sign),
}


def squared_error(y, t, labels):
    return ((y - t) ** 2).sum(), lambda: 2 * (y - t)


def absolute_error(y, t, labels):
    return np.abs(y - t).sum(), lambda: np.sign(y - t)


def cross_entropy(y, t, labels):
    highest = y.real.max(axis=1, keepdims=True)
    weights = np.exp(y - highest)
    total = weights.sum(axis=1, keepdims=True)
    chosen = np.eye(y.shape[1])[labels]
    return (np.log(total[:, 0]) + highest[:, 0] - (y * chosen).sum(axis=1)).sum(), lambda: weights / total - chosen


ERRORS = [squared_error, absolute_error, cross_entropy]


def random_network(seed):
    """(loss, gradient, parameters, description) of a network that is right, and in many ways inconvenient."""
    rng = np.random.default_rng(seed)
    depth, count, per_example = rng.integers(1, 4), int(rng.integers(2, 12)), rng.random() < 0.5
    sizes = rng.integers(2, 9, depth + 2).tolist()
    names = [list(ACTIVATIONS)[i] for i in rng.integers(len(ACTIVATIONS), size=depth)]
    error = ERRORS[rng.integers(len(ERRORS))]
    x, t, labels = (
        rng.normal(size=(count, sizes[0])),
        rng.normal(size=(count, sizes[-1])),
        rng.integers(sizes[-1], size=count),
    )
    if rng.random() < 0.3:
        x = (x > 0) * 1.0
    if rng.random() < 0.3:
        x[0] = 0
    x[1, 0] = 1.0  # not all of it is zero
    unit, spread = 10.0 ** rng.integers(-6, 7), 10.0 ** rng.integers(-1, 1)
    p = {}
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        p[f"W{i}"] = spread * rng.normal(size=(inputs, outputs)) / np.sqrt(inputs)
        p[f"b{i}"] = spread * rng.normal(size=outputs) * rng.integers(2)
    if rng.random() < 0.1:
        p[f"W{depth}"][...] = 0
    if rng.random() < 0.05:
        p = {name: np.zeros_like(array) for name, array in p.items()}
    if rng.random() < 0.2:
        p["b0"] = p["b0"] - 3 * spread * rng.integers(0, 2, sizes[1])  # dead units
    l1, l2 = 0.01 * (rng.random() < 0.1), 0.01 * (rng.random() < 0.2)
    share = unit / (count if per_example else 1)

    def forward(p):
        inputs, sums = [x], []
        for i in range(depth + 1):
            sums.append(inputs[-1] @ p[f"W{i}"] + p[f"b{i}"])
            inputs.append(ACTIVATIONS[names[i]][0](sums[-1]) if i < depth else sums[-1])
        return inputs, sums

    def loss(p):
        total = share * error(forward(p)[0][-1], t, labels)[0]
        for array in p.values():
            total = total + unit * l2 * (array * array).sum()
            total = total + unit * l1 * np.abs(array).sum() if l1 else total
        return total

    def gradient(p):
        inputs, sums = forward(p)
        d = share * error(inputs[-1], t, labels)[1]()
        found = {}
        for i in range(depth, -1, -1):
            if i < depth:
                d = d * ACTIVATIONS[names[i]][1](sums[i])
            found[f"W{i}"], found[f"b{i}"] = inputs[i].T @ d, d.sum(axis=0)
            d = d @ p[f"W{i}"].T
        return {name: d + unit * (2 * l2 * p[name] + l1 * np.sign(p[name])) for name, d in found.items()}

    return loss, gradient, p, f"{names}, {error.__name__}, {sizes}, {count} examples, l1 {l1}, l2 {l2}, spread {spread}"


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


class MuseumVAE:
    """The VAE of notebook 10 in one class, with a bug of its museum, or like one, in the backward pass only."""

    def __init__(self, bug=None):
        rng = np.random.default_rng(1)
        self.bug, self.x, self.eps = bug, rng.uniform(size=(3, 6)), rng.standard_normal((3, 2))
        sizes = {"1": (6, 5), "2": (5, 4), "3": (2, 5), "4": (5, 6)}
        self.p = {}
        for layer, (inputs, outputs) in sizes.items():
            self.p["W" + layer] = rng.normal(size=(inputs, outputs)) / np.sqrt(inputs)
            self.p["b" + layer] = rng.normal(size=outputs) / 2

    def forward(self, p):
        h = np.tanh(self.x @ p["W1"] + p["b1"])
        mu, logvar = np.split(h @ p["W2"] + p["b2"], 2, axis=1)
        z = mu + np.exp(logvar / 2) * self.eps
        g = np.tanh(z @ p["W3"] + p["b3"])
        return h, mu, logvar, z, g, g @ p["W4"] + p["b4"]

    def loss(self, p):
        _, mu, logvar, _, _, a = self.forward(p)
        log_p = (self.x * a - np.log1p(np.exp(a))).sum(axis=1)
        kl = -0.5 * (1 + logvar - mu**2 - np.exp(logvar)).sum(axis=1)
        return (kl - log_p).mean()

    def gradient(self, p):
        bug, x, eps, B = self.bug, self.x, self.eps, len(self.x)
        h, mu, logvar, z, g, a = self.forward(p)
        y, d = sigmoid(a), {}
        d_a = {
            "mean for sum": (y - x) / B / x.shape[1],
            "(1 − x) term missing": x * (y - 1) / B,
            "extra y (1 − y)": (y - x) * y * (1 - y) / B,
        }.get(bug, (y - x) / B)
        d["W4"], d["b4"] = g.T @ d_a, d_a.sum(axis=0)
        d_a3 = d_a @ p["W4"].T * (1 if bug == "skipped activation" else 1 - g**2)
        d["W3"], d["b3"] = z.T @ d_a3, d_a3.sum(axis=0)
        d_z = d_a3 @ p["W3"].T
        kl = {"KL without its ½": 2, "KL with the wrong sign": -1, "mean for sum": 1 / x.shape[1]}.get(bug, 1)
        noise = np.random.default_rng().standard_normal(eps.shape) if bug == "noise drawn again" else eps
        d_sigma = np.exp(logvar) if bug == "σ² used as σ" else np.exp(logvar / 2) / 2
        sign = -1 if bug == "KL: sign of logvar" else 1
        d_mu = d_z + kl * mu / B
        d_logvar = d_z * noise * d_sigma + sign * kl * (np.exp(logvar) - 1) / 2 / B
        d_mu_logvar = np.concatenate([d_mu, d_logvar], axis=1)
        d["W2"], d["b2"] = h.T @ d_mu_logvar, d_mu_logvar.sum(axis=0)
        d_a1 = d_mu_logvar @ p["W2"].T * (1 if bug == "skipped activation" else 1 - h**2)
        d["W1"], d["b1"] = x.T @ d_a1, d_a1.sum(axis=0)
        if bug == "sum for the mean over the batch":
            d = {name: array * B for name, array in d.items()}
        return d
