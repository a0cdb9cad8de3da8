import tracemalloc

import numpy as np
import pytest
from matplotlib.image import imsave

from npvae.data.datasets import load
from npvae.data.pictures import from_picture
from npvae.data.pixels import batch
from npvae.data.strokes import draw_digits

HEIGHT, WIDTH = 300, 400


@pytest.fixture(scope="module")
def digits():
    """Built-in digits (N, 784) in [0, 1], those with the centre of mass in the middle, as all of MNIST have it."""
    digits = batch(draw_digits(20, np.random.default_rng(1))[0].reshape(-1, 784))
    return digits[[np.abs(centre_of_mass(digit) - 14).max() < 0.5 for digit in digits]]


def enlarge(image, times):
    """An image (H, W), larger by linear interpolation; its edges are made sharp again, as a pen's are."""
    for _ in range(2):
        new = (np.arange(times * len(image)) + 0.5) / times - 0.5
        image = np.stack([np.interp(new, np.arange(len(image)), column) for column in image.T])
    return np.clip((image - 0.5) * times / 3 + 0.5, 0, 1)


def photo(digit, rng, paper=0.85, ink=0.15, noise=0.03, tilt=0.0):
    """Grey levels (300, 400) of a digit, written 6 times as large off the middle of a page, in light from the right."""
    page = np.zeros((HEIGHT, WIDTH))
    top, left = rng.integers(0, [HEIGHT - 168, WIDTH - 168])
    page[top : top + 168, left : left + 168] = enlarge(digit.reshape(28, 28), 6)
    light = 1 + tilt * np.linspace(-0.5, 0.5, WIDTH)
    return np.clip((paper + (ink - paper) * page) * light + rng.normal(0, noise, page.shape), 0, 1)


def distances(x, digits):
    """Mean absolute difference of x (1, D) to each of the digits, at the best of the shifts by up to one pixel."""
    shifted = [np.roll(x.reshape(28, 28), shift, (0, 1)).ravel() for shift in np.ndindex(3, 3)]
    shifted = np.roll(shifted, -29, axis=1)
    return np.abs(shifted[:, None] - digits).mean(axis=2).min(axis=0)


def centre_of_mass(x, image_shape=(28, 28)):
    rows, columns = np.indices(image_shape)
    return np.array([(index * x.reshape(image_shape)).sum() / x.sum() for index in (rows, columns)])


def extent(x, level, image_shape=(28, 28)):
    """Rows and columns that the ink above a level takes."""
    return [np.ptp(index) + 1 for index in np.nonzero(x.reshape(image_shape) > level)]


def bar(height=50, width=40):
    """Dark ink on white, uint8."""
    page = np.full((height, width), 255, np.uint8)
    page[height // 5 : height // 2, width // 4 : width // 2] = 0
    return page


@pytest.mark.parametrize(
    "conditions",
    [
        {},
        {"tilt": 0.4},
        {"paper": 0.6, "ink": 0.3, "tilt": 0.2},  # pencil
        {"paper": 0.1, "ink": 0.9},  # chalk
        {"paper": 0.4, "ink": 0.05},  # too dark a photo
        {"paper": 1, "ink": 0, "noise": 0},
    ],
)
def test_photographed_digit_is_itself(digits, conditions, rng):
    for i, digit in enumerate(digits):
        found = distances(from_picture(photo(digit, rng, **conditions)), digits)
        assert found.argmin() == i
        assert found[i] < 0.06  # of a mean of 0.12


def test_paper_is_0_and_ink_1_in_a_photo(digits, rng):
    for digit in digits:
        x = from_picture(photo(digit, rng, tilt=0.4)).reshape(28, 28)
        assert x.max() == 1
        far = np.ones((28, 28), bool)
        for row, column in np.argwhere(x > 0.3):
            far[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3] = False
        assert x[far].max() < 0.02


def test_image_of_a_data_set_comes_back_as_it_was(digits):
    for digit in digits:
        image = np.rint(255 * digit).astype(np.uint8).reshape(28, 28)
        np.testing.assert_allclose(from_picture(image), batch(image.reshape(1, -1)), atol=1 / 254)
        np.testing.assert_allclose(from_picture(255 - image), batch(image.reshape(1, -1)), atol=1 / 254)


@pytest.mark.mnist
def test_mnist_comes_back_as_it_was():
    images = load("mnist").test_images[:500]
    x = np.concatenate([from_picture(image.reshape(28, 28)) for image in images])
    difference = np.abs(x - batch(images)).mean(axis=1)
    assert np.mean(difference == 0) > 0.85  # most others have their strongest ink at 254, which becomes 255
    assert difference.max() < 2e-3


@pytest.mark.parametrize("shape", [(28, 28), (57, 91), (300, 200), (1000, 1300)])
def test_ink_is_20_pixels_long_and_its_centre_of_mass_in_the_middle(shape, rng):
    height, width = shape
    page = np.ones(shape)
    page[height // 8 : height // 2, width // 9 : width // 3] = 0
    page[height // 3 : height // 2, width // 9 : width - width // 5] = 0
    x = from_picture(page)
    assert max(extent(x, 0.5)) == 20
    assert np.abs(centre_of_mass(x) - 14).max() <= 0.51


def test_ink_stays_inside_when_its_mass_is_at_one_end():
    page = np.zeros((100, 100))
    page[10:14, 5:95] = 0.5  # long and faint, with a heavy end
    page[10:60, 5:10] = 1
    x = from_picture(page)
    assert max(extent(x, 0.3)) == 20
    assert centre_of_mass(x)[1] < 12  # in the middle it would be, if the other end were not in the way


@pytest.mark.parametrize(("image_shape", "longest"), [((28, 20), 20), ((20, 28), 14), ((56, 56), 40), ((14, 14), 10)])
def test_other_image_shapes_have_the_same_margins(image_shape, longest):
    page = np.zeros((300, 300))
    page[20:220, 150:250] = 1
    x = from_picture(page, image_shape)
    assert x.shape == (1, np.prod(image_shape))
    assert max(extent(x, 0.5, image_shape)) == longest


@pytest.mark.parametrize("side", [1000, 4000])
def test_hair_line_is_still_a_line(side):
    page = np.full((side, side), 255, np.uint8)
    page[side // 4 : -side // 4, side // 3] = 0
    x = from_picture(page).reshape(28, 28)
    line = x.max(axis=1)
    assert np.count_nonzero(line > 0.8) >= 18
    assert extent(x, 0.5)[1] <= 2


def test_photo_of_twelve_megapixels_takes_little_memory():
    page = np.full((3000, 4000, 3), 220, np.uint8)
    page[1000:2000, 1500:1700] = 30
    tracemalloc.start()
    from_picture(page)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_kinds_of_numbers_and_channels_mean_the_same_picture():
    page = bar()
    expected = from_picture(page)
    kinds = [page > 0, page.astype(np.uint16) * 257, page / 255, (page / 255).astype(np.float32), 255 - page]
    kinds += [page.astype(np.uint16).astype(">u2") * 257, page[::-1][::-1], np.asfortranarray(page)]
    kinds += [np.stack([page] * 3, axis=-1), np.stack([page] * 3 + [np.full_like(page, 255)], axis=-1)]
    for kind in kinds:
        np.testing.assert_allclose(from_picture(kind), expected, atol=1e-6)


def test_transparent_is_white_paper_whatever_colour_lies_there():
    page = bar()
    canvas = np.zeros((*page.shape, 4), np.uint8)  # black everywhere, but only ink is opaque
    canvas[..., 3] = 255 - page
    np.testing.assert_allclose(from_picture(canvas), from_picture(page), atol=1e-6)


def test_colours_weigh_as_the_eye_weighs_them():
    primaries = np.eye(3, dtype=np.float32)[None]  # (1, 3, 3): red, green, blue
    x = from_picture(primaries, (1, 3), centre=False)
    np.testing.assert_allclose(x, [[0.299, 0.587, 0.114]], rtol=1e-6)


def test_background_that_is_named_is_not_guessed():
    page = bar()
    np.testing.assert_array_equal(from_picture(page, background="light"), from_picture(page))
    np.testing.assert_array_equal(from_picture(255 - page, background="dark"), from_picture(255 - page))
    with pytest.raises(ValueError, match="no ink"):
        from_picture(page, background="dark")


def test_ink_may_touch_the_border(digits):
    for digit in digits:
        image = digit.reshape(28, 28)
        rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
        cut_out = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        if np.median(np.concatenate([cut_out[[0, -1]].ravel(), cut_out[:, [0, -1]].ravel()])) == 0:
            np.testing.assert_allclose(from_picture(cut_out), digit[None], atol=1 / 254)


def test_picture_may_be_one_pixel_wide():
    page = np.ones((100, 1))
    page[20:60] = 0
    x = from_picture(page).reshape(28, 28)
    assert extent(x, 0.5) in ([20, 1], [20, 2])
    np.testing.assert_allclose(from_picture(page.T).reshape(28, 28), x.T, atol=1e-6)


@pytest.mark.parametrize("image_shape", [(1, 1), (1, 30), (3, 40), (5, 5)])
def test_ink_fits_images_too_small_for_it(image_shape):
    x = from_picture(bar(), image_shape)
    assert x.shape == (1, np.prod(image_shape))
    assert x.max() > 0.5


def test_face_is_scaled_and_nothing_else(rng):
    face = rng.uniform(0.2, 0.7, (28, 20)).astype(np.float32)
    np.testing.assert_array_equal(from_picture(face, (28, 20), centre=False), face.reshape(1, -1))
    np.testing.assert_array_equal(from_picture(face, (28, 20), "light", centre=False), 1 - face.reshape(1, -1))
    large = np.kron(face, np.ones((30, 40)))
    x = from_picture(large, (28, 20), centre=False)
    assert np.corrcoef(x.ravel(), face.ravel())[0, 1] > 0.9
    assert x.mean() == pytest.approx(face.mean(), abs=0.01)


def test_fine_stripes_become_grey_not_coarse_stripes():
    stripes = np.tile([0.0, 1.0, 0.0], (200, 66))  # a period of 3 pixels, that are 2.1 in the small image
    x = from_picture(stripes, (28, 28), centre=False)
    assert np.ptp(x.reshape(28, 28)[:, 1:-1]) < 0.1
    assert x.mean() == pytest.approx(1 / 3, abs=0.01)


def test_file_is_its_content_whatever_its_name(tmp_path):
    page = bar(500, 400)
    page[200:250, 100:150] = 255  # so that its centre is not halfway between two pixels
    pixels = np.stack([page] * 3, axis=-1)
    for name, kind in (("a", "png"), ("a.png", "png"), ("a.jpg", "png"), ("b.png", "jpeg"), ("b.jpg", "jpeg")):
        imsave(tmp_path / name, pixels, format=kind)
        for path in (tmp_path / name, str(tmp_path / name)):
            np.testing.assert_allclose(from_picture(path), from_picture(page), atol=0.1 if kind == "jpeg" else 1e-6)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((0, 28)), r"shape \(0, 28\)"),
        (np.zeros(784), r"shape \(784,\)"),
        (np.zeros((28, 28, 2)), r"shape \(28, 28, 2\)"),
        (np.zeros((5, 28, 28, 3)), r"shape \(5, 28, 28, 3\)"),
        (np.full((28, 28), 1.5), "floats from 1.5 to 1.5"),
        (np.eye(28) - 0.1, "floats from -0.1 to 0.9"),
        (np.where(np.eye(28), np.nan, 0), "floats from nan to nan"),
        (np.eye(28, dtype=np.int64), "type int64"),
        (np.eye(28, dtype=complex), "type complex128"),
        (np.full((28, 28), "ink"), "type <U3"),
        (np.full((28, 28), 255, np.uint8), "no ink"),
        (np.full((28, 28), 0.5), "no ink"),
        (np.ones((28, 28), bool), "no ink"),
    ],
)
def test_what_is_no_picture_is_told_in_one_line(picture, message):
    with pytest.raises(ValueError, match=message) as caught:
        from_picture(picture)
    assert "\n" not in str(caught.value)


def test_blank_page_is_blank_in_light_from_a_side(rng):
    for tilt in (0, 0.2):
        for noise in (0.01, 0.03):
            page = photo(np.zeros(784), rng, tilt=tilt, noise=noise)
            with pytest.raises(ValueError, match="no ink"):
                from_picture(page)


def test_unknown_background_is_told():
    with pytest.raises(ValueError, match="background 'white': expected 'auto', 'light' or 'dark'"):
        from_picture(bar(), background="white")


def test_file_that_is_no_picture_is_told_by_its_path(tmp_path):
    path = tmp_path / "seven.png"
    with pytest.raises(FileNotFoundError, match=r"seven\.png"):
        from_picture(path)
    path.write_text("a seven")
    with pytest.raises(ValueError, match=r"seven\.png: not a picture"):
        from_picture(path)
    imsave(path, bar(), cmap="gray")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"seven\.png: not a picture"):
        from_picture(path)
    imsave(path, np.zeros((30, 30, 3)))
    with pytest.raises(ValueError, match=r"seven\.png: no ink"):
        from_picture(path)
