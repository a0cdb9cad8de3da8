// The tab "Watch it learn", of a run that was filmed: what the model knew at steps evenly spaced in log time.
"use strict";

const FRAME = 150; // milliseconds of a frame when the film plays

// film: what explore.py took from the film; each frame's images are `grids`: pixels, columns, and what they show.
function makeLearningPanel(explorer, film) {
    const slider = element("film-step");
    const chart = element("film-loss");
    const pages = film.grids.map((grid) => {
        const canvas = makeImage(grid.title, "film-page");
        element("film-pages").append(make("figure", {}, canvas, make("figcaption", {}, grid.title)));
        return canvas;
    });
    const size = { width: 400, height: 400 };
    const plane = film.mu ? makeImage("posterior means of test images", "film-page", size) : null;
    if (plane) {
        const caption =
            `Posterior means of ${film.mu[0].length / 2} test images, from −${film.reach} to ${film.reach}; ` +
            "circles at 1, 2 and 3";
        const legend = make("p", { className: "legend" });
        fillLegend(legend, explorer.legendOf(film.labels));
        element("film-pages").append(make("figure", {}, plane, make("figcaption", {}, caption), legend));
    }
    slider.max = film.frames.length - 1;
    slider.value = slider.max;

    // the loss, step by step on a log axis on which step 0 has a place beside 1
    const [left, right, top, bottom] = [60, 620, 26, 96];
    const across = (step) => Math.log10(Math.max(step, 0.5));
    const [first, last] = [film.frames[0], film.frames.at(-1)].map(({ step }) => across(step));
    const losses = film.frames.map(({ loss }) => loss);
    const [low, high] = [Math.min(...losses), Math.max(...losses)];
    const height = (loss) => top + ((bottom - top) * (high - loss)) / (high - low || 1);
    const point = ({ step, loss }) => {
        const share = last > first ? (across(step) - first) / (last - first) : 1;
        return [left + (right - left) * share, height(loss)];
    };
    for (const nats of [low, high]) {
        const y = height(nats);
        chart.append(makeSVG("line", { x1: left, x2: right, y1: y, y2: y, class: "grid" }));
        chart.append(makeSVG("text", { x: 52, y: y + 4, class: "right" }, inDigits(nats, 0)));
    }
    for (let step = 1; across(step) <= last; step *= 10) {
        if (across(step) >= first)
            chart.append(
                makeSVG(
                    "text",
                    { x: point({ step, loss: low })[0], y: 116, class: "middle" },
                    step.toLocaleString("en"),
                ),
            );
    }
    chart.append(
        makeSVG("text", { x: right, y: 14, class: "right" }, "loss (−ELBO), nats, against the step"),
    );
    chart.append(makeSVG("polyline", { points: film.frames.map(point).join(" "), class: "curve" }));
    const dot = makeSVG("circle", { r: 6, class: "chosen" });
    chart.append(dot);

    let playing = null;
    function stop() {
        clearInterval(playing);
        playing = null;
        element("film-play").textContent = "Play";
    }
    element("film-play").addEventListener("click", () => {
        if (playing) return stop();
        if (slider.value === slider.max) slider.value = 0;
        element("film-play").textContent = "Stop";
        playing = setInterval(() => {
            if (slider.value === slider.max) return stop();
            slider.stepUp();
            render();
        }, FRAME);
    });
    slider.addEventListener("input", () => {
        stop();
        render();
    });

    function render() {
        const i = Number(slider.value);
        const frame = film.frames[i];
        pages.forEach((canvas, k) => paintGrid(canvas, film.grids[k], i));
        if (plane) drawMeans(i);
        const [x, y] = point(frame);
        setAttributes(dot, { cx: x, cy: y });
        const terms = [frame.loss, frame.reconstruction, frame.kl].map((nats) => inNats(nats));
        element("film-text").textContent =
            `Step ${frame.step.toLocaleString("en")}, epoch ${inDigits(frame.epoch, 2)}: ` +
            `−ELBO ${terms[0]} nats on ${film.measured} test images: reconstruction ${terms[1]} and KL ${terms[2]}.`;
        slider.setAttribute("aria-valuetext", element("film-text").textContent);
    }

    // Images in rows of `columns`, with a pixel between them.
    function paintGrid(canvas, { pixels, columns, count }, i) {
        const [rows, wide] = explorer.shape;
        const [height, width] = [Math.ceil(count / columns) * (rows + 1) - 1, columns * (wide + 1) - 1];
        const page = new Float64Array(height * width);
        for (let image = 0; image < count; image++) {
            const start = (i * count + image) * rows * wide;
            const corner = Math.floor(image / columns) * (rows + 1) * width + (image % columns) * (wide + 1);
            for (let pixel = 0; pixel < rows * wide; pixel++) {
                page[corner + Math.floor(pixel / wide) * width + (pixel % wide)] =
                    pixels[start + pixel] / 255;
            }
        }
        paint(canvas, page, [height, width]);
    }

    function drawMeans(i) {
        const context = plane.getContext("2d");
        const mu = film.mu[i];
        context.fillStyle = css("card");
        context.fillRect(0, 0, 400, 400);
        context.strokeStyle = css("text", 0.4);
        for (const radius of [1, 2, 3]) {
            context.beginPath();
            context.arc(200, 200, (200 * radius) / film.reach, 0, 2 * Math.PI);
            context.stroke();
        }
        for (let n = 0; n < mu.length; n += 2) {
            context.fillStyle = film.labels ? explorer.classColour(film.labels[n / 2]) : css("accent");
            context.beginPath();
            context.arc(
                200 + (200 * mu[n]) / film.reach,
                200 - (200 * mu[n + 1]) / film.reach,
                3.5,
                0,
                2 * Math.PI,
            );
            context.fill();
        }
    }

    return { render, leave: stop };
}
