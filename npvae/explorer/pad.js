// The drawing pad, and how a drawing becomes an image as MNIST made its images: npvae/data/pictures.py.
"use strict";

const PAD = 280; // pixels of the pad's longer side, about
const PEN = 24; // width of the pen in them
const FIT = 20 / 28; // of the image's sides is for the ink
const EDGE = 0.3; // of the strongest ink, where the ink's box ends

// A grey image of any size: values from 0 to 1, row by row.
class Grey {
    constructor(rows, columns, values = new Float64Array(rows * columns)) {
        Object.assign(this, { rows, columns, values });
    }

    // Where there is something above a level: {top, left, rows, columns}; null if nowhere.
    extent(level) {
        let [top, bottom, left, right] = [this.rows, -1, this.columns, -1];
        for (let row = 0, i = 0; row < this.rows; row++) {
            for (let column = 0; column < this.columns; column++, i++) {
                if (this.values[i] <= level) continue;
                if (row < top) top = row;
                bottom = row;
                if (column < left) left = column;
                if (column > right) right = column;
            }
        }
        return bottom < 0 ? null : { top, left, rows: bottom - top + 1, columns: right - left + 1 };
    }

    // That part, with a rim of so many pixels around it.
    cut({ top, left, rows, columns }, rim = 0) {
        const part = new Grey(rows + 2 * rim, columns + 2 * rim);
        for (let row = 0, i = 0; row < part.rows; row++) {
            for (let column = 0; column < part.columns; column++, i++) {
                const [r, c] = [row + top - rim, column + left - rim];
                const inside = r >= 0 && r < this.rows && c >= 0 && c < this.columns;
                part.values[i] = inside ? this.values[r * this.columns + c] : 0;
            }
        }
        return part;
    }

    // Means of squares of so many pixels.
    means(side) {
        const small = new Grey(this.rows / side, this.columns / side);
        this.values.forEach((value, i) => {
            const [row, column] = [
                Math.floor(i / this.columns / side),
                Math.floor((i % this.columns) / side),
            ];
            small.values[row * small.columns + column] += value / side ** 2;
        });
        small.values = small.values.map((value) => Math.min(1, value)); // a sum can round to more
        return small;
    }

    // Scaled with antialiasing: first the rows, then, of the turned image, what were the columns.
    resized(rows, columns) {
        return this.rowsResized(rows).turned().rowsResized(columns).turned();
    }

    rowsResized(rows) {
        const scaled = new Grey(rows, this.columns);
        triangles(this.rows, rows).forEach((weights, row) => {
            for (const [from, weight] of weights) {
                for (let c = 0; c < this.columns; c++) {
                    scaled.values[row * this.columns + c] += weight * this.values[from * this.columns + c];
                }
            }
        });
        return scaled;
    }

    turned() {
        const [rows, columns] = [this.columns, this.rows];
        const values = this.values.map(
            (_, i) => this.values[(i % columns) * this.columns + Math.floor(i / columns)],
        );
        return new Grey(rows, columns, values);
    }
}

// To the nearest whole number and, halfway, to the even one, as Python and NumPy do.
const rounded = (value) => (value % 1 === 0.5 ? 2 * Math.round(value / 2) : Math.round(value));

// For each of the new pixels the [old pixel, weight] of a mean; weights fall to 0 a pixel away, new or old, the larger.
function triangles(before, after) {
    const scale = before / after;
    return Array.from({ length: after }, (_, i) => {
        const middle = (i + 0.5) * scale - 0.5;
        const pairs = [];
        for (let old = 0; old < before; old++) {
            const weight = 1 - Math.abs(old - middle) / Math.max(1, scale);
            if (weight > 0) pairs.push([old, weight]);
        }
        const total = sum(pairs.map(([, weight]) => weight));
        return pairs.map(([old, weight]) => [old, weight / total]);
    });
}

// As MNIST: the box of the ink scaled to 20/28 of the image, its centre of mass moved to the middle.
function centred(drawing, [rows, columns]) {
    const image = new Grey(rows, columns);
    const extent = drawing.extent(EDGE);
    if (!extent) return image;
    const scale = Math.min((FIT * rows) / extent.rows, (FIT * columns) / extent.columns);
    let box = drawing.cut(extent, Math.max(1, rounded(1 / scale))); // a pixel of the image more, for soft edges
    const fitted = (side, length) => Math.min(side, Math.max(1, rounded(length * scale)));
    box = box.resized(fitted(rows, box.rows), fitted(columns, box.columns));
    const most = Math.max(...box.values);
    box.values = box.values.map((value) => value / most);
    box = box.cut(box.extent(0));
    const start = (side, length, place) => {
        const mass = sum(box.values);
        const balance = sum(box.values.map((value, i) => value * place(i))) / mass;
        return Math.min(Math.max(Math.floor(side / 2) - rounded(balance), 0), side - length);
    };
    const top = start(rows, box.rows, (i) => Math.floor(i / box.columns));
    const left = start(columns, box.columns, (i) => i % box.columns);
    box.values.forEach((value, i) => {
        const [row, column] = [top + Math.floor(i / box.columns), left + (i % box.columns)];
        image.values[row * columns + column] = Math.min(1, Math.max(0, value));
    });
    return image;
}

// A canvas to draw on, several of its pixels to one of the image. What is drawn on an empty pad is centred, if `centre`;
// what is drawn over a picked image stays where it is.
class Pad {
    constructor(canvas, marker, imageShape, centre, changed) {
        this.marker = marker; // shows where the keyboard's pen is
        this.shape = imageShape;
        this.centre = centre;
        this.changed = onceAFrame(changed);
        this.grain = Math.max(1, Math.floor(PAD / Math.max(...imageShape)));
        [canvas.height, canvas.width] = imageShape.map((side) => side * this.grain);
        this.canvas = canvas;
        this.ink = new Float64Array(canvas.width * canvas.height);
        this.context = canvas.getContext("2d", { willReadFrequently: true });
        this.context.lineCap = this.context.lineJoin = "round";
        this.penWidth = Math.max(1, (PEN * Math.min(canvas.width, canvas.height)) / PAD);
        this.erasing = false;
        this.pen = [canvas.width / 2, canvas.height / 2]; // of the keyboard
        this.clear();
        this.listen();
    }

    clear() {
        this.picked = null;
        this.overPicked = false;
        this.lift();
        this.context.fillStyle = "black";
        this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
        this.changed();
    }

    pick(x) {
        this.picked = x;
        this.overPicked = true;
        this.lift();
        const [, columns] = this.shape;
        x.forEach((value, i) => {
            const grey = Math.round(255 * value);
            this.context.fillStyle = `rgb(${grey} ${grey} ${grey})`;
            const [row, column] = [Math.floor(i / columns), i % columns];
            this.context.fillRect(column * this.grain, row * this.grain, this.grain, this.grain);
        });
        this.changed();
    }

    // The image, (D) in [0, 1]; where all of a picked one was rubbed out, the pad is an empty one from now on.
    image() {
        if (this.picked) return this.picked;
        const { width, height } = this.canvas;
        const { data } = this.context.getImageData(0, 0, width, height);
        const drawing = new Grey(height, width);
        for (let i = 0; i < drawing.values.length; i++) drawing.values[i] = data[4 * i] / 255;
        this.overPicked &&= drawing.extent(0) !== null;
        const centre = this.centre && !this.overPicked;
        return (centre ? centred(drawing, this.shape) : drawing.means(this.grain)).values;
    }

    stroke([x0, y0], [x1, y1]) {
        this.picked = null;
        this.context.strokeStyle = this.erasing ? "black" : "white";
        this.context.lineWidth = (this.erasing ? 1.4 : 1) * this.penWidth; // nothing is left at the edges
        this.context.beginPath();
        this.context.moveTo(x0, y0);
        this.context.lineTo(x1 + 0.01, y1); // a line without any length would not be drawn
        this.context.stroke();
        this.changed();
    }

    listen() {
        const place = (event) => {
            const [across, down] = placeOn(this.canvas, event);
            return [across * this.canvas.width, down * this.canvas.height];
        };
        let last;
        const follow = (event) => {
            const parts = event.getCoalescedEvents?.() ?? [];
            for (const part of parts.length ? parts : [event]) {
                const now = place(part);
                this.stroke(last, now);
                last = now;
            }
        };
        const begin = (event) => {
            last = place(event);
            this.stroke(last, last);
        };
        onDrag(this.canvas, follow, begin);
        this.canvas.addEventListener("keydown", (event) => this.key(event));
        this.canvas.addEventListener("blur", () => this.lift());
    }

    // The keyboard's pen, lifted; shown where it is while keys move it.
    lift() {
        this.penIsDown = false;
        this.marker.hidden = true;
    }

    showPen() {
        const [left, top] = this.pen.map((at, i) => (100 * at) / [this.canvas.width, this.canvas.height][i]);
        Object.assign(this.marker.style, { left: `${left}%`, top: `${top}%` });
        this.marker.classList.toggle("down", this.penIsDown);
        this.marker.hidden = false;
    }

    key(event) {
        const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
        if (event.key === " ") {
            this.penIsDown = !this.penIsDown;
            if (this.penIsDown) this.stroke(this.pen, this.pen);
        } else if (event.key in steps) {
            const limits = [this.canvas.width, this.canvas.height];
            const step = this.penWidth / 3;
            const next = this.pen.map((at, i) =>
                Math.min(limits[i], Math.max(0, at + step * steps[event.key][i])),
            );
            if (this.penIsDown) this.stroke(this.pen, next);
            this.pen = next;
        } else return;
        this.showPen();
        event.preventDefault();
    }
}
