"""A trained model as a page to play with: `python -m npvae.explore RUN`."""

import base64
import dataclasses
import html
import inspect
import json
import math
import re
import sys
import webbrowser
import zlib
from pathlib import Path

import numpy as np

from npvae import distributions, film, layers, objectives, vae
from npvae.commands import UserError, command, say
from npvae.evaluate import ACTIVE, estimates, protocol
from npvae.files import replacing
from npvae.plot import CLASS_COLOURS
from npvae.runs import Run, epochs_done, load_data, require_fit, run_parser

PAGE = Path(__file__).parent / "explorer"
IMAGES = 300  # of the test set, to pick from
FILM_GREYS = 16  # the page shows a film in as many grey levels, of 256, at once: a third of the bytes
REFERENCE = 10_000  # test images, at most, that say what is usual

# where npvae computes what the page shows: the function, and a piece of its line
SOURCES = {
    "dense": (layers.Dense.forward, "x @ self.W"),
    "tanh": (layers.Tanh.forward, "np.tanh"),
    "relu": (layers.ReLU.forward, "x * self.mask"),
    "softplus": (layers.softplus, "np.log1p"),
    "encode": (vae.VAE.encode, "self.encoder.forward"),
    "reparameterize": (vae.reparameterize, "return"),
    "decode": (vae.VAE.decode, "self.likelihood.mean"),
    "kl": (distributions.gaussian_kl, "return"),
    "bernoulli": (distributions.bernoulli_log_density, "x * logits"),
    "gaussian": (distributions.gaussian_log_density, "return"),
    "elbo": (objectives.elbo_loss, "return"),
}


def source(function, piece):
    """The line of a function that holds a piece of text: {file, line, code}."""
    lines, start = inspect.getsourcelines(function)
    found = [i for i, line in enumerate(lines) if piece in line and not line.lstrip().startswith(("def ", '"""'))]
    file = Path(inspect.getsourcefile(function))
    return {"file": f"npvae/{file.name}", "line": start + found[0], "code": lines[found[0]].strip()}


def packed(array):
    """The bytes of an array, deflated, as base64 text."""
    return base64.b64encode(zlib.compress(array.tobytes(), 9)).decode()


def contents(run, dataset, images):
    """All that the page knows, as a dict that can be written as JSON.

    `dataset` is that of the run, which says what is usual; `images` is the data set that the images to pick are from.
    """
    state = run.load_checkpoint()
    model = run.vae(state)
    values = model.parameters.values
    for data in (dataset, images):
        require_fit(data, model)
    labels = None if dataset.test_labels is None else dataset.test_labels[:REFERENCE]
    with np.errstate(over="ignore", invalid="ignore"):  # told in words of our own
        terms = estimates(model, dataset.test_images[:REFERENCE], labels, samples=1, progress=True)
        losses = terms["reconstruction"] + terms["kl"].sum(axis=1)
    if not np.isfinite(losses).all():
        raise UserError(f"{run.checkpoint} gives test images losses that are not finite: the run has diverged")
    config = run.config
    return {
        "name": run.folder.resolve().name,
        "dataset": Path(dataset.name).name,
        "imagesFrom": Path(images.name).name,
        "epochs": round(epochs_done(state, dataset), 2),
        "model": str(model),
        "protocol": protocol(config),
        "evidence": config.evidence,
        "binary": config.binary,
        "ink": dataset.ink,
        "settings": {
            "pixels": model.pixels,
            "imageShape": model.image_shape,
            "hidden": config.hidden,
            "latent": model.latent,
            "classes": model.classes,
            "activation": config.activation,
            "likelihood": config.likelihood,
        },
        "parameters": base64.b64encode(values.astype("<f4").tobytes()).decode(),
        "images": packed(images.test_images[:IMAGES]),
        "labels": None if images.test_labels is None else images.test_labels[:IMAGES].tolist(),
        "reference": {
            "examples": len(losses),
            "loss": losses.mean(),
            "reconstruction": terms["reconstruction"].mean(),
            "kl": terms["kl"].sum(axis=1).mean(),
            "klOfLatents": terms["kl"].mean(axis=0).tolist(),
            "active": (terms["mu"].var(axis=0) > ACTIVE).tolist(),
            "percentilesOfLoss": np.percentile(losses, np.arange(101)).tolist(),
        },
        "film": film_of(run, dataset),
        "classColours": CLASS_COLOURS,
        "sources": {name: source(*where) for name, where in SOURCES.items()},
    }


def film_of(run, dataset):
    """The film of a run for the page's time slider, or None where there is none."""
    shown = film.frames(run)
    if not shown:
        return None
    last = shown[-1]
    plane = last.mu is not None and not run.config.conditional
    prior = "The latent plane at equal steps in probability" if plane else f"{len(last.images)} draws from the prior"
    titles = [f"{prior}, decoded"]
    grids = [([frame.images for frame in shown], last.columns)]
    mu = None if last.mu is None else np.stack([frame.mu for frame in shown])  # (frames, M, 2)
    if last.reconstructions is not None:
        count = len(last.reconstructions)
        titles.append(f"{count} test images, reconstructed")
        grids.append(([frame.reconstructions for frame in shown], min(5, count)))
    return {
        "frames": [
            {name: getattr(frame, name) for name in ("step", "epoch", "loss", "reconstruction", "kl")}
            for frame in shown
        ],
        "grids": [
            {
                "title": title,
                "columns": columns,
                "count": len(images[0]),
                "pixels": packed(np.stack(images) // FILM_GREYS * FILM_GREYS),
            }
            for title, (images, columns) in zip(titles, grids, strict=True)
        ],
        "measured": min(film.MEASURED, len(dataset.test_images)),
        "mu": None if mu is None else packed(mu.astype("<f4")),
        "reach": None if mu is None else max(3, math.ceil(np.quantile(np.abs(mu[-1]), 0.99))),
        "labels": None if mu is None or dataset.test_labels is None else dataset.test_labels[: mu.shape[1]].tolist(),
    }


def page(data):
    """The page in one file: explorer.html with the data, its style and its scripts in their places."""
    rows, columns = data["settings"]["imageShape"]
    places = {
        "title": html.escape(f"npvae explorer: {data['name']}"),
        "about": html.escape(
            f"has {data['settings']['latent']} of them, and learned from the images of {data['dataset']} "
            f"for {data['epochs']:g} epoch{'s' * (data['epochs'] != 1)}"
        ),
        "model": html.escape(f"{data['model']}; x are {data['protocol']}"),
        "kind": "ink" if data["ink"] else "grey",
        "rows": str(rows),
        "columns": str(columns),
        "data": json.dumps(data).replace("<", "\\u003c"),  # no text of a run ends the element that holds it
    }
    text = (PAGE / "explorer.html").read_text(encoding="utf-8")
    text = re.sub(r"\{\{(\w+)\}\}", lambda match: places[match[1]], text)
    for tag, name in re.findall(r'(<(?:script src|link rel="stylesheet" href)="([\w.]+)">(?:</script>)?)', text):
        kind = "script" if name.endswith(".js") else "style"
        text = text.replace(tag, f"<{kind}>\n{(PAGE / name).read_text(encoding='utf-8')}</{kind}>", 1)
    return text


@command("python -m npvae.explore")
def main(arguments=None):
    """Write the page into the run's folder; returns the exit code."""
    parser = run_parser(
        "python -m npvae.explore", "Write RUN/explorer.html, a page in one file in which one plays with the model."
    )
    parser.add_argument(
        "--images",
        metavar="DATASET",
        help="data set that the images to pick are from (default: the run's); strokes are free to be passed on",
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    options = parser.parse_args(arguments)

    run = Run.open(options.run, options.data_dir)
    dataset = run.dataset()
    own = options.images is None
    # a model of binary images is shown no grey ones
    how = "threshold" if run.config.dataset == "binarized-mnist" else run.config.binarize
    images = dataset if own else load_data(dataclasses.replace(run.config, dataset=options.images, binarize=how))
    text = page(contents(run, dataset, images)).encode(errors="replace")  # a name need not be UTF-8
    path = run.folder / "explorer.html"
    with replacing(path) as file:
        file.write(text)
    say(f"{path}: {len(text) / 1e6:.1f} MB; open it in a browser")
    if options.open:
        webbrowser.open(path.resolve().as_uri())
    return 0


if __name__ == "__main__":
    sys.exit(main())
