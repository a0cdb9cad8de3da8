"""A film of learning: what a model knows at steps spaced evenly in log time, and an animated GIF of all of it."""

import io
import math
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from npvae.commands import UserError
from npvae.data.pixels import batch, one_hot
from npvae.distributions import gaussian_kl
from npvae.files import replacing
from npvae.runs import read_arrays, write_arrays
from npvae.vae import reparameterize

SEED = 4  # of the noise, which is the same in every frame
PER_DECADE = 12  # frames for a factor of ten in steps
MEASURED, PLACED, RECONSTRUCTED = 100, 500, 10  # test images of which loss, posterior mean, reconstruction are taken
PLANE, SAMPLES, LABELS = 10, 6, 10  # images in a row
PIXELS = 160_000  # of all decoded images of a frame, at most

MILLISECONDS, HOLD = 150, 2500  # of a frame, and of the last one
BYTES = 2_000_000  # a GIF is smaller
GREYS, TINTS = 16, 4  # levels from paper to ink, and shades of each colour
BLUE, COLOURED = GREYS, GREYS + TINTS  # where the palette has those of the curve, and those of the classes
INK = np.rint(np.arange(256) * (GREYS - 1) / 255).astype(np.uint8)  # level of a byte


class Box(NamedTuple):
    """A rectangle of pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def slices(self):
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def around(self, height, width):
        """The largest box in the middle of this one for a picture of so many pixels."""
        ratio = min(max(width / height, 1 / 4), 4)  # the thinnest are stretched until one sees them
        width, height = min(self.width, round(self.height * ratio)), min(self.height, round(self.width / ratio))
        return Box(self.left + (self.width - width) // 2, self.top + (self.height - height) // 2, width, height)


SCENE, HEADER = Box(0, 0, 720, 300), Box(0, 0, 720, 26)
IMAGES, BESIDE, CURVE = Box(26, 48, 228, 228), Box(278, 48, 228, 228), Box(564, 48, 144, 228)


class Frame(NamedTuple):
    """What a model knows at a step, as a function of its parameters alone."""

    step: int
    epoch: float
    examples: int  # from the start of the run
    loss: float  # −ELBO and its terms, nats, means over the first MEASURED test images
    reconstruction: float
    kl: float
    columns: int  # of the images, which are the latent plane, or draws from the prior
    images: np.ndarray  # (N, D) uint8
    mu: np.ndarray | None  # (M, 2) float32, of the first M test images; None where there are not two latents
    reconstructions: np.ndarray | None  # (R, D) uint8, of the first R test images; None where there are two latents


def due(step):
    """Whether the film has a frame at this step, however long the run: at 0, and at 10^(k/12) for k = 0, 1, …"""
    return step == 0 or step == round(10 ** (round(PER_DECADE * math.log10(step)) / PER_DECADE))


def plane(side):
    """z (side², 2) of Figure 4: equal steps in probability, put through the inverse CDF of the standard normal."""
    quantiles = [NormalDist().inv_cdf((i + 0.5) / side) for i in range(side)]
    return np.array([(z1, z2) for z2 in reversed(quantiles) for z1 in quantiles], np.float32)


def latents(vae):
    """(z (N, J), y (N, C) or None, columns): what the images of every frame are decoded from."""
    most = max(1, math.isqrt(PIXELS // vae.pixels))
    if vae.latent == 2 and not vae.classes:
        side = min(PLANE, most)
        return plane(side), None, side
    rows = min(LABELS if vae.classes else SAMPLES, most)
    columns = min(rows, vae.classes) if vae.classes else rows
    rng = np.random.default_rng(SEED)
    if not vae.classes:
        return rng.standard_normal((rows * columns, vae.latent)).astype(np.float32), None, columns
    z = rng.standard_normal((rows, vae.latent)).astype(np.float32).repeat(columns, axis=0)  # one in each row
    return z, one_hot(np.tile(np.arange(columns), rows), slice(None), vae.classes), columns


def look(vae, dataset):
    """The fields of a frame that depend on the parameters."""
    placed = vae.latent == 2
    rows = slice(0, PLACED if placed else MEASURED)
    x, y = batch(dataset.test_images, rows), one_hot(dataset.test_labels, rows, vae.classes)  # (M, D)
    all_mu, all_logvar = vae.encode(x, y)  # (M, J)
    x, mu, logvar, y_x = x[:MEASURED], all_mu[:MEASURED], all_logvar[:MEASURED], None if y is None else y[:MEASURED]
    eps = np.random.default_rng(SEED).standard_normal(mu.shape, np.float32)
    log_p_x = vae.likelihood.log_density(x, vae.decoder_outputs(reparameterize(mu, logvar, eps), y_x))
    reconstruction, kl = -log_p_x.mean(dtype=float), gaussian_kl(mu, logvar).mean(dtype=float)
    z, y_z, columns = latents(vae)
    fields = {"loss": reconstruction + kl, "reconstruction": reconstruction, "kl": kl, "columns": columns}
    fields["images"] = to_bytes(vae.decode(z, y_z))
    if placed:
        return fields | {"mu": all_mu}
    shown = slice(0, max(1, min(RECONSTRUCTED, PIXELS // vae.pixels)))
    return fields | {"reconstructions": to_bytes(vae.decode(mu[shown], None if y is None else y[shown]))}


def to_bytes(means):
    """Pixel means in [0, 1] as uint8."""
    return np.rint(255 * means).astype(np.uint8)


class Camera:
    """Records a training as it goes on, each frame in a file of its own: `frames` reads them."""

    def __init__(self, run, training, dataset):
        self.run, self.training, self.dataset = run, training, dataset
        run.frames.mkdir(exist_ok=True)
        if due(training.step) or not any(run.frames.glob("*.npz")):
            self.record()

    def after_step(self):
        if due(self.training.step):
            self.record()

    def record(self):
        """Write the frame of this step; a model that has diverged has none."""
        training, count = self.training, len(self.training.images)
        examples = int(training.epoch) * count + int(training.examples)
        place = {"step": training.step, "epoch": examples / count, "examples": examples}
        fields = look(training.vae, self.dataset)
        if all(np.isfinite(value).all() for value in fields.values()):
            with self.run.replacing(self.run.frames / file_name(training.step)) as file:
                write_arrays(file, place | fields)


def frames(run):
    """The frames that a run has left so far, a list of `Frame` in the order of steps; a broken one is a UserError."""
    found = sorted(map(read, sorted(run.frames.glob("[0-9]*.npz"))), key=lambda frame: frame.step)
    pixels = math.prod(run.kind(run.load_checkpoint())[0]) if found else 0
    for frame in found:
        if frame.images.shape[1] != pixels or kinds(frame) != kinds(found[0]):
            path = run.frames / file_name(frame.step)
            raise UserError(f"{path} is of another run, or not like the frames before it: remove {run.frames}")
    return found


def file_name(step):
    return f"{step:07}.npz"


def kinds(frame):
    return [None if array is None else (array.dtype.str, array.shape) for array in frame[-3:]]


def read(path):
    """The frame in a file; nothing in it is unpickled."""
    try:
        fields = {name: array if array.ndim else array.item() for name, array in read_arrays(path).items()}
        frame = Frame(**dict.fromkeys(("mu", "reconstructions")) | fields)
        images, mu, reconstructions = frame[-3:]
        pictures = [images] if reconstructions is None else [images, reconstructions]
        sound = path.name == file_name(frame.step) and all(map(math.isfinite, frame[:-3]))
        sound = sound and len(images) % frame.columns == 0 < len(images) and (mu is None) != (reconstructions is None)
        sound = sound and all(a.dtype == np.uint8 and a.shape == (len(a), images.shape[1]) for a in pictures)
        sound = sound and (mu is None or (mu.dtype == np.float32 and mu.shape == (len(mu), 2)))
        if not sound or not (mu is None or np.isfinite(mu).all()):
            raise ValueError("its arrays are of other kinds")
        return frame
    except OSError:
        raise
    except Exception as error:  # a damaged zip file raises whatever its damaged bytes lead to
        raise UserError(f"{path} is not a frame of a film ({error}): remove {path.parent}") from error


def draw(run, dataset):
    """Make the GIF of all frames of a run; of a film that is too large, every second frame."""
    scenes = compose(frames(run), dataset, run.config)
    while len(gif := encode(scenes)) >= BYTES:
        scenes = scenes[::-2][::-1]  # the last one stays
    with replacing(run.film) as file:
        file.write(gif)


def encode(scenes):
    """Images of one palette as the bytes of an animated GIF that loops."""
    gif = io.BytesIO()
    durations = [MILLISECONDS] * (len(scenes) - 1) + [HOLD]
    scenes[0].save(gif, "GIF", save_all=True, append_images=scenes[1:], duration=durations, loop=0, optimize=False)
    return gif.getvalue()


def compose(shown, dataset, config):
    """The scenes of the film, images of one palette: in each, what moves lies over what stands still."""
    from PIL import Image

    from npvae.plot import CLASS_COLOURS, TRAIN

    greys = np.linspace(255, 0, GREYS)[:, None].repeat(3, axis=1)
    palette = np.rint(np.concatenate([greys, shades([TRAIN]), shades(CLASS_COLOURS)])).astype(np.uint8)
    to_come = np.arange(len(palette), dtype=np.uint8)
    to_come[BLUE:COLOURED] = np.linspace(1, 3, TINTS)  # the part of the curve that is still to come is grey
    still, curve, limit = scenery(shown, dataset, config)
    scenes = []
    for frame, (x, y) in zip(shown, curve, strict=True):
        scene = still.copy()
        ahead = scene[HEADER.height : CURVE.top + CURVE.height, round(x) :]
        ahead[...] = to_come[ahead]
        stamp(scene, [[x, y]], BLUE + np.arange(TINTS)[None], radius=4)
        paste(scene, IMAGES, frame.images, frame.columns, dataset)
        if frame.mu is None:
            paste_pairs(scene, BESIDE, frame.reconstructions, dataset)
        else:
            inside = (np.abs(frame.mu) <= limit).all(axis=1)  # early ones can lie far out
            places = frame.mu[inside] / limit * (1, -1) / 2 + 0.5  # rows are counted downwards
            points = (BESIDE.left, BESIDE.top) + places * (BESIDE.width - 1, BESIDE.height - 1)
            count = len(frame.mu)
            labels = np.zeros(count, int) if dataset.test_labels is None else dataset.test_labels[:count]
            stamp(scene, points, class_shades(labels[inside]), radius=2.2)
        terms = f"{frame.loss:.1f} nats = {frame.reconstruction:.1f} reconstruction + {frame.kl:.1f} KL"
        write(scene, f"step {frame.step:,}", IMAGES.left, 20, 16, weight="-Bold")
        write(scene, f"epoch {frame.epoch:.2f}", IMAGES.left + IMAGES.width, 20, 13, "rs")
        write(scene, terms.replace("-", "−"), CURVE.left + CURVE.width, 20, 13, "rs")
        scenes.append(Image.fromarray(scene))
        scenes[-1].putpalette(palette.tobytes())
    return scenes


def shades(colours):
    """RGB of colours in TINTS strengths on paper, (TINTS · N, 3): all in the weakest, then all in the next."""
    rgb = np.array([list(bytes.fromhex(colour[1:])) for colour in colours])
    return (255 + np.arange(1, TINTS + 1)[:, None, None] / TINTS * (rgb - 255)).reshape(-1, 3)


def class_shades(labels):
    """The palette's indices of the colours of these labels, (M, TINTS)."""
    from npvae.plot import CLASS_COLOURS

    count = len(CLASS_COLOURS)
    return COLOURED + np.asarray(labels, int)[:, None] % count + count * np.arange(TINTS)


def scenery(shown, dataset, config):
    """What stands still, palette indices (300, 720), with the curve to its end.

    Also where the curve is at each frame, (frames, 2) pixels, and up to which |mu| posterior means are drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    from npvae.plot import CLASS_COLOURS, TRAIN

    last, limit, classes = shown[-1], None, []
    figure = Figure(figsize=(SCENE.width / 100, SCENE.height / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)

    def panel(box):
        bottom = SCENE.height - box.top - box.height
        axes = figure.add_axes(np.divide((box.left, bottom, box.width, box.height), (SCENE.width, SCENE.height) * 2))
        axes.tick_params(labelsize=7, length=2, pad=2, color="0.5", labelcolor="0.3")
        axes.spines[:].set_color("0.8")
        return axes

    def mark(axes, place):
        marks = {place(z): f"{z}".replace("-", "−") for z in range(-9, 10) if 0.01 < place(z) < 0.99}
        axes.set_xticks(list(marks), list(marks.values()))
        axes.set_yticks(list(marks), list(marks.values()))

    if config.conditional:
        titles = ["One z in each row, one label per column"]
    elif config.latent != 2:
        titles = [f"Decoded from {len(last.images)} draws of the prior"]
    else:
        titles = ["The latent plane, decoded"]
        height, width = dataset.image_shape
        rows = len(last.images) // last.columns
        mark(panel(IMAGES.around(rows * height, last.columns * width)), NormalDist().cdf)
    if last.mu is None:
        titles.append("Test images over their reconstructions")
    else:
        titles.append(f"Posterior means of {len(last.mu):,} test images")
        limit = max(2.5, 1.1 * np.quantile(np.abs(last.mu), 0.99))  # few lie further out
        axes = panel(BESIDE)
        mark(axes, lambda z: (1 + z / limit) / 2)
        for radius in (1, 2, 3):  # sigma of the prior is 1
            axes.add_patch(Circle((0.5, 0.5), radius / limit / 2, fill=False, color="0.85", linewidth=0.8))
        classes = [] if dataset.test_labels is None else np.unique(dataset.test_labels[: len(last.mu)])

    axes = panel(CURVE)
    axes.spines[["top", "right"]].set_visible(False)
    time = [math.log10(max(frame.step, 0.5)) for frame in shown]  # step 0 has a place beside step 1
    points = np.column_stack([time, [frame.loss for frame in shown]])
    axes.plot(*points.T, color=TRAIN, linewidth=2, clip_on=False)
    marks = {k: f"{10 ** (k % 3)}{['', 'k', 'M', 'G'][k // 3]}" for k in range(10) if time[0] <= k <= time[-1]}
    marks |= {time[0]: "0"} if shown[0].step == 0 else {}
    axes.set_xticks(list(marks), list(marks.values()))
    canvas.draw()

    red, green, blue = np.moveaxis(np.asarray(canvas.buffer_rgba())[..., :3].astype(int), -1, 0)
    tint = np.rint((255 - red) * TINTS / 255).astype(np.uint8)  # the curve's colour has no red
    still = np.where((blue - red > 20) & (tint > 0), BLUE - 1 + tint, INK[255 - green])
    for box, title in zip((IMAGES, BESIDE, CURVE), (*titles, "Loss (−ELBO), nats"), strict=True):
        write(still, title, box.left, 42, 11)
    if 0 < len(classes) <= len(CLASS_COLOURS):
        x = BESIDE.left + BESIDE.width + 10
        y = BESIDE.top + (np.arange(len(classes)) + 0.5) * BESIDE.height / len(classes)
        stamp(still, np.column_stack([np.full(len(classes), x), y]), class_shades(classes), radius=3.5)
        for label, height in zip(classes, y, strict=True):
            write(still, str(label), x + 7, round(height) + 4, 11)
    return still, (0, SCENE.height) + (1, -1) * axes.transData.transform(points), limit


def write(scene, text, x, y, size, anchor="ls", weight=""):
    """Write a line of text in ink; `anchor` is Pillow's."""
    from matplotlib import get_data_path
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(Path(get_data_path(), "fonts", "ttf", f"DejaVuSans{weight}.ttf"), size)
    layer = Image.new("L", (SCENE.width, SCENE.height))
    ImageDraw.Draw(layer).text((x, y), text, 255, font, anchor)
    np.maximum(scene, INK[np.asarray(layer)], out=scene)


def stamp(scene, points, tints, radius):
    """Draw discs at points (M, 2), pixels, in colours whose palette indices are `tints` (M, TINTS), weak to strong."""
    reach = math.ceil(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    cover = np.rint(TINTS * np.clip(radius + 0.5 - np.hypot(x, y), 0, 1)).astype(int)  # of each pixel by the disc
    y, x, cover = y[cover > 0], x[cover > 0], cover[cover > 0]
    columns, rows = np.rint(points).astype(int).T
    # of two discs the stronger shade shows, because its index is the larger
    np.maximum.at(scene, (rows[:, None] + y, columns[:, None] + x), tints[:, cover - 1].astype(np.uint8))


def paste(scene, box, images, columns, dataset):
    """Lay images (N, D) out in rows of `columns`, as large as the box allows."""
    from PIL import Image

    page = np.reshape(images, (-1, columns, *dataset.image_shape)).swapaxes(1, 2)  # (rows, height, columns, width)
    page = page.reshape(page.shape[0] * page.shape[1], -1)
    box = box.around(*page.shape)
    levels = INK[np.asarray(Image.fromarray(page).resize((box.width, box.height), Image.Resampling.LANCZOS))]
    scene[box.slices] = levels if dataset.ink else GREYS - 1 - levels


def paste_pairs(scene, box, reconstructions, dataset):
    """Lay reconstructions (R, D) of the first test images out below these, in bands of five pairs."""
    columns = min(5, len(reconstructions))
    bands = len(reconstructions) // columns
    for i in range(bands):
        rows = slice(i * columns, (i + 1) * columns)
        band = box._replace(top=box.top + i * box.height // bands, height=box.height // bands - 8)
        paste(scene, band, [*dataset.test_images[rows], *reconstructions[rows]], columns, dataset)
