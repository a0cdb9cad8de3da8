"""Exercise 1: read the digits from their bytes."""

import numpy as np

from npvae.exercises.course import Case, Function, Mistake

HEADER = "notebook 1, “Parse the header by hand”"
IMAGES = "notebook 1, “Turn bytes into images”"
GREY = "notebook 1, “Decide what a grey pixel means”"
rng = np.random.default_rng(1)


def idx(*sizes, begin=b"\x00\x00\x08"):
    pixels = rng.integers(0, 256, int(np.prod(sizes)), np.uint8).tobytes()
    return begin + bytes([len(sizes)]) + b"".join(size.to_bytes(4, "big") for size in sizes) + pixels


RAW = idx(300, 3, 2)


def with_dtype(scale, images):
    x = scale(images)
    return {"x": x, "the dtype of x": str(getattr(x, "dtype", type(x).__name__))}


FUNCTIONS = {
    "read_header": Function(
        outputs=("sizes",),
        read=HEADER,
        float32=False,
        cases=[
            Case("in a typical case, of images", raw=RAW),
            Case("in a typical case, of labels", raw=idx(5)),
            Case("in a typical case, of no images", raw=idx(0, 28, 70000)),
            Case("with an array of four dimensions", raw=idx(2, 3, 2, 1)),
            Case("with one image", raw=idx(1, 28, 28)),
            Case("with an empty file", raw=b""),
            Case("with a file of three bytes", raw=RAW[:3]),
            Case("with a file of four bytes", raw=RAW[:4]),
            Case("with a file that ends in its header", raw=RAW[:10]),
            Case("with a file that lacks its last byte", raw=RAW[:-1]),
            Case("with a file with one byte too many", raw=RAW + b"x"),
            Case("with a file of another type of numbers (13: floats)", raw=idx(2, 3, begin=b"\x00\x00\x0d")),
            Case("with a file that does not begin with two zeros", raw=b"\x01\x02" + RAW[2:]),
            Case("with a file whose first byte is not zero", raw=b"\x01" + RAW[1:]),
            Case("with a file whose second byte is not zero", raw=b"\x00\x01" + RAW[2:]),
        ],
        mistakes=[
            Mistake(
                "the sizes are read with the least significant byte first",
                "IDX is big-endian: the most significant byte comes first. Your computer most likely stores its own integers the other way round.",
                ('"big"', '"little"'),
            ),
            Mistake(
                "the sizes are in reverse order",
                "They come in the order of the axes, the slowest first.",
                ("for i in range(raw[3]))", "for i in range(raw[3]))[::-1]"),
            ),
            Mistake(
                "the sizes are read from byte 0 on",
                "They begin behind the first four bytes.",
                ("raw[4 + 4 * i : 8 + 4 * i]", "raw[4 * i : 4 + 4 * i]"),
            ),
            Mistake(
                "one byte is read for each size",
                "Each size has four bytes: 255 is not the largest.",
                ("raw[4 + 4 * i : 8 + 4 * i]", "raw[7 + 4 * i : 8 + 4 * i]"),
            ),
            Mistake(
                "two bytes are read for each size",
                "Each size has four bytes.",
                ("raw[4 + 4 * i : 8 + 4 * i]", "raw[4 + 4 * i : 6 + 4 * i]"),
            ),
            Mistake(
                "three sizes are read whatever byte 3 says",
                "Labels have one dimension.",
                ("for i in range(raw[3])", "for i in range(3)"),
            ),
            Mistake(
                "it is not checked that there are enough bytes for the header",
                "A file can be shorter than its header.",
                ("len(raw) < 4 or len(raw) < 4 + 4 * raw[3]", "False"),
            ),
            Mistake(
                "the type of the numbers is not checked",
                "Byte 2 is 8 for unsigned bytes; others would be read as if they were.",
                ('raw[:3] != b"\\x00\\x00\\x08"', 'raw[:2] != b"\\x00\\x00"'),
            ),
            Mistake(
                "the first two bytes are not checked",
                "A file that is no IDX file would be read as if it were one.",
                ('raw[:3] != b"\\x00\\x00\\x08"', "raw[2] != 8"),
            ),
            Mistake(
                "the first three bytes are not checked",
                "A file that is no IDX file would be read as if it were one.",
                ('raw[:3] != b"\\x00\\x00\\x08"', "False"),
            ),
            Mistake(
                "the length of the file is not checked",
                "The sizes must account for every byte of the file: one that was cut off while it was downloaded is common.",
                ("len(raw) != 4 + 4 * len(sizes) + count", "False"),
            ),
            Mistake(
                "a file with bytes left over is accepted",
                "The sizes must account for every byte of the file.",
                ("len(raw) != 4 + 4 * len(sizes) + count", "len(raw) < 4 + 4 * len(sizes) + count"),
            ),
            Mistake(
                "a file that was cut off is accepted",
                "The sizes must account for every byte of the file.",
                ("len(raw) != 4 + 4 * len(sizes) + count", "len(raw) > 4 + 4 * len(sizes) + count"),
            ),
            Mistake(
                "the header is forgotten in the length of the file",
                "Header and numbers together are the file.",
                ("len(raw) != 4 + 4 * len(sizes) + count", "len(raw) != count"),
            ),
        ],
        hints=[
            "raw[3] is an int; raw[4:8] is the first size, four bytes. What number are they together?",
            'int.from_bytes(four, "big"). What is left of the file must be as many bytes as the product of the sizes.',
            'sizes = tuple(int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(raw[3])); raise ValueError unless len(raw) == 4 + 4 * len(sizes) + their product; look at len(raw) before anything else',
        ],
    ),
    "read_images": Function(
        outputs=("images",),
        read=IMAGES,
        float32=False,
        cases=[
            Case("in a typical case", raw=RAW),
            Case("in a typical case, of square images", raw=idx(4, 3, 3)),
            Case("with one image", raw=idx(1, 28, 28)),
        ],
        mistakes=[
            Mistake(
                "the header is read as pixels",
                "The numbers begin behind the header, at byte 4 + 4 · 3 = 16.",
                (
                    "np.frombuffer(raw, np.uint8, offset=4 + 4 * len(sizes))",
                    "np.frombuffer(raw, np.uint8)[: sizes[0] * sizes[1] * sizes[2]]",
                ),
            ),
            Mistake(
                "the numbers are taken from byte 8 on, as in a file of labels",
                "Images have three sizes: 4 + 4 · 3 = 16 bytes of header.",
                (
                    "np.frombuffer(raw, np.uint8, offset=4 + 4 * len(sizes))",
                    "np.frombuffer(raw, np.uint8, offset=8)[: sizes[0] * sizes[1] * sizes[2]]",
                ),
            ),
            Mistake(
                "the bytes are read as signed", "0 to 255: ink above 127 would be negative.", ("np.uint8", "np.int8")
            ),
            Mistake(
                "the images are not made into rows",
                "Each image is one row of rows · columns pixels.",
                ("pixels.reshape(sizes[0], sizes[1] * sizes[2])", "pixels.reshape(sizes)"),
            ),
            Mistake(
                "rows and columns of each image are swapped",
                "The last axis, the columns, runs fastest in the file.",
                (
                    "pixels.reshape(sizes[0], sizes[1] * sizes[2])",
                    "pixels.reshape(sizes).swapaxes(1, 2).reshape(sizes[0], -1)",
                ),
            ),
            Mistake(
                "the first axis is taken to run fastest",
                "In IDX the last one does, as in NumPy by itself.",
                ("sizes[1] * sizes[2])", 'sizes[1] * sizes[2], order="F")'),
            ),
            Mistake(
                "images are columns",
                "Each image is a row: (N, rows · columns).",
                ("pixels.reshape(sizes[0], sizes[1] * sizes[2])", "pixels.reshape(sizes[0], sizes[1] * sizes[2]).T"),
            ),
            Mistake(
                "they are scaled already",
                "That is for `scale`; keep the bytes, a quarter of the memory.",
                ("return pixels", "return (pixels / 255)"),
            ),
            Mistake(
                "they are turned into floats",
                "Keep the bytes, a quarter of the memory; `scale` is for batches.",
                ("return pixels", "return pixels.astype(np.float32)"),
            ),
            Mistake("ink and paper are swapped", "", ("return pixels", "return (255 - pixels)")),
        ],
        hints=[
            "What follows the header is one long row of bytes. NumPy can look at it as an array.",
            "np.frombuffer(raw, np.uint8, offset=…), then reshape.",
            "np.frombuffer(raw, np.uint8, offset=16).reshape(sizes[0], sizes[1] * sizes[2])",
        ],
    ),
    "scale": Function(
        probe=with_dtype,
        read=GREY,
        float32=False,
        cases=[
            Case("in a typical case", images=np.arange(0, 256, 15, np.uint8).reshape(3, 6)),
            Case("in a typical case, without full ink", images=rng.integers(0, 250, (4, 6), np.uint8)),
            Case("with one image", images=np.array([[0, 1, 128, 254, 255]], np.uint8)),
            Case("with an image without ink", images=np.zeros((1, 4), np.uint8)),
        ],
        mistakes=[
            Mistake("they are divided by 256", "255 is ink, and ink is exactly 1.", ("/ 255", "/ 256")),
            Mistake("nothing is divided", "The pixels of the model are between 0 and 1.", (" / 255", "")),
            Mistake("they are multiplied by 255", "", ("/ 255", "* 255")),
            Mistake("it is an integer division", "// leaves only 0 and 1.", ("/ 255", "// 255")),
            Mistake(
                "they are divided by the largest",
                "A batch without full ink would be scaled otherwise than the next one.",
                ("/ 255", "/ images.max()"),
            ),
            Mistake(
                "ink is 0 and paper is 1",
                "Ink is 1: mostly paper, so mostly 0.",
                ("images.astype(np.float32)", "(255 - images.astype(np.float32))"),
            ),
            Mistake(
                "they go from −1 to 1",
                "That suits a decoder with tanh; a Bernoulli's pixels are from 0 to 1.",
                ("/ 255", "/ 127.5 - 1"),
            ),
            Mistake(
                "they are standardized",
                "A Bernoulli's pixels are between 0 and 1.",
                (
                    "images.astype(np.float32) / 255",
                    "((images - images.mean()) / (images.std() + 1e-12)).astype(np.float32)",
                ),
            ),
            Mistake(
                "grey is made black or white",
                "Here a grey pixel stays, as the mean of many coin flips.",
                ("images.astype(np.float32) / 255", "(images >= 128).astype(np.float32)"),
            ),
            Mistake(
                "they are float64",
                "float32 is enough to train with, half the memory and twice as fast.",
                ("images.astype(np.float32)", "images"),
            ),
            Mistake("they are divided by 100", "", ("/ 255", "/ 100")),
        ],
        hints=[
            "Which byte is ink, and which number is to stand for it?",
            "float32 first, then divide.",
            "images.astype(np.float32) / 255",
        ],
    ),
}
