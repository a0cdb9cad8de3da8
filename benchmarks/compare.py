"""Time a training step of npvae beside one of PyTorch: `python benchmarks/compare.py`.

Each contender has a process of its own and waits while another one runs; rounds alternate, so that a slow moment of the
machine hits all alike. Before the clock starts, all take the same steps from the same parameters with the same batches
and the same noise, and their losses are compared: they do the same work. PyTorch's model is the textbook one.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from npvae import VAE, Adam
from npvae.data.datasets import batch, load

PIXELS, HIDDEN, LATENT, BATCH_SIZE = 784, 500, 20, 100
CONTENDERS = ("npvae", "torch-fused", "torch")
SAME_STEPS = 50


class NumpyStep:
    def __init__(self, images):
        self.images, self.rng = images, np.random.default_rng(1)
        self.vae = VAE(PIXELS, (HIDDEN,), LATENT, rng=np.random.default_rng(0))
        self.adam = Adam(self.vae.parameters)

    def __call__(self, rows, eps=None):
        x = batch(self.images, rows)
        if eps is None:
            eps = self.rng.standard_normal((1, len(x), LATENT), np.float32)
        loss = self.vae.loss(x, eps)
        self.vae.backward()
        self.adam.step()
        return loss


class TorchStep:
    def __init__(self, images, fused):
        import torch

        self.torch, self.images = torch, torch.from_numpy(images)
        modules = [torch.nn.Linear(*sizes) for sizes in ((PIXELS, HIDDEN), (HIDDEN, 2 * LATENT))]
        modules += [torch.nn.Linear(*sizes) for sizes in ((LATENT, HIDDEN), (HIDDEN, PIXELS))]
        vae = VAE(PIXELS, (HIDDEN,), LATENT, rng=np.random.default_rng(0))
        for module, name in zip(modules, ("encoder.0", "encoder.1", "decoder.0", "decoder.1"), strict=True):
            module.weight.data = torch.from_numpy(vae.parameters[f"{name}.W"].T.copy())
            module.bias.data = torch.from_numpy(vae.parameters[f"{name}.b"].copy())
        self.encoder = torch.nn.Sequential(modules[0], torch.nn.Tanh(), modules[1])
        self.decoder = torch.nn.Sequential(modules[2], torch.nn.Tanh(), modules[3])
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.adam = torch.optim.Adam(parameters, lr=1e-3, fused=fused)

    def __call__(self, rows, eps=None):
        torch = self.torch
        x = self.images[torch.from_numpy(rows)].float() / 255
        eps = torch.randn(len(x), LATENT) if eps is None else torch.from_numpy(eps[0])
        mu, logvar = self.encoder(x).chunk(2, dim=1)
        z = mu + torch.exp(logvar / 2) * eps
        logits = self.decoder(z)
        reconstruction = torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = -0.5 * torch.sum(1 + logvar - mu**2 - logvar.exp())
        loss = (reconstruction + kl) / len(x)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        return loss.item()


def work(name, dataset, data_dir):
    """Serve rounds: a number of steps on a line of standard input, seconds per step on a line of standard output."""
    images = load(dataset, data_dir).train_images
    step = NumpyStep(images) if name == "npvae" else TorchStep(images, fused=name == "torch-fused")
    rng = np.random.default_rng(2)
    batches = rng.integers(0, len(images), (SAME_STEPS, BATCH_SIZE))
    losses = [step(rows, rng.standard_normal((1, BATCH_SIZE, LATENT), np.float32)) for rows in batches]
    print(json.dumps(losses), flush=True)
    for line in sys.stdin:
        batches = rng.integers(0, len(images), (int(line), BATCH_SIZE))
        began = time.perf_counter()
        for rows in batches:
            step(rows)
        print((time.perf_counter() - began) / len(batches), flush=True)


def peak_memory(dataset, data_dir):
    """Megabytes that one epoch of `python -m npvae.train` needs at most, its pictures included."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "npvae.train", "--dataset", dataset, "--epochs", "1", "--out", f"{folder}/run"]
        subprocess.run(command + (["--data-dir", data_dir] if data_dir else []), check=True, stdout=subprocess.DEVNULL)
    kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return kilobytes / (1024 if sys.platform != "darwin" else 1024**2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="auto", help="as in npvae.train (default: auto)")
    parser.add_argument("--data-dir", default="", help="as in npvae.train")
    parser.add_argument("--rounds", type=int, default=15, help="of each contender (default: 15)")
    parser.add_argument("--steps", type=int, default=100, help="per round (default: 100)")
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options.worker, options.dataset, options.data_dir)

    memory = peak_memory(options.dataset, options.data_dir)  # first: it asks for the largest child so far
    command = [sys.executable, str(Path(__file__)), "--dataset", options.dataset, "--data-dir", options.data_dir]
    workers, seconds, reference = {}, {}, None
    for name in CONTENDERS:
        workers[name] = subprocess.Popen(
            [*command, "--worker", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        losses = json.loads(workers[name].stdout.readline())
        reference = reference or losses  # npvae's, which comes first
        worst = max(abs(loss / expected - 1) for loss, expected in zip(losses, reference, strict=True))
        print(
            f"{name}: loss {losses[-1]:.3f} after {SAME_STEPS} steps; at most {worst:.0e} from npvae's in any of them"
        )
        assert worst < 1e-3, "the contenders do not do the same work"
        seconds[name] = []
    for _ in range(options.rounds):
        for name, worker in workers.items():
            print(options.steps, file=worker.stdin, flush=True)
            seconds[name].append(float(worker.stdout.readline()))
    for worker in workers.values():
        worker.communicate()

    print(f"\n{PIXELS}-{HIDDEN}-{LATENT}, batch {BATCH_SIZE}, {options.rounds} rounds of {options.steps} steps in turn")
    print(f"{'':<12}{'median':>9}{'min':>7}{'max':>7}  ms per step   npvae's time over it, median of the rounds")
    for name, times in seconds.items():
        milliseconds = [1e3 * value for value in times]
        ratio = statistics.median(ours / theirs for ours, theirs in zip(seconds["npvae"], times, strict=True))
        row = f"{statistics.median(milliseconds):9.2f}{min(milliseconds):7.2f}{max(milliseconds):7.2f}"
        print(f"{name:<12}{row}{ratio:26.2f}")
    print(f"\npython -m npvae.train, one epoch of {options.dataset}: at most {memory:.0f} MB of memory")
    return 0


if __name__ == "__main__":
    sys.exit(main())
