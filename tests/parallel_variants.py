"""Train some small models in all processes of a job, and evaluate them: `mpiexec -n 3 python -m tests.parallel_variants
FEW_DIGITS OUT`. What came out is written to OUT/N.npz, N being the number of processes.
"""

import sys
from pathlib import Path

import numpy as np

from npvae import evaluate
from npvae.config import Config
from npvae.data.datasets import load
from npvae.parallel import this_team, together
from npvae.training import Training

EPOCHS = 4  # of 600 digits: 40 steps of 64, the last of an epoch of 24; or 36 of 71, the last of 32
VARIANTS = {
    "elbo": {},
    "three samples, sgd": {"samples": 3, "optimizer": "sgd", "learning_rate": 1e-3},
    "iwae": {"objective": "iwae", "samples": 5, "batch_size": 71},
    "conditional, dynamic, adagrad": {"conditional": True, "binarize": "dynamic", "optimizer": "adagrad"},
    "a process without examples": {"batch_size": 199, "objective": "iwae-dreg", "samples": 2},  # the last batch has 3
}


@together
def main(arguments=None):
    evaluate.ENCODED_AT_ONCE = 30
    data, out = sys.argv[1:]
    dataset, found = load(data), {}
    for name, settings in VARIANTS.items():
        config = Config(dataset=data, hidden=(20,), latent=3, **{"batch_size": 64, **settings})
        training = Training(config, dataset)
        training.join(this_team())
        losses = []
        for _ in range(EPOCHS):
            for _ in training.steps():
                pass
            losses.append(training.sums[:3] / len(dataset.train_images))
            training.end_epoch()
        arrays = {"losses": np.array(losses), **training.arrays()}
        del arrays["sums"]
        terms = evaluate.estimates(training.vae, dataset.test_images, dataset.test_labels, 7, (1, 7), team=this_team())
        found |= {f"{name}: {key}": array for key, array in (arrays | terms).items()}
    # of the same parameters in all jobs, and in 20 blocks, the last of which is smaller
    images, labels = dataset.train_images[:-50], dataset.train_labels[:-50]
    terms = evaluate.estimates(Training(config, dataset).vae, images, labels, 20, (1, 20), team=this_team())
    found |= {f"untrained: {key}": array for key, array in terms.items()}
    if this_team().leads:
        found["mpi4py"] = np.array("mpi4py" in sys.modules)
        np.savez(Path(out) / f"{this_team().size}.npz", **found)
    this_team().leave()
    return 0


if __name__ == "__main__":
    sys.exit(main())
