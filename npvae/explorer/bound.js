// The tab "A tighter bound": importance-weighted bounds of −log p(x) for more and more samples (Burda et al. 2016).
"use strict";

const BOUND_SAMPLES = [1, 5, 50, 500]; // K
const ESTIMATES = { 1: 40, 5: 40, 50: 20, 500: 10 }; // how many of each are drawn

function makeBoundPanel(explorer) {
    const { vae } = explorer;
    const chart = element("bound-chart");
    const body = element("bound-table").tBodies[0];
    let estimates; // K → the estimates so far, nats
    let asked = 0; // counts what was asked for: an older wish ends where it is

    function clear() {
        asked++;
        estimates = new Map(BOUND_SAMPLES.map((K) => [K, []]));
    }

    async function draw(K) {
        const wish = ++asked;
        const { x, q, y } = explorer;
        estimates.set(K, []);
        let pause = performance.now();
        for (let i = 0; i < ESTIMATES[K]; i++) {
            const logWeights = [];
            for (let k = 0; k < K; k++) {
                logWeights.push(vae.logWeight(x, q, explorer.noise.normal(vae.latent), y));
                if (performance.now() - pause > 12) {
                    await nextFrame();
                    if (wish !== asked) return;
                    pause = performance.now();
                }
            }
            estimates.get(K).push(-logMeanExp(logWeights));
            render();
        }
    }

    for (const K of BOUND_SAMPLES) {
        const press = () => draw(K);
        element("bound-buttons").append(make("button", { type: "button", onclick: press }, `K = ${K}`));
    }

    const mean = (values) => sum(values) / values.length;
    function spread(values) {
        const middle = mean(values);
        return Math.sqrt(sum(values.map((value) => (value - middle) ** 2)) / (values.length - 1));
    }

    function render() {
        const all = [...estimates.values()].flat();
        const elbo = explorer.terms.loss;
        const [low, high] = [Math.min(elbo - 4, ...all), Math.max(elbo + 4, ...all)];
        const up = (nats) => 270 - ((nats - low) / (high - low)) * 250;
        chart.replaceChildren();
        const step =
            [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000].find((size) => (high - low) / size <= 6) ??
            10000;
        for (let nats = Math.ceil(low / step) * step; nats <= high; nats += step) {
            chart.append(makeSVG("line", { x1: 60, x2: 630, y1: up(nats), y2: up(nats), class: "grid" }));
            chart.append(makeSVG("text", { x: 52, y: up(nats) + 4, class: "right" }, inDigits(nats, 0)));
        }
        chart.append(makeSVG("line", { x1: 60, x2: 630, y1: up(elbo), y2: up(elbo), class: "elbo" }));
        chart.append(makeSVG("text", { x: 628, y: up(elbo) - 5, class: "right elbo-text" }, "−ELBO"));
        body.replaceChildren();
        BOUND_SAMPLES.forEach((K, i) => {
            const middle = 130 + 140 * i;
            const found = estimates.get(K);
            chart.append(makeSVG("text", { x: middle, y: 292, class: "middle" }, `K = ${K}`));
            found.forEach((nats, n) => {
                chart.append(
                    makeSVG("circle", {
                        cx: middle + (((n * 0.618) % 1) - 0.5) * 60,
                        cy: up(nats),
                        r: 4,
                        class: "estimate",
                    }),
                );
            });
            if (found.length) {
                const at = up(mean(found));
                chart.append(
                    makeSVG("line", { x1: middle - 42, x2: middle + 42, y1: at, y2: at, class: "mean" }),
                );
            }
            const cells = [K, found.length ? inDigits(mean(found), 2) : "–"];
            cells.push(found.length > 1 ? inDigits(spread(found), 2) : "–", found.length);
            body.append(make("tr", {}, ...cells.map((cell) => make("td", {}, String(cell)))));
        });
        const done = BOUND_SAMPLES.filter((K) => estimates.get(K).length);
        const best = done.at(-1);
        element("bound-summary").textContent = best
            ? `With K = ${best} the bound of −log ${explorer.run.evidence} is ${inDigits(mean(estimates.get(best)), 1)} nats; ` +
              `−ELBO is ${inDigits(elbo, 1)}. A change of the image starts anew.`
            : `−ELBO is ${inDigits(elbo, 1)} nats, the dashed line. Press for more samples.`;
    }

    return { clear, render };
}
