// The tab "Look inside": every array on the way from x to the loss, with its shape, its equation and npvae's line for it.
"use strict";

function makeInsidePanel(explorer) {
    const { vae, run, shape } = explorer;
    const hidden = run.settings.hidden;
    const activation = { tanh: "tanh", relu: "max(0, ·)", softplus: "softplus" }[run.settings.activation];
    const prime = (name, i, of) => name + (of > 1 ? latentName(i).slice(1) : "");
    const label = vae.classes ? ", y" : "";

    // Rows and columns of a grid for so many units, about as wide as high.
    function gridOf(count) {
        const columns = Math.ceil(Math.sqrt(count));
        return [Math.ceil(count / columns), columns];
    }
    const padded = (values, [rows, columns]) => {
        const all = new Float64Array(rows * columns);
        all.set(values.subarray(0, all.length));
        return all;
    };

    // Each stage: its name and shape, the equation, the lines, its values now, and for a hidden unit its weights.
    const stages = [];
    stages.push({
        name: "x",
        size: vae.pixels,
        equation: "the image",
        values: () => explorer.x,
        grid: shape,
        plain: true,
    });
    // The hidden layers of encoder or decoder, of so many units each, which begin from `input`.
    function pushHidden(name, sizes, input, values, weights) {
        sizes.forEach((units, i) => {
            const from = i ? prime(name, i - 1, sizes.length) : input + label;
            stages.push({
                name: prime(name, i, sizes.length),
                size: units,
                grid: gridOf(units),
                sources: ["dense", run.settings.activation],
                equation: `${activation} of [${from}] W + b`,
                values: () => values()[i],
                weights: weights(units, i),
            });
        });
    }
    pushHidden(
        "h",
        hidden,
        "x",
        () => explorer.q.hidden,
        (units, i) => ({
            of: (unit) => vae.encoder.layers[i].W.filter((_, k) => k % units === unit),
            size: i ? hidden[i - 1] : vae.pixels,
            grid: i ? gridOf(hidden[i - 1]) : shape,
            way: "into",
        }),
    );
    const last = prime("h", hidden.length - 1, hidden.length);
    stages.push({
        name: "mu",
        size: vae.latent,
        grid: gridOf(vae.latent),
        sources: ["encode"],
        equation: `${last} W + b, the first ${vae.latent} columns`,
        values: () => explorer.q.mu,
    });
    stages.push({
        name: "logvar",
        size: vae.latent,
        grid: gridOf(vae.latent),
        equation: "log sigma², the other columns",
        values: () => explorer.q.logvar,
    });
    stages.push({
        name: "z",
        size: vae.latent,
        grid: gridOf(vae.latent),
        sources: ["reparameterize"],
        equation: "mu + exp(logvar / 2) ⊙ eps",
        values: () => explorer.samples()[explorer.chosen],
    });
    const back = [...hidden].reverse();
    pushHidden(
        "h′",
        back,
        "z",
        () => explorer.inside.hidden,
        (units, i) => {
            const { W, b } = vae.decoder.layers[i + 1];
            const next = back[i + 1] ?? vae.pixels;
            return {
                of: (unit) => W.subarray(unit * b.length, unit * b.length + next),
                size: next,
                grid: back[i + 1] ? gridOf(next) : shape,
                way: "out of",
            };
        },
    );
    const gaussian = run.settings.likelihood === "gaussian";
    stages.push({
        name: gaussian ? "outputs" : "logits",
        size: vae.outputs,
        grid: shape,
        sources: ["dense"],
        equation: `${prime("h′", back.length - 1, back.length)} W + b${gaussian ? "; shown: those of the means" : ""}`,
        values: () => explorer.inside.outputs.subarray(0, vae.pixels),
    });
    stages.push({
        name: "E[x|z]",
        size: vae.pixels,
        grid: shape,
        sources: ["decode"],
        plain: true,
        equation: "sigmoid of the above",
        values: () => explorer.inside.mean,
    });

    for (const stage of stages) {
        stage.canvas = makeImage(`the values of ${stage.name}`, "pixels");
        const text = make(
            "div",
            {},
            make("h3", {}, stage.name, make("small", {}, ` (${stage.size.toLocaleString("en")})`)),
        );
        text.append(make("p", {}, stage.equation), ...(stage.sources ?? []).map(lineOf));
        const item = make("li", {}, stage.canvas, text);
        if (stage.weights) item.append(makeWeights(stage));
        element("stages").append(item);
    }
    for (const [name, equation, sources, value] of [
        [
            "log p(x|z)",
            gaussian ? "Σ log N(x; mean, sigma²), eq. 12" : "Σ x log y + (1 − x) log(1 − y), eq. 11",
            [run.settings.likelihood],
            () => -explorer.inside.reconstruction,
        ],
        ["KL", "½ Σ (mu² + sigma² − 1 − log sigma²), Appendix B", ["kl"], () => explorer.terms.kl],
        [
            "loss",
            "−ELBO = KL − log p(x|z), eq. 10, of this one sample; the table has the mean of all",
            ["elbo"],
            () => explorer.inside.reconstruction + explorer.terms.kl,
        ],
    ]) {
        const number = make("strong");
        element("stages").append(
            make(
                "li",
                {},
                number,
                make("div", {}, make("h3", {}, name), make("p", {}, equation), ...sources.map(lineOf)),
            ),
        );
        stages.push({ number, value });
    }

    function lineOf(name) {
        const { file, line, code } = run.sources[name];
        return make(
            "p",
            { className: "source" },
            make("code", {}, code),
            make("small", {}, ` ${file}:${line}`),
        );
    }

    // The weights of one unit as an image, chosen by number or by pointing at it.
    function makeWeights(stage) {
        const canvas = makeImage("the weights of a unit", "pixels");
        const number = make("input", { type: "number", min: 0, max: stage.size - 1, value: 0 });
        const show = (unit) => {
            number.value = unit;
            canvas.setAttribute("aria-label", `the weights ${stage.weights.way} unit ${unit}`);
            const weights = stage.weights.of(unit).subarray(0, stage.weights.size);
            paintSigned(canvas, padded(weights, stage.weights.grid), stage.weights.grid);
        };
        number.addEventListener("input", () =>
            show(Math.min(stage.size - 1, Math.max(0, Math.trunc(number.value)))),
        );
        const point = (event) => {
            const [across, down] = placeOn(stage.canvas, event);
            const [rows, columns] = stage.grid;
            const unit = Math.floor(down * rows) * columns + Math.floor(across * columns);
            if (unit >= 0 && unit < stage.size) show(unit);
        };
        stage.canvas.addEventListener("pointermove", point);
        stage.canvas.addEventListener("pointerdown", point);
        stage.canvas.classList.add("units");
        stage.show = () => show(Number(number.value));
        return make(
            "figure",
            {},
            canvas,
            make("figcaption", {}, make("label", {}, `weights ${stage.weights.way} unit `, number)),
        );
    }

    return function render() {
        const { chosen, eps } = explorer;
        element("inside-sample").textContent = `sample ${chosen + 1} of ${eps.length}`;
        explorer.inside = vae.decode(explorer.samples()[explorer.chosen], explorer.y);
        explorer.inside.reconstruction = -vae.likelihood.logDensity(explorer.x, explorer.inside.outputs);
        for (const stage of stages) {
            if (stage.number) {
                stage.number.textContent = inDigits(stage.value());
                continue;
            }
            const values = padded(stage.values(), stage.grid);
            if (stage.plain) paint(stage.canvas, values, stage.grid);
            else paintSigned(stage.canvas, values, stage.grid);
            stage.show?.();
        }
    };
}
