"""A variational autoencoder written by hand in NumPy, after Kingma & Welling, "Auto-Encoding Variational Bayes"."""

from npvae.optimizers import SGD, Adagrad, Adam
from npvae.vae import VAE

__all__ = ["SGD", "VAE", "Adagrad", "Adam", "load"]
__version__ = "0.1.0"


def __getattr__(name):
    if name == "load":  # only now, because a run's folder takes more imports than NumPy
        from npvae.runs import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
