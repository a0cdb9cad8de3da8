// The tab "q(z|x) and noise": a row for each latent, and samples z = mu + sigma ⊙ eps, decoded.
"use strict";

const ROWS = 40; // latents that have a row or a slider, those of the largest KL
const WIDE = 240; // units of a row's drawing

function makeEncodePanel(explorer) {
    const { vae, order } = explorer;
    const shown = order.slice(0, ROWS);
    const reach = Math.max(4, ...explorer.means.map((mu) => Math.ceil(Math.max(...mu.map(Math.abs)))));
    const across = (value) => ((Math.min(reach, Math.max(-reach, value)) + reach) / (2 * reach)) * WIDE;

    const samples = explorer.eps.map((_, i) => {
        const made = pixelButton(`sample ${i + 1}`, () => {
            explorer.chosen = i;
            explorer.render();
        });
        element("samples").append(made.button);
        return made;
    });

    const head = make("tr");
    for (const [name, title] of [
        ["latent", "sorted by their KL on the test set"],
        ["KL", "nats, of this x; the mean of the test set is the dark line"],
        [
            `from −${reach} to ${reach}`,
            "grey: the prior at one sigma; colour: q(z|x) at one and two sigma; dots: samples",
        ],
        ["mu", "mean of q(z|x)"],
        ["sigma", "standard deviation of q(z|x)"],
        ["eps", "the noise of the chosen sample"],
        ["z", "the chosen sample"],
    ]) {
        head.append(make("th", { scope: "col", title }, name));
    }
    const body = make("tbody");
    element("latents").append(make("thead", {}, head), body);
    const mostKL = Math.max(1e-3, ...explorer.run.reference.klOfLatents);

    const rows = shown.map((j) => {
        const dead = !explorer.run.reference.active[j];
        const bar = makeSVG("rect", { class: "kl", x: 0, y: 5, height: 12 });
        const klDrawing = makeSVG("svg", {
            viewBox: "0 0 60 22",
            "aria-hidden": "true",
            class: "kl-drawing",
        });
        const usual = (explorer.run.reference.klOfLatents[j] / mostKL) * 30;
        klDrawing.append(bar, makeSVG("line", { x1: usual, x2: usual, y1: 2, y2: 20, class: "usual" }));

        const drawing = makeSVG("svg", {
            viewBox: `0 0 ${WIDE} 22`,
            "aria-hidden": "true",
            class: "latent-drawing",
        });
        const parts = {
            two: ["rect", "two-sigma"],
            one: ["rect", "one-sigma"],
            mean: ["line", "mean"],
            arrow: ["line", "arrow"],
        };
        const prior = { x: across(-1), width: across(1) - across(-1), y: 2, height: 18, class: "prior" };
        drawing.append(
            makeSVG("rect", prior),
            makeSVG("line", { x1: across(0), x2: across(0), y1: 0, y2: 22, class: "zero" }),
        );
        const made = {};
        for (const [name, [kind, style]] of Object.entries(parts)) {
            made[name] = makeSVG(kind, { class: style });
            drawing.append(made[name]);
        }
        const dots = makeSVG("path", { class: "others" });
        const dot = makeSVG("circle", { cy: 11, r: 4.5, class: "chosen" });
        drawing.append(dots, dot);

        const cells = Array.from({ length: 5 }, () => make("td"));
        const name = make("th", { scope: "row" }, latentName(j));
        if (dead)
            name.append(
                make("small", { title: "the variance of mu over the test set is below 0.01" }, " dead"),
            );
        const kl = make("td", { className: "kl-cell" }, klDrawing, cells[0].appendChild(make("span")));
        const [, mu, sigma, eps, z] = cells;
        body.append(
            make(
                "tr",
                { className: dead ? "dead" : "" },
                name,
                kl,
                make("td", {}, drawing),
                mu,
                sigma,
                eps,
                z,
            ),
        );
        return { j, bar, klText: kl.lastChild, dots, dot, ...made, cells: [mu, sigma, eps, z] };
    });
    const more = order.length - shown.length;
    element("latents-note").textContent =
        (more ? `${more} more latents of smaller KL are not shown. ` : "") +
        "Sorted by KL on the test set. Grey band: the prior at one sigma. Coloured: q(z|x) at one and two sigma" +
        (vae.latent === 2 ? ", enlarged above" : "") +
        ". Dots: the eight samples.";

    const plane = vae.latent === 2 ? new Plane(element("encode-plane"), explorer) : null;
    const zoom = plane && Object.assign(new Plane(element("encode-zoom"), explorer), { showAxes: false });
    element("encode-planes").hidden = !plane;

    element("amount").addEventListener("input", (event) => {
        explorer.amount = Number(event.target.value);
        explorer.render();
    });
    element("new-noise").addEventListener("click", () => explorer.renewNoise());

    return function render() {
        const { q, terms, eps, amount, chosen } = explorer;
        const z = explorer.samples();
        const images = (amount === 1 ? terms.decoded : z.map((sample) => vae.decode(sample, explorer.y))).map(
            ({ mean }) => mean,
        );
        samples.forEach(({ button, canvas }, i) => {
            paint(canvas, images[i], explorer.shape);
            button.setAttribute("aria-pressed", i === chosen);
        });
        const share = amount === 1 ? "" : `${inDigits(amount, 2)} · `;
        const equation = amount === 0 ? "z = mu" : `z = mu + ${share}sigma ⊙ eps`;
        element("amount-value").textContent = equation;
        element("amount").setAttribute("aria-valuetext", equation);
        for (const { j, bar, klText, dots, dot, one, two, mean, arrow, cells } of rows) {
            const [mu, sigma] = [q.mu[j], Math.exp(q.logvar[j] / 2)];
            setAttributes(bar, { width: Math.min(60, (terms.klOfLatents[j] / mostKL) * 30) });
            klText.textContent = inDigits(terms.klOfLatents[j], 2);
            for (const [rect, width, y] of [
                [one, 1, 5],
                [two, 2, 8],
            ]) {
                const [left, right] = [across(mu - width * sigma), across(mu + width * sigma)];
                setAttributes(rect, { x: left, width: Math.max(1.5, right - left), y, height: 22 - 2 * y });
            }
            setAttributes(mean, { x1: across(mu), x2: across(mu), y1: 2, y2: 20 });
            setAttributes(arrow, { x1: across(mu), x2: across(z[chosen][j]), y1: 11, y2: 11 });
            // round ends make dots of lines without length
            setAttributes(dots, { d: z.map((sample) => `M${across(sample[j])} 11h0`).join("") });
            setAttributes(dot, { cx: across(z[chosen][j]) });
            [mu, sigma, eps[chosen][j], z[chosen][j]].forEach(
                (value, i) => (cells[i].textContent = inDigits(value, 2)),
            );
        }
        const widest = Math.exp(Math.max(...q.logvar) / 2);
        element("width-note").textContent =
            widest < 0.2
                ? `The widest sigma is ${inDigits(widest, 2)}: q(z|x) is nearly a point, and its samples decode to nearly the ` +
                  "same image."
                : "";
        if (plane) {
            plane.draw({ q, samples: z, chosen: z[chosen] });
            plane.decode(explorer.zero);
            Object.assign(zoom, { centre: q.mu, reach: 4 * widest });
            zoom.draw({ q, samples: z, chosen: z[chosen] });
            zoom.decode(explorer.zero);
            element("zoom").textContent = `${inDigits(plane.reach / zoom.reach, 0)}-fold`;
        }
    };
}
