// What all parts of the page share: elements, numbers in words, arrays of pixels on a canvas.
"use strict";

const element = (id) => document.getElementById(id);

// A new element with properties, and children that are elements or text; never markup, whatever the text.
function make(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
}

function makeSVG(name, attributes = {}, text = "") {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    setAttributes(made, attributes);
    made.textContent = text;
    return made;
}

function setAttributes(target, attributes) {
    for (const [name, value] of Object.entries(attributes)) target.setAttribute(name, value);
}

const formats = Array.from(
    { length: 3 },
    (_, digits) =>
        new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }),
);
const inDigits = (value, digits = 1) => formats[digits].format(value).replace("-", "−");

// Nats, to a tenth; where they are many, without it.
const inNats = (nats) => inDigits(nats, Math.abs(nats) < 1e4 ? 1 : 0);

const latentName = (j) => `z${String(j + 1).replace(/\d/g, (digit) => "₀₁₂₃₄₅₆₇₈₉"[digit])}`;

// The colours of the style sheet, which are others in the dark: {name: [red, green, blue]}.
let colours = {};

function readColours() {
    const style = getComputedStyle(document.body);
    const names = ["ink", "paper", "negative", "zero", "positive", "text", "accent", "card"];
    colours = Object.fromEntries(
        names.map((name) => [name, style.getPropertyValue(`--${name}`).split(" ").map(Number)]),
    );
}

const css = (name, alpha = 1) => `rgb(${colours[name].join(" ")} / ${alpha})`;

// Paint an array, row by row, one pixel each; the colour of a value is [from, to, share of the way].
function paint(canvas, values, [rows, columns], colourOf = inkOnPaper) {
    canvas.width = columns;
    canvas.height = rows;
    const context = canvas.getContext("2d");
    const image = context.createImageData(columns, rows);
    for (let i = 0; i < values.length; i++) {
        const [from, to, share] = colourOf(values[i]);
        for (let c = 0; c < 3; c++) image.data[4 * i + c] = from[c] + share * (to[c] - from[c]);
        image.data[4 * i + 3] = 255;
    }
    context.putImageData(image, 0, 0);
}

const inkOnPaper = (value) => [colours.paper, colours.ink, value];

// Paint values of both signs; the largest of them has the full colour.
function paintSigned(canvas, values, shape) {
    const most = values.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-9);
    paint(canvas, values, shape, (value) => [
        colours.zero,
        value < 0 ? colours.negative : colours.positive,
        Math.abs(value) / most,
    ]);
}

// A canvas that a screen reader knows as the image of `what`.
function makeImage(what, className, properties = {}) {
    const canvas = make("canvas", { className, ...properties });
    setAttributes(canvas, { role: "img", "aria-label": what });
    return canvas;
}

// A canvas of pixels that can be pressed; `what` says to a screen reader what it shows.
function pixelButton(what, pressed) {
    const canvas = make("canvas", { className: "pixels" });
    const button = make(
        "button",
        { type: "button", className: "pixel-button", title: what, onclick: pressed },
        canvas,
    );
    button.setAttribute("aria-label", what);
    return { button, canvas };
}

// The pointer's place on a canvas: [across, down], both from 0 to 1.
function placeOn(canvas, event) {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

// Tell of one pointer that is dragged over a canvas: the first finger, the pen or the mouse's first button.
// began(event), if given, at its start; moved(event) for all places from there on.
function onDrag(canvas, moved, began = moved) {
    let dragging = null; // the pointer's number
    canvas.addEventListener("pointerdown", (event) => {
        if (event.button || dragging !== null) return;
        canvas.setPointerCapture(event.pointerId);
        dragging = event.pointerId;
        began(event);
    });
    canvas.addEventListener("pointermove", (event) => {
        if (event.pointerId === dragging) moved(event);
    });
    canvas.addEventListener("lostpointercapture", (event) => {
        if (event.pointerId === dragging) dragging = null;
    });
}

// A coloured dot with a name for each class of images, if they have labels.
function fillLegend(parent, legend) {
    for (const [label, colour] of legend) {
        const dot = make("span", { className: "dot" });
        dot.style.background = colour;
        parent.append(make("span", {}, dot, String(label)));
    }
}

// A function that calls `work` once, before the next frame is shown, however often it is called until then.
function onceAFrame(work) {
    let asked = false;
    return () => {
        if (asked) return;
        asked = true;
        requestAnimationFrame(() => {
            asked = false;
            work();
        });
    };
}

const nextFrame = () => new Promise(requestAnimationFrame);

// The bytes that explore.py deflated.
async function inflated(text) {
    const stream = new Blob([fromBase64(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
}
