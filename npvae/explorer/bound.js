// The tab "A tighter bound": importance-weighted bounds of −log p(x) for more and more samples (Burda et al. 2016).
"use strict";

const BOUND_SAMPLES = [1, 5, 50, 500]; // K
const ESTIMATES = { 1: 40, 5: 40, 50: 20, 500: 10 }; // how many of each are drawn
const ELBO_SAMPLES = 400; // that the line of −ELBO is the mean of

function makeBoundPanel(explorer) {
    const { vae } = explorer;
    const chart = element("bound-chart");
    const summary = element("bound-summary");
    const body = element("bound-table").tBodies[0];
    let estimates; // K → the estimates so far, nats
    let elbos; // −ELBO of single samples, nats
    let asked = 0; // counts what was asked for: an older wish ends where it is

    function clear() {
        asked++;
        summary.setAttribute("aria-busy", false);
        estimates = new Map(BOUND_SAMPLES.map((K) => [K, []]));
        elbos = [];
    }

    async function draw(K) {
        const wish = ++asked;
        const { x, q, y } = explorer;
        const noise = () => explorer.noise.normal(vae.latent);
        let pause = performance.now();
        // Whether to go on, after a frame was shown if it is time for one.
        async function goOn() {
            if (performance.now() - pause > 12) {
                await nextFrame();
                pause = performance.now();
            }
            return wish === asked;
        }
        summary.setAttribute("aria-busy", true); // until all are there
        estimates.set(K, []);
        while (elbos.length < ELBO_SAMPLES) {
            elbos.push(vae.loss(x, q, [noise()], y).loss);
            if (!(await goOn())) return;
        }
        for (let i = 0; i < ESTIMATES[K]; i++) {
            const logWeights = [];
            for (let k = 0; k < K; k++) {
                logWeights.push(vae.logWeight(x, q, noise(), y));
                if (!(await goOn())) return;
            }
            estimates.get(K).push(-logMeanExp(logWeights));
            render();
        }
        summary.setAttribute("aria-busy", false);
    }

    for (const K of BOUND_SAMPLES) {
        const press = () => draw(K);
        const button = make("button", { type: "button", onclick: press }, String(K));
        button.setAttribute("aria-label", `Estimate with K = ${K}`);
        element("bound-buttons").append(button);
    }

    const mean = (values) => sum(values) / values.length;
    function spread(values) {
        const middle = mean(values);
        return Math.sqrt(sum(values.map((value) => (value - middle) ** 2)) / (values.length - 1));
    }

    function render() {
        const all = [...estimates.values()].flat();
        const elbo = elbos.length ? mean(elbos) : explorer.terms.loss;
        const [low, high] = [Math.min(elbo - 4, ...all), Math.max(elbo + 4, ...all)];
        const up = (nats) => 270 - ((nats - low) / (high - low)) * 250;
        chart.replaceChildren();
        const power = 10 ** Math.floor(Math.log10((high - low) / 6));
        const step = power * [1, 2, 5, 10].find((size) => 6 * size * power >= high - low); // six lines, or fewer
        for (let nats = Math.ceil(low / step) * step; nats <= high; nats += step) {
            chart.append(makeSVG("line", { x1: 0, x2: 630, y1: up(nats), y2: up(nats), class: "grid" }));
            chart.append(makeSVG("text", { x: 0, y: up(nats) - 4 }, inDigits(nats, 0)));
        }
        chart.append(makeSVG("line", { x1: 70, x2: 630, y1: up(elbo), y2: up(elbo), class: "elbo" }));
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
        const done = BOUND_SAMPLES.filter((K) => estimates.get(K).length > 1);
        const best = done.at(-1);
        summary.textContent = best
            ? inWords(best, elbo)
            : `−ELBO is about ${inNats(elbo)} nats, the dashed line. Press a number: it draws some estimates with so many samples each.`;
    }

    function inWords(K, elbo) {
        const found = estimates.get(K);
        const gap = elbo - mean(found);
        const chance = Math.hypot(
            ...[elbos, found].map((values) => spread(values) / Math.sqrt(values.length)),
        );
        const tighter =
            gap > 2 * chance
                ? `${inDigits(gap)} nats below −ELBO`
                : "as far as chance lets one see no lower than −ELBO: where q(z|x) is the posterior, the ELBO is tight";
        return (
            `With K = ${K} the bound of −log ${explorer.run.evidence} is ${inNats(mean(found))} nats, ${tighter}. ` +
            `−ELBO, the dashed line, is ${inNats(elbo)}, a mean of ${elbos.length} samples. A change of the image starts anew.`
        );
    }

    return { clear, render };
}
