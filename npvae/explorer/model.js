// The VAE of npvae/vae.py, forwards only, for one image at a time: x (D), mu and logvar (J), z (J), y (C).
// Arrays are flat, a matrix (I, O) row by row; parameters are float32 and all arithmetic is float64.
"use strict";

const LOG_2_PI = Math.log(2 * Math.PI);
const LOGVAR_FLOOR = -2 * Math.log(255); // of a pixel: sigma is at least one grey level

const sum = (array) => array.reduce((total, value) => total + value, 0);
const softplus = (a) => Math.max(a, 0) + Math.log1p(Math.exp(-Math.abs(a)));
const sigmoid = (a) => (1 + Math.tanh(a / 2)) / 2;
const ACTIVATIONS = { tanh: Math.tanh, relu: (a) => Math.max(a, 0), softplus };

// y = x W + b: (I) -> (O). Four rows of W at a time read and write y a quarter as often: three times as fast.
function dense(x, W, b) {
    const y = new Float64Array(b);
    const columns = y.length;
    const four = x.length - (x.length % 4);
    for (let row = 0; row < four; row += 4) {
        const [x0, x1, x2, x3] = [x[row], x[row + 1], x[row + 2], x[row + 3]];
        for (let o = 0, i = row * columns; o < columns; o++, i++) {
            y[o] += x0 * W[i] + x1 * W[i + columns] + x2 * W[i + 2 * columns] + x3 * W[i + 3 * columns];
        }
    }
    for (let row = four; row < x.length; row++) {
        for (let o = 0; o < columns; o++) y[o] += x[row] * W[row * columns + o];
    }
    return y;
}

// Dense layers with an activation between each two.
class MLP {
    // layers: [{W: (I · O), b: (O)}, …]
    constructor(layers, activation) {
        this.layers = layers;
        this.activation = ACTIVATIONS[activation];
    }

    // The values of every hidden layer and, last, the output: a list of arrays.
    forward(x) {
        return this.layers.map(({ W, b }, i) => {
            const y = dense(x, W, b);
            x = i < this.layers.length - 1 ? y.map(this.activation) : y;
            return x;
        });
    }
}

// p(x|z) as a function of the decoder's outputs: npvae/distributions.py.
const LIKELIHOODS = {
    bernoulli: {
        // Σ x a − log(1 + eᵃ), eq. 11 from logits
        logDensity(x, logits) {
            let total = 0;
            for (let i = 0; i < x.length; i++) total += x[i] * logits[i] - softplus(logits[i]);
            return total;
        },
        mean: (logits) => logits.map(sigmoid),
    },
    gaussian: {
        // log N(x; mean, exp(logvar)), eq. 12; the outputs are first those of the means, then of the log-variances
        logDensity(x, outputs) {
            let total = 0;
            for (let i = 0; i < x.length; i++) {
                const logvar = LOGVAR_FLOOR + softplus(outputs[x.length + i] - LOGVAR_FLOOR);
                total -= (LOG_2_PI + logvar + (x[i] - sigmoid(outputs[i])) ** 2 * Math.exp(-logvar)) / 2;
            }
            return total;
        },
        mean: (outputs) => outputs.subarray(0, outputs.length / 2).map(sigmoid),
    },
};

// KL(q(z|x) ‖ p(z)) of each latent, nats (Appendix B); near the prior σ² − 1 as expm1(logvar) keeps its digits.
const gaussianKL = ({ mu, logvar }) => mu.map((m, j) => (m * m + Math.expm1(logvar[j]) - logvar[j]) / 2);

// z = mu + sigma ⊙ eps, section 2.4.
const reparameterize = ({ mu, logvar }, eps) => mu.map((m, j) => m + Math.exp(logvar[j] / 2) * eps[j]);

// log mean exp; the maximum is taken out, so that nothing overflows.
function logMeanExp(a) {
    const highest = Math.max(...a);
    return highest + Math.log(sum(a.map((value) => Math.exp(value - highest))) / a.length);
}

class VAE {
    // settings: pixels, hidden, latent, classes, activation, likelihood; values: all parameters, one Float32Array.
    constructor(settings, values) {
        Object.assign(this, settings);
        this.likelihood = LIKELIHOODS[settings.likelihood];
        this.outputs = settings.pixels * (settings.likelihood === "gaussian" ? 2 : 1);
        const { pixels, hidden, latent, classes, activation } = settings;
        let read = 0;
        const take = (count) => values.subarray(read, (read += count));
        const mlp = (...sizes) => {
            const layers = sizes.slice(1).map((size, i) => ({ W: take(sizes[i] * size), b: take(size) }));
            return new MLP(layers, activation);
        };
        this.encoder = mlp(pixels + classes, ...hidden, 2 * latent);
        this.decoder = mlp(latent + classes, ...[...hidden].reverse(), this.outputs);
    }

    // a and, beside it, the label as a one-hot row.
    withLabel(a, y) {
        return this.classes ? [...a, ...y] : a;
    }

    // All arrays on the way from x to q(z|x): {hidden: [h, …], mu, logvar}, eq. 9.
    encode(x, y) {
        const hidden = this.encoder.forward(this.withLabel(x, y));
        const output = hidden.pop();
        return { hidden, mu: output.slice(0, this.latent), logvar: output.slice(this.latent) };
    }

    // All arrays on the way from z to p(x|z): {hidden: [h, …], outputs, mean}, eq. 11 and 12.
    decode(z, y) {
        const hidden = this.decoder.forward(this.withLabel(z, y));
        const outputs = hidden.pop();
        return { hidden, outputs, mean: this.likelihood.mean(outputs) };
    }

    // The terms of −ELBO (eq. 10) for the noise eps (L, J), in nats, and what its samples decode to.
    loss(x, q, eps, y) {
        const decoded = eps.map((row) => this.decode(reparameterize(q, row), y));
        const reconstruction =
            -sum(decoded.map(({ outputs }) => this.likelihood.logDensity(x, outputs))) / eps.length;
        const klOfLatents = gaussianKL(q);
        const kl = sum(klOfLatents);
        return { loss: reconstruction + kl, reconstruction, kl, klOfLatents, decoded };
    }

    // log w = log p(x|z) + log p(z) − log q(z|x) at z = mu + sigma ⊙ eps; in the last two, log 2π and eps² meet.
    logWeight(x, q, eps, y) {
        const z = reparameterize(q, eps);
        const logRatio = sum(z.map((value, j) => q.logvar[j] + eps[j] ** 2 - value ** 2)) / 2;
        return this.likelihood.logDensity(x, this.decode(z, y).outputs) + logRatio;
    }
}

// What the page calls window.npvae: the model on plain arrays, for readers who open the console.
//
//   encode(x, y)       {mu: [J], logvar: [J]} of q(z|x)
//   decode(z, y)       [D], the pixel means E[x|z]
//   elbo(x, eps, y)    the ELBO in nats: mean over the rows of eps of log p(x|z), minus the KL in closed form
//   logP(x, eps, y)    log 1/K Σ w in nats, K the rows of eps: the importance-weighted bound of log p(x)
//   settings           pixels, imageShape, hidden, latent, classes, activation, likelihood
//
// x is [D] in [0, 1], row by row; z is [J]; eps is [J], or [[J], …] for several samples; y, for a conditional model, is
// a label's number or a one-hot [C]. Whatever is of another shape is a RangeError.
function onPlainArrays(vae, settings) {
    function vector(array, length, name) {
        const found =
            Array.isArray(array) || ArrayBuffer.isView(array) ? `${array.length} numbers` : typeof array;
        if (found !== `${length} numbers`)
            throw new RangeError(`${name} is ${found}, expected ${length} numbers`);
        const values = Float64Array.from(array, (value) => (typeof value === "number" ? value : NaN));
        if (!values.every(Number.isFinite)) throw new RangeError(`${name} holds what is not a finite number`);
        return values;
    }
    function image(x) {
        const values = vector(x, vae.pixels, "x");
        if (values.some((value) => value < 0 || value > 1)) throw new RangeError("x is not within [0, 1]");
        return values;
    }
    function noise(eps) {
        const rows = Array.isArray(eps?.[0]) || ArrayBuffer.isView(eps?.[0]) ? [...eps] : [eps];
        return rows.map((row) => vector(row, vae.latent, "eps"));
    }
    function label(y) {
        if (!vae.classes) {
            if (y === undefined || y === null) return null;
            throw new RangeError("y is given, but the model knows of no labels");
        }
        if (typeof y !== "number") return vector(y ?? [], vae.classes, "y");
        if (!(Number.isInteger(y) && y >= 0 && y < vae.classes)) {
            throw new RangeError(`y is ${y}, expected a label from 0 to ${vae.classes - 1}`);
        }
        return oneHot(y, vae.classes);
    }
    return Object.freeze({
        settings: Object.freeze({ ...settings }),
        encode(x, y) {
            const { mu, logvar } = vae.encode(image(x), label(y));
            return { mu: [...mu], logvar: [...logvar] };
        },
        decode: (z, y) => [...vae.decode(vector(z, vae.latent, "z"), label(y)).mean],
        elbo(x, eps, y) {
            [x, eps, y] = [image(x), noise(eps), label(y)];
            return -vae.loss(x, vae.encode(x, y), eps, y).loss;
        },
        logP(x, eps, y) {
            [x, eps, y] = [image(x), noise(eps), label(y)];
            const q = vae.encode(x, y);
            return logMeanExp(eps.map((row) => vae.logWeight(x, q, row, y)));
        },
    });
}

const oneHot = (label, classes) => Float64Array.from({ length: classes }, (_, i) => Number(i === label));

// Standard normal noise, the same for the same seed: mulberry32 for uniform numbers, Box & Muller for normal ones.
class Noise {
    constructor(seed) {
        this.state = seed;
    }

    uniform() {
        this.state = (this.state + 0x6d2b79f5) | 0;
        let bits = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
        bits = (bits + Math.imul(bits ^ (bits >>> 7), 61 | bits)) ^ bits;
        return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
    }

    // (count) normal numbers
    normal(count) {
        const draw = () =>
            Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform());
        return Float64Array.from({ length: count }, draw);
    }
}

// The bytes behind base64 text.
function fromBase64(text) {
    const characters = atob(text);
    const bytes = new Uint8Array(characters.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
    return bytes;
}
