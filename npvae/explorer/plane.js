// The latent plane: two of the latents across and up; decoded images behind, test images as points, q(z|x) as an ellipse.
"use strict";

const CELLS = 15; // decoded images in a row of the plane, or in a column of it, whatever are fewer

// Φ, the distribution function of the standard normal: Abramowitz & Stegun 1964, 7.1.26, to 1.5e-7.
function normalCDF(z) {
    const t = 1 / (1 + (0.3275911 * Math.abs(z)) / Math.SQRT2);
    const polynomial = [1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592].reduce(
        (a, c) => a * t + c,
        0,
    );
    const tail = (polynomial * t * Math.exp((-z * z) / 2)) / 2;
    return z < 0 ? tail : 1 - tail;
}

// Φ⁻¹, by halving the interval.
function normalQuantile(p) {
    let [low, high] = [-6, 6];
    for (let i = 0; i < 40; i++) {
        const middle = (low + high) / 2;
        if (normalCDF(middle) < p) low = middle;
        else high = middle;
    }
    return low;
}

class Plane {
    // explorer: the state of the page; axes: the two latents.
    constructor(canvas, explorer) {
        Object.assign(this, { canvas, explorer, axes: [0, 1], byProbability: false, centre: explorer.zero });
        this.showImages = this.showPoints = this.showAxes = true;
        const [rows, columns] = explorer.shape;
        this.down = Math.round(CELLS * Math.min(1, columns / rows)); // so that the images are not distorted
        this.across = Math.round(CELLS * Math.min(1, rows / columns));
        this.background = document.createElement("canvas");
        this.key = null; // what the background was decoded for
        const means = explorer.means.flatMap((mu) => [...mu].map(Math.abs)).sort((a, b) => a - b);
        this.reach = Math.max(3, Math.ceil(means[Math.floor(0.99 * means.length)] ?? 3)); // z at the border
    }

    // From a latent's value to its place, 0 to 1 from left to right or from bottom to top, and back.
    place(value, axis) {
        if (this.byProbability) return normalCDF(value);
        return (1 + (value - this.centre[axis]) / this.reach) / 2;
    }

    value(place, axis) {
        if (this.byProbability) return normalQuantile(Math.min(0.9999, Math.max(0.0001, place)));
        return this.centre[axis] + (2 * place - 1) * this.reach;
    }

    pixel(z) {
        const [across, up] = this.axes.map((axis) => this.place(z[axis], axis));
        return [across * this.canvas.width, (1 - up) * this.canvas.height];
    }

    // z with two of its values moved to a place of the pointer.
    moved(z, across, down) {
        const next = Float64Array.from(z);
        [across, 1 - down].forEach((place, i) => {
            const axis = this.axes[i];
            next[axis] = this.value(Math.min(1, Math.max(0, place)), axis);
        });
        return next;
    }

    // The test image whose point is nearest to a place of the pointer, if it is near.
    imageAt(across, down) {
        const [x, y] = [across * this.canvas.width, down * this.canvas.height];
        let [nearest, least] = [null, 14];
        this.explorer.means.forEach((mu, i) => {
            const [px, py] = this.pixel(mu);
            const distance = Math.hypot(px - x, py - y);
            if (distance < least) [nearest, least] = [i, distance];
        });
        return this.showPoints ? nearest : null;
    }

    // Decode the images behind, a few in each frame, so that nothing waits for them; `z` has the other latents' values.
    async decode(z) {
        const others = [...z].filter((_, j) => !this.axes.includes(j));
        const key = JSON.stringify([
            [this.axes, this.byProbability, this.reach, ...this.centre],
            [others, this.explorer.label, colours],
        ]);
        if (!this.showImages || key === this.key) return;
        this.key = key;
        const { vae, shape } = this.explorer;
        const [rows, columns] = shape;
        const cell = document.createElement("canvas");
        const began = { at: performance.now() };
        for (let i = 0; i < this.across * this.down; i++) {
            const [row, column] = [Math.floor(i / this.across), i % this.across];
            const at = this.moved(z, (column + 0.5) / this.across, (row + 0.5) / this.down);
            paint(cell, vae.decode(at, this.explorer.y).mean, shape);
            if (i === 0) {
                this.background.width = this.across * columns;
                this.background.height = this.down * rows;
            }
            this.background.getContext("2d").drawImage(cell, column * columns, row * rows);
            if (performance.now() - began.at > 8) {
                await nextFrame();
                if (this.key !== key) return; // another plane is wanted by now
                began.at = performance.now();
            }
        }
        this.draw();
    }

    // Draw all; `z` has a ring, `samples` have dots, the `chosen` one in another colour, `line` is [z, z], `hovered` the
    // number of a test image.
    draw({ z, q, samples = [], chosen, line, hovered } = this.last ?? {}) {
        this.last = { z, q, samples, chosen, line, hovered };
        const { canvas } = this;
        const context = canvas.getContext("2d");
        context.fillStyle = css("card");
        context.fillRect(0, 0, canvas.width, canvas.height);
        if (this.showImages && this.key) {
            context.globalAlpha = 0.4;
            context.drawImage(this.background, 0, 0, canvas.width, canvas.height);
            context.globalAlpha = 1;
        }
        if (this.showAxes) this.drawAxes(context);
        if (this.showPoints) {
            this.explorer.means.forEach((mu, i) => {
                context.fillStyle = this.explorer.colourOf(i);
                this.disc(context, this.pixel(mu), i === hovered ? 9 : 5);
            });
        }
        if (line) {
            context.strokeStyle = css("text");
            context.lineWidth = 2;
            context.beginPath();
            for (let t = 0; t <= 1; t += 0.02)
                context.lineTo(...this.pixel(line[0].map((a, j) => a + t * (line[1][j] - a))));
            context.stroke();
        }
        if (q) this.ellipses(context, q);
        samples.forEach((sample) => {
            context.fillStyle = css("accent");
            this.disc(context, this.pixel(sample), 6);
        });
        if (chosen) {
            context.fillStyle = css("positive");
            this.disc(context, this.pixel(chosen), 10);
        }
        if (z) {
            context.lineWidth = 4;
            for (const [radius, colour] of [
                [15, "card"],
                [12, "text"],
            ]) {
                context.strokeStyle = css(colour);
                context.beginPath();
                context.arc(...this.pixel(z), radius, 0, 2 * Math.PI);
                context.stroke();
            }
        }
        if (hovered !== undefined && hovered !== null) this.drawHovered(context, hovered);
    }

    drawAxes(context) {
        context.strokeStyle = css("text", 0.5);
        context.fillStyle = css("text");
        context.font = "22px system-ui, sans-serif";
        context.lineWidth = 1;
        const [x, y] = this.pixel(this.explorer.zero);
        context.strokeRect(x, 0, 0, this.canvas.height);
        context.strokeRect(0, y, this.canvas.width, 0);
        const step = Math.ceil((80 * this.reach) / this.canvas.width); // so that the numbers have 40 pixels each
        const most = Math.ceil(this.reach / step - 1) * step;
        for (let value = -most; value <= most; value += step) {
            if (value === 0 || (this.byProbability && Math.abs(value) > 2)) continue;
            const place = this.place(value, this.axes[0]); // the same on both: their middle is 0
            const [across, up] = [place * this.canvas.width, (1 - place) * this.canvas.height];
            const text = String(value).replace("-", "−");
            this.write(context, text, across - 6, this.canvas.height - 8);
            this.write(context, text, 6, up + 7);
        }
    }

    // Text with a rim of paper, so that it can be read over images.
    write(context, text, x, y) {
        context.save();
        Object.assign(context, { strokeStyle: css("card"), lineWidth: 6, lineJoin: "round" });
        context.strokeText(text, x, y);
        context.restore();
        context.fillText(text, x, y);
    }

    disc(context, [x, y], radius) {
        context.beginPath();
        context.arc(x, y, radius, 0, 2 * Math.PI);
        context.fill();
        context.strokeStyle = css("card");
        context.lineWidth = 1.5;
        context.stroke();
    }

    ellipses(context, { mu, logvar }) {
        context.strokeStyle = css("accent");
        context.lineWidth = 4;
        for (const width of [1, 2]) {
            context.beginPath();
            for (let angle = 0; angle < 6.3; angle += 0.1) {
                const point = Float64Array.from(mu);
                const directions = [Math.cos(angle), Math.sin(angle)];
                this.axes.forEach((j, i) => (point[j] += width * Math.exp(logvar[j] / 2) * directions[i]));
                context.lineTo(...this.pixel(point));
            }
            context.closePath();
            context.stroke();
        }
    }

    drawHovered(context, i) {
        const { shape, images, means } = this.explorer;
        const cell = document.createElement("canvas");
        paint(cell, images[i], shape);
        const scale = 110 / Math.max(...shape);
        const [height, width] = shape.map((side) => side * scale);
        const [x, y] = this.pixel(means[i]);
        const left = x + width + 30 > this.canvas.width ? x - width - 16 : x + 16;
        const top = Math.min(Math.max(y - height / 2, 4), this.canvas.height - height - 4);
        context.imageSmoothingEnabled = false;
        context.drawImage(cell, left, top, width, height);
        context.imageSmoothingEnabled = true;
        context.strokeStyle = this.explorer.colourOf(i);
        context.lineWidth = 4;
        context.strokeRect(left, top, width, height);
        if (this.explorer.run.labels) {
            context.fillStyle = css("text");
            context.font = "bold 24px system-ui, sans-serif";
            this.write(context, String(this.explorer.run.labels[i]), left + 6, top + 24);
        }
    }
}
