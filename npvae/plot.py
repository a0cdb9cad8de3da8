"""Pictures of a run: `python -m npvae.plot RUN`."""

import sys

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from npvae.commands import command, say
from npvae.comparison import AS_IT_IS, COLOURS, compare, panels
from npvae.data.pixels import batch, one_hot
from npvae.distributions import gaussian_kl
from npvae.files import replacing
from npvae.film import plane
from npvae.runs import Run, finite_number, require_fit, run_parser
from npvae.vae import reparameterize

SEED = 2  # of every draw in a picture: the same run, the same pictures
TRAIN, TEST = COLOURS[:2]
# ten colours that colour-blind people tell apart (Petroff 2021, arXiv 2107.02270), in the order of the digits
CLASS_COLOURS = "#3f90da #ffa90e #bd1f01 #94a4a2 #832db6 #a96b59 #e76300 #b9ac70 #717581 #92dadd".split()
HIGHEST = 40  # inches of a picture: images of 2,000 × 1 pixels have room in it, and in memory
GAP = 2  # pixels between images


class NotApplicable(Exception):
    """The run is not of the kind that this picture is about; the message says which is."""


def tile(images, columns, image_shape):
    """Lay images (N, D) out in rows of `columns`, with a gap of zeros around each: a (height, width) array."""
    height, width = image_shape
    rows = -(-len(images) // columns)
    page = np.zeros((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP), np.float32)
    for i, image in enumerate(images):
        top, left = GAP + i // columns * (height + GAP), GAP + i % columns * (width + GAP)
        page[top : top + height, left : left + width] = image.reshape(image_shape)
    return page


def picture(title, images, columns, image_shape, row_labels=(), column_labels=(), ink=True):
    """A figure of images (N, D) in rows of `columns`: dark ink on paper, or without `ink` grey values as they are."""
    page = tile(images, columns, image_shape)
    height, width = page.shape
    scale = min(7.2 / width, HIGHEST / height)  # inches per pixel
    figure = Figure(
        figsize=(width * scale + 0.4 * bool(row_labels), height * scale + 0.5 + 0.3 * bool(column_labels)),
        layout="constrained",
    )
    axes = figure.add_subplot()
    axes.imshow(page, cmap="gray_r" if ink else "gray", vmin=0, vmax=1)
    axes.set_title(title, fontsize=10)
    for set_ticks, labels, side in zip(
        (axes.set_yticks, axes.set_xticks), (row_labels, column_labels), image_shape, strict=True
    ):
        set_ticks([GAP + i * (side + GAP) + (side - 1) / 2 for i in range(len(labels))], labels)  # at the middle
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=9)
    axes.spines[:].set_visible(False)
    return figure


def examples(dataset, rows, vae):
    """(x, y) of test examples."""
    return batch(dataset.test_images, rows), one_hot(dataset.test_labels, rows, vae.classes)


def learning_curves(run):
    rows = run.metrics()
    if not rows:
        raise NotApplicable("no epoch is finished yet")
    figure = Figure(figsize=(9.6, 3.2), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    config = run.config
    what = "its own β" if config.beta != 1 or config.kl_warmup else "mean over the epoch"
    for axes, term in panels(figure, f"loss ({config.bound})"):
        for split, label, colour, marker in (
            ("train", f"train, {what}", TRAIN, "o"),
            ("test", "test", TEST, "s"),
        ):
            values = [row[f"{split}_{term}"] for row in rows]
            axes.plot(epochs, values, color=colour, marker=marker, markersize=3.5, linewidth=1.5, label=label)
    figure.axes[0].legend(frameon=False)
    return figure


def reconstructions(vae, dataset):
    columns = min(10, len(dataset.test_images))
    count = min(20, len(dataset.test_images)) // columns * columns  # one full row or two
    x, y = examples(dataset, slice(0, count), vae)  # (count, D)
    pairs = np.stack([half.reshape(-1, columns, x.shape[1]) for half in (x, vae.reconstruct(x, y))], axis=1)
    labels = ["original", "reconstruction"] * len(pairs)
    title = "Test images and their reconstructions at the posterior mean"
    return picture(title, pairs.reshape(-1, x.shape[1]), columns, dataset.image_shape, labels, ink=dataset.ink)


def samples(vae, dataset):
    y = one_hot(np.arange(100) % max(vae.classes, 1), slice(None), vae.classes)  # all labels in turn
    images = vae.sample(100, np.random.default_rng(SEED), y)
    title = "Pixel means decoded from z drawn from the prior N(0, I)" + ", and all labels in turn" * bool(vae.classes)
    return picture(title, images, 20, dataset.image_shape, ink=dataset.ink)


def manifold(vae, dataset, side=20):
    """Figure 4 of the paper: equal steps in probability, put through the inverse CDF of the standard normal."""
    if vae.latent != 2:
        raise NotApplicable(f"needs a run with --latent 2, this one has {vae.latent}")
    if vae.classes:
        raise NotApplicable("a conditional run has a plane for each label: see digits.png")
    z = plane(side)  # (side², 2)
    title = "The decoded latent plane at equal steps in probability"
    figure = picture(title, vae.decode(z), side, dataset.image_shape, ink=dataset.ink)
    figure.axes[0].set_xlabel(f"z₁ from {z[0, 0]:.2f} to {z[-1, 0]:.2f}")
    figure.axes[0].set_ylabel(f"z₂ from {z[-1, 1]:.2f} to {z[0, 1]:.2f}")
    return figure


def posterior_means(vae, dataset, count=5000):
    """Where the encoder puts test images; more than two latents are seen along the two directions of most variance."""
    mu, logvar = vae.encode(*examples(dataset, slice(0, count), vae))  # (N, J)
    if vae.latent == 1:
        points, names = np.column_stack([mu, np.exp(logvar / 2)]), ("mu", "sigma")
    elif vae.latent == 2:
        points, names = mu, ("mu₁", "mu₂")
    else:
        if len(mu) < 3:
            raise NotApplicable("needs three test images")
        centred = mu - mu.mean(axis=0)
        _, singular_values, directions = np.linalg.svd(centred, full_matrices=False)
        share = singular_values**2 / (singular_values**2).sum()
        points = centred @ directions[:2].T
        names = [f"principal component {i + 1} of mu ({share[i]:.0%} of the variance)" for i in range(2)]
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(f"Posterior means of {len(mu):,} test images", fontsize=10)
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    axes.spines[["top", "right"]].set_visible(False)
    if dataset.test_labels is None:
        axes.scatter(*points.T, s=4, color=TRAIN, alpha=0.6, linewidths=0)
        return figure
    labels = dataset.test_labels[:count]
    colours = {label: CLASS_COLOURS[label % len(CLASS_COLOURS)] for label in np.unique(labels)}
    axes.scatter(*points.T, s=4, c=[colours[label] for label in labels], alpha=0.6, linewidths=0)
    for label, colour in colours.items():
        centre = np.median(points[labels == label], axis=0)
        box = {"boxstyle": "circle,pad=0.2", "facecolor": "white", "edgecolor": colour, "linewidth": 2}
        axes.text(*centre, str(label), ha="center", va="center", fontsize=11, fontweight="bold", bbox=box)
        axes.scatter([], [], s=30, color=colour, label=str(label))  # for the legend: circles may overlap
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), handletextpad=0.1)
    return figure


def interpolations(vae, dataset, rows=8, steps=11):
    """Straight lines in z between the posterior means of two test images; the images themselves at both ends."""
    ends = np.random.default_rng(SEED).choice(
        len(dataset.test_images), (2, rows), replace=len(dataset.test_images) < 2 * rows
    )
    (x0, y0), (x1, y1) = (examples(dataset, end, vae) for end in ends)  # (rows, D), (rows, C)
    mu0, mu1 = vae.encode(x0, y0)[0], vae.encode(x1, y1)[0]  # (rows, J)
    between = np.stack(
        [
            vae.decode((1 - t) * mu0 + t * mu1, (1 - t) * y0 + t * y1 if vae.classes else None)
            for t in np.linspace(0, 1, steps, dtype=np.float32)
        ]
    )  # (steps, rows, D)
    images = np.concatenate([x0[None], between, x1[None]]).swapaxes(0, 1).reshape(rows * (steps + 2), -1)
    title = "From one test image to another in equal steps of z" + " and of the label" * bool(vae.classes)
    names = ["image", *[f"{i / (steps - 1):.1f}" for i in range(steps)], "image"]
    return picture(title, images, steps + 2, dataset.image_shape, column_labels=names, ink=dataset.ink)


def traversal(vae, dataset, rows=10, steps=13):
    """Each latent in turn over equal steps, the others at the posterior mean of a test image; most KL first."""
    mu, logvar = vae.encode(*examples(dataset, slice(None), vae))  # (N, J)
    kl = gaussian_kl(mu[..., None], logvar[..., None]).mean(axis=0)  # (J,), nats of each latent
    latents = np.argsort(-kl)[:rows]
    steps = np.linspace(-3, 3, steps, dtype=np.float32)
    z = np.tile(mu[0], (len(latents), len(steps), 1))  # (rows, steps, J)
    for row, latent in zip(z, latents, strict=True):
        row[:, latent] = steps
    x, y = examples(dataset, slice(0, 1), vae)
    decoded = vae.decode(z.reshape(-1, 1, vae.latent), y).reshape(*z.shape[:2], -1)  # (rows, steps, D)
    images = np.concatenate([np.tile(x, (len(latents), 1, 1)), decoded], axis=1).reshape(-1, x.shape[1])
    row_labels = [f"z{latent + 1} · {kl[latent]:.2f}" for latent in latents]
    title = "Each latent from −3 to 3, the others at the posterior mean of the image; ▴ its own value\n"
    title += "left: KL in nats" + ("; at 0 the latent is dead, and nothing changes" if kl[latents[-1]] < 0.005 else "")
    names = ["image", *[f"{step:g}".replace("-", "−") for step in steps]]
    figure = picture(title, images, len(names), dataset.image_shape, row_labels, names, dataset.ink)
    axes, width = figure.axes[0], dataset.image_shape[1] + GAP
    x_ticks, y_ticks = axes.get_xticks(), axes.get_yticks()
    own = x_ticks[1] + (mu[0, latents] - steps[0]) / (steps[1] - steps[0]) * width
    inside = np.abs(mu[0, latents]) <= steps[-1]
    below = y_ticks + dataset.image_shape[0] / 2 + GAP / 2
    axes.plot(own[inside], below[inside], "^", color=TEST, markersize=4)
    return figure


def digits(vae, dataset, count=10):
    """Ten images of each class.

    A conditional model decodes the same draws of z from the prior, one for each column, with the label of each row. Any
    other is shown a test image of the class and decodes draws from its posterior.
    """
    if dataset.test_labels is None:
        raise NotApplicable(f"{dataset.name} has no labels")
    classes, first = np.unique(dataset.test_labels, return_index=True)
    classes, first = classes[:10], first[:10]
    rng = np.random.default_rng(SEED)
    if vae.classes:
        z = rng.standard_normal((count, vae.latent), np.float32)
        images = [vae.decode(z, one_hot(np.full(count, label), slice(None), vae.classes)) for label in classes]
        title, columns = "Decoded with the label of the row; each column has one z, drawn from the prior", count
    else:
        x = batch(dataset.test_images, first)  # (classes, D)
        mu, logvar = vae.encode(x)
        eps = rng.standard_normal((count, *mu.shape), np.float32)
        images = np.concatenate([x[None], vae.decode(reparameterize(mu, logvar, eps))]).swapaxes(0, 1)
        title = "A test image of each class (left), and ten images decoded from draws of its posterior q(z|x)"
        columns = count + 1
    images = np.reshape(images, (len(classes) * columns, -1))
    labels = [str(label) for label in classes]
    return picture(title, images, columns, dataset.image_shape, labels, ink=dataset.ink)


def bounds(run):
    """The importance-weighted bounds of the last evaluation against their number of samples."""

    def pick(result):
        losses = {int(k): finite_number(value["mean"]) for k, value in result["iwae_loss"].items()}
        if not all(1 <= k <= 10_000_000 for k in losses):  # more than the command takes
            raise ValueError("bounds of impossible numbers of samples")
        return (
            losses,
            finite_number(result["elbo_loss"]["mean"]),
            finite_number(result["epochs"]),
            str(result["protocol"]),
        )

    found = run.evaluated(pick)
    if found is None:
        raise NotApplicable(f"needs python -m npvae.evaluate {run.folder} --importance-samples 500")
    losses, elbo, epochs, protocol = found
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(elbo, color=TEST, linestyle="--", linewidth=1.5, label="−ELBO")
    axes.plot(losses.keys(), losses.values(), color=TRAIN, marker="o", linewidth=1.5, label="−IWAE bound")
    for k, loss in losses.items():
        axes.annotate(f"{loss:.2f}".replace("-", "−"), (k, loss), (5, 5), textcoords="offset points", fontsize=9)
    axes.set_xscale("log")
    axes.set_xticks(list(losses), [f"{k:,}" for k in losses])
    axes.minorticks_off()
    axes.margins(0.12, 0.15)
    axes.set_xlabel("K, samples of z per example")
    axes.set_ylabel("nats per example")
    after = f"after {epochs:g} epoch{'s' * (epochs != 1)}"
    axes.set_title(f"Bounds of −log {run.config.evidence} {after}\n{protocol}", fontsize=10)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


OF_THE_RUN = {"learning-curves": learning_curves, "bounds": bounds}
OF_THE_MODEL = {
    "reconstructions": reconstructions,
    "samples": samples,
    "manifold": manifold,
    "posterior-means": posterior_means,
    "interpolations": interpolations,
    "traversal": traversal,
    "digits": digits,
}
PICTURES = (*OF_THE_RUN, *OF_THE_MODEL)
BASIC = ("learning-curves", "reconstructions", "samples")


def draw(run, names, *model):
    """Draw pictures into the run's folder; returns for each name its path, or why there is none.

    `model` is (vae, dataset), which those of `OF_THE_MODEL` are about.
    """
    outcome = {}
    run.images.mkdir(exist_ok=True)
    for name in names:
        path = run.images / f"{name}.png"
        try:
            with rc_context(AS_IT_IS):
                figure = OF_THE_RUN[name](run) if name in OF_THE_RUN else OF_THE_MODEL[name](*model)
                with replacing(path) as file:
                    figure.savefig(file, format="png", dpi=120, bbox_inches="tight")
        except NotApplicable as reason:
            outcome[name] = f"no {path.name}: {reason}"
            continue
        outcome[name] = str(path)
    return outcome


@command("python -m npvae.plot")
def main(arguments=None):
    """Draw every picture that the run allows and print where each lies, or compare several runs."""
    parser = run_parser(
        "python -m npvae.plot",
        "Draw the pictures of a run into its folder images/, or compare several runs: their learning curves in one"
        " picture, and what differs in their settings and results.",
    )
    parser.add_argument("others", metavar="RUN", nargs="*", help="runs to compare it with")
    parser.add_argument("--out", metavar="FILE", help="picture of a comparison (default: comparison.png)")
    options = parser.parse_intermixed_args(arguments)
    if options.others:
        if options.data_dir:
            parser.error("--data-dir is of no use with several runs: a comparison needs no data")
        if options.out and not options.out.endswith(".png"):
            parser.error(f"--out {options.out}: expected a name that ends in .png")
        for line in compare([options.run, *options.others], options.out or "comparison.png"):
            say(line)
        return 0
    if options.out:
        parser.error("--out is the picture of a comparison: name two runs or more")

    run = Run.open(options.run, options.data_dir)
    dataset, vae = run.dataset(), run.vae()
    require_fit(dataset, vae)
    for line in draw(run, PICTURES, vae, dataset).values():
        say(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
