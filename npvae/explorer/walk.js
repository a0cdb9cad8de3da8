// The tab "Walk the latents": z by hand, on a plane or latent by latent; lines between images; draws from the prior.
"use strict";

const BETWEEN = 7; // images from one end of the line to the other, the ends among them

function makeWalkPanel(explorer) {
    const { vae, order, shape } = explorer;
    const plane = vae.latent > 1 ? new Plane(element("plane"), explorer) : null;
    const reach = plane ? plane.reach : 4;
    let z = explorer.zero;
    let ends = [explorer.zero, explorer.zero];
    let hovered = null;
    let painted = null; // the line whose images are shown
    const draw = onceAFrame(render);

    function go(to) {
        z = Float64Array.from(to);
        draw();
    }

    // the plane

    if (plane) {
        plane.canvas.addEventListener("dblclick", (event) => {
            const found = plane.imageAt(...placeOn(plane.canvas, event));
            if (found !== null) explorer.pick(found);
        });
        plane.axes = vae.latent === 2 ? [0, 1] : order.slice(0, 2);
        const canvas = plane.canvas;
        onDrag(canvas, (event) => go(plane.moved(z, ...placeOn(canvas, event))));
        canvas.addEventListener("pointermove", (event) => {
            const over = event.buttons ? null : plane.imageAt(...placeOn(canvas, event)); // not while one drags
            if (over === hovered) return;
            hovered = over;
            draw();
        });
        canvas.addEventListener("pointerleave", () => {
            hovered = null;
            draw();
        });
        canvas.addEventListener("keydown", (event) => {
            const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
            if (!(event.key in steps)) return;
            event.preventDefault();
            const next = Float64Array.from(z);
            const i = steps[event.key].findIndex(Boolean);
            const axis = plane.axes[i];
            const wanted = z[axis] + (steps[event.key][i] * plane.reach) / 40;
            next[axis] = Math.min(plane.reach, Math.max(-plane.reach, wanted));
            go(next);
        });
        for (const i of [0, 1]) {
            const select = element(`axis-${i}`);
            for (const j of order.slice(0, ROWS)) select.append(make("option", { value: j }, nameOf(j)));
            select.value = plane.axes[i];
            select.addEventListener("change", () => {
                plane.axes[i] = Number(select.value);
                draw();
            });
        }
        for (const [id, property] of [
            ["show-images", "showImages"],
            ["show-points", "showPoints"],
            ["by-probability", "byProbability"],
        ]) {
            element(id).addEventListener("change", (event) => {
                plane[property] = event.target.checked;
                draw();
            });
        }
        for (const label of document.querySelectorAll(".axes")) label.hidden = vae.latent === 2;
        fillLegend(element("legend"), explorer.legendOf(explorer.run.labels));
    } else for (const id of ["walk-plane", "plane-options"]) element(id).hidden = true;

    function nameOf(j) {
        return latentName(j) + (explorer.run.reference.active[j] ? "" : " (dead)");
    }

    // other ways to move z

    element("to-mean").addEventListener("click", () => go(explorer.q.mu));
    element("from-prior").addEventListener("click", () => go(explorer.noise.normal(vae.latent)));
    element("to-zero").addEventListener("click", () => go(explorer.zero));

    const between = Array.from({ length: BETWEEN }, (_, i) => {
        const share = i / (BETWEEN - 1);
        const made = pixelButton(`${Math.round(100 * share)} % of the way`, () => goAlong(share));
        element("interpolation").append(made.button);
        return made;
    });
    const along = (share) => ends[0].map((start, j) => start + share * (ends[1][j] - start));
    function goAlong(share) {
        element("between").value = share;
        tellShare();
        go(along(share));
    }
    function setEnd(i, mu) {
        ends[i] = mu;
        goAlong(i);
    }
    function tellShare() {
        const percent = Math.round(100 * element("between").value);
        element("between").setAttribute("aria-valuetext", `${percent} % of the way`);
    }
    element("between").addEventListener("input", (event) => {
        tellShare();
        go(along(Number(event.target.value)));
    });
    element("take-from").addEventListener("click", () => setEnd(0, explorer.q.mu));
    element("take-to").addEventListener("click", () => setEnd(1, explorer.q.mu));

    const sliders = order.slice(0, ROWS).map((j) => {
        const input = make("input", { type: "range", min: -reach, max: reach, step: "0.01" });
        const value = make("output");
        const kl = explorer.run.reference.klOfLatents[j];
        input.addEventListener("input", () => {
            const next = Float64Array.from(z);
            next[j] = Number(input.value);
            go(next);
        });
        const label = make(
            "label",
            { title: `${inDigits(kl, 2)} nats of KL on the test set` },
            make("span", {}, nameOf(j)),
            input,
            value,
        );
        label.classList.toggle("dead", !explorer.run.reference.active[j]);
        element("sliders").append(label);
        return { j, input, value };
    });

    function render() {
        const { mean } = vae.decode(z, explorer.y);
        paint(element("decoded"), mean, shape);
        element("z-value").textContent =
            vae.latent <= 2
                ? `z = (${[...z].map((value) => inDigits(value, 2)).join(", ")})`
                : `these ${vae.latent} numbers z`;
        for (const { j, input, value } of sliders) {
            input.value = z[j];
            value.textContent = inDigits(z[j], 2);
        }
        const line = JSON.stringify([ends.map((end) => [...end]), explorer.label, colours]);
        if (line !== painted) {
            between.forEach(({ canvas }, i) =>
                paint(canvas, vae.decode(along(i / (BETWEEN - 1)), explorer.y).mean, shape),
            );
            painted = line;
        }
        if (!plane) return;
        plane.draw({ z, q: explorer.q, line: ends, hovered });
        plane.decode(z);
        const [across, up] = plane.axes.map((axis) => latentName(axis));
        const span = plane.byProbability
            ? "at equal steps in probability"
            : `from −${plane.reach} to ${plane.reach}`;
        element("plane-caption").textContent =
            `${across} across, ${up} up, ${span}. The ring is z: drag it. ` +
            "The ellipses are q(z|x) at one and two sigma, the line is the way from one image to another. " +
            "Point at an image's dot to see it; press it twice to make it x." +
            (vae.latent > 2
                ? ` Images are decoded with the other ${vae.latent - 2} latents as they are in z.`
                : "") +
            (vae.classes
                ? ` Images are decoded with label y = ${explorer.label}; dots have the colours of their own.`
                : "");
    }

    function start(from, to) {
        ends = [from, to];
        z = from;
    }
    return { render, start };
}
