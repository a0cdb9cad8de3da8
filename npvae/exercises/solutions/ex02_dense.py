"""Exercise 2: A dense layer, forward and backward.

Forward it is y = x W + b. Backward it is given d_y, the derivative of the loss with respect to
y; the chain rule carries it on to x, to W and to b. See notebook 2.
"""

import numpy as np


def dense(x, W, b):
    """y = x W + b for each of the rows of x.

    Parameters
    ----------
    x : (B, I) array
    W : (I, O) array
    b : (O,) array

    Returns
    -------
    (B, O) array
    """
    return x @ W + b


def dense_backward(d_y, x, W):
    """The derivatives of the loss with respect to x, W and b, from that with respect to y.

    Parameters
    ----------
    d_y : (B, O) array
    x : (B, I) array
        What the layer was given.
    W : (I, O) array

    Returns
    -------
    d_x (B, I), d_W (I, O), d_b (O,) : arrays
    """
    d_x = d_y @ W.T
    d_W = x.T @ d_y
    d_b = d_y.sum(axis=0)
    return d_x, d_W, d_b
