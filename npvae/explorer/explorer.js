// The page: what it knows, what it shows, and how one leads to the other.
"use strict";

const DRAWS = 8; // samples of z that the numbers are means over
const PER_PAGE = 12; // thumbnails

const run = JSON.parse(element("run").textContent);
const vae = new VAE(run.settings, new Float32Array(fromBase64(run.parameters).buffer));
window.npvae = onPlainArrays(vae, run.settings);

// All that the panels look at. `change` follows from a new image or label, `render` from anything else.
const explorer = {
    run,
    vae,
    shape: run.settings.imageShape,
    images: [], // (D) each, to pick from
    means: [], // of q(z|x) of each, (J)
    zero: new Float64Array(vae.latent),
    order: [...run.reference.klOfLatents.keys()].sort(
        (a, b) => run.reference.klOfLatents[b] - run.reference.klOfLatents[a],
    ),
    noise: new Noise(1),
    x: new Float64Array(vae.pixels),
    label: 0, // and y, one-hot, where the model is conditional
    y: null,
    q: null, // of x: hidden, mu, logvar
    eps: [], // (J) each
    amount: 1, // of the noise: 0 is the mean
    chosen: 0, // sample
    terms: null, // of −ELBO, and what the samples decode to

    // [label, colour] of each class there is
    legendOf: (labels) =>
        [...new Set(labels ?? [])].sort((a, b) => a - b).map((label) => [label, explorer.classColour(label)]),
    classColour: (label) => run.classColours[label % run.classColours.length],
    colourOf: (i) => (run.labels ? explorer.classColour(run.labels[i]) : css("accent")),
    labelOf: (i) => (vae.classes ? oneHot(run.labels[i], vae.classes) : null),
    // z of each sample
    samples: () =>
        explorer.eps.map((eps) =>
            reparameterize(
                explorer.q,
                eps.map((value) => explorer.amount * value),
            ),
        ),
};

const panels = {};

function change() {
    markThumbnail();
    explorer.y = vae.classes ? oneHot(explorer.label, vae.classes) : null;
    explorer.q = vae.encode(explorer.x, explorer.y);
    panels.bound.clear();
    renewLoss();
}

function renewLoss() {
    explorer.terms = vae.loss(explorer.x, explorer.q, explorer.eps, explorer.y);
    explorer.render();
}

explorer.renewNoise = () => {
    explorer.eps = Array.from({ length: DRAWS }, () => explorer.noise.normal(vae.latent));
    if (explorer.q) renewLoss();
};

explorer.render = () => {
    paint(element("x"), explorer.x, explorer.shape);
    const { mean } = vae.decode(explorer.q.mu, explorer.y);
    for (const id of ["reconstruction", "answer-image"]) paint(element(id), mean, explorer.shape);
    renderTerms();
    panels[shownTab().getAttribute("aria-controls")].render();
};

// the numbers

function renderTerms() {
    const { reference, dataset } = run;
    for (const name of ["reconstruction", "kl", "loss"])
        element(`term-${name}`).textContent = inNats(explorer.terms[name]);
    const { loss } = explorer.terms;
    element("answer-loss").textContent = inNats(loss);
    const percentiles = reference.percentilesOfLoss;
    const above = percentiles.findLastIndex((value) => value <= loss); // so many percent of the test images cost less
    const all = reference.examples.toLocaleString("en");
    const images = `${all} test images of ${dataset}`;
    const words =
        loss > percentiles[100]
            ? `It costs more nats than any of ${images}: the model has seen nothing like it.`
            : above < 0
              ? `It costs fewer nats than any of ${images}.`
              : above < 1
                ? `Fewer than 1 % of ${images} cost less.`
                : `It costs more nats than ${above} % of ${images}.`;
    element("verdict").textContent = (explorer.x.some(Boolean) ? "" : "An empty image. ") + words;
    say(element("verdict").textContent);
    const at = scaleOf(loss);
    setAttributes(element("scale").querySelector(".here"), { transform: `translate(${at} 0)` });
}

// Tell a screen reader, as soon as what changes rests.
let rest;
function say(words) {
    clearTimeout(rest);
    rest = setTimeout(() => {
        if (element("spoken").textContent !== words) element("spoken").textContent = words;
    }, 500);
}

// Where a loss lies on the scale, which is the middle 98 % of the test images and as much again to the right.
function scaleOf(loss) {
    const [low, , high] = [1, 50, 99].map((percent) => run.reference.percentilesOfLoss[percent]);
    return 6 + 228 * Math.min(1, Math.max(0, (loss - low) / (2 * (high - low) || 1)));
}

function drawScale() {
    const { percentilesOfLoss: percentiles } = run.reference;
    const scale = element("scale");
    scale.append(makeSVG("line", { x1: 6, x2: 234, y1: 14, y2: 14, class: "grid" }));
    for (let percent = 1; percent < 99; percent++) {
        const [from, to] = [scaleOf(percentiles[percent]), scaleOf(percentiles[percent + 1])];
        const share = Math.min(percent, 99 - percent) / 50;
        scale.append(
            makeSVG("rect", {
                x: from,
                width: Math.max(0.3, to - from),
                y: 8,
                height: 12,
                class: "usual",
                opacity: 0.15 + 0.7 * share,
            }),
        );
    }
    scale.append(makeSVG("text", { x: scaleOf(percentiles[50]), y: 32, class: "middle" }, "test images"));
    scale.append(makeSVG("text", { x: 234, y: 32, class: "right" }, "more nats: worse →"));
    scale.append(makeSVG("path", { d: "M0 20 L-5 3 L5 3 Z", class: "here" }));
}

// images to pick from

let firstThumbnail = 0;
const thumbnails = Array.from({ length: PER_PAGE }, (_, i) => {
    const made = pixelButton("", () => explorer.pick(firstThumbnail + i));
    element("thumbnails").append(made.button);
    return made;
});

explorer.pick = (i) => {
    explorer.lastPicked = i;
    if (vae.classes) element("label").value = explorer.label = run.labels[i];
    pad.pick(explorer.images[i]);
};

function turnTo(first) {
    const { images } = explorer;
    firstThumbnail = Math.min(Math.max(0, first), Math.max(0, images.length - PER_PAGE));
    thumbnails.forEach(({ button, canvas }, place) => {
        const i = firstThumbnail + place;
        button.hidden = i >= images.length;
        if (button.hidden) return;
        paint(canvas, images[i], explorer.shape);
        button.title =
            `image ${i + 1} of ${images.length} from ${run.imagesFrom}` +
            (run.labels ? `, a ${run.labels[i]}` : "");
        button.setAttribute("aria-label", button.title);
    });
    element("previous").disabled = firstThumbnail === 0;
    element("next").disabled = firstThumbnail + PER_PAGE >= images.length;
    markThumbnail();
}

function markThumbnail() {
    thumbnails.forEach(({ button }, place) => {
        const picked = pad && explorer.images[firstThumbnail + place] === pad.picked;
        button.setAttribute("aria-pressed", Boolean(picked));
    });
}

element("previous").addEventListener("click", () => turnTo(firstThumbnail - PER_PAGE));
element("next").addEventListener("click", () => turnTo(firstThumbnail + PER_PAGE));

// the pad

let pad; // as soon as there is an image for it

function makePad() {
    pad = new Pad(element("pad"), element("pen"), explorer.shape, run.ink, () => {
        const image = pad.image();
        explorer.x = run.binary ? image.map((value) => Number(value >= 0.5)) : image;
        change();
    });
    const erase = (erasing) => {
        pad.erasing = erasing;
        element("erase").setAttribute("aria-pressed", erasing);
    };
    element("clear").addEventListener("click", () => {
        erase(false);
        if (run.ink) pad.clear();
        else explorer.pick(explorer.lastPicked);
    });
    element("erase").addEventListener("click", () => erase(!pad.erasing));
}

// the label, of a conditional model

function setLabel(label) {
    element("label").value = explorer.label = label;
    change();
}

element("label").addEventListener("change", (event) => setLabel(Number(event.target.value)));
element("best-label").addEventListener("click", () => {
    const { x, eps } = explorer;
    const losses = Array.from({ length: vae.classes }, (_, label) => {
        const y = oneHot(label, vae.classes);
        return vae.loss(x, vae.encode(x, y), eps, y).loss;
    });
    setLabel(losses.indexOf(Math.min(...losses)));
});

// tabs, as the ARIA practices have them: arrow keys, Home and End move between them

const tabs = [...document.querySelectorAll("[role=tab]")];
const shownTab = () => tabs.find((tab) => tab.getAttribute("aria-selected") === "true");

function showTab(shown) {
    for (const tab of tabs) {
        if (tab !== shown) panels[tab.getAttribute("aria-controls")]?.leave?.();
        tab.setAttribute("aria-selected", tab === shown);
        tab.tabIndex = tab === shown ? 0 : -1;
        element(tab.getAttribute("aria-controls")).hidden = tab !== shown;
    }
    if (explorer.terms) explorer.render();
}

for (const tab of tabs) {
    tab.addEventListener("click", () => showTab(tab));
    tab.addEventListener("keydown", (event) => {
        const seen = tabs.filter((other) => !other.hidden);
        const at = seen.indexOf(tab);
        const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: -1 }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        const next = seen.at(to % seen.length);
        next.focus();
        showTab(next);
    });
}

// begin

function describe() {
    for (const target of document.querySelectorAll(".evidence")) target.textContent = `log ${run.evidence}`;
    for (const name of ["reconstruction", "kl", "loss"]) {
        element(`usual-${name}`).textContent = inNats(run.reference[name]);
    }
    element("pad-note").textContent = !run.ink
        ? "Draw over an image, and see what that costs."
        : `Clear the pad and draw a digit: it is scaled and centred as MNIST's are${run.binary ? ", and binarized at ½" : ""}. ` +
          "Strokes over a picked image stay where they are." +
          (vae.classes
              ? " Then say which digit it is, or let the model choose the label that costs least."
              : "");
    element("answer-usual").textContent = `test set ${inNats(run.reference.loss)}`;
    if (!run.ink) {
        element("clear").textContent = "Restore the image";
        element("erase").textContent = "Dark pen";
    }
    element("density-note").hidden = run.settings.likelihood !== "gaussian";
    for (const control of document.querySelectorAll(".of-labels")) control.hidden = !vae.classes;
    for (let label = 0; label < vae.classes; label++)
        element("label").append(make("option", { value: label }, String(label)));
}

async function unpackedFilm({ grids, mu, ...film }) {
    const unpacked = grids.map(async (grid) => ({ ...grid, pixels: await inflated(grid.pixels) }));
    const all = mu && new Float32Array((await inflated(mu)).buffer);
    const each = all && all.length / film.frames.length;
    const means = all && film.frames.map((_, i) => all.subarray(i * each, (i + 1) * each));
    return { ...film, mu: means, grids: await Promise.all(unpacked) };
}

async function begin() {
    readColours();
    describe();
    drawScale();
    showTab(tabs[0]);
    explorer.renewNoise();
    const pixels = await inflated(run.images);
    for (let start = 0; start < pixels.length; start += vae.pixels) {
        explorer.images.push(
            Float64Array.from(pixels.subarray(start, start + vae.pixels), (byte) => byte / 255),
        );
    }
    explorer.means = explorer.images.map((x, i) => vae.encode(x, explorer.labelOf(i)).mu);
    panels.encode = { render: makeEncodePanel(explorer) };
    panels.walk = makeWalkPanel(explorer);
    panels.inside = { render: makeInsidePanel(explorer) };
    panels.bound = makeBoundPanel(explorer);
    if (run.film) {
        panels.learning = makeLearningPanel(explorer, await unpackedFilm(run.film));
        element("tab-learning").hidden = false;
    }
    panels.walk.start(explorer.means[0], explorer.means.at(-1));
    turnTo(0);
    makePad();
    explorer.pick(0);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
        readColours();
        turnTo(firstThumbnail);
        explorer.render();
    });
}

begin().finally(() => document.body.classList.remove("loading"));
