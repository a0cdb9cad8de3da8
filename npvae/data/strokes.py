"""Handwritten-looking digits without a download: pen strokes, set down as MNIST sets down its scans.

A template says where the pen goes. Each writer follows one in a hand of their own, which bends, slants and stretches
it, and with a pen of their own. The ink is then scaled to fit a 20 × 20 box and its centre of mass put in the middle of
28 × 28 pixels, as MNIST does with its scans (http://yann.lecun.com/exdb/mnist).
"""

import numpy as np

BOX = 20  # side of the square that just holds the ink, pixels
SIDE = 28  # side of the image, pixels
POINTS = 96  # pen positions along a digit: about half a pixel apart, so that round dots at them merge into a line

# Per digit, the templates: a weight (how common the form is) and a path of control points "x,y" in hundredths of a unit
# square, y down. The pen runs through them on a smooth curve; "^" marks a sharp corner, "|" lifts the pen.
# fmt: off
TEMPLATES = (
    (  # 0
        (4, "57,11 38,17 26,50 32,82 50,90 68,80 76,46 68,18 50,11 43,17"),
        (2, "66,18 48,10 31,25 24,57 36,85 57,87 74,66 75,34 61,15 45,17"),
        (2, "56,10 37,27 31,57 39,85 52,90 66,76 71,43 64,17 52,10"),
        (2, "52,18 27,29 17,54 27,80 50,85 75,75 84,48 75,25 48,18"),
        (1, "59,27 50,11 31,25 24,55 38,87 59,87 75,61 73,31 52,11"),
    ),
    (  # 1
        (16, "54,10 46,90"),
        (4, "55,10 51,50 45,90"),
        (2, "38,26 55,9^ 51,50 46,91"),
        (1, "38,22 53,7^ 52,50 50,93 | 30,94 52,93 72,94"),
    ),
    (  # 2
        (4, "24,26 36,8 58,6 70,24 62,48 42,74 22,94^ 50,93 80,92"),
        (3, "24,24 40,6 62,8 70,28 58,58 36,88 22,92 20,80 34,76 54,88 82,92"),
        (3, "24,28 34,10 56,6 70,24 64,52 46,82 26,94 14,80 26,64 48,74 66,92 90,92"),
        (2, "22,28 34,8 58,6 68,26 56,54 36,78 20,92^ 34,84 56,92 82,86"),
        (2, "22,20 44,6 62,16 56,42 38,68 16,90^ 46,84 74,82 94,78"),
        (1, "22,16 46,6 70,12 66,30 44,62 20,92^ 50,92 82,88"),
        (2, "34,34 22,22 36,6 60,6 72,24 64,50 44,74 22,94^ 52,90 84,94"),
    ),
    (  # 3
        (4, "24,16 44,4 66,12 66,32 44,46^ 68,54 76,74 58,94 34,94 20,84"),
        (3, "24,18 44,5 64,14 62,34 44,46 38,50 46,50 68,58 74,78 54,95 22,86"),
        (1, "24,8 48,8 70,8^ 46,40^ 68,50 76,72 58,94 22,88"),
        (2, "26,14 46,4 62,16 56,32 40,42^ 66,46 80,66 66,90 36,96 14,86"),
        (2, "30,10 52,6 66,20 54,36 42,44^ 60,52 66,70 52,90 26,96"),
        (1, "28,24 26,12 46,4 66,16 60,36 42,46^ 66,52 74,72 56,94 30,92 26,78"),
    ),
    (  # 4
        (4, "30,8 26,36 26,56^ 50,58 80,54 | 68,6 66,50 62,96"),
        (2, "60,5 40,36 18,64^ 50,66 84,64 | 60,5 62,50 62,96"),
        (3, "28,8 24,36 36,54 56,46 72,10^ 68,52 60,96"),
        (3, "24,10 18,40 24,54 50,55 68,50 | 74,8 68,50 64,96"),
        (2, "66,8 44,26 28,46 30,58 52,56 84,50 | 66,8 60,52 56,96"),
        (2, "36,6 30,30 22,54^ 50,56 78,52 | 62,28 58,62 54,96"),
    ),
    (  # 5
        (4, "34,8 30,44^ 50,38 72,52 72,78 50,94 22,88 | 34,8 54,7 76,6"),
        (3, "76,8 36,10^ 32,42^ 54,38 74,54 70,80 46,95 20,88"),
        (2, "76,8 50,8 34,20 36,40 58,50 70,68 58,90 24,92"),
        (3, "38,20 32,46^ 54,44 66,60 58,82 38,96 18,88 | 38,20 64,14 94,5"),
        (1, "64,6 42,10^ 36,40^ 54,48 60,68 48,90 26,94"),
        (1, "72,8 36,12^ 32,46^ 56,38 76,56 70,84 44,96 26,84 32,70"),
    ),
    (  # 6
        (3, "62,4 38,26 26,60 34,90 56,95 72,78 62,58 42,60 28,76"),
        (3, "50,4 34,36 28,70 40,94 62,92 70,74 56,60 32,74"),
        (3, "38,4 28,36 24,68 36,92 62,95 78,78 66,60 46,64 34,82"),
        (2, "46,4 26,34 22,70 40,94 70,90 82,68 62,54 42,66 40,84"),
        (1, "70,12 54,4 34,24 24,62 36,92 60,94 74,76 62,58 40,62 28,74"),
        (1, "54,4 32,28 22,62 36,92 64,94 80,74 68,52 46,50 28,68"),
    ),
    (  # 7
        (4, "20,12 48,10 78,8^ 60,46 46,96"),
        (3, "18,16 46,8 72,12 70,32 56,62 48,96"),
        (2, "22,12 50,10 76,8^ 58,48 44,96 | 34,52 56,50 78,48"),
        (2, "20,28 22,10^ 50,12 78,8^ 62,44 50,96"),
        (1, "18,16 46,8 72,12 70,32 56,62 48,96 | 34,56 56,54 78,50"),
        (2, "26,38 30,16 48,7 66,16 68,40 62,70 56,96"),
    ),
    (  # 8
        (4, "68,14 46,5 30,20 42,42 62,58 70,80 50,95 30,82 40,58 62,38 70,16"),
        (2, "50,48 32,36 32,14 50,5 68,14 68,34 50,48 30,62 28,84 50,95 72,84 70,62 50,48"),
        (2, "72,14 50,6 34,20 44,44 62,62 66,84 48,95 34,82 44,58 62,36 80,8"),
        (2, "34,16 54,5 70,18 56,42 36,62 32,84 52,96 70,82 60,58 40,38 34,16"),
        (2, "66,16 50,4 30,14 32,36 58,54 64,74 50,94 36,80 46,58 64,38 72,14"),
    ),
    (  # 9
        (4, "68,16 46,6 28,22 30,44 50,48 66,34 70,12^ 66,54 60,96"),
        (2, "66,14 44,6 28,24 36,46 58,42 70,14 70,50 60,84 36,95"),
        (3, "64,24 46,8 28,26 36,46 58,40 68,20 66,56 54,96"),
        (2, "66,34 50,46 30,36 32,14 52,5 68,18 68,52 58,96"),
        (2, "70,10 48,5 28,18 30,42 52,46 70,30 | 72,8 70,50 66,96"),
        (1, "68,14 46,5 28,20 34,42 56,42 70,16^ 70,56 62,88 40,96 24,84"),
    ),
)
# fmt: on


def draw_digits(count, rng):
    """Draw digits, each by a writer of its own.

    Parameters
    ----------
    count : int
    rng : numpy.random.Generator
        The only source of chance: the same state gives the same digits.

    Returns
    -------
    images : (count, 28, 28) uint8
        0 is paper, 255 is ink.
    labels : (count,) uint8
        In shuffled order; the classes are equally frequent, as nearly as `count` allows.
    """
    labels = rng.permutation(np.arange(count) % 10).astype(np.uint8)
    paths = np.empty((count, POINTS, 2), np.float32)
    for digit, templates in enumerate(TEMPLATES):
        writers = np.flatnonzero(labels == digit)
        weights = np.array([weight for weight, _ in templates])
        choices = rng.choice(len(templates), writers.size, p=weights / weights.sum())
        for choice, (_, template) in enumerate(templates):
            chosen = writers[choices == choice]
            paths[chosen] = write(template, chosen.size, rng)
    paths = lean(paths, rng)
    radii = press(count, rng)

    images = np.empty((count, SIDE, SIDE), np.uint8)
    for start in range(0, count, 64):  # in chunks, because the distances of `ink` take 150 KB per digit
        chunk = slice(start, start + 64)
        images[chunk] = centre(ink(*fit_box(paths[chunk], radii[chunk])))
    return images, labels


def write(template, count, rng):
    """Paths (count, POINTS, 2) of writers who all follow one template.

    The control points stray as a Gaussian process, so that what is near stays together: near on the paper (loops stay
    closed, crossings stay put) and near in time (a stroke drifts as a whole). Each point also slips a little by itself,
    the ends of strokes most of all.
    """
    control, stroke, spline = read_template(template)  # (C, 2), (C,), (P, C)
    apart = np.square(control[:, None] - control).sum(-1)  # (C, C) squared distance on the paper
    travelled = np.linalg.norm(np.diff(control, axis=0, prepend=control[:1]), axis=1).cumsum()  # (C,)
    later = np.square(travelled[:, None] - travelled)  # (C, C) squared distance along the path
    is_end = (np.diff(stroke, prepend=-1) != 0) | (np.diff(stroke, append=-1) != 0)  # (C,)
    covariance = (
        0.045**2 * np.exp(-apart / (2 * 0.4**2))
        + 0.03**2 * np.exp(-later / (2 * 0.3**2)) * (stroke[:, None] == stroke)
        + np.diag(np.where(is_end, 0.03, 0.012) ** 2)
    )
    strays = rng.standard_normal((count, 2, len(control))) @ np.linalg.cholesky(covariance).T  # (N, 2, C)
    return ((control.T + strays) @ spline.T).swapaxes(1, 2)  # (N, P, 2)


def read_template(template):
    """Control points (C, 2), the stroke each one belongs to (C,), and the spline (POINTS, C) that runs through them.

    The spline is linear in its control points, so it is a matrix: spline @ control are pen positions, equally spaced.
    """
    strokes = [part.split() for part in template.split("|")]
    stroke = np.repeat(np.arange(len(strokes)), [len(words) for words in strokes])
    words = [word for words in strokes for word in words]
    corner = np.array([word.endswith("^") for word in words])
    control = np.array([word.rstrip("^").split(",") for word in words], float) / 100

    # Catmull–Rom: the velocity at a control point is the mean of the chords before and after it. At a corner and at the
    # end of a stroke there is no such mean, and each span keeps to its own chord.
    start = np.eye(len(control))[:-1]  # (S, C): every row of these matrices is a combination of control points
    chord = np.diff(np.eye(len(control)), axis=0)  # (S, C)
    inked = stroke[1:] == stroke[:-1]  # (S,): not a jump to the next stroke
    smooth = inked[1:] & inked[:-1] & ~corner[1:-1]  # (S − 1,)
    velocity = (chord[1:] + chord[:-1])[smooth] / 2
    leave, arrive = chord.copy(), chord.copy()
    leave[1:][smooth] = arrive[:-1][smooth] = velocity
    t = np.linspace(0, 1, 49)[:, None, None]
    spans = start + t * leave + t**2 * (3 * chord - 2 * leave - arrive) + t**3 * (leave + arrive - 2 * chord)
    spans = spans.swapaxes(0, 1)[inked]  # (S, 49, C)

    positions = spans @ control
    steps = np.linalg.norm(np.diff(positions, axis=1, prepend=positions[:, :1]), axis=-1)  # (S, 49), no ink in jumps
    travelled = steps.ravel().cumsum()
    nearest = np.searchsorted(travelled, np.linspace(0, travelled[-1], POINTS))
    return control, stroke, spans.reshape(-1, len(control))[nearest]


def lean(paths, rng):
    """Stretch, slant and turn each of the paths (N, P, 2); people write wider than the templates, and lean right."""
    shape = (len(paths), 1)
    stretch = np.exp(rng.normal(0.14, 0.2, shape)).astype(np.float32)
    slant = rng.normal(0.12, 0.25, shape).astype(np.float32)
    turn = rng.normal(0, 0.09, shape).astype(np.float32)
    x, y = stretch * paths[..., 0] - slant * paths[..., 1], paths[..., 1]
    return np.stack([np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y], axis=-1)


def press(count, rng):
    """Radii (count, POINTS) of the pen: one width per writer, and a pressure that wavers along the path."""
    frequency = np.arange(1, 17)[:, None]
    phase = frequency * np.linspace(0, np.pi, POINTS)
    waves = np.concatenate([np.cos(phase), np.sin(phase)]) / np.sqrt(np.tile(frequency, (2, 1)))  # (32, P)
    width = rng.normal(np.log(0.062), 0.29, (count, 1))
    pressure = rng.normal(0, 0.08, (count, len(waves))) @ waves
    return np.exp(width + pressure).astype(np.float32)


def fit_box(paths, radii):
    """Scale paths (N, P, 2) and radii (N, P) together until the ink just fits the box, and put it in its middle."""
    low = (paths - radii[..., None]).min(axis=1, keepdims=True)  # (N, 1, 2)
    high = (paths + radii[..., None]).max(axis=1, keepdims=True)
    scale = BOX / (high - low).max(axis=-1, keepdims=True)  # (N, 1, 1): the longer side decides, the aspect stays
    return (paths - (low + high) / 2) * scale + BOX / 2, radii * scale[..., 0]


def ink(paths, radii):
    """Grey levels (N, 20, 20) in [0, 1], from the distance of each pixel to the pen."""
    pixel = np.arange(BOX, dtype=np.float32)[:, None] + 0.5
    offset = (pixel - paths.swapaxes(1, 2)[:, :, None]) / radii[:, None, None]  # (N, 2, 20, P), in pen radii
    across, down = np.moveaxis(np.square(offset), 1, 0)
    distance = np.sqrt((down[:, :, None] + across[:, None]).min(axis=-1))  # (N, 20, 20), 1 at the edge of the ink
    depth = (1 - distance) * radii.mean(axis=1)[:, None, None]  # pixels inside the edge
    edge = np.clip(0.5 + depth / 1.2, 0, 1)
    return edge * edge * (3 - 2 * edge)  # a smooth step: greys are rarer than paper and full ink, as in a scan


def centre(boxes):
    """Images (N, 28, 28) uint8 of boxes (N, 20, 20), moved by whole pixels: the centre of mass comes to the middle."""
    place = np.arange(BOX)
    mass = boxes.sum(axis=(1, 2))
    balance = np.stack([boxes.sum(axis=2) @ place, boxes.sum(axis=1) @ place]) / mass  # (2, N): row, column
    corner = np.clip(SIDE // 2 - np.rint(balance).astype(int), 0, SIDE - BOX)  # never over the border
    row, column = corner[:, :, None] + place  # (N, 20) each
    images = np.zeros((len(boxes), SIDE, SIDE), np.uint8)
    images[np.arange(len(boxes))[:, None, None], row[:, :, None], column[:, None]] = np.rint(255 * boxes)
    return images
