"""Gradient descent in place on one flat vector: SGD with momentum, Adagrad, Adam.

Each `step()` reads `parameters.gradient` and moves `parameters.values` downhill. `state` holds the arrays that a step
changes, the step count among them: save them, write them back into the `state[name][...]` of a new optimizer, and it
goes on as if it had never stopped.
"""

import math

import numpy as np


class Optimizer:
    """What the three share: the parameters, the learning rate, and room for one temporary vector.

    Parameters
    ----------
    parameters : Parameters
        Its `values` (P,) are changed in place by `step()`, after a backward pass has written its `gradient` (P,).
    learning_rate : float
        Step size; in Adam about the size of a parameter's first steps.
    """

    def __init__(self, parameters, learning_rate):
        self.parameters = parameters
        self.learning_rate = learning_rate
        self.scratch = np.empty_like(parameters.values)  # (P,)
        self.state = {}


class SGD(Optimizer):
    """v ← momentum · v + g, θ ← θ − learning_rate · v (Polyak 1964); momentum 0 is plain gradient descent."""

    def __init__(self, parameters, learning_rate=0.01, momentum=0.9):
        super().__init__(parameters, learning_rate)
        self.momentum = momentum
        self.state = {"velocity": np.zeros_like(parameters.values)}

    def step(self):
        velocity = self.state["velocity"]
        velocity *= self.momentum
        velocity += self.parameters.gradient
        self.parameters.values -= np.multiply(velocity, self.learning_rate, out=self.scratch)


class Adagrad(Optimizer):
    """h ← h + g², θ ← θ − learning_rate · g / (√h + ε) (Duchi et al. 2011); what the AEVB paper trained with."""

    def __init__(self, parameters, learning_rate=0.01, epsilon=1e-8):
        super().__init__(parameters, learning_rate)
        self.epsilon = epsilon
        self.state = {"squares": np.zeros_like(parameters.values)}

    def step(self):
        gradient, squares, update = self.parameters.gradient, self.state["squares"], self.scratch
        squares += np.multiply(gradient, gradient, out=update)
        np.sqrt(squares, out=update)
        update += self.epsilon
        np.divide(gradient, update, out=update)
        update *= self.learning_rate
        self.parameters.values -= update


class Adam(Optimizer):
    """Kingma & Ba 2015, Algorithm 1, whose line for line form is

        m ← β₁ m + (1 − β₁) g,   v ← β₂ v + (1 − β₂) g²,   m̂ = m / (1 − β₁ᵗ),   v̂ = v / (1 − β₂ᵗ),
        θ ← θ − learning_rate · m̂ / (√v̂ + ε).

    The state holds M = m / (1 − β₁) and V = v / (1 − β₂), whose updates M ← β₁ M + g, V ← β₂ V + g² need no scaled copy
    of g. With a² = (1 − β₂) / (1 − β₂ᵗ) we have √v̂ = a √V, and the step is

        θ ← θ − learning_rate (1 − β₁) / (1 − β₁ᵗ) / a · M / (√V + ε / a):

    the same numbers in ten passes over memory, which is what a step of Adam spends its time on.
    """

    def __init__(self, parameters, learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8):
        super().__init__(parameters, learning_rate)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        zeros = np.zeros_like
        self.state = {"M": zeros(parameters.values), "V": zeros(parameters.values), "t": np.zeros((), np.int64)}

    def step(self):
        gradient, update = self.parameters.gradient, self.scratch
        M, V, t = self.state["M"], self.state["V"], self.state["t"]
        t += 1
        M *= self.beta1
        M += gradient
        V *= self.beta2
        V += np.multiply(gradient, gradient, out=update)

        a = math.sqrt((1 - self.beta2) / (1 - self.beta2 ** int(t)))
        np.sqrt(V, out=update)
        update += self.epsilon / a
        np.divide(M, update, out=update)
        update *= self.learning_rate * (1 - self.beta1) / (1 - self.beta1 ** int(t)) / a
        self.parameters.values -= update


OPTIMIZERS = {"sgd": SGD, "adagrad": Adagrad, "adam": Adam}
