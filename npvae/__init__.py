"""A variational autoencoder written by hand in NumPy, after Kingma & Welling, "Auto-Encoding Variational Bayes"."""

import os
import re
import signal
import sys

if (sys.argv[:1] == ["-m"] and re.search(r"\0-m\0npvae\b", "\0".join(sys.orig_argv))) or (  # `python -m npvae.train`
    sys.argv and os.path.basename(sys.argv[0]) in ("npvae", "npvae.exe")  # `npvae train`
):
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # what follows takes a moment to import, and nothing is begun yet that a traceback could tell of
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    os.environ["MPLBACKEND"] = "agg"  # the commands draw into files, whatever else matplotlib is told
    from npvae.parallel import limit_threads

    limit_threads()  # before NumPy is imported

from npvae.optimizers import SGD, Adagrad, Adam
from npvae.vae import VAE

__all__ = ["SGD", "VAE", "Adagrad", "Adam", "load"]
__version__ = "0.1.0"


def __getattr__(name):
    if name == "load":  # only now, because a run's folder takes more imports than NumPy
        from npvae.runs import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
