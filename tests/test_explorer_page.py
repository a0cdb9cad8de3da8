"""What one does on the page of a model, in a real browser, against what NumPy says of it."""

import re

import numpy as np
import pytest

from npvae import film
from npvae.config import Config
from npvae.data.datasets import load
from npvae.data.pictures import from_picture
from npvae.data.pixels import one_hot
from npvae.distributions import gaussian_kl
from npvae.evaluate import estimates
from npvae.runs import Run
from npvae.training import Training
from tests.test_explore import make_run, write_page

# the bytes of a canvas's reds, as characters: a list of so many numbers would take long
REDS = """(canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return Array.from(data.filter((_, i) => i % 4 === 0), (byte) => String.fromCharCode(byte)).join("");
}"""

# what can be seen, and used or looked at, but has no name for a screen reader
NAMELESS = """() => [...document.querySelectorAll("button, input, select, canvas, svg, [tabindex]")]
    .filter((part) => part.checkVisibility() && !part.closest("[aria-hidden=true]"))
    .filter((part) => !(part.tagName === "CANVAS" && part.closest("button")))
    .filter((part) => {
        const about = document.getElementById(part.getAttribute("aria-labelledby"))?.textContent;
        const labels = [...(part.labels ?? [])].map((label) => label.textContent).join("");
        const text = part.matches("button, [role=tabpanel]") ? part.textContent : "";
        return !(part.ariaLabel ?? "").trim() && !(about ?? labels).trim() && !text.trim();
    })
    .map((part) => part.outerHTML.slice(0, 200))"""

SHIFT = """() => new Promise((done) => {
    const added = (list) => done(list.getEntries().reduce((sum, { value }) => sum + value, 0));
    new PerformanceObserver(added).observe({ type: "layout-shift", buffered: true });
    setTimeout(() => done(0), 100);
})"""


@pytest.fixture(scope="module")
def plane(few_digits, tmp_path_factory):
    """A filmed run with two latents, and its page."""
    dataset = load(str(few_digits))
    settings = {"hidden": [40], "latent": 2, "learning_rate": 0.003, "batch_size": 20, "film": True}
    run = Run.create(tmp_path_factory.mktemp("plane") / "run", Config(dataset=str(few_digits), **settings))
    training = Training(run.config, dataset)
    camera = film.Camera(run, training, dataset)
    for _ in range(3):
        for _ in training.steps():
            camera.after_step()
        training.end_epoch()
    training.save(run)
    return run, write_page(run)


@pytest.fixture(scope="module")
def conditional(few_digits, tmp_path_factory):
    """A run of binary images with labels, and its page."""
    settings = {"hidden": [30], "latent": 4, "conditional": True, "binarize": "threshold"}
    run = make_run(tmp_path_factory.mktemp("conditional") / "run", few_digits, **settings)
    return run, write_page(run)


def opened(visit, path):
    page = visit(path)
    page.locator("#term-loss", has_text=re.compile(r"\d")).wait_for()
    return page


def settle(page):
    """Wait until what was asked for is shown: one frame to compute it, one more for what that asks for."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def drag(page, canvas, *lines):
    """Drag the mouse over a canvas along lines, whose points are given as parts of its sides."""
    box = page.locator(canvas).bounding_box()
    for line in lines:
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in line]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place)
        page.mouse.up()
    settle(page)


def pixels(page, canvas, side):
    """What is on a square canvas, (side, side) bytes of red."""
    return np.frombuffer(page.locator(canvas).evaluate(REDS).encode("latin-1"), np.uint8).reshape(side, side)


def number(text):
    return float(text.replace("−", "-").replace(",", ""))


def shown(page, selector):
    return number(page.locator(selector).inner_text())


def given(page):
    """x (1, D), as the page gives it to the encoder."""
    return np.array([page.evaluate("[...explorer.x]")], float)


def terms(page, run, y=None):
    """The terms of −ELBO in NumPy, nats, for the x and the noise of the page: {name of the term: number}."""
    eps = np.array(page.evaluate("explorer.eps.map((row) => [...row])"))
    vae = run.vae().astype(np.float64)
    vae.loss(given(page), eps[:, None], y)
    return {"reconstruction": vae.reconstruction[0], "kl": vae.kl[0], "loss": vae.losses[0]}


def require_shown(page, expected):
    for name, nats in expected.items():
        assert shown(page, f"#term-{name}") == pytest.approx(nats, abs=0.0501), name


SEVEN = [(0.3, 0.25), (0.7, 0.25), (0.45, 0.8)]
DRAWINGS = {
    "one stroke": [SEVEN],
    "small, in a corner": [[(0.07, 0.08), (0.12, 0.1), (0.11, 0.17)]],
    "large, of two strokes": [[(0.1, 0.06), (0.93, 0.5), (0.3, 0.93)], [(0.93, 0.08), (0.06, 0.9)]],
    "low and wide, of three strokes": [[(0.1, 0.8), (0.9, 0.85)], [(0.3, 0.7), (0.3, 0.72)], [(0.7, 0.7), (0.75, 0.7)]],
    "a dot": [[(0.8, 0.3)]],
}


def test_a_drawing_is_placed_as_a_picture_is(plane, visit):
    page = opened(visit, plane[1])
    for name, lines in DRAWINGS.items():
        page.click("#clear")
        drag(page, "#pad", *lines)
        ink = pixels(page, "#pad", 280)
        expected = from_picture(ink, background="dark")
        assert expected.max() > 0.9
        np.testing.assert_allclose(given(page), expected, atol=1e-3, err_msg=name)


def test_a_drawing_for_a_model_of_binary_images_is_binary(conditional, visit):
    page = opened(visit, conditional[1])
    page.click("#clear")
    drag(page, "#pad", SEVEN)
    grey, x = from_picture(pixels(page, "#pad", 280), background="dark"), given(page)
    assert set(x.flat) == {0, 1}
    clear = abs(grey - 0.5) > 1e-3
    np.testing.assert_array_equal(x[clear], grey[clear] >= 0.5)


def test_a_picked_image_is_given_as_it_is_and_is_drawn_over_in_its_place(plane, visit):
    run, path = plane
    page = opened(visit, path)
    page.click("#next")
    page.click("#thumbnails button >> nth=2")
    settle(page)
    image = run.dataset().test_images[14:15] / 255
    np.testing.assert_allclose(given(page), image, atol=1e-12)

    drag(page, "#pad", [(0.02, 0.02), (0.1, 0.02)])
    change = (given(page) - image).reshape(28, 28)
    assert change[:2, :3].min() > 0.5
    change[:3, :5] = 0
    np.testing.assert_allclose(change, 0, atol=1e-7)

    page.click("#erase")
    drag(page, "#pad", [(0.02, 0.5), (0.98, 0.5)])
    x = given(page).reshape(28, 28)
    assert image.reshape(28, 28)[13:15].max() > 0.5
    assert x[13:15].max() == 0
    assert x[:2, :3].min() > 0.5


def test_what_is_drawn_after_all_was_rubbed_out_is_centred_as_on_an_empty_pad(plane, visit):
    page = opened(visit, plane[1])
    page.click("#erase")
    drag(page, "#pad", *([(0, y), (1, y)] for y in np.linspace(0, 1, 15)))
    assert given(page).max() == 0
    page.click("#clear")  # which puts the eraser away
    corner = DRAWINGS["small, in a corner"]
    drag(page, "#pad", *corner)
    ink = pixels(page, "#pad", 280)
    np.testing.assert_allclose(given(page), from_picture(ink, background="dark"), atol=1e-3)

    page.click("#thumbnails button >> nth=1")
    page.click("#erase")
    drag(page, "#pad", *([(0, y), (1, y)] for y in np.linspace(0, 1, 15)))
    page.click("#erase")
    drag(page, "#pad", *corner)
    np.testing.assert_allclose(given(page), from_picture(pixels(page, "#pad", 280), background="dark"), atol=1e-3)


POINTERS = """(canvas, events) => {
    const box = canvas.getBoundingClientRect();
    canvas.setPointerCapture = () => {};  // of pointers that are not there
    for (const [type, pointerId, button, across, down] of events) {
        const place = { clientX: box.left + across * box.width, clientY: box.top + down * box.height };
        canvas.dispatchEvent(new PointerEvent(type, { pointerId, button, ...place }));
    }
}"""


def test_neither_a_second_finger_nor_another_button_draws(plane, visit):
    page = opened(visit, plane[1])
    page.click("#clear")
    settle(page)
    pad = page.locator("#pad")
    pad.evaluate(POINTERS, [("pointerdown", 5, 2, 0.5, 0.5), ("pointermove", 5, -1, 0.6, 0.6)])
    assert pixels(page, "#pad", 280).max() == 0
    first = [("pointerdown", 5, 0, 0.2, 0.2), ("pointermove", 5, -1, 0.2, 0.4)]
    second = [("pointerdown", 6, 0, 0.8, 0.8), ("pointermove", 6, -1, 0.8, 0.6), ("lostpointercapture", 6, 0, 0.8, 0.6)]
    pad.evaluate(POINTERS, [*first, *second, ("pointermove", 5, -1, 0.2, 0.5), ("lostpointercapture", 5, 0, 0.2, 0.5)])
    ink = pixels(page, "#pad", 280)
    assert ink[:, 84:].max() == 0  # the first finger's line only
    assert np.ptp(np.nonzero(ink > 100)[0]) == pytest.approx(0.3 * 280 + 23, abs=2)
    pad.evaluate(POINTERS, [("pointerdown", 6, 0, 0.8, 0.8)])
    assert pixels(page, "#pad", 280)[:, 200:].max() == 255


def test_numbers_are_those_of_numpy(plane, visit):
    run, path = plane
    test = run.dataset()
    usual = estimates(run.vae(), test.test_images, test.test_labels, 1)
    losses = usual["reconstruction"] + usual["kl"].sum(axis=1)
    page = opened(visit, path)
    assert shown(page, "#usual-loss") == pytest.approx(losses.mean(), abs=0.0501)
    percentiles, percents = np.percentile(losses, np.arange(101)), set()
    for i in range(6):
        page.click(f"#thumbnails button >> nth={i}")
        settle(page)
        expected = terms(page, run)
        require_shown(page, expected)
        percent = int(re.match(r"It costs more nats than (\d+) % of 200 test images", page.inner_text("#verdict"))[1])
        assert percentiles[percent] <= expected["loss"] < percentiles[percent + 1]
        percents.add(percent)
    assert len(percents) > 3
    parts = [shown(page, f"#term-{name}") for name in ("reconstruction", "kl", "loss")]
    assert parts[0] + parts[1] == pytest.approx(parts[2], abs=0.101)
    mu, logvar = run.vae().encode(given(page).astype(np.float32))
    kl = [gaussian_kl(mu[:, [j]], logvar[:, [j]])[0] for j in range(2)]
    found = [number(text) for text in page.locator("#latents .kl-cell").all_inner_texts()]
    assert sorted(found) == pytest.approx(sorted(kl), abs=0.00501)


def test_a_scribble_costs_more_than_any_test_image_and_an_empty_image_is_called_so(plane, visit):
    page = opened(visit, plane[1])
    page.click("#clear")
    settle(page)
    assert page.inner_text("#verdict").startswith("An empty image. ")
    drag(page, "#pad", np.random.default_rng(0).uniform(0.05, 0.95, (25, 2)).tolist())
    assert "more nats than any of 200 test images" in page.inner_text("#verdict")
    page.locator("#spoken", has_text="more nats than any").wait_for(state="attached")  # once the pen rests


def test_samples_are_the_mean_when_there_is_no_noise(plane, visit):
    page = opened(visit, plane[1])

    def columns():
        rows = [row.locator("td").all_inner_texts()[2:] for row in page.locator("#latents tbody tr").all()]
        return np.array([[number(text) for text in row] for row in rows]).T

    for amount in (1, 0.5, 0):
        page.locator("#amount").fill(str(amount))
        settle(page)
        mu, sigma, eps, z = columns()
        np.testing.assert_allclose(z, mu + amount * sigma * eps, atol=0.03 if amount else 0)
    assert abs(sigma * eps).max() > 0.03
    decoded = "[...document.querySelectorAll('#samples canvas')].map((canvas) => canvas.toDataURL())"
    assert len(set(page.evaluate(decoded))) == 1
    page.locator("#amount").fill("1")
    settle(page)
    assert len(set(page.evaluate(decoded))) == 8
    page.click("#new-noise")
    mu_now, _, eps_now, _ = columns()
    assert (mu_now == mu).all()
    assert (eps_now != eps).all()


def walked(page):
    """z, as the page shows it."""
    return np.array([number(text) for text in re.findall(r"[−\d.]+", page.inner_text("#z-value"))])


def test_dragging_over_the_plane_decodes_its_z(plane, visit):
    run, path = plane
    page = opened(visit, path)
    page.click("#tab-walk")
    reach = number(re.search(r"to (\d+)", page.inner_text("#plane-caption"))[1])
    ink, paper = page.evaluate("[colours.ink[0], colours.paper[0]]")
    for across, up in ((0.75, 0.6), (0.3, 0.1)):
        drag(page, "#plane", [(0.5, 0.5), (0.6, 0.5), (across, 1 - up)])
        z = walked(page)
        np.testing.assert_allclose(z, reach * (2 * np.array([across, up]) - 1), atol=0.02)
        expected = paper + run.vae().decode(z[None].astype(np.float32)).reshape(28, 28) * (ink - paper)
        np.testing.assert_allclose(pixels(page, "#decoded", 28), expected, atol=3)  # z is shown to a hundredth


def test_all_works_by_keyboard(plane, visit):
    page = opened(visit, plane[1])
    page.click("#clear")
    page.focus("#pad")
    for key in ["ArrowLeft", "ArrowLeft", " ", *["ArrowDown"] * 6, *["ArrowRight"] * 4, " ", "ArrowUp"]:
        page.keyboard.press(key)
    settle(page)
    pen, pad = page.locator("#pen").bounding_box(), page.locator("#pad").bounding_box()
    middle = [pen[x] + pen[side] / 2 - pad[x] for x, side in (("x", "width"), ("y", "height"))]
    assert middle == pytest.approx([140 + 2 * 8, 140 + 5 * 8], abs=2)
    ink = pixels(page, "#pad", 280)
    assert np.ptp(np.nonzero(ink > 100), axis=1).tolist() == pytest.approx([6 * 8 + 23, 4 * 8 + 23], abs=2)
    np.testing.assert_allclose(given(page), from_picture(ink, background="dark"), atol=1e-3)

    page.focus("#tab-encode")
    keys = {"ArrowLeft": "learning", "ArrowRight": "encode", "End": "learning", "Home": "encode"}
    for key, tab in (*keys.items(), ("ArrowRight", "walk")):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.id") == f"tab-{tab}"
        assert page.locator("[role=tabpanel]:visible").evaluate_all("(panels) => panels.map(({ id }) => id)") == [tab]

    page.click("#to-zero")
    page.focus("#plane")
    for key in ("ArrowUp", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    settle(page)
    z = walked(page)
    assert z[1] > 0
    assert z[0] == pytest.approx(2 * z[1], abs=0.011)
    for _ in range(50):
        page.keyboard.press("ArrowDown")
    settle(page)
    assert walked(page)[1] == -number(re.search(r"to (\d+)", page.inner_text("#plane-caption"))[1])  # not beyond it


def test_a_label_is_given_to_encoder_and_decoder(conditional, visit):
    run, path = conditional
    page = opened(visit, path)
    page.click("#thumbnails button >> nth=5")
    own, costs = int(run.dataset().test_labels[5]), []
    for label in (own, (own + 1) % 10, (own + 5) % 10):
        if label != own:  # a picked image comes with its label
            page.select_option("#label", str(label))
        settle(page)
        expected = terms(page, run, one_hot(np.array([label]), slice(None), 10))
        require_shown(page, expected)
        costs.append(expected["loss"])
    assert np.ptp(costs) > 0.3

    page.click("#best-label")
    costs = [terms(page, run, one_hot(np.array([label]), slice(None), 10))["loss"] for label in range(10)]
    assert int(page.input_value("#label")) == np.argmin(costs)
    assert shown(page, "#term-loss") == pytest.approx(min(costs), abs=0.0501)


def test_bounds_are_those_of_numpy_and_of_this_image_only(plane, visit):
    run, path = plane
    page = opened(visit, path)
    page.click("#tab-bound")
    image = np.rint(255 * given(page)).astype(np.uint8)
    expected = estimates(run.vae(), image, None, 20_000, (1, 5, 50))["iwae"][:, 0]
    for i, mean in enumerate(expected):
        page.click(f"#bound-buttons button >> nth={i}")
        row = page.locator("#bound-table tbody tr").nth(i)
        count = (40, 40, 20)[i]
        row.locator("td >> nth=3", has_text=str(count)).wait_for()
        _, found, spread, _ = map(number, row.locator("td").all_inner_texts())
        assert abs(found - mean) < 4 * spread / count**0.5 + 0.01
    assert mean < expected[0] - 4 * spread / count**0.5  # so that K matters

    counts = "[...document.querySelectorAll('#bound-table tbody tr')].map((row) => Number(row.cells[3].innerText))"
    page.click("#bound-buttons button >> nth=3")
    page.locator("#bound-table tbody tr >> nth=3").locator("td >> nth=3", has_text=re.compile("[1-9]")).wait_for()
    page.click("#thumbnails button >> nth=3")
    settle(page)
    assert page.evaluate(counts) == [0, 0, 0, 0]
    page.wait_for_timeout(100)  # as long as several of these estimates take
    assert page.evaluate(counts) == [0, 0, 0, 0]


def test_the_time_slider_shows_the_frames_of_the_film(plane, visit):
    run, path = plane
    page = opened(visit, path)
    page.click("#tab-learning")
    frames = film.frames(run)
    assert len(frames) > 10
    for frame in (frames[-1], frames[0], frames[7]):
        page.locator("#film-step").fill(str(frames.index(frame)))
        text = page.inner_text("#film-text")
        assert f"Step {frame.step}, epoch {frame.epoch:.2f}: " in text
        terms = f"reconstruction {frame.reconstruction:.1f} and KL {frame.kl:.1f}."
        assert f"−ELBO {frame.loss:.1f} nats on {film.MEASURED} test images: {terms}" in text


def test_the_film_rests_when_its_tab_is_left(plane, visit):
    page = opened(visit, plane[1])
    page.click("#tab-learning")
    page.click("#film-play")
    assert page.inner_text("#film-play") == "Stop"
    page.click("#tab-walk")
    page.click("#tab-learning")
    assert page.inner_text("#film-play") == "Play"


def test_the_page_fits_a_phone_and_all_that_is_seen_has_a_name(plane, visit):
    page = opened(visit, plane[1])
    page.set_viewport_size({"width": 390, "height": 844})
    for tab in page.get_by_role("tab").all():
        tab.click()
        settle(page)
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 390
        assert page.evaluate(NAMELESS) == []


def test_nothing_moves_while_the_page_loads(plane, visit):
    assert opened(visit, plane[1]).evaluate(SHIFT) == 0
