"""The exercises solved in other styles than npvae's, as learners write them: STYLES, style → module → its text.

Each is a text with a line `# module` where the next file begins. WRONG are wrong functions in such styles.
"""

import contextlib
import re
import sys
import types

from npvae.exercises.child import _with_helpers
from npvae.exercises.course import MODULES, exercise, solved
from npvae.exercises.judge import judge

LOOPS = r"""
# ex01_idx
import numpy as np


def read_header(raw):
    if len(raw) < 4:
        raise ValueError("file too short")
    if raw[0] != 0 or raw[1] != 0:
        raise ValueError("no IDX file")
    if raw[2] != 8:
        raise ValueError("not unsigned bytes")
    n = raw[3]
    if len(raw) < 4 + 4 * n:
        raise ValueError("header incomplete")
    sizes = []
    position = 4
    for _ in range(n):
        number = 0
        for _ in range(4):
            number = number * 256 + raw[position]
            position += 1
        sizes.append(number)
    product = 1
    for s in sizes:
        product = product * s
    if position + product < len(raw):
        raise ValueError("bytes left over")
    if position + product > len(raw):
        raise ValueError("bytes missing")
    return tuple(sizes)


def read_images(raw):
    n, rows, columns = read_header(raw)
    images = np.zeros((n, rows * columns), dtype=np.uint8)
    for i in range(n):
        for j in range(rows * columns):
            images[i, j] = raw[16 + i * rows * columns + j]
    return images


def scale(images):
    result = np.zeros(images.shape, np.float32)
    for i in range(images.shape[0]):
        for j in range(images.shape[1]):
            result[i, j] = float(images[i, j]) / 255.0
    return result

# ex02_dense
import numpy as np


def dense(x, W, b):
    y = np.zeros((x.shape[0], W.shape[1]))
    for n in range(x.shape[0]):
        for j in range(W.shape[1]):
            y[n, j] = b[j]
            for i in range(W.shape[0]):
                y[n, j] += x[n, i] * W[i, j]
    return y


def dense_backward(d_y, x, W):
    dx, dW, db = np.zeros(x.shape), np.zeros(W.shape), np.zeros(W.shape[1])
    for n in range(len(x)):
        for j in range(W.shape[1]):
            db[j] += d_y[n, j]
            for i in range(W.shape[0]):
                dW[i, j] += x[n, i] * d_y[n, j]
                dx[n, i] += W[i, j] * d_y[n, j]
    return dx, dW, db

# ex03_tanh
import math
import numpy as np


def tanh(a):
    out = np.empty(a.shape)
    for place, number in np.ndenumerate(a):
        out[place] = math.tanh(number)
    return out


def tanh_backward(d_h, h):
    out = np.empty(h.shape)
    for i in range(h.shape[0]):
        for j in range(h.shape[1]):
            out[i, j] = d_h[i, j] * (1 - h[i, j] * h[i, j])
    return out

# ex04_bernoulli
import math
import numpy as np


def softplus(a):
    out = np.zeros_like(a)
    for place in np.ndindex(a.shape):
        if a[place] > 0:
            out[place] = a[place] + math.log1p(math.exp(-a[place]))
        else:
            out[place] = math.log1p(math.exp(a[place]))
    return out


def sigmoid(a):
    out = np.zeros_like(a)
    for place in np.ndindex(a.shape):
        if a[place] >= 0:
            out[place] = 1 / (1 + math.exp(-a[place]))
        else:
            e = math.exp(a[place])
            out[place] = e / (1 + e)
    return out


def bernoulli_log_density(x, logits):
    if logits.ndim == 3:
        return np.array([bernoulli_log_density(x, one) for one in logits])
    result = np.zeros(len(x))
    for n in range(len(x)):
        for i in range(x.shape[1]):
            a = logits[n, i]
            log_y = -softplus(np.array([-a]))[0]
            log_not_y = -softplus(np.array([a]))[0]
            result[n] += x[n, i] * log_y + (1 - x[n, i]) * log_not_y
    return result


def bernoulli_log_density_gradient(x, logits):
    gradient = np.zeros(logits.shape)
    for place in np.ndindex(logits.shape):
        gradient[place] = x[place[-2:]] - sigmoid(logits[place])
    return gradient

# ex05_kl
import math
import numpy as np


def gaussian_kl(mu, logvar):
    kl = np.zeros(len(mu))
    for n in range(len(mu)):
        for j in range(mu.shape[1]):
            variance = math.exp(logvar[n, j])
            kl[n] += 0.5 * (variance + mu[n, j] ** 2 - 1 - logvar[n, j])
    return kl


def gaussian_kl_gradient(mu, logvar):
    d_mu, d_logvar = np.zeros(mu.shape), np.zeros(mu.shape)
    for n in range(len(mu)):
        for j in range(mu.shape[1]):
            d_mu[n, j] = mu[n, j]
            d_logvar[n, j] = 0.5 * (math.exp(logvar[n, j]) - 1)
    return d_mu, d_logvar

# ex06_reparameterize
import numpy as np


def reparameterize(mu, logvar, eps):
    z = np.zeros(eps.shape)
    for l in range(len(eps)):
        z[l] = mu + np.sqrt(np.exp(logvar)) * eps[l]
    return z


def reparameterize_gradient(d_z, logvar, eps):
    d_mu = np.zeros_like(logvar)
    d_logvar = np.zeros_like(logvar)
    sigma = np.sqrt(np.exp(logvar))
    for l in range(len(eps)):
        d_mu += d_z[l]
        d_logvar += d_z[l] * eps[l] * sigma / 2
    return d_mu, d_logvar

# ex07_vae
import numpy as np
from ex02_dense import dense, dense_backward
from ex03_tanh import tanh, tanh_backward
from ex04_bernoulli import bernoulli_log_density, bernoulli_log_density_gradient
from ex05_kl import gaussian_kl, gaussian_kl_gradient
from ex06_reparameterize import reparameterize, reparameterize_gradient


def encode(p, x):
    J = p["W3"].shape[0]
    h = tanh(dense(x, p["W1"], p["b1"]))
    out = dense(h, p["W2"], p["b2"])
    return h, out[:, :J], out[:, J:]


def decode(p, z):
    g = tanh(dense(z, p["W3"], p["b3"]))
    logits = dense(g, p["W4"], p["b4"])
    return g, logits


def forward(p, x, eps):
    L = len(eps)
    h, mu, logvar = encode(p, x)
    z = reparameterize(mu, logvar, eps)
    gs, logits = [], []
    reconstruction = 0
    for l in range(L):
        g, a = decode(p, z[l])
        gs.append(g)
        logits.append(a)
        reconstruction += bernoulli_log_density(x, a) / L
    kl = gaussian_kl(mu, logvar)
    loss = 0
    for n in range(len(x)):
        loss += kl[n] - reconstruction[n]
    loss /= len(x)
    values = {"x": x, "eps": eps, "h": h, "mu": mu, "logvar": logvar, "z": z}
    values["g"] = np.concatenate(gs)
    values["logits"] = np.array(logits)
    values["kl"] = kl
    return loss, values


def backward(p, values):
    x, eps, mu, logvar = values["x"], values["eps"], values["mu"], values["logvar"]
    L, B, J = eps.shape
    d = {name: np.zeros_like(array) for name, array in p.items()}
    d_mu, d_logvar = gaussian_kl_gradient(mu, logvar)
    d_mu, d_logvar = d_mu / B, d_logvar / B
    for l in range(L):
        g = values["g"][l * B : (l + 1) * B]
        d_logits = -bernoulli_log_density_gradient(x, values["logits"][l]) / L / B
        d_g, d_W4, d_b4 = dense_backward(d_logits, g, p["W4"])
        d_z, d_W3, d_b3 = dense_backward(tanh_backward(d_g, g), values["z"][l], p["W3"])
        d["W4"] += d_W4
        d["b4"] += d_b4
        d["W3"] += d_W3
        d["b3"] += d_b3
        from_mu, from_logvar = reparameterize_gradient(d_z[None], logvar, eps[l : l + 1])
        d_mu += from_mu
        d_logvar += from_logvar
    d_out = np.hstack((d_mu, d_logvar))
    d_h, d["W2"], d["b2"] = dense_backward(d_out, values["h"], p["W2"])
    d_a = tanh_backward(d_h, values["h"])
    d_x, d["W1"], d["b1"] = dense_backward(d_a, x, p["W1"])
    return d

# ex08_adam
import numpy as np


def adam_step(theta, gradient, m, v, t, learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8):
    new_theta, new_m, new_v = theta.copy(), m.copy(), v.copy()
    for place in np.ndindex(theta.shape):
        g = gradient[place]
        new_m[place] = beta1 * m[place] + (1 - beta1) * g
        new_v[place] = beta2 * v[place] + (1 - beta2) * g * g
        m_hat = new_m[place] / (1 - beta1**t)
        v_hat = new_v[place] / (1 - beta2**t)
        new_theta[place] -= learning_rate * m_hat / (v_hat**0.5 + epsilon)
    return new_theta, new_m, new_v

# ex09_train
import numpy as np
from ex01_idx import scale
from ex07_vae import backward, forward
from ex08_adam import adam_step


def initialize(pixels, hidden, latent, rng):
    p = {}
    ins = [pixels, hidden, latent, hidden]
    outs = [hidden, 2 * latent, hidden, pixels]
    for i in range(4):
        b = ins[i] ** -0.5
        p["W%d" % (i + 1)] = rng.uniform(-b, b, size=(ins[i], outs[i])).astype("float32")
        p["b%d" % (i + 1)] = rng.uniform(-b, b, size=outs[i]).astype("float32")
    return p


def train_epoch(p, moments, t, images, batch_size, rng, learning_rate=1e-3):
    order = np.arange(len(images))
    rng.shuffle(order)
    total = 0
    start = 0
    while start < len(images):
        rows = order[start : start + batch_size]
        x = scale(images[rows])
        eps = rng.normal(size=(1, len(rows), len(p["W3"]))).astype(np.float32)
        loss, values = forward(p, x, eps)
        total = total + loss * len(rows)
        gradients = backward(p, values)
        t = t + 1
        for name in p.keys():
            theta, m, v = adam_step(p[name], gradients[name], moments[name][0], moments[name][1], t, learning_rate)
            p[name] = theta
            moments[name] = (m, v)
        start += batch_size
    return total / len(images), t

# ex10_generate
import numpy as np
from ex04_bernoulli import sigmoid
from ex07_vae import decode, encode


def sample(p, count, rng):
    J = p["b2"].size // 2
    images = []
    for _ in range(count):
        z = rng.normal(0, 1, size=(1, J))
        g, logits = decode(p, z)
        images.append(sigmoid(logits)[0])
    return np.array(images)


def reconstruct(p, x):
    images = np.zeros_like(x)
    for n in range(len(x)):
        h, mu, logvar = encode(p, x[n : n + 1])
        g, logits = decode(p, mu)
        images[n] = sigmoid(logits)[0]
    return images


def interpolate(p, first, last, steps):
    a = encode(p, first[None, :])[1]
    b = encode(p, last[None, :])[1]
    images = []
    for i in range(steps):
        z = a + (b - a) * i / (steps - 1)
        images.append(sigmoid(decode(p, z)[1])[0])
    return np.vstack(images)

# ex11_importance
import math
import numpy as np
from ex04_bernoulli import bernoulli_log_density
from ex06_reparameterize import reparameterize
from ex07_vae import decode, encode


def log_mean_exp(a):
    K, B = a.shape
    result = np.zeros(B)
    for n in range(B):
        highest = max(a[:, n])
        total = 0.0
        for k in range(K):
            total += math.exp(a[k, n] - highest)
        result[n] = highest + math.log(total / K)
    return result


def normalized_weights(log_w):
    w = np.zeros(log_w.shape)
    for n in range(log_w.shape[1]):
        column = np.exp(log_w[:, n] - np.max(log_w[:, n]))
        w[:, n] = column / np.sum(column)
    return w


def log_weights(log_p_x, z, mu, logvar):
    K, B = log_p_x.shape
    log_w = log_p_x.copy()
    for k in range(K):
        for n in range(B):
            for j in range(z.shape[2]):
                log_w[k, n] += -0.5 * z[k, n, j] ** 2
                log_w[k, n] += 0.5 * logvar[n, j]
                log_w[k, n] += 0.5 * (z[k, n, j] - mu[n, j]) ** 2 / np.exp(logvar[n, j])
    return log_w


def log_likelihood(p, x, eps):
    _, mu, logvar = encode(p, x)
    z = reparameterize(mu, logvar, eps)
    log_p_x = np.zeros(eps.shape[:2])
    for k in range(len(eps)):
        _, logits = decode(p, z[k])
        log_p_x[k] = bernoulli_log_density(x, logits)
    return log_mean_exp(log_weights(log_p_x, z, mu, logvar))
"""

EINSUM = r"""
# ex01_idx
from __future__ import annotations

import numpy as np


def read_header(raw: bytes) -> tuple[int, ...]:
    magic = np.frombuffer(raw[:4], dtype=np.uint8)
    if magic.size < 4 or magic[0] or magic[1] or magic[2] != 8:
        raise ValueError(f"wrong magic number {magic}")
    sizes = np.frombuffer(raw, dtype=">u4", count=int(magic[3]), offset=4)  # ValueError if it is too short
    total: int = int(np.prod(sizes, dtype=np.int64))
    if len(raw) - 4 - sizes.nbytes != total:
        raise ValueError("wrong length")
    return tuple(sizes.tolist())


def read_images(raw: bytes) -> np.ndarray:
    n, h, w = read_header(raw)
    return np.frombuffer(buffer=raw, dtype=np.uint8)[-n * h * w :].reshape((n, h * w))


def scale(images: np.ndarray) -> np.ndarray:
    return np.divide(images, np.float32(255), dtype=np.float32)

# ex02_dense
import numpy as np


def dense(x: np.ndarray, W: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("bi,io->bo", x, W) + b[None, :]


def dense_backward(d_y, x, W):
    d_x = np.einsum("bo,io->bi", d_y, W)
    d_W = np.einsum("bi,bo->io", x, d_y)
    d_b = np.einsum("bo->o", d_y)
    return d_x, d_W, d_b

# ex03_tanh
import numpy as np


def tanh(a: np.ndarray) -> np.ndarray:
    return 2 / (1 + np.exp(-2 * np.clip(a, -300, 300))) - 1


def tanh_backward(d_h: np.ndarray, h: np.ndarray) -> np.ndarray:
    return np.einsum("bh,bh->bh", d_h, (1 - h) * (1 + h))

# ex04_bernoulli
import numpy as np


def softplus(a):
    return np.logaddexp(0, a)


def sigmoid(a):
    return np.exp(-np.logaddexp(0.0, -a))


def bernoulli_log_density(x, logits):
    return np.einsum("...bd,bd->...b", logits, x) - np.einsum("...d->...", softplus(logits))


def bernoulli_log_density_gradient(x, logits):
    y = sigmoid(logits)
    return x * (1 - y) - (1 - x) * y

# ex05_kl
import numpy as np


def gaussian_kl(mu: np.ndarray, logvar: np.ndarray) -> np.ndarray:
    sigma = np.exp(0.5 * logvar)
    return 0.5 * (np.einsum("bj,bj->b", mu, mu) + np.einsum("bj,bj->b", sigma, sigma) - (1 + logvar).sum(1))


def gaussian_kl_gradient(mu: np.ndarray, logvar: np.ndarray) -> tuple:
    return mu, np.expm1(logvar) * 0.5

# ex06_reparameterize
import numpy as np


def reparameterize(mu, logvar, eps):
    std = np.exp(0.5 * logvar)
    return mu[np.newaxis] + np.einsum("bj,lbj->lbj", std, eps)


def reparameterize_gradient(d_z, logvar, eps):
    std = np.exp(0.5 * logvar)
    return np.einsum("lbj->bj", d_z), 0.5 * np.einsum("lbj,lbj,bj->bj", d_z, eps, std)

# ex07_vae
from typing import Any

import ex02_dense
import ex04_bernoulli
import ex05_kl
import numpy as np
from ex03_tanh import tanh, tanh_backward
from ex06_reparameterize import reparameterize, reparameterize_gradient


def encode(p: dict[str, Any], x):
    h = tanh(a=ex02_dense.dense(x=x, W=p["W1"], b=p["b1"]))
    statistics = ex02_dense.dense(x=h, W=p["W2"], b=p["b2"]).reshape(len(x), 2, -1)
    return h, statistics[:, 0], statistics[:, 1]


def decode(p: dict[str, Any], z):
    g = tanh(np.einsum("nj,jh->nh", z, p["W3"]) + p["b3"])
    return g, np.einsum("nh,hd->nd", g, p["W4"]) + p["b4"]


def forward(p, x, eps):
    h, mu, logvar = encode(p=p, x=x)
    z = reparameterize(mu=mu, logvar=logvar, eps=eps)
    g, logits = decode(p=p, z=z.reshape(-1, z.shape[-1]))
    logits = logits.reshape(len(eps), *x.shape)
    kl = np.mean(ex05_kl.gaussian_kl(mu=mu, logvar=logvar))
    reconstruction = np.mean(ex04_bernoulli.bernoulli_log_density(x=x, logits=logits))
    return kl - reconstruction, dict(x=x, eps=eps, h=h, mu=mu, logvar=logvar, z=z, g=g, logits=logits, kl=kl)


def backward(p, values):
    v = values
    L, B, J = v["eps"].shape
    g = v["g"].reshape(L, B, -1)
    d_logits = (1 / (1 + np.exp(-v["logits"])) - v["x"]) / (L * B)
    d_W4, d_b4 = np.einsum("lbh,lbd->hd", g, d_logits), np.einsum("lbd->d", d_logits)
    d_a = np.einsum("lbd,hd->lbh", d_logits, p["W4"]) * (1 - g**2)
    d_W3, d_b3 = np.einsum("lbj,lbh->jh", v["z"], d_a), np.einsum("lbh->h", d_a)
    d_z = np.einsum("lbh,jh->lbj", d_a, p["W3"])
    d_mu = np.einsum("lbj->bj", d_z) + v["mu"] / B
    d_logvar = np.einsum("lbj,lbj->bj", d_z, v["z"] - v["mu"]) / 2 + (np.exp(v["logvar"]) - 1) / 2 / B
    d_statistics = np.block([d_mu, d_logvar])
    d_e = np.einsum("bk,hk->bh", d_statistics, p["W2"]) * (1 - v["h"] ** 2)
    return {
        "b4": d_b4,
        "W4": d_W4,
        "b3": d_b3,
        "W3": d_W3,
        "b2": np.einsum("bk->k", d_statistics),
        "W2": np.einsum("bh,bk->hk", v["h"], d_statistics),
        "b1": np.einsum("bh->h", d_e),
        "W1": np.einsum("bd,bh->dh", v["x"], d_e),
    }

# ex08_adam
import numpy as np


def adam_step(theta, gradient, m, v, t, learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8):
    m = m + (1 - beta1) * (gradient - m)
    v = v + (1 - beta2) * (gradient * gradient - v)
    # α √(1 − β₂ᵗ) / (1 − β₁ᵗ), with an ε to match: the form of section 2 of the paper
    correction = np.sqrt(1 - beta2**t)
    alpha = learning_rate * correction / (1 - beta1**t)
    return theta - alpha * m / (np.sqrt(v) + epsilon * correction), m, v

# ex09_train
import ex01_idx
import ex07_vae
import ex08_adam
import numpy as np


def initialize(pixels: int, hidden: int, latent: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    def uniform(inputs, *shape):
        return ((2 * rng.random(shape, dtype=np.float32) - 1) / np.sqrt(inputs)).astype(np.float32)

    return {
        "W1": uniform(pixels, pixels, hidden),
        "W2": uniform(hidden, hidden, latent * 2),
        "W3": uniform(latent, latent, hidden),
        "W4": uniform(hidden, hidden, pixels),
        "b1": uniform(pixels, hidden),
        "b2": uniform(hidden, latent * 2),
        "b3": uniform(latent, hidden),
        "b4": uniform(hidden, pixels),
    }


def train_epoch(p, moments, t, images, batch_size, rng, learning_rate=1e-3):
    losses, sizes = [], []
    order = rng.permutation(images.shape[0])
    for t, rows in enumerate(np.split(order, range(batch_size, len(order), batch_size)), start=t + 1):
        eps = rng.standard_normal(size=(1, rows.size, p["W3"].shape[0]), dtype=np.float32)
        loss, values = ex07_vae.forward(eps=eps, x=ex01_idx.scale(images=images[rows]), p=p)
        for name, gradient in ex07_vae.backward(values=values, p=p).items():
            m, v = moments[name]
            p[name], *moments[name] = ex08_adam.adam_step(
                gradient=gradient, theta=p[name], t=t, v=v, m=m, learning_rate=learning_rate
            )
        losses.append(loss)
        sizes.append(rows.size)
    return np.average(losses, weights=sizes), t

# ex10_generate
import ex07_vae as vae
import numpy as np
from ex04_bernoulli import sigmoid


def sample(p, count, rng):
    z = rng.standard_normal(size=(count, p["W3"].shape[0]), dtype=np.float32)
    return sigmoid(a=vae.decode(z=z, p=p)[1])


def reconstruct(p, x):
    return sigmoid(vae.decode(p=p, z=vae.encode(p=p, x=x)[1])[-1])


def interpolate(p, first, last, steps):
    mu = vae.encode(x=np.array([first, last]), p=p)[1]
    weights = np.stack([np.linspace(1, 0, steps), np.linspace(0, 1, steps)])
    return sigmoid(vae.decode(p, np.einsum("es,ej->sj", weights, mu))[1])

# ex11_importance
import ex06_reparameterize
import numpy as np
from ex04_bernoulli import bernoulli_log_density
from ex07_vae import decode, encode


def log_mean_exp(a):
    return np.logaddexp.reduce(a, axis=0) - np.log(a.shape[0])


def normalized_weights(log_w):
    return np.exp(log_w - np.logaddexp.reduce(log_w, axis=0, keepdims=True))


def log_weights(log_p_x, z, mu, logvar):
    scaled = (z - mu) * np.exp(-logvar / 2)
    square = np.einsum("kbj,kbj->kb", scaled, scaled) - np.einsum("kbj,kbj->kb", z, z)
    return log_p_x + square / 2 + np.einsum("bj->b", logvar) / 2


def log_likelihood(p, x, eps):
    h, mu, logvar = encode(p, x)
    z = ex06_reparameterize.reparameterize(eps=eps, mu=mu, logvar=logvar)
    g, logits = decode(p, z.reshape(-1, mu.shape[1]))
    log_p_x = bernoulli_log_density(logits=logits.reshape(eps.shape[0], *x.shape), x=x)
    return log_mean_exp(log_weights(z=z, mu=mu, logvar=logvar, log_p_x=log_p_x))
"""

IN_PLACE = r"""
# ex01_idx
import struct

import numpy as np


def read_header(raw):
    try:
        zero, kind, n = struct.unpack_from(">HBB", raw)
        sizes = struct.unpack_from(f">{n}I", raw, 4)
    except struct.error as error:
        raise ValueError("too short") from error
    if zero != 0 or kind != 8:
        raise ValueError("no IDX file of bytes")
    if np.prod(sizes, dtype=object) != len(raw) - 4 - 4 * n:
        bad(raw)
    return sizes


def bad(raw):
    raise ValueError(f"{len(raw)} bytes are not what the header says")


def read_images(raw):
    shape = read_header(raw)
    images = np.empty((shape[0], shape[1] * shape[2]), "u1")
    images.flat[:] = np.frombuffer(raw[16:], "B")
    return images


def scale(images):
    x = images.astype("f4")
    x *= 1 / 255
    return x

# ex02_dense
import numpy as np


def dense(x, W, b):
    y = np.dot(x, W)
    y += b
    return y


def dense_backward(d_y, x, W):
    d_W = np.empty_like(W)
    d_b = np.empty_like(W[0])
    np.matmul(x.T, d_y, out=d_W)
    np.sum(d_y, axis=0, out=d_b)
    return np.dot(d_y, W.transpose()), d_W, d_b

# ex03_tanh
import numpy as np


def tanh(a):
    h = a.copy()
    np.tanh(h, out=h)
    return h


def tanh_backward(d_h, h):
    d_a = h * h
    np.subtract(1, d_a, out=d_a)
    d_a *= d_h
    return d_a

# ex04_bernoulli
import numpy as np


def softplus(a):
    out = np.abs(a)
    np.negative(out, out=out)
    np.exp(out, out=out)
    np.log1p(out, out=out)
    out += a * (a > 0)
    return out


def sigmoid(a):
    y = np.empty_like(a)
    positive = a >= 0
    y[positive] = 1 / (1 + np.exp(-a[positive]))
    e = np.exp(a[~positive])
    y[~positive] = e / (1 + e)
    return y


def bernoulli_log_density(x, logits):
    terms = x * logits
    terms -= softplus(logits)
    return terms @ np.ones(x.shape[1], terms.dtype)


def bernoulli_log_density_gradient(x, logits):
    y = sigmoid(logits)
    np.subtract(x, y, out=y)
    return y

# ex05_kl
import numpy as np


def gaussian_kl(mu, logvar):
    kl = np.exp(logvar)
    kl += np.square(mu)
    kl -= logvar
    kl -= 1
    kl *= 0.5
    return kl @ np.ones(mu.shape[1])


def gaussian_kl_gradient(mu, logvar):
    d_logvar = np.exp(logvar)
    d_logvar -= 1
    d_logvar /= 2
    return np.array(mu), d_logvar

# ex06_reparameterize
import numpy as np


def reparameterize(mu, logvar, eps):
    z = eps.copy()
    z *= np.exp(logvar / 2)
    z += mu
    return z


def reparameterize_gradient(d_z, logvar, eps):
    products = np.multiply(d_z, eps)
    products *= np.exp(logvar * 0.5)
    products *= 0.5
    return np.add.reduce(d_z), np.add.reduce(products)

# ex07_vae
import numpy as np
from ex02_dense import dense, dense_backward
from ex03_tanh import tanh, tanh_backward
from ex04_bernoulli import bernoulli_log_density, bernoulli_log_density_gradient
from ex05_kl import gaussian_kl, gaussian_kl_gradient
from ex06_reparameterize import reparameterize, reparameterize_gradient


def encode(p, x):
    h = x @ p["W1"]
    h += p["b1"]
    np.tanh(h, out=h)
    both = h @ p["W2"]
    both += p["b2"]
    mu, logvar = np.hsplit(both, 2)
    return [h, mu, logvar]


def decode(p, z):
    g = z @ p["W3"]
    g += p["b3"]
    np.tanh(g, out=g)
    logits = g @ p["W4"]
    logits += p["b4"]
    return [g, logits]


def forward(p, x, eps):
    L, B, J = eps.shape
    values = {"x": x, "eps": eps}
    values["h"], values["mu"], values["logvar"] = encode(p, x)
    values["z"] = reparameterize(values["mu"], values["logvar"], eps)
    values["g"], logits = decode(p, np.reshape(values["z"], (L * B, J)))
    values["logits"] = logits.reshape(L, B, -1)
    values["d_kl"] = gaussian_kl_gradient(values["mu"], values["logvar"])
    loss = gaussian_kl(values["mu"], values["logvar"]).sum()
    loss -= bernoulli_log_density(x, values["logits"]).sum() / L
    loss /= B
    return [float(loss), values]


def backward(p, values):
    L, B, J = values["eps"].shape
    d = {name: np.empty_like(p[name]) for name in p}
    d_logits = bernoulli_log_density_gradient(values["x"], values["logits"])
    d_logits = d_logits.reshape(L * B, -1)
    d_logits /= -L * B
    d_g, d["W4"][...], d["b4"][...] = dense_backward(d_logits, values["g"], p["W4"])
    d_g *= 1 - values["g"] ** 2
    d_z, d["W3"][...], d["b3"][...] = dense_backward(d_g, values["z"].reshape(L * B, J), p["W3"])
    d_out = np.empty((B, 2 * J), d_z.dtype)
    d_out[:, :J], d_out[:, J:] = reparameterize_gradient(d_z.reshape(L, B, J), values["logvar"], values["eps"])
    kl_mu, kl_logvar = values["d_kl"]
    d_out[:, :J] += kl_mu / B
    d_out[:, J:] += kl_logvar / B
    d_h, d["W2"][...], d["b2"][...] = dense_backward(d_out, values["h"], p["W2"])
    d_h -= d_h * values["h"] ** 2
    _, d["W1"][...], d["b1"][...] = dense_backward(d_h, values["x"], p["W1"])
    return d

# ex08_adam
import numpy as np


def adam_step(theta, gradient, m, v, t, learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8):
    m *= beta1
    m += (1 - beta1) * gradient
    v *= beta2
    v += (1 - beta2) * gradient**2
    root = np.sqrt(v / (1 - beta2**t))
    root += epsilon
    theta -= learning_rate / (1 - beta1**t) * m / root
    return theta, m, v

# ex09_train
import numpy as np
from ex01_idx import scale
from ex07_vae import backward, forward
from ex08_adam import adam_step


def initialize(pixels, hidden, latent, rng):
    shapes = {"W1": (pixels, hidden), "b1": (hidden,), "W2": (hidden, 2 * latent), "b2": (2 * latent,)}
    shapes.update({"W3": (latent, hidden), "b3": (hidden,), "W4": (hidden, pixels), "b4": (pixels,)})
    p = {}
    for name, shape in shapes.items():
        array = np.empty(shape, np.float32)
        array[...] = rng.uniform(-1, 1, shape)
        array /= np.sqrt(shapes["W" + name[1]][0])
        p[name] = array
    return p


def train_epoch(p, moments, t, images, batch_size, rng, learning_rate=1e-3):
    shuffled = rng.permutation(images)
    total, eps = 0.0, np.empty((1, batch_size, p["W3"].shape[0]), np.float32)
    for i in range(0, len(shuffled), batch_size):
        x = scale(shuffled[i : i + batch_size])
        noise = eps[:, : len(x)]
        noise[...] = rng.standard_normal(noise.shape)
        loss, values = forward(p, x, noise)
        d = backward(p, values)
        t += 1
        for name, (m, v) in moments.items():
            p[name][...], m[...], v[...] = adam_step(p[name], d[name], m, v, t, learning_rate)
        total += loss * (len(x) / len(images))
    return [total, t]

# ex10_generate
import numpy as np
from ex04_bernoulli import sigmoid
from ex07_vae import decode, encode


def sample(p, count, rng):
    z = np.empty((count, p["W3"].shape[0]))
    rng.standard_normal(out=z)
    images = decode(p, z)[1]
    images /= 2
    np.tanh(images, out=images)
    images += 1
    images /= 2
    return images


def reconstruct(p, x):
    out = np.empty_like(x)
    out[...] = sigmoid(decode(p, encode(p, x)[1])[1])
    return out


def interpolate(p, first, last, steps):
    start, end = encode(p, np.vstack((first, last)))[1]
    z = np.empty((steps, len(start)))
    z[...] = start
    z += np.arange(steps)[:, None] / (steps - 1) * (end - start)
    return sigmoid(decode(p, z)[1])

# ex11_importance
import numpy as np
from ex04_bernoulli import bernoulli_log_density
from ex06_reparameterize import reparameterize
from ex07_vae import decode, encode


def log_mean_exp(a):
    top = np.amax(a, axis=0, keepdims=True)
    e = a - top
    np.exp(e, out=e)
    result = e.sum(axis=0)
    np.log(result, out=result)
    result -= np.log(len(a))
    result += top[0]
    return result


def normalized_weights(log_w):
    w = log_w.copy()
    w -= w.max(axis=0)
    np.exp(w, out=w)
    w /= w.sum(axis=0)
    return w


def log_weights(log_p_x, z, mu, logvar):
    result = np.array(log_p_x)
    result -= (z**2).sum(axis=2) / 2
    difference = z - mu
    difference *= difference
    difference /= np.exp(logvar)
    difference += logvar
    result += difference.sum(axis=2) / 2
    return result


def log_likelihood(p, x, eps):
    K, B, J = eps.shape
    mu, logvar = encode(p, x)[1:]
    z = reparameterize(mu, logvar, eps)
    logits = decode(p, z.reshape(K * B, J))[1]
    logits.shape = K, B, x.shape[1]
    log_w = log_weights(bernoulli_log_density(x, logits), z, mu, logvar)
    return log_mean_exp(log_w)
"""

PLAIN = r"""
# ex01_idx
import io
import math

import numpy as np


def read_header(raw):
    file = io.BytesIO(raw)
    magic = file.read(4)
    if magic[:3] != bytes([0, 0, 8]) or len(magic) != 4:
        raise ValueError("no IDX file")
    sizes = []
    for _ in range(magic[3]):
        four = file.read(4)
        if len(four) < 4:
            raise ValueError("too short")
        a, b, c, d = four
        sizes.append((a << 24) | (b << 16) | (c << 8) | d)
    rest = file.read()
    if len(rest) != math.prod(sizes):
        raise ValueError(f"{len(rest)} numbers")
    return sizes


def read_images(raw):
    sizes = read_header(raw)
    pixels = list(raw)[4 + 4 * len(sizes) :]
    size = sizes[1] * sizes[2]
    rows = [pixels[i * size : (i + 1) * size] for i in range(sizes[0])]
    return np.array(rows, dtype=np.uint8)


def scale(images):
    return np.array([[pixel / 255 for pixel in row] for row in images.tolist()], dtype=np.float32)

# ex02_dense
def dense(x, W, b):
    return [[sum(i * w for i, w in zip(row, column)) + c for column, c in zip(W.T, b)] for row in x]


def dense_backward(d_y, x, W):
    d_x = [[sum(d * w for d, w in zip(row, weights)) for weights in W] for row in d_y]
    d_W = [[sum(a * d for a, d in zip(inputs, outputs)) for outputs in d_y.T] for inputs in x.T]
    d_b = [sum(column) for column in zip(*d_y)]
    return [d_x, d_W, d_b]

# ex03_tanh
import math

import numpy as np


def tanh(a):
    return np.vectorize(math.tanh)(a)


def tanh_backward(d_h, h):
    return [[d * (1 - y**2) for d, y in zip(*rows)] for rows in zip(d_h, h)]

# ex04_bernoulli
import math

import numpy as np


def _softplus(a):
    return max(a, 0.0) + math.log1p(math.exp(-abs(a)))


softplus = np.vectorize(_softplus, otypes=[float])


def sigmoid(a):
    def one(number):
        if number < -700:
            return 0.0
        return 1 / (1 + math.exp(-number))

    return np.array([one(number) for number in np.ravel(a).tolist()]).reshape(np.shape(a))


def bernoulli_log_density(x, logits):
    if np.ndim(logits) > 2:
        return [bernoulli_log_density(x, part) for part in logits]
    return [sum(p * a - _softplus(a) for p, a in zip(*row)) for row in zip(x.tolist(), logits.tolist())]


def bernoulli_log_density_gradient(x, logits):
    return x + (-1) * sigmoid(logits)

# ex05_kl
from math import exp


def gaussian_kl(mu, logvar):
    result = []
    for means, logvars in zip(mu.tolist(), logvar.tolist()):
        result.append(sum(m * m + exp(s) - s - 1 for m, s in zip(means, logvars)) / 2)
    return result


def gaussian_kl_gradient(mu, logvar):
    return [mu.tolist(), [[(exp(s) - 1) / 2 for s in row] for row in logvar.tolist()]]

# ex06_reparameterize
import math

import numpy as np


def reparameterize(mu, logvar, eps):
    z = []
    for noise in eps:
        z.append([[m + math.exp(s / 2) * e for m, s, e in zip(*rows)] for rows in zip(mu, logvar, noise)])
    return np.array(z)


def reparameterize_gradient(d_z, logvar, eps):
    B, J = logvar.shape
    d_mu = [[sum(d_z[:, b, j]) for j in range(J)] for b in range(B)]
    d_logvar = [[d_z[:, b, j] @ eps[:, b, j] * math.exp(logvar[b, j] / 2) / 2 for j in range(J)] for b in range(B)]
    return d_mu, d_logvar

# ex07_vae
import math

import numpy as np
from ex02_dense import dense, dense_backward
from ex03_tanh import tanh, tanh_backward
from ex04_bernoulli import bernoulli_log_density, bernoulli_log_density_gradient
from ex05_kl import gaussian_kl, gaussian_kl_gradient
from ex06_reparameterize import reparameterize, reparameterize_gradient


def encode(p, x):
    a = dense(x, p["W1"], p["b1"])
    h = tanh(a)
    latent = p["W2"].shape[1] // 2
    mu = dense(h, p["W2"][:, :latent], p["b2"][:latent])
    logvar = dense(h, p["W2"][:, latent:], p["b2"][latent:])
    return h, mu, logvar


def decode(p, z):
    hidden = tanh(dense(z, p["W3"], p["b3"]))
    return hidden, np.matmul(hidden, p["W4"]) + p["b4"]


def forward(p, x, eps):
    encoder = encode(p, x)
    values = dict(zip(["h", "mu", "logvar"], encoder), x=x, eps=eps)
    z = values["z"] = reparameterize(*encoder[1:], eps)
    outputs = [decode(p, one) for one in z]
    values["g"] = np.vstack([g for g, _ in outputs])
    values["logits"] = np.stack([logits for _, logits in outputs])
    losses = []
    for l in range(len(eps)):
        elbo = bernoulli_log_density(x, values["logits"][l]) - gaussian_kl(*encoder[1:])
        losses.append(-float(sum(elbo)) / len(elbo))
    return math.fsum(losses) / len(losses), values


def backward(p, values):
    x, eps, h, mu, logvar, z, g, logits = map(values.get, ["x", "eps", "h", "mu", "logvar", "z", "g", "logits"])
    L, B, J = eps.shape
    rows = L * B
    d_logits = -np.concatenate([bernoulli_log_density_gradient(x, one) for one in logits])
    d_g, d_W4, d_b4 = dense_backward(d_logits, g, p["W4"])
    d_z, d_W3, d_b3 = dense_backward(tanh_backward(d_g, g), np.concatenate(z), p["W3"])
    d_mu, d_logvar = reparameterize_gradient(d_z.reshape(L, B, J), logvar, eps)
    kl_mu, kl_logvar = gaussian_kl_gradient(mu, logvar)
    d_both = np.c_[d_mu / L + kl_mu, d_logvar / L + kl_logvar]
    d_h, d_W2, d_b2 = dense_backward(d_both, h, p["W2"])
    _, d_W1, d_b1 = dense_backward(tanh_backward(d_h, h), x, p["W1"])
    d = dict(W1=d_W1 / B, b1=d_b1 / B, W2=d_W2 / B, b2=d_b2 / B)
    d |= dict(W3=d_W3 / rows, b3=d_b3 / rows, W4=d_W4 / rows, b4=d_b4 / rows)
    return d

# ex08_adam
import numpy as np


def adam_step(theta, gradient, m, v, t, learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8):
    shape = np.shape(theta)
    results = []
    for a, g, old_m, old_v in zip(theta.ravel(), gradient.ravel(), m.ravel(), v.ravel()):
        new_m = float(old_m) * beta1 + float(g) * (1 - beta1)
        new_v = float(old_v) * beta2 + float(g) ** 2 * (1 - beta2)
        step = (new_m / (1 - pow(beta1, t))) / ((new_v / (1 - pow(beta2, t))) ** 0.5 + epsilon)
        results.append((float(a) - learning_rate * step, new_m, new_v))
    return [np.reshape(column, shape) for column in zip(*results)]

# ex09_train
import random

import numpy as np
from ex01_idx import scale
from ex07_vae import backward, forward
from ex08_adam import adam_step


def initialize(pixels, hidden, latent, rng):
    D, H, J = pixels, hidden, latent
    p = {}
    for i, (inputs, outputs) in enumerate([(D, H), (H, 2 * J), (J, H), (H, D)], 1):
        W_and_b = rng.uniform(low=-1, high=1, size=(inputs + 1, outputs)) / inputs**0.5
        p[f"W{i}"] = np.float32(W_and_b[:-1])
        p[f"b{i}"] = np.float32(W_and_b[-1])
    return p


def train_epoch(p, moments, t, images, batch_size, rng, learning_rate=1e-3):
    left = list(range(len(images)))
    rng.shuffle(left)
    losses = []
    while left:
        batch, left = left[:batch_size], left[batch_size:]
        x = np.float32(images[batch] / 255)
        noise = np.array([[rng.normal() for _ in range(len(p["W3"]))] for _ in batch], np.float32)
        loss, values = forward(p, x, noise[None])
        losses += [float(loss)] * len(batch)
        d = backward(p, values)
        t += 1
        new = {name: adam_step(p[name], d[name], *moments[name], t, learning_rate) for name in p}
        p.update({name: three[0] for name, three in new.items()})
        moments.update({name: three[1:] for name, three in new.items()})
    return sum(losses) / len(losses), t

# ex10_generate
import math

import numpy as np
from ex07_vae import decode, encode


def _pixels(p, z):
    logits = decode(p, z)[1]
    return np.array([[1 / (1 + math.exp(-a)) for a in row] for row in logits.tolist()])


def sample(p, count, rng):
    return _pixels(p, np.array([[rng.normal() for _ in p["W3"]] for _ in range(count)]))


def reconstruct(p, x):
    return _pixels(p, encode(p, x)[1]).tolist()


def interpolate(p, first, last, steps):
    (_, (a,), _), (_, (b,), _) = encode(p, first.reshape(1, -1)), encode(p, last.reshape(1, -1))
    t = [i / (steps - 1) for i in range(steps)]
    return _pixels(p, np.array([(1 - s) * a + s * b for s in t]))

# ex11_importance
import math

import numpy as np
from ex04_bernoulli import bernoulli_log_density
from ex06_reparameterize import reparameterize
from ex07_vae import decode, encode


def log_mean_exp(a):
    return [max(c) + math.log(math.fsum(math.exp(e - max(c)) for e in c) / len(c)) for c in a.T.tolist()]


def normalized_weights(log_w):
    columns = []
    for column in log_w.T.tolist():
        w = [math.exp(e - max(column)) for e in column]
        columns.append([one / sum(w) for one in w])
    return np.transpose(columns)


def _log_normal(z, mu, variance):
    return -0.5 * np.log(2 * math.pi * variance) - (z - mu) ** 2 / (2 * variance)


def log_weights(log_p_x, z, mu, logvar):
    log_joint = log_p_x + _log_normal(z, 0.0, 1.0).sum(2)
    return log_joint - _log_normal(z, mu, np.exp(logvar)).sum(2)


def log_likelihood(p, x, eps):
    estimates = []
    for b in range(len(x)):
        one = x[b : b + 1]
        _, mu, logvar = encode(p, one)
        z = reparameterize(mu, logvar, eps[:, b : b + 1])
        logits = decode(p, z[:, 0])[1]
        estimates += log_mean_exp(log_weights(bernoulli_log_density(one, logits[:, None]), z, mu, logvar)).tolist()
    return estimates
"""

OBJECTS = r'''
# ex01_idx
from dataclasses import dataclass
from functools import reduce
from operator import mul

import numpy as np


class IDXError(ValueError):
    pass


@dataclass
class Reader:
    data: memoryview
    at: int = 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise IDXError(f"the file ends in byte {len(self.data)}")
        self.at += count
        return bytes(self.data[self.at - count : self.at])

    def number(self):
        return int.from_bytes(self.take(4), byteorder="big", signed=False)


def read_header(raw):
    reader = Reader(memoryview(raw))
    *begin, n = reader.take(4)
    if begin != [0, 0, 8]:
        raise IDXError("not an IDX file of unsigned bytes")
    sizes = tuple(reader.number() for _ in range(n))
    reader.take(reduce(mul, sizes, 1))
    if reader.at != len(raw):
        raise IDXError("too many bytes")
    return sizes


def read_images(raw):
    header = read_header(raw)
    return np.array(memoryview(raw)[16:], np.uint8).reshape(header).reshape(len(raw) and header[0], -1)


def scale(images):
    table = (np.arange(256) / 255).astype(np.float32)
    return table[images]

# ex02_dense
class Layer:
    def __init__(self, W, b=0):
        self.W, self.b = W, b

    def __call__(self, x):
        self.x = x
        return x.dot(self.W) + self.b

    def back(self, d_y):
        return {"x": d_y.dot(self.W.T), "W": (d_y.T @ self.x).T, "b": d_y.sum(0)}


def dense(x, W, b):
    return Layer(W, b)(x)


def dense_backward(d_y, x, W):
    layer = Layer(W)
    layer.x = x
    return tuple(layer.back(d_y).values())

# ex03_tanh
import functools

import numpy as np


def elementwise(function):
    @functools.wraps(function)
    def inner(*arrays):
        return function(*map(np.asarray, arrays))

    return inner


@elementwise
def tanh(a):
    e = np.exp(-2 * np.abs(a))
    return np.sign(a) * (1 - e) / (1 + e)


@elementwise
def tanh_backward(d_h, h):
    derivative = 1 - np.power(h, 2)
    return derivative * d_h

# ex04_bernoulli
import numpy as np


def log_sigmoid(a):
    return np.minimum(a, 0) - np.log1p(np.exp(-np.abs(a)))


softplus = lambda a: -log_sigmoid(-a)


def sigmoid(a):
    e = np.exp(-np.abs(a))
    return np.where(a >= 0, 1.0, e) / (1 + e)


class Bernoulli:
    def __init__(self, logits):
        self.logits = logits

    def log_prob(self, x):
        return x * log_sigmoid(self.logits) + (1.0 - x) * log_sigmoid(-self.logits)

    @property
    def mean(self):
        return sigmoid(self.logits)


def bernoulli_log_density(x, logits):
    return np.sum(Bernoulli(logits).log_prob(x), axis=logits.ndim - 1)


def bernoulli_log_density_gradient(x, logits):
    return -(Bernoulli(logits).mean - x)

# ex05_kl
from collections import namedtuple

import numpy as np

Gradients = namedtuple("Gradients", "d_mu d_logvar")


class Gaussian:
    def __init__(self, mu, logvar):
        self.mu, self.logvar = mu, logvar

    @property
    def variance(self):
        return np.exp(self.logvar)

    def kl(self):
        return ((self.variance - 1 - self.logvar) + self.mu**2) / 2


def gaussian_kl(mu, logvar):
    return np.sum(Gaussian(mu, logvar).kl(), -1)


def gaussian_kl_gradient(mu, logvar):
    q = Gaussian(mu, logvar)
    return Gradients(d_mu=1.0 * q.mu, d_logvar=q.variance / 2 - 0.5)

# ex06_reparameterize
import numpy as np


def sigma_of(logvar):
    return np.exp(logvar) ** 0.5


def reparameterize(mu, logvar, eps):
    z, sigma = mu, sigma_of(logvar)
    return np.stack([z + sigma * noise for noise in eps])


def reparameterize_gradient(d_z, logvar, eps):
    draws = [(d, d * e * sigma_of(logvar) / 2) for d, e in zip(d_z, eps)]
    return tuple(sum(parts) for parts in zip(*draws))

# ex07_vae
import ex02_dense as layer
import ex04_bernoulli as bernoulli
import ex05_kl as kl
import ex06_reparameterize as trick
import numpy as np
from ex03_tanh import tanh, tanh_backward


class MLP:
    """Two layers, with a tanh between them."""

    def __init__(self, p, first, second):
        self.p, self.first, self.second = p, first, second

    def forward(self, x):
        self.x = x
        self.hidden = tanh(layer.dense(x, self.p["W" + self.first], self.p["b" + self.first]))
        return layer.dense(self.hidden, self.p["W" + self.second], self.p["b" + self.second])

    def backward(self, d_y, d):
        d_hidden, d["W" + self.second], d["b" + self.second] = layer.dense_backward(
            d_y, self.hidden, self.p["W" + self.second]
        )
        d_a = tanh_backward(d_hidden, self.hidden)
        d_x, d["W" + self.first], d["b" + self.first] = layer.dense_backward(d_a, self.x, self.p["W" + self.first])
        return d_x


def encode(p, x):
    encoder = MLP(p, "1", "2")
    mu, logvar = np.array_split(encoder.forward(x), 2, axis=-1)
    return encoder.hidden, mu, logvar


def decode(p, z):
    decoder = MLP(p, "3", "4")
    logits = decoder.forward(z)
    return decoder.hidden, logits


def forward(p, x, eps):
    L, B, J = np.shape(eps)
    h, mu, logvar = encode(p, x)
    z = trick.reparameterize(mu, logvar, eps)
    g, logits = decode(p, np.vstack(z))
    logits = logits.reshape((L, B, -1))
    log_p_x = bernoulli.bernoulli_log_density(np.broadcast_to(x, logits.shape), logits)
    elbo = log_p_x - kl.gaussian_kl(mu, logvar)
    names = "x eps h mu logvar z g logits log_p_x elbo"
    return -elbo.mean(), {name: value for name, value in locals().items() if name in names.split()}


def backward(p, values):
    L, B, J = values["eps"].shape
    d = {}
    decoder, encoder = MLP(p, "3", "4"), MLP(p, "1", "2")
    decoder.x, decoder.hidden = values["z"].reshape(-1, J), values["g"]
    encoder.x, encoder.hidden = values["x"], values["h"]
    d_log_p = -1 / (L * B)
    d_logits = d_log_p * bernoulli.bernoulli_log_density_gradient(values["x"], values["logits"])
    d_z = decoder.backward(d_logits.reshape(L * B, -1), d).reshape(values["eps"].shape)
    roads = [
        trick.reparameterize_gradient(d_z, values["logvar"], values["eps"]),
        [part / B for part in kl.gaussian_kl_gradient(values["mu"], values["logvar"])],
    ]
    encoder.backward(np.hstack([sum(parts) for parts in zip(*roads)]), d)
    return {name: d[name] for name in p}

# ex08_adam
import numpy as np


class Average:
    """An exponential average that knows its bias."""

    def __init__(self, value, beta):
        self.value, self.beta = value, beta

    def add(self, new):
        self.value = self.beta * self.value + (1 - self.beta) * new
        return self

    def corrected(self, t):
        return self.value / (1 - self.beta**t)


def adam_step(theta, gradient, m, v, t, learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8):
    first = Average(m, beta1).add(gradient)
    second = Average(v, beta2).add(np.square(gradient))
    direction = first.corrected(t) / (np.sqrt(second.corrected(t)) + epsilon)
    return theta - learning_rate * direction, first.value, second.value

# ex09_train
import ex07_vae as vae
import numpy as np
from ex01_idx import scale
from ex08_adam import adam_step


def initialize(pixels, hidden, latent, rng):
    def layer(number, inputs, outputs):
        k = 1 / inputs**0.5
        W = rng.uniform(-k, k, (inputs, outputs))
        b = rng.uniform(-k, k, outputs)
        return {f"W{number}": W.astype(np.float32), f"b{number}": b.astype(np.float32)}

    encoder = layer(1, pixels, hidden) | layer(2, hidden, 2 * latent)
    return {**encoder, **layer(3, latent, hidden), **layer(4, hidden, pixels)}


def batches(images, size, rng):
    order = rng.choice(len(images), size=len(images), replace=False)
    count = -(-len(images) // size)
    for i in range(count):
        yield scale(images[order[i * size : min((i + 1) * size, len(images))]])


class Flat:
    """All arrays behind each other in one, so that one step of Adam does for all."""

    def __init__(self, arrays):
        self.shapes = {name: np.shape(array) for name, array in arrays.items()}

    def join(self, arrays):
        return np.concatenate([np.ravel(arrays[name]) for name in self.shapes])

    def split(self, vector):
        parts, at = {}, 0
        for name, shape in self.shapes.items():
            size = int(np.prod(shape))
            parts[name] = vector[at : at + size].reshape(shape)
            at += size
        return parts


def train_epoch(p, moments, t, images, batch_size, rng, learning_rate=1e-3):
    flat = Flat(p)
    theta = flat.join(p)
    m, v = (flat.join({name: pair[i] for name, pair in moments.items()}) for i in (0, 1))
    total = 0.0
    for x in batches(images, batch_size, rng):
        eps = rng.standard_normal((1, len(x), p["W3"].shape[0])).astype(np.float32)
        loss, values = vae.forward(p, x, eps)
        t += 1
        theta, m, v = adam_step(theta, flat.join(vae.backward(p, values)), m, v, t, learning_rate)
        p |= flat.split(theta)
        total += float(loss) * len(x)
    moments |= {name: (flat.split(m)[name], flat.split(v)[name]) for name in p}
    return total / len(images), t

# ex10_generate
import functools

import ex07_vae
import numpy as np
from ex04_bernoulli import sigmoid


def pixels(function):
    @functools.wraps(function)
    def wrapper(p, *arguments):
        g, logits = ex07_vae.decode(p, function(p, *arguments))
        return sigmoid(logits)

    return wrapper


@pixels
def sample(p, count, rng):
    J = p["W3"].shape[0]
    return rng.multivariate_normal(np.zeros(J), np.eye(J), count)


@pixels
def reconstruct(p, x):
    h, mu, logvar = ex07_vae.encode(p, x)
    return mu


@pixels
def interpolate(p, first, last, steps):
    a, b = (ex07_vae.encode(p, image[None])[1][0] for image in (first, last))
    return np.linspace(a, b, num=steps)

# ex11_importance
import ex04_bernoulli
import ex06_reparameterize
import ex07_vae
import numpy as np


def log_sum_exp(a, axis=0):
    highest = np.max(a, axis=axis, keepdims=True)
    return np.squeeze(highest, axis) + np.log(np.sum(np.exp(a - highest), axis=axis))


def log_mean_exp(a):
    return log_sum_exp(a) - np.log(len(a))


def normalized_weights(log_w):
    return np.exp(log_w - log_sum_exp(log_w))


class Normal:
    def __init__(self, mu, logvar):
        self.mu, self.logvar = mu, logvar

    def log_prob(self, z):
        precision = np.exp(-self.logvar)
        return np.sum(-0.5 * (np.log(2 * np.pi) + self.logvar + precision * (z - self.mu) ** 2), axis=-1)


def log_weights(log_p_x, z, mu, logvar):
    prior, q = Normal(np.zeros_like(mu), np.zeros_like(mu)), Normal(mu, logvar)
    return log_p_x - (q.log_prob(z) - prior.log_prob(z))


def log_likelihood(p, x, eps):
    h, mu, logvar = ex07_vae.encode(p, x)
    z = ex06_reparameterize.reparameterize(mu, logvar, eps)
    log_p_x = [ex04_bernoulli.bernoulli_log_density(x, ex07_vae.decode(p, one)[1]) for one in z]
    return log_mean_exp(log_weights(np.array(log_p_x), z, mu, logvar))
'''


def modules(text):
    """Module → source, of a text with a line `# module` in front of each."""
    _, *parts = re.split(r"^# (ex\d\d_\w+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


STYLES = {
    "loops over examples": modules(LOOPS),
    "einsum, type hints, keywords": modules(EINSUM),
    "in place": modules(IN_PLACE),
    "plain Python, lists": modules(PLAIN),
    "classes, closures, helpers": modules(OBJECTS),
}

# style → (function, the mistake to be named, (what stands there, what is written instead)…)
WRONG = {
    "loops over examples": [
        (
            "read_header",
            "the sizes are read with the least significant byte first",
            ("number = number * 256 + raw[position]", "number += raw[position] * 256 ** (position % 4)"),
        ),
        ("read_header", "the sizes are in reverse order", ("sizes.append(number)", "sizes.insert(0, number)")),
        (
            "read_header",
            "a file with bytes left over is accepted",
            ("if position + product < len(raw):\n        raise", "if False:\n        raise"),
        ),
        (
            "read_header",
            "one byte is read for each size",
            ("number = number * 256 + raw[position]", "number = raw[position]"),
        ),
        ("read_images", "the header is read as pixels", ("raw[16 + i", "raw[i")),
        ("scale", "they are divided by 256", ("/ 255.0", "/ 256.0")),
        ("dense", "b is forgotten", ("y[n, j] = b[j]", "y[n, j] = 0")),
        ("dense", "the sum over inputs is a mean", ("x[n, i] * W[i, j]", "x[n, i] * W[i, j] / W.shape[0]")),
        (
            "dense_backward",
            "d_b is a mean over the examples",
            ("d_y[n, j]\n            for", "d_y[n, j] / len(x)\n            for"),
        ),
        ("dense_backward", "d_b is only that of the first example", ("db[j] += d_y[n, j]", "db[j] = d_y[0, j]")),
        ("tanh", "it is the tangent of the angle a", ("math.tanh", "math.tan")),
        ("tanh_backward", "the square is missing", ("h[i, j] * h[i, j]", "h[i, j]")),
        (
            "softplus",
            "it is a ReLU",
            ("a[place] + math.log1p(math.exp(-a[place]))", "a[place]"),
            ("= math.log1p(math.exp(a[place]))", "= 0"),
        ),
        ("bernoulli_log_density", "the (1 − x) term is missing", (" + (1 - x[n, i]) * log_not_y", "")),
        (
            "bernoulli_log_density",
            "the sign is turned round",
            ("result[n] += x", "result[n] -= x"),
            ("log_y + (1", "log_y - -(1"),
        ),
        (
            "bernoulli_log_density_gradient",
            "the logits are taken for probabilities",
            ("sigmoid(logits[place])", "logits[place]"),
        ),
        ("gaussian_kl", "the ½ is missing", ("0.5 * ", "")),
        ("gaussian_kl", "latents are averaged, not summed", ("kl[n] += 0.5 * ", "kl[n] += 0.5 / mu.shape[1] * ")),
        ("gaussian_kl", "the 1 is missing", (" - 1 - ", " - ")),
        (
            "gaussian_kl",
            "exp(logvar / 2), that is σ, is in the place of σ²",
            ("math.exp(logvar[n, j])", "math.exp(0.5 * logvar[n, j])"),
        ),
        (
            "gaussian_kl_gradient",
            "it is the derivative with respect to σ",
            ("0.5 * (math.exp(logvar[n, j]) - 1)", "math.exp(logvar[n, j] / 2) - 1 / math.exp(logvar[n, j] / 2)"),
        ),
        (
            "reparameterize",
            "exp(logvar), the variance, is used as the standard deviation",
            ("np.sqrt(np.exp(logvar))", "np.exp(logvar)"),
        ),
        ("reparameterize_gradient", "only the first draw is taken", ("range(len(eps))", "range(1)")),
        ("encode", "mu and logvar are swapped", ("out[:, :J], out[:, J:]", "out[:, J:], out[:, :J]")),
        ("forward", "the loss is summed over the images, not averaged", ("    loss /= len(x)\n", "")),
        ("forward", "the draws are summed, not averaged", ("a) / L", "a)")),
        (
            "forward",
            "the decoder is given mu, not z",
            ("z = reparameterize(mu, logvar, eps)", "z = np.stack([mu] * L)"),
        ),
        ("backward", "the 1/B of the KL is missing", ("d_mu / B, d_logvar / B", "d_mu, d_logvar")),
        ("backward", "the tanh of the encoder is skipped", ('tanh_backward(d_h, values["h"])', "d_h")),
        ("adam_step", "the root is forgotten", ("v_hat**0.5", "v_hat")),
        ("adam_step", "ε is inside the root", ("(v_hat**0.5 + epsilon)", "(v_hat + epsilon) ** 0.5")),
        ("adam_step", "β₁ · m is forgotten", ("beta1 * m[place] + ", "")),
        (
            "initialize",
            "everything begins at zero",
            ("rng.uniform(-b, b, size=(ins[i], outs[i]))", "np.zeros((ins[i], outs[i]))"),
            ("rng.uniform(-b, b, size=outs[i])", "np.zeros(outs[i])"),
        ),
        ("train_epoch", "the order is not shuffled", ("    rng.shuffle(order)\n", "")),
        ("train_epoch", "the moments are not kept", ("            moments[name] = (m, v)\n", "")),
        (
            "train_epoch",
            "the last, smaller batch is dropped",
            ("start < len(images)", "start + batch_size <= len(images)"),
        ),
        ("sample", "z is uniform between 0 and 1", ("rng.normal(0, 1, size=(1, J))", "rng.random((1, J))")),
        ("interpolate", "the last end is left out", ("(steps - 1)", "steps")),
        ("log_mean_exp", "it is a sum, not a mean", ("total / K", "total")),
        (
            "log_weights",
            "log σ² is forgotten in log q",
            ("log_w[k, n] += 0.5 * logvar[n, j]", "pass"),
        ),
    ],
    "einsum, type hints, keywords": [
        ("read_header", "the sizes are read with the least significant byte first", (">u4", "<u4")),
        (
            "scale",
            "they go from −1 to 1",
            ("np.float32(255), dtype=np.float32)", "np.float32(127.5), dtype=np.float32) - 1"),
        ),
        ("dense", "W is transposed", ("bi,io->bo", "bi,oi->bo")),
        ("dense_backward", "d_b is summed over everything", ("bo->o", "bo->")),
        ("dense_backward", "d_W is transposed", ("->io", "->oi")),
        (
            "tanh",
            "it is the sigmoid",
            ("2 / (1 + np.exp(-2 * np.clip(a, -300, 300))) - 1", "1 / (1 + np.exp(-np.clip(a, -300, 300)))"),
        ),
        ("tanh_backward", "there is a plus for the minus", ("(1 - h) * (1 + h)", "1 + h * h")),
        ("sigmoid", "the sign in the exponent is turned round", ("0.0, -a", "0.0, a")),
        (
            "bernoulli_log_density",
            "the probabilities are taken for logits",
            ("logits, x)", "sigmoid(logits), x)"),
            ("softplus(logits)", "softplus(sigmoid(logits))"),
        ),
        ("bernoulli_log_density_gradient", "the (1 − x) term is missing", (" - (1 - x) * y", "")),
        (
            "gaussian_kl",
            "everything is summed, examples too",
            ('bj,bj->b", mu', 'bj,bj->", mu'),
            ('bj,bj->b", sigma', 'bj,bj->", sigma'),
            (".sum(1)", ".sum()"),
        ),
        ("gaussian_kl_gradient", "the ½ of d_logvar is missing", (" * 0.5", "")),
        (
            "reparameterize",
            "σ is added to the noise, not multiplied",
            ('np.einsum("bj,lbj->lbj", std, eps)', "(std + eps)"),
        ),
        ("reparameterize_gradient", "the ½ of d_logvar is missing", ("0.5 * np.einsum", "np.einsum")),
        (
            "reparameterize_gradient",
            "the noise is forgotten",
            ('lbj,lbj,bj->bj", d_z, eps, std', 'lbj,bj->bj", d_z, std'),
        ),
        (
            "encode",
            "mu and logvar are every other column",
            (".reshape(len(x), 2, -1)", ".reshape(len(x), -1, 2).swapaxes(1, 2)"),
        ),
        (
            "decode",
            "there is a tanh at the outputs, too",
            ('np.einsum("nh,hd->nd", g, p["W4"]) + p["b4"]', 'np.tanh(np.einsum("nh,hd->nd", g, p["W4"]) + p["b4"])'),
        ),
        ("forward", "the KL has the wrong sign", ("kl - reconstruction", "-kl - reconstruction")),
        ("backward", "the KL's derivative with respect to mu is forgotten", (' + v["mu"] / B', "")),
        ("backward", "the tanh of the decoder is skipped", (', p["W4"]) * (1 - g**2)', ', p["W4"])')),
        (
            "adam_step",
            "(1 − β₂) is missing at the gradient",
            ("v + (1 - beta2) * (gradient * gradient - v)", "beta2 * v + gradient * gradient"),
        ),
        (
            "train_epoch",
            "the loss is the mean over the batches",
            ("np.average(losses, weights=sizes)", "np.average(losses)"),
        ),
        ("train_epoch", "t begins anew in each epoch", ("start=t + 1", "start=1")),
        ("reconstruct", "logvar is decoded, not mu", ("x=x)[1]", "x=x)[2]")),
        (
            "normalized_weights",
            "they are normalized over everything",
            ("log_w, axis=0, keepdims=True", "log_w, axis=None"),
        ),
        (
            "log_likelihood",
            "the batch is averaged",
            (
                "log_mean_exp(log_weights(z=z, mu=mu, logvar=logvar, log_p_x=log_p_x))",
                "log_mean_exp(log_weights(z=z, mu=mu, logvar=logvar, log_p_x=log_p_x)).mean()",
            ),
        ),
    ],
    "in place": [
        (
            "read_images",
            "the images are not made into rows",
            ('np.empty((shape[0], shape[1] * shape[2]), "u1")', 'np.empty(shape, "u1")'),
        ),
        ("scale", "nothing is divided", ("    x *= 1 / 255\n", "")),
        ("dense", "b is subtracted", ("y += b", "y -= b")),
        (
            "dense_backward",
            "d_x and d_W are returned in the wrong order",
            ("np.dot(d_y, W.transpose()), d_W", "d_W, np.dot(d_y, W.transpose())"),
        ),
        ("tanh_backward", "d_h is passed on as it is", ("return d_a", "return d_h.copy()")),
        ("softplus", "max(a, 0) is forgotten", ("    out += a * (a > 0)\n", "")),
        ("bernoulli_log_density", "softplus is forgotten", ("    terms -= softplus(logits)\n", "")),
        ("bernoulli_log_density_gradient", "the sign is turned round", ("np.subtract(x, y", "np.subtract(y, x")),
        ("gaussian_kl", "logvar has the wrong sign", ("kl -= logvar", "kl += logvar")),
        ("gaussian_kl", "mu is not squared", ("np.square(mu)", "mu")),
        ("gaussian_kl_gradient", "the −1 is missing", ("    d_logvar -= 1\n", "")),
        ("reparameterize", "mu is forgotten", ("    z += mu\n", "")),
        ("reparameterize", "σ is forgotten", ("    z *= np.exp(logvar / 2)\n", "")),
        (
            "reparameterize_gradient",
            "the draws of d_mu are averaged, not summed",
            ("return np.add.reduce(d_z)", "return np.mean(d_z, 0)"),
        ),
        ("encode", "the second layer's b is forgotten", ('    both += p["b2"]\n', "")),
        ("decode", "the tanh is skipped", ("    np.tanh(g, out=g)\n", "")),
        ("forward", "the KL is forgotten", ('gaussian_kl(values["mu"], values["logvar"]).sum()', "0.0")),
        ("backward", "the 1/L is missing", ("d_logits /= -L * B", "d_logits /= -B")),
        (
            "backward",
            "mu and logvar are joined in the wrong order",
            ("d_out[:, :J], d_out[:, J:]", "d_out[:, J:], d_out[:, :J]"),
            ("d_out[:, :J] += kl_mu", "d_out[:, J:] += kl_mu"),
            ("d_out[:, J:] += kl_logvar", "d_out[:, :J] += kl_logvar"),
        ),
        ("adam_step", "the gradient is not squared in v", ("gradient**2", "gradient")),
        ("adam_step", "the step goes uphill", ("theta -=", "theta +=")),
        ("train_epoch", "noise is uniform", ("rng.standard_normal(noise.shape)", "rng.random(noise.shape)")),
        (
            "train_epoch",
            "the parameters are not kept",
            ("p[name][...], m", "_, m"),
            ("(p[name], d[name]", "(p[name].copy(), d[name]"),
        ),
        (
            "sample",
            "the logits are returned",
            ("    images /= 2\n    np.tanh(images, out=images)\n    images += 1\n    images /= 2\n", ""),
        ),
        ("normalized_weights", "the weights are not normalized", ("    w /= w.sum(axis=0)\n", "")),
        (
            "log_weights",
            "the prior is forgotten",
            ("    result -= (z**2).sum(axis=2) / 2\n", "    result += z.shape[2] * 0.5 * np.log(2 * np.pi)\n"),
        ),
    ],
    "plain Python, lists": [
        ("read_header", "the length of the file is not checked", ("len(rest) != math.prod(sizes)", "False")),
        (
            "dense_backward",
            "d_W is divided by the number of examples",
            ("inputs, outputs)) for outputs", "inputs, outputs)) / len(x) for outputs"),
        ),
        ("tanh_backward", "d_h is added, not multiplied", ("d * (1", "d + (1")),
        ("gaussian_kl", "the sign is turned round", ("/ 2", "/ -2")),
        (
            "gaussian_kl_gradient",
            "the two are returned in the wrong order",
            (
                "[mu.tolist(), [[(exp(s) - 1) / 2 for s in row] for row in logvar.tolist()]]",
                "[[[(exp(s) - 1) / 2 for s in row] for row in logvar.tolist()], mu.tolist()]",
            ),
        ),
        ("reparameterize", "the ½ is a 2", ("math.exp(s / 2)", "math.exp(s * 2)")),
        (
            "reparameterize_gradient",
            "it is the derivative with respect to σ",
            (" * math.exp(logvar[b, j] / 2) / 2", ""),
        ),
        ("encode", "the tanh is skipped", ("h = tanh(a)", "h = a")),
        ("forward", "it is the ELBO, not −ELBO", ("-float(", "float(")),
        (
            "backward",
            "the KL's derivative is subtracted",
            ("+ kl_mu, d_logvar / L + kl_logvar", "- kl_mu, d_logvar / L - kl_logvar"),
        ),
        (
            "adam_step",
            "the bias correction is missing",
            ("(new_m / (1 - pow(beta1, t)))", "new_m"),
            ("(new_v / (1 - pow(beta2, t)))", "new_v"),
        ),
        (
            "train_epoch",
            "t counts arrays, not steps",
            ("        t += 1\n", ""),
            ("*moments[name], t,", "*moments[name], (t := t + 1),"),
        ),
        ("interpolate", "it goes from the last to the first", ("(1 - s) * a + s * b", "s * a + (1 - s) * b")),
        ("log_mean_exp", "the maximum is not put back", ("max(c) + math.log", "math.log")),
        ("log_weights", "q is forgotten", (" - _log_normal(z, mu, np.exp(logvar)).sum(2)", "")),
        (
            "log_likelihood",
            "the logarithms of the weights are averaged",
            (
                "log_mean_exp(log_weights(bernoulli_log_density(one, logits[:, None]), z, mu, logvar)).tolist()",
                "np.mean(log_weights(bernoulli_log_density(one, logits[:, None]), z, mu, logvar), 0).tolist()",
            ),
        ),
    ],
    "classes, closures, helpers": [
        (
            "read_images",
            "ink and paper are swapped",
            ("np.array(memoryview(raw)[16:], np.uint8)", "(255 - np.array(memoryview(raw)[16:], np.uint8))"),
        ),
        ("dense_backward", "W is not transposed in d_x", ("d_y.dot(self.W.T)", "d_y.dot(self.W)")),
        (
            "sigmoid",
            "eᵃ / (1 + eᵃ) is written as it is",
            (
                "e = np.exp(-np.abs(a))\n    return np.where(a >= 0, 1.0, e) / (1 + e)",
                "return 1 - 1 / (1 + np.exp(a)) if a.max() < 99 else np.exp(a) / (1 + np.exp(a))",
            ),
        ),
        ("bernoulli_log_density", "pixels are averaged, not summed", ("np.sum(", "np.mean(")),
        (
            "gaussian_kl",
            "logvar is taken for log σ",
            ("self.variance - 1 - self.logvar", "self.variance**2 - 1 - 2 * self.logvar"),
        ),
        ("reparameterize_gradient", "d_mu is multiplied by the noise", ("[(d, d * e", "[(d * e, d * e")),
        ("forward", "log p(x|z) has the wrong sign", ("log_p_x - kl", "-log_p_x - kl")),
        ("backward", "the 1/B of log p(x|z) is missing", ("-1 / (L * B)", "-1 / L")),
        (
            "adam_step",
            "the moments are corrected, and the corrected ones are returned",
            ("first.value, second.value", "first.corrected(t), second.corrected(t)"),
        ),
        (
            "adam_step",
            "β₁ and 1 − β₁ are swapped",
            ("Average(m, beta1).add(gradient)", "Average(m, 1 - beta1).add(gradient)"),
            ("first.corrected(t)", "(first.value / (1 - beta1**t))"),
        ),
        ("initialize", "it is ±1/√O, with the number of outputs", ("1 / inputs**0.5", "1 / outputs**0.5")),
        ("train_epoch", "the images are drawn with replacement", ("replace=False", "replace=True")),
        ("sample", "softplus is taken for a sigmoid", ("return sigmoid(logits)", "return np.logaddexp(0, logits)")),
        ("interpolate", "there is one image too many", ("num=steps", "num=steps + 1")),
        (
            "log_weights",
            "log q is added, not subtracted",
            ("log_p_x - (q.log_prob(z) - prior", "log_p_x + (q.log_prob(z) + prior"),
        ),
    ],
}


def with_mistake(style, function, changes):
    """The module of a function in a style, with text replaced that is there once: in the function, or beside it."""
    module, source = next((m, s) for m, s in STYLES[style].items() if re.search(rf"^(def )?{function}\b", s, re.M))
    begin = re.search(rf"^(def )?{function}\b", source, re.M).start()
    after = re.search(r"\n\n\n", source[begin:])
    end = begin + after.start() + 1 if after else len(source)
    for old, new in changes:
        if source[begin:end].count(old) == 1:
            source = source[:begin] + source[begin:].replace(old, new, 1)
            end += len(new) - len(old)
        else:
            assert source.count(old) == 1, f"{style}, {function}: {old!r} is there {source.count(old)} times"
            source = source.replace(old, new)
    return module, source


def earlier(module):
    """What a learner's file imports while it is checked, as in `npvae.exercises.child`."""
    return {name: _with_helpers(solution, name) for name, solution in solved().items() if name < module}


@contextlib.contextmanager
def imported(module, source):
    """The module that a learner's text makes, in the surroundings in which `npvae.exercises.child` checks it."""
    made, before = types.ModuleType(module), dict(sys.modules)
    sys.modules.update(earlier(module))
    sys.modules[module] = made
    try:
        exec(compile(source, f"a learner's {module}.py", "exec"), made.__dict__)
        yield made
    finally:
        for name in set(MODULES) & set(sys.modules):
            del sys.modules[name]
        sys.modules.update({name: old for name, old in before.items() if name in MODULES})


def verdicts(module, source, names=None):
    """The verdicts on the functions of a learner's text."""
    task = exercise(MODULES.index(module) + 1)
    with imported(module, source) as made:
        others = earlier(module)
        return [judge(getattr(made, name), name, task, others, siblings=True) for name in names or task.functions]
