import gzip
import hashlib
import math
import os
import resource
import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from npvae.data.idx import MAGIC_IMAGES, MAGIC_LABELS, IDXError, read_idx, write_idx

NUMBERS = {  # type byte -> NumPy's name, struct's letter, values at both ends and around zero
    0x08: ("uint8", "B", (0, 1, 127, 128, 255)),
    0x09: ("int8", "b", (-128, -1, 0, 1, 127)),
    0x0B: ("int16", "h", (-(2**15), -256, -1, 0, 1, 2**15 - 1)),
    0x0C: ("int32", "i", (-(2**31), -65536, -1, 0, 1, 2**31 - 1)),
    0x0D: ("float32", "f", (-math.inf, -1.5, -0.0, 2.0**-149, 1.0, float(np.finfo("f4").max), math.nan)),
    0x0E: ("float64", "d", (-math.inf, -1.5, -0.0, 5e-324, 0.1, float(np.finfo("f8").max), math.nan)),
}
HUGE = 2**32 - 1


def idx(shape, data=None, code=0x08):
    """An IDX file put together by hand; without data, unsigned bytes that count up."""
    if data is None:
        data = bytes(i % 251 for i in range(math.prod(shape)))
    return bytes([0, 0, code, len(shape)]) + b"".join(struct.pack(">I", size) for size in shape) + data


def flipped(data, position):
    return data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]


PLAIN = idx((4, 5, 6))
PACKED = gzip.compress(PLAIN, mtime=0)
NOISE = gzip.compress(idx((150,), np.random.default_rng(0).bytes(150)), mtime=0)  # deflate gains nothing
TWO_MEMBERS = gzip.compress(PLAIN[:50]) + gzip.compress(PLAIN[50:])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some-idx-file"


@pytest.fixture
def peak_memory():
    """The most bytes that were allocated at a time since the test began."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.parametrize("code", NUMBERS)
def test_each_type_is_read_as_the_numbers_it_stands_for(path, code):
    dtype, letter, values = NUMBERS[code]
    path.write_bytes(idx((len(values),), struct.pack(f">{len(values)}{letter}", *values), code))
    array = read_idx(path)
    assert array.dtype == dtype
    assert array.dtype.isnative
    assert array.flags.writeable
    np.testing.assert_array_equal(array.tolist(), values)
    np.testing.assert_array_equal(np.signbit(array), [math.copysign(1, value) < 0 for value in values])  # -0.0 too


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4), (1, 2, 1, 3, 2, 1, 2), (0,), (3, 0, 2), (0, 28, 28), (1,) * 32])
def test_any_number_of_dimensions_is_read_in_row_major_order(path, shape):
    path.write_bytes(idx(shape))
    array = read_idx(path)
    assert array.shape == shape
    assert [array[index] for index in np.ndindex(shape)] == list(range(math.prod(shape)))


@pytest.mark.parametrize(
    ("name", "content"),
    [("plain.gz", PLAIN), ("gzip", PACKED), ("gzip.idx3", PACKED), ("two-members", TWO_MEMBERS), ("plain", PLAIN)],
)
def test_gzip_is_told_by_content_and_not_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    np.testing.assert_array_equal(read_idx(str(tmp_path / name), MAGIC_IMAGES), np.arange(120).reshape(4, 5, 6))


def test_gzip_with_a_name_inside_is_read(path):
    with gzip.GzipFile("a-name-that-gzip-remembers", "wb", fileobj=path.open("wb")) as file, file.fileobj:
        file.write(PLAIN)
        file.close()
    assert b"a-name-that" in path.read_bytes()
    assert read_idx(path).shape == (4, 5, 6)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("code", NUMBERS)
def test_files_are_written_byte_for_byte_as_the_format_says(path, code, order):
    dtype, letter, values = NUMBERS[code]
    expected = idx((len(values), 1), struct.pack(f">{len(values)}{letter}", *values), code)
    array = np.array(values, dtype)[:, None].astype(np.dtype(dtype).newbyteorder(order))
    write_idx(path, array)
    assert path.read_bytes() == expected
    write_idx(f"{path}.gz", array)
    assert gzip.decompress(Path(f"{path}.gz").read_bytes()) == expected


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1, 2, 1, 3, 2, 1, 2)])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_any_number_of_dimensions_is_written(tmp_path, shape, suffix):
    write_idx(tmp_path / f"a{suffix}", np.arange(math.prod(shape), dtype=np.uint8).reshape(shape))
    content = (tmp_path / f"a{suffix}").read_bytes()
    assert (gzip.decompress(content) if suffix else content) == idx(shape)


def test_views_are_written_in_the_order_of_their_elements(path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    write_idx(path, array.T[::-1])
    data = struct.pack(">24h", *(array[k, j, 3 - i] for i in range(4) for j in range(3) for k in range(2)))
    assert path.read_bytes() == idx((4, 3, 2), data, 0x0B)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_the_same_array_gives_the_same_bytes_whatever_the_name_and_the_time(tmp_path, monkeypatch, suffix):
    array = np.arange(1000, dtype=np.int32)
    write_idx(tmp_path / f"one{suffix}", array)
    monkeypatch.setattr(time, "time", lambda: 1e9)
    write_idx(tmp_path / f"other{suffix}", array)
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"other{suffix}").read_bytes()


def test_folders_are_made_on_the_way(tmp_path):
    write_idx(tmp_path / "not" / "there" / "yet", np.zeros(3, np.uint8))
    assert read_idx(tmp_path / "not" / "there" / "yet").shape == (3,)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # newer GzipFiles complain twice
@pytest.mark.parametrize("name", ["a", "a.gz"])
@pytest.mark.parametrize("old", [None, b"the old file"])
def test_a_write_that_fails_midway_leaves_what_was_there(tmp_path, rng, name, old):
    if old:
        (tmp_path / name).write_bytes(old)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # the disk is full, as it were
    try:
        with pytest.raises(OSError, match="File too large"):
            write_idx(tmp_path / name, rng.integers(0, 256, 1_000_000, np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == ({name: old} if old else {})


@pytest.mark.parametrize("old", [None, b"the old file"])
def test_nobody_sees_a_half_written_file(path, monkeypatch, old):
    seen, replace = [], os.replace
    if old:
        path.write_bytes(old)

    def look_and_replace(source, target):
        seen.append((Path(source).read_bytes(), path.read_bytes() if path.exists() else None))
        replace(source, target)

    monkeypatch.setattr(os, "replace", look_and_replace)
    write_idx(path, np.arange(5, dtype=np.uint8))
    assert seen == [(idx((5,)), old)]  # whole under another name, while the target was untouched
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("dtype", ["uint16", "int64", "complex64", "bool", "float16", "object", "U3"])
def test_types_that_idx_does_not_have_are_not_written(path, dtype):
    with pytest.raises(IDXError, match="expected uint8, int8, int16, int32, float32 or float64") as error:
        write_idx(path, np.zeros(3, dtype))
    assert str(error.value).startswith(f"{path}: ")
    assert not os.listdir(path.parent)


def test_a_packed_file_tells_neither_when_nor_under_what_name_it_was_made(tmp_path):
    write_idx(tmp_path / "secret.gz", np.arange(5, dtype=np.uint8))
    content = (tmp_path / "secret.gz").read_bytes()
    assert content[4:8] == bytes(4)  # RFC 1952: no time is available
    assert b"secret" not in content


def test_sizes_that_do_not_fit_into_32_bits_are_not_written(path):
    with pytest.raises(IDXError, match=r"shape 0 × 4294967296, expected sizes below 2³²"):
        write_idx(path, np.zeros((0, 2**32), np.uint8))
    assert not os.listdir(path.parent)
    write_idx(path, np.zeros((0, HUGE), np.uint8))
    assert read_idx(path).shape == (0, HUGE)


BAD = {
    # name: content, the magic that is asked for, what the message says
    "empty": (b"", None, "0 bytes, expected an IDX header"),
    "three bytes": (b"\0\0\x08", MAGIC_IMAGES, "3 bytes, expected an IDX header"),
    "empty gzip": (gzip.compress(b""), None, "0 bytes, expected an IDX header"),
    "header cut off": (PLAIN[:10], MAGIC_IMAGES, "header ends after 10 bytes, expected 16"),
    "packed header cut off": (gzip.compress(PLAIN[:10]), MAGIC_IMAGES, "header ends after 10 bytes, expected 16"),
    "labels for images": (
        idx((9,)),
        MAGIC_IMAGES,
        r"0x00000801, expected 0x00000803 \(images\); is this the labels file\?",
    ),
    "images for labels": (
        PACKED,
        MAGIC_LABELS,
        r"0x00000803, expected 0x00000801 \(labels\); is this the images file\?",
    ),
    "other magic": (idx((2, 3, 4), code=0x09), MAGIC_IMAGES, r"0x00000903, expected 0x00000803 \(images\)$"),
    "a web page": (b"<!DOCTYPE html>\n<html>", MAGIC_IMAGES, r"magic 0x3c21444f, expected 0x00000803"),
    "no IDX at all": (b"<!DOCTYPE html>\n<html>", None, r"magic 0x3c21444f, expected 0x0000TTNN"),
    "bit 16 of the magic": (b"\0\1" + idx((9,))[2:], None, r"magic 0x00010801, expected 0x0000TTNN"),
    "bit 24 of the magic": (b"\1\0" + idx((9,))[2:], None, r"magic 0x01000801, expected 0x0000TTNN"),
    "unknown type": (idx((2,), code=0x0A), None, "magic 0x00000a01, expected .* 08, 09, 0b, 0c, 0d, 0e "),
    "truncated": (PLAIN[:-1], MAGIC_IMAGES, r"4 × 5 × 6 of 1 bytes, 120 bytes, more than the file can hold \(119\)"),
    "truncated, packed": (gzip.compress(PLAIN[:-1]), MAGIC_IMAGES, "119 bytes of data, expected 120"),
    "too long": (PLAIN + b"\0", MAGIC_IMAGES, "too long: more than the 120 bytes"),
    "too long, packed": (gzip.compress(PLAIN + b"\0"), MAGIC_IMAGES, "too long: more than the 120 bytes"),
    "too long, two members": (PACKED + PACKED, MAGIC_IMAGES, "too long: more than the 120 bytes"),
    "data of a scalar missing": (idx((), b""), None, "one number of 1 bytes"),
    "100 GB": (idx((10**5, 1000, 1000), b"1"), MAGIC_IMAGES, "100000000000 bytes, more than the file can hold"),
    "100 GB, packed": (gzip.compress(idx((10**5, 1000, 1000), b"1")), MAGIC_IMAGES, "more than the file can hold"),
    "2^96": (idx((HUGE,) * 3, b"1"), MAGIC_IMAGES, f"{HUGE**3} bytes, more than the file can hold"),
    "2^96, packed": (
        gzip.compress(idx((HUGE,) * 3, b"1")),
        MAGIC_IMAGES,
        f"{HUGE**3} bytes, more than the file can hold",
    ),
    "product 0 in 64 bits": (idx((2**31, 2**31, 4), b""), MAGIC_IMAGES, f"{2**64} bytes, more than the file can hold"),
    "zero times huge": (idx((0, HUGE, HUGE, HUGE), b""), None, "NumPy cannot hold"),
    "huge times zero": (idx((HUGE, HUGE, HUGE, 0), b""), None, "NumPy cannot hold"),
    "65 dimensions": (idx((1,) * 65, b"1"), None, "NumPy cannot hold"),
    "255 dimensions": (idx((0,) * 255, b""), None, "NumPy cannot hold"),
    "gzip magic alone": (PACKED[:2], None, "broken gzip"),
    "gzip header cut off": (PACKED[:9], None, "broken gzip"),
    "flipped byte": (flipped(PACKED, len(PACKED) // 2), None, "broken gzip"),
    "flipped byte in stored data": (flipped(NOISE, len(NOISE) // 2), None, "broken gzip.*crc"),
    "wrong CRC": (flipped(PACKED, len(PACKED) - 8), None, "broken gzip.*crc"),
    "wrong length": (flipped(PACKED, len(PACKED) - 1), None, "broken gzip.*length"),
    "trailer cut off": (PACKED[:-8], None, "broken gzip"),
    "trailer cut short": (PACKED[:-1], None, "broken gzip"),
    "garbage after gzip": (PACKED + b"garbage", None, "broken gzip"),
}


@pytest.mark.parametrize(("content", "magic", "says"), BAD.values(), ids=BAD)
def test_a_bad_file_is_refused_in_one_line_that_names_it(path, content, magic, says):
    path.write_bytes(content)
    with pytest.raises(IDXError, match=f"(?i){says}") as error:
        read_idx(path, magic)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [PLAIN, PACKED, NOISE, TWO_MEMBERS], ids=["plain", "gzip", "noise", "two members"])
def test_truncated_data_is_refused_wherever_it_is_cut(path, content):
    path.write_bytes(content)
    for length in reversed(range(len(content))):
        os.truncate(path, length)
        with pytest.raises(IDXError):
            read_idx(path)


@pytest.mark.parametrize("content", [PACKED, NOISE], ids=["packed", "noise"])
def test_no_flipped_byte_in_a_gzip_file_changes_the_data_unnoticed(tmp_path, content):
    (tmp_path / "whole").write_bytes(content)
    expected = read_idx(tmp_path / "whole").tolist()
    refused = 0
    for position in range(len(content)):
        path = tmp_path / str(position)
        path.write_bytes(flipped(content, position))
        try:
            assert read_idx(path).tolist() == expected
        except IDXError:
            refused += 1
    assert refused >= len(content) - 6  # time (4 bytes), level and system say nothing about the data


def test_a_file_that_is_not_there_is_an_os_error(path):
    with pytest.raises(FileNotFoundError):
        read_idx(path)


@pytest.mark.parametrize(("promised", "held"), [(10**6, 10**3), (10**8, 10**5)])
def test_memory_grows_with_the_data_and_not_with_the_promise(path, rng, peak_memory, promised, held):
    content = gzip.compress(idx((promised,), rng.bytes(held)))
    assert promised < 1032 * len(content)  # what deflate could hold at best: only the data can tell
    path.write_bytes(content)
    with pytest.raises(IDXError, match=f"truncated: {held} bytes of data, expected {promised}"):
        read_idx(path)
    assert peak_memory() < 4e6


def test_a_large_file_that_is_too_long_is_called_so(path):
    path.write_bytes(idx((1_500_000,), bytes(1_500_001)))
    with pytest.raises(IDXError, match="too long: more than the 1500000 bytes"):
        read_idx(path)


@pytest.mark.parametrize(("dimensions", "shown"), [(8, " × ".join("12345678")), (9, " × ".join("12345678…"))])
def test_a_message_shows_at_most_eight_sizes(path, dimensions, shown):
    path.write_bytes(idx(range(1, dimensions + 1), b""))
    with pytest.raises(IDXError, match=f"the header promises {shown} of 1 bytes"):
        read_idx(path)


def test_bytes_are_held_in_memory_once(path, peak_memory):
    path.write_bytes(idx((8_000_000,), bytes(8_000_000)))
    tracemalloc.reset_peak()
    assert read_idx(path).size == 8_000_000
    assert peak_memory() < 12e6


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_promise_of_100_gigabytes_allocates_nothing(path, peak_memory, pack):
    path.write_bytes(pack(idx((10**5, 1000, 1000), bytes(1000))))
    with pytest.raises(IDXError):
        read_idx(path)
    assert peak_memory() < 1e6


def test_a_bomb_behind_the_data_is_not_unpacked(path, peak_memory):
    """40 MB in 40 kB after the ten bytes that were promised: that there is more is seen from the next byte."""
    path.write_bytes(gzip.compress(idx((10,)) + bytes(40_000_000), compresslevel=1))
    tracemalloc.reset_peak()
    with pytest.raises(IDXError, match="too long: more than the 10 bytes"):
        read_idx(path)
    assert peak_memory() < 4e6


@pytest.fixture
def mnist():
    return Path(os.environ["NPVAE_DATA"], "mnist")


@pytest.mark.mnist
@pytest.mark.parametrize(("split", "count"), [("train", 60000), ("t10k", 10000)])
def test_mnist_has_its_published_shapes(mnist, split, count):
    images = read_idx(mnist / f"{split}-images-idx3-ubyte.gz", MAGIC_IMAGES)
    labels = read_idx(mnist / f"{split}-labels-idx1-ubyte.gz", MAGIC_LABELS)
    assert (images.shape, labels.shape) == ((count, 28, 28), (count,))
    assert images.dtype == labels.dtype == np.uint8


@pytest.mark.mnist
def test_mnist_has_its_published_label_counts(mnist):
    labels = read_idx(mnist / "train-labels-idx1-ubyte.gz")
    assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


@pytest.mark.mnist
def test_mnist_read_and_written_again_is_the_published_file(mnist, path):
    write_idx(path, read_idx(mnist / "train-images-idx3-ubyte.gz"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest == "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
