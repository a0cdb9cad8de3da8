"""Figures 4 and 5: the latent planes of MNIST and the Frey faces, and samples: `python paper/figures45.py`.

Their racers are those of Figure 2 that use Adam, with its checkpoints and in its table, and one more for MNIST.
"""

import sys

import numpy as np
from figure2 import EXAMPLES, MARKS, TABLE, TITLES
from matplotlib.figure import Figure
from race import Racer, elbo, images_of, load_race, race_for
from tables import FOLDER

from npvae.commands import UserError, command
from npvae.film import plane
from npvae.plot import tile

PROGRAM = "python paper/figures45.py"
SHAPES = {"mnist": (28, 28), "frey": (28, 20)}
PLANES = {Racer("frey", 1600, 200, 2, "aevb", "adam"): 10, Racer("mnist", 50_000, 500, 2, "aevb", "adam"): 20}
SAMPLES = [Racer("mnist", 50_000, 500, latent, "aevb", "adam") for latent in (2, 5, 10, 20)]


def trained(racer):
    """The model of a racer's checkpoint, and what a title says of it: after how many examples."""
    race = load_race(racer, images_of(racer)[0])
    return race.vae, f"{int(race.arrays['examples']):,} examples"


def panel(axis, racer, images, columns, title):
    """Draw images (N, D) in rows of so many, on white: digits as ink, faces as they are."""
    ink = 1 - images if racer.dataset == "frey" else images
    axis.imshow(tile(ink, columns, SHAPES[racer.dataset]), cmap="gray_r", vmin=0, vmax=1)
    axis.set_title(title, fontsize=10)
    axis.axis("off")


def draw_planes():
    """Figure 4: z at equal steps in probability, through the inverse CDF, decoded; 10 × 10 faces, 20 × 20 digits."""
    figure = Figure(figsize=(9, 5.4), layout="constrained")
    for axis, (racer, side) in zip(figure.subplots(1, 2), PLANES.items(), strict=True):
        vae, reached = trained(racer)
        panel(axis, racer, vae.decode(plane(side)), side, f"{TITLES[racer.dataset]}, {reached}")
    figure.savefig(FOLDER / "figure4.png", dpi=110)


def draw_samples():
    """Figure 5: pixel means decoded from z ~ p(z), 10 × 10 for each number of latents."""
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for axis, racer in zip(figure.subplots(1, 4), SAMPLES, strict=True):
        vae, reached = trained(racer)
        panel(axis, racer, vae.sample(100, np.random.default_rng(0)), 10, f"{racer.latent} latents, {reached}")
    figure.savefig(FOLDER / "figure5.png", dpi=110)


@command(PROGRAM)
def main(arguments=None):
    racers = [*PLANES, *SAMPLES[1:]]
    race_for(PROGRAM, __doc__.splitlines()[0], racers, MARKS, EXAMPLES, elbo, TABLE, arguments)
    missing = [racer.name for racer in racers if not racer.checkpoint.exists()]
    if missing:
        raise UserError(f"nothing is drawn before all have raced; missing: {', '.join(missing)}")
    draw_planes()
    draw_samples()
    return 0


if __name__ == "__main__":
    sys.exit(main())
