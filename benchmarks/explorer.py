"""How fast the page of a run answers, in a headless Chromium: `python benchmarks/explorer.py RUN`.

A stroke is timed from the moment at which the drawing is read to the end of the render: placing it, encoding it,
decoding the mean and eight samples, and the numbers on the page. Frames are those while one drags over the plane.
"""

import math
import shutil
import sys
from pathlib import Path

import numpy as np

from npvae.commands import OneLineParser, UserError, command

TIME_STROKES = """() => {
    window.times = [];
    const read = Object.getOwnPropertyDescriptor(Pad.prototype, "x").get;
    const render = explorer.render;
    let began;
    Object.defineProperty(pad, "x", { get() { began = performance.now(); return read.call(pad); } });
    explorer.render = () => { render(); times.push(performance.now() - began); };
}"""
COUNT_FRAMES = """() => {
    window.frames_at = [];
    const note = (time) => { frames_at.push(time); requestAnimationFrame(note); };
    requestAnimationFrame(note);
}"""
SHIFT = """window.shift = 0;
const add = (list) => list.getEntries().forEach((entry) => (shift += entry.value));
new PerformanceObserver(add).observe({ type: "layout-shift", buffered: true });"""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
READY = "performance.timing.loadEventEnd - performance.timing.navigationStart"


def measure(page, path):
    """A dict of what was measured to milliseconds, but for the layout shift."""
    page.add_init_script(SHIFT)
    page.goto(path.as_uri())
    page.wait_for_function("explorer.terms !== null")
    found = {
        "first paint": page.evaluate(PAINT),
        "loaded": page.evaluate(READY),
        "layout shift": page.evaluate("shift"),
    }

    page.evaluate(TIME_STROKES)
    page.click("#clear")
    box, rng = page.locator("#pad").bounding_box(), np.random.default_rng(0)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    for across, down in rng.uniform(0.2, 0.8, (200, 2)):
        page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])
    page.mouse.up()
    strokes = np.array(page.evaluate("times"))
    found |= {
        "stroke, median": np.median(strokes),
        "stroke, 95 %": np.percentile(strokes, 95),
        "stroke, worst": strokes.max(),
    }

    page.click("#tab-walk")
    page.locator("#plane").scroll_into_view_if_needed()
    page.wait_for_timeout(1000)
    box = page.locator("#plane").bounding_box()
    page.evaluate(COUNT_FRAMES)
    for i in range(200):
        angle = i / 15
        page.mouse.move(
            box["x"] + box["width"] * (0.5 + 0.3 * math.cos(angle)),
            box["y"] + box["height"] * (0.5 + 0.3 * math.sin(angle)),
        )
        if i == 0:
            page.mouse.down()
    page.mouse.up()
    frames = np.diff(page.evaluate("frames_at"))
    return found | {
        "frame, median": np.median(frames),
        "frame, 95 %": np.percentile(frames, 95),
        "frame, worst": frames.max(),
    }


@command("python benchmarks/explorer.py")
def main(arguments=None):
    """Open the page at the size of a laptop and of a phone, as the machine is and four times as slow; print a table."""
    parser = OneLineParser("python benchmarks/explorer.py", __doc__.splitlines()[0])
    parser.add_argument(
        "run", metavar="RUN", help="a run's folder, in which python -m npvae.explore wrote explorer.html"
    )
    path = Path(parser.parse_args(arguments).run, "explorer.html").resolve()
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if not path.is_file():
        raise UserError(f"{path} is not there: python -m npvae.explore {path.parent} writes it")
    if browser_path is None:
        raise UserError("no chromium or google-chrome is installed")
    from playwright.sync_api import sync_playwright  # of the test extra

    columns = {}
    with (
        sync_playwright() as driver,
        driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"]) as browser,
    ):
        for name, width, height in (("laptop", 1366, 768), ("phone", 390, 844)):
            for slower in (1, 4):
                context = browser.new_context(offline=True, viewport={"width": width, "height": height})
                page = context.new_page()
                context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": slower})
                columns[f"{name}{', slowed 4 ×' * (slower > 1)}"] = measure(page, path)
                context.close()
    print(f"{'milliseconds':<16}" + "".join(f"{name:>22}" for name in columns))
    for row in next(iter(columns.values())):
        digits = 3 if row == "layout shift" else 1
        print(f"{row:<16}" + "".join(f"{column[row]:>22.{digits}f}" for column in columns.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
