"""What one does on the page of a model, in a real browser, against what NumPy says of it."""

import numpy as np
import pytest

from npvae import film
from npvae.data.pictures import from_picture
from npvae.data.pixels import batch, one_hot
from npvae.distributions import gaussian_kl
from npvae.evaluate import estimates
from npvae.runs import Run
from tests.conftest import run_train
from tests.test_explore import write_page

PAD = """() => {
    const { width, height } = pad.canvas;
    const { data } = pad.context.getImageData(0, 0, width, height);
    return Array.from({ length: height }, (_, i) => Array.from({ length: width }, (_, j) => data[4 * (i * width + j)]));
}"""


NAMELESS = """[...document.querySelectorAll("button, input, select, canvas[tabindex]")]
    .filter((control) => control.checkVisibility())
    .filter((control) => !(control.innerText || control.ariaLabel || control.labels?.length))
    .map((control) => control.outerHTML)"""


@pytest.fixture(scope="module")
def plane(few_digits, tmp_path_factory):
    """A filmed run with two latents, and its page."""
    folder = tmp_path_factory.mktemp("plane") / "run"
    settings = ("--hidden", 40, "--latent", 2, "--epochs", 3, "--learning-rate", 0.003)
    process = run_train("--dataset", few_digits, *settings, "--film", "--out", folder)
    assert process.returncode == 0, process.stderr
    run = Run.open(folder)
    return run, write_page(run)


@pytest.fixture(scope="module")
def conditional(few_digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("conditional") / "run"
    settings = ("--hidden", 30, "--latent", 4, "--epochs", 1, "--conditional")
    process = run_train("--dataset", few_digits, *settings, "--out", folder)
    assert process.returncode == 0, process.stderr
    run = Run.open(folder)
    return run, write_page(run)


def opened(visit, path):
    page = visit(path)
    page.wait_for_function("explorer.terms !== null")
    return page


def settle(page):
    """Wait until what was asked for is shown: one frame to compute it, one more for what that asks for."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def draw(page, *lines):
    """Draw lines with the mouse; their points are given as parts of the pad's sides."""
    box = page.locator("#pad").bounding_box()
    for line in lines:
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in line]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place, steps=2)
        page.mouse.up()
    settle(page)


def number(page, selector):
    return float(page.locator(selector).inner_text().replace("−", "-").replace(",", ""))


SEVEN = [(0.3, 0.25), (0.7, 0.25), (0.45, 0.8)]
DRAWINGS = {
    "seven": [SEVEN],
    "small, in a corner": [[(0.1, 0.1), (0.2, 0.1), (0.2, 0.25)]],
    "over the border": [[(0.02, 0.5), (0.98, 0.5)], [(0.5, 0.01), (0.4, 0.99)]],
    "a dot": [[(0.8, 0.3), (0.8, 0.3)]],
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_is_placed_as_a_picture_is(name, plane, visit):
    page = opened(visit, plane[1])
    page.click("#clear")
    draw(page, *DRAWINGS[name])
    ink = np.array(page.evaluate(PAD), np.uint8)
    assert ink.max() == 255
    x = np.array(page.evaluate("[...explorer.x]"))
    edged = np.pad(ink, 1)[1:-1, 1:-1]
    edged[[0, -1]], edged[:, [0, -1]] = 0, 0  # from_picture needs paper at the border
    if (edged == ink).all():
        np.testing.assert_allclose(x, from_picture(ink, background="dark")[0], atol=2e-3)
    rows, columns = np.nonzero(x.reshape(28, 28) > 0.3)
    assert max(np.ptp(rows), np.ptp(columns)) in range(17, 21)  # in MNIST's box of 20 × 20
    assert abs(np.average(np.arange(28), weights=x.reshape(28, 28).sum(axis=1)) - 14) < 1.6


def test_numbers_are_those_of_numpy(plane, visit):
    run, path = plane
    page = opened(visit, path)
    page.click("#clear")
    draw(page, SEVEN)
    x = np.array([page.evaluate("[...explorer.x]")], np.float32)
    eps = np.array(page.evaluate("explorer.eps.map((row) => [...row])"), np.float32)[:, None]
    vae = run.vae()
    vae.loss(x, eps)
    expected = {"reconstruction": vae.reconstruction[0], "kl": vae.kl[0], "loss": vae.losses[0]}
    for name, nats in expected.items():
        assert number(page, f"#term-{name}") == pytest.approx(nats, abs=0.06)
    test = run.dataset()
    terms = estimates(vae, test.test_images, test.test_labels, 1)
    losses = terms["reconstruction"] + terms["kl"].sum(axis=1)
    assert number(page, "#usual-loss") == pytest.approx(losses.mean(), abs=0.06)
    verdict = page.locator("#verdict").inner_text()
    if losses.min() <= vae.losses[0] <= losses.max():
        percent = int(verdict.split(" %")[0].split()[-1])
        assert percent == pytest.approx(100 * (losses <= vae.losses[0]).mean(), abs=1.1)
    kl = gaussian_kl(*(array[..., None] for array in vae.encode(x)))[0]
    shown = page.locator("#latents .kl-cell").all_inner_texts()
    assert sorted(map(float, shown)) == pytest.approx(sorted(kl), abs=0.006)


def test_a_scribble_costs_more_than_any_test_image(plane, visit):
    page = opened(visit, plane[1])
    page.click("#clear")
    rng = np.random.default_rng(0)
    draw(page, rng.uniform(0.05, 0.95, (25, 2)).tolist())
    assert "more nats than any of 200 test images" in page.locator("#verdict").inner_text()


def test_a_picked_image_is_given_as_it_is_and_is_drawn_over_in_its_place(plane, visit):
    run, path = plane
    page = opened(visit, path)
    page.click("#next")
    page.click("#thumbnails button >> nth=2")
    settle(page)
    image = batch(run.dataset().test_images[14:15])[0]
    np.testing.assert_allclose(page.evaluate("[...explorer.x]"), image, atol=1e-7)
    draw(page, [(0.02, 0.02), (0.1, 0.02)])
    changed = np.abs(np.array(page.evaluate("[...explorer.x]")) - image).reshape(28, 28)
    assert changed[:3, :3].max() > 0.5
    assert changed[6:].max() < 1e-7


def test_dragging_over_the_plane_decodes_its_z(plane, visit):
    run, path = plane
    page = opened(visit, path)
    page.click("#tab-walk")
    box = page.locator("#plane").bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.25 * box["height"], steps=5)
    page.mouse.up()
    settle(page)
    z = page.locator("#z-value").inner_text().replace("−", "-").removeprefix("z = (").rstrip(")").split(", ")
    z = np.array([z], np.float32)
    assert z[0, 0] == pytest.approx(z[0, 1], abs=0.05)
    assert z[0, 0] > 1
    shown = page.evaluate(
        "[...element('decoded').getContext('2d').getImageData(0, 0, 28, 28).data].filter((_, i) => i % 4 === 0)"
    )
    ink, paper = page.evaluate("[colours.ink[0], colours.paper[0]]")
    expected = paper + run.vae().decode(z)[0] * (ink - paper)
    np.testing.assert_allclose(shown, expected, atol=4)  # z is shown to a hundredth


def test_all_works_by_keyboard(plane, visit):
    page = opened(visit, plane[1])
    page.click("#clear")
    page.focus("#pad")
    for key in [" ", *["ArrowDown"] * 6, *["ArrowRight"] * 4]:
        page.keyboard.press(key)
    settle(page)
    assert max(page.evaluate("[...explorer.x]")) > 0.9
    page.focus("#tab-encode")
    page.keyboard.press("ArrowRight")
    assert page.locator("#walk").is_visible()
    assert not page.locator("#encode").is_visible()
    before = page.locator("#z-value").inner_text()
    page.focus("#plane")
    page.keyboard.press("ArrowUp")
    settle(page)
    assert page.locator("#z-value").inner_text() != before


def test_without_noise_a_sample_is_the_mean(plane, visit):
    page = opened(visit, plane[1])
    page.locator("#amount").fill("0")
    settle(page)
    for row in page.locator("#latents tbody tr").all():
        *_, mu, _, _, z = row.locator("td").all_inner_texts()
        assert mu == z


def test_a_label_is_given_to_encoder_and_decoder(conditional, visit):
    run, path = conditional
    page = opened(visit, path)
    x = np.array([page.evaluate("[...explorer.x]")], np.float32)
    eps = np.array(page.evaluate("explorer.eps.map((row) => [...row])"), np.float32)[:, None]
    for label in (3, 8):
        page.select_option("#label", str(label))
        settle(page)
        loss = run.vae().loss(x, eps, one_hot(np.array([label]), slice(None), 10))
        assert number(page, "#term-loss") == pytest.approx(loss, abs=0.06)


def test_bounds_are_those_of_numpy_and_of_this_image_only(plane, visit):
    run, path = plane
    page = opened(visit, path)
    page.click("#tab-bound")
    x = page.evaluate("[...explorer.x]")
    image = np.rint(255 * np.array([x])).astype(np.uint8)
    expected = estimates(run.vae(), image, None, 20_000, (1, 5, 50))["iwae"][:, 0]
    for i, (count, mean) in enumerate(zip((40, 40, 20), expected, strict=True)):
        page.click(f"#bound-buttons button >> nth={i}")
        row = page.locator("#bound-table tbody tr").nth(i)
        page.wait_for_function(
            f"document.querySelectorAll('#bound-table tbody tr')[{i}].cells[3].innerText == '{count}'"
        )
        _, found, spread, _ = (float(text.replace("−", "-")) for text in row.locator("td").all_inner_texts())
        assert abs(found - mean) < 5 * spread / count**0.5 + 0.02
    page.click("#bound-buttons button >> nth=3")
    page.click("#thumbnails button >> nth=3")
    settle(page)
    assert {row.locator("td").all_inner_texts()[3] for row in page.locator("#bound-table tbody tr").all()} == {"0"}


def test_the_time_slider_shows_the_frames_of_the_film(plane, visit):
    run, path = plane
    page = opened(visit, path)
    page.click("#tab-learning")
    frames = film.frames(run)
    for i in (0, len(frames) // 2, len(frames) - 1):
        page.locator("#film-step").fill(str(i))
        text = page.locator("#film-text").inner_text()
        assert f"Step {frames[i].step}," in text
        assert f"−ELBO {frames[i].loss:.1f} = reconstruction {frames[i].reconstruction:.1f}" in text


def test_the_page_fits_a_phone_and_every_control_has_a_name(plane, visit):
    page = opened(visit, plane[1])
    page.set_viewport_size({"width": 390, "height": 844})
    for tab in page.get_by_role("tab").all():
        tab.click()
        settle(page)
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 390
        nameless = (
            "[...document.querySelectorAll('button, input, select')].filter((control) => control.checkVisibility() && "
        )
        nameless += "!(control.innerText || control.ariaLabel || control.labels?.length)).length"
        assert page.evaluate(nameless) == 0


def test_nothing_moves_while_the_page_loads(plane, visit):
    page = opened(visit, plane[1])
    shift = """() => new Promise((done) => {
        new PerformanceObserver((list) => done(list.getEntries().reduce((sum, entry) => sum + entry.value, 0)))
            .observe({ type: "layout-shift", buffered: true });
        setTimeout(() => done(0), 200);
    })"""
    assert page.evaluate(shift) < 0.02
