"""Exercise 8: The optimizer, Adam.

Kingma & Ba 2015, Algorithm 1; notebook 6:

    m ← β₁ m + (1 − β₁) g,   v ← β₂ v + (1 − β₂) g²,   m̂ = m / (1 − β₁ᵗ),   v̂ = v / (1 − β₂ᵗ),
    θ ← θ − learning_rate · m̂ / (√v̂ + ε)
"""

import numpy as np


def adam_step(
    theta, gradient, m, v, t, learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8
):
    """The step number t, for one array.

    Parameters
    ----------
    theta, gradient : arrays of one shape
        The parameters, and the derivative of the loss with respect to them.
    m, v : arrays of the same shape
        The moments after step t − 1; zeros before the first step.
    t : int
        1 in the first step.

    Returns
    -------
    theta, m, v : arrays
        After the step. They may be new, or those given, overwritten.
    """
    m = beta1 * m + (1 - beta1) * gradient
    v = beta2 * v + (1 - beta2) * gradient**2
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    theta = theta - learning_rate * m_hat / (np.sqrt(v_hat) + epsilon)
    return theta, m, v
