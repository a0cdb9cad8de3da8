"""A variational autoencoder written by hand in NumPy, after Kingma & Welling, "Auto-Encoding Variational Bayes"."""

from npvae.optimizers import SGD, Adagrad, Adam
from npvae.vae import VAE

__all__ = ["SGD", "VAE", "Adagrad", "Adam"]
__version__ = "0.1.0"
