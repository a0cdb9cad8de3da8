"""Exercise 9: the training loop."""

import numpy as np

from npvae.exercises import probes
from npvae.exercises.course import Case, Function, Mistake
from npvae.exercises.lessons.ex07_vae import parameters

READ = "notebook 7, “Train on all of them”"
BEGIN = "notebook 7, “Overfit twenty digits first”"
NOISE = "notebook 3, “Second idea: move the noise outside”"
EPOCH = "notebook 10, “12. Bias correction by epoch”"
rng = np.random.default_rng(9)
P = {name: array.astype(np.float32) for name, array in parameters(5, 4, 50, rng).items()}
IMAGES = rng.integers(0, 256, (11, 5), np.uint8)

FUNCTIONS = {
    "initialize": Function(
        read=BEGIN,
        probe=probes.initialized,
        float32=False,
        cases=[
            Case(
                "in a typical case, for 300 pixels, 200 hidden units and 20 latents", pixels=300, hidden=200, latent=20
            )
        ],
        mistakes=[
            Mistake(
                "everything begins at zero",
                "All hidden units then compute the same and get the same derivative: they never become different.",
                ("rng.uniform(-bound, bound, (inputs, outputs))", "np.zeros((inputs, outputs))"),
                ("rng.uniform(-bound, bound, outputs)", "np.zeros(outputs)"),
            ),
            Mistake(
                "everything is between 0 and 1/√I",
                "Sums over I positive weights are large: the units saturate. Within ±1/√I, both signs.",
                ("rng.uniform(-bound, bound, (inputs, outputs))", "rng.uniform(0, bound, (inputs, outputs))"),
                ("rng.uniform(-bound, bound, outputs)", "rng.uniform(0, bound, outputs)"),
            ),
            Mistake(
                "W is normal with standard deviation 1/√I",
                "A normal of this width is √3 times as wide as the uniform distribution that was asked for.",
                ("rng.uniform(-bound, bound, (inputs, outputs))", "rng.normal(0, bound, (inputs, outputs))"),
            ),
            Mistake(
                "everything is normal with standard deviation 1/√I",
                "A normal of this width is √3 times as wide as the uniform distribution that was asked for.",
                ("rng.uniform(-bound, bound, (inputs, outputs))", "rng.normal(0, bound, (inputs, outputs))"),
                ("rng.uniform(-bound, bound, outputs)", "rng.normal(0, bound, outputs)"),
            ),
            Mistake(
                "W is standard normal",
                "A sum over 784 inputs is then so large that the tanh saturates.",
                ("rng.uniform(-bound, bound, (inputs, outputs))", "rng.normal(0, 1, (inputs, outputs))"),
            ),
            Mistake(
                "everything is standard normal",
                "A sum over 784 inputs is then so large that the tanh saturates.",
                ("rng.uniform(-bound, bound, (inputs, outputs))", "rng.normal(0, 1, (inputs, outputs))"),
                ("rng.uniform(-bound, bound, outputs)", "rng.normal(0, 1, outputs)"),
            ),
            Mistake(
                "everything is between 0 and 1",
                "A sum over 784 positive inputs and weights is so large that the tanh saturates.",
                ("rng.uniform(-bound, bound, (inputs, outputs))", "rng.random((inputs, outputs))"),
                ("rng.uniform(-bound, bound, outputs)", "rng.random(outputs)"),
            ),
            Mistake(
                "everything begins at 1",
                "All hidden units then compute the same and get the same derivative: they never become different.",
                ("rng.uniform(-bound, bound, (inputs, outputs))", "np.ones((inputs, outputs))"),
                ("rng.uniform(-bound, bound, outputs)", "np.ones(outputs)"),
            ),
            Mistake(
                "W is normal with standard deviation √(2/I), as He et al. have it for a ReLU",
                "Asked for is uniform within ±1/√I, as the model that yours is compared with has it.",
                (
                    "rng.uniform(-bound, bound, (inputs, outputs))",
                    "rng.normal(0, 1.4142135623730951 * bound, (inputs, outputs))",
                ),
            ),
            Mistake(
                "the bound is 1, not 1/√I",
                "A sum over 784 inputs is then so large that the tanh saturates.",
                ("1 / np.sqrt(inputs)", "1.0"),
            ),
            Mistake(
                "it is ±1/I, without the root",
                "The sum over I inputs of size 1/I is much too small.",
                ("1 / np.sqrt(inputs)", "1 / inputs"),
            ),
            Mistake(
                "it is ±1/√O, with the number of outputs",
                "A unit sums over its inputs: their number counts.",
                ("1 / np.sqrt(inputs)", "1 / np.sqrt(outputs)"),
            ),
            Mistake(
                "b begins at zero",
                "It works as well, but the model that yours is compared with begins with uniform ones.",
                ("rng.uniform(-bound, bound, outputs)", "np.zeros(outputs)"),
            ),
            Mistake(
                "the arrays are float64",
                "float32 is enough to train with, and twice as fast.",
                ("(inputs, outputs)).astype(np.float32)", "(inputs, outputs))"),
                ("bound, outputs).astype(np.float32)", "bound, outputs)"),
            ),
            Mistake(
                "W2 has only J columns",
                "The encoder gives mu and logvar: 2J.",
                ("(hidden, 2 * latent)", "(hidden, latent)"),
            ),
            Mistake(
                "W is transposed",
                "(inputs, outputs).",
                ("rng.uniform(-bound, bound, (inputs, outputs))", "rng.uniform(-bound, bound, (outputs, inputs))"),
            ),
            Mistake(
                "the generator is not used",
                "With a generator of its own, made with a fixed seed, every model is the same.",
                ("    p = {}", "    p, rng = {}, np.random.default_rng(0)"),
            ),
            Mistake(
                "the sign of the lower bound is forgotten",
                "",
                ("rng.uniform(-bound, bound, (inputs, outputs))", "rng.uniform(bound, bound, (inputs, outputs))"),
                ("rng.uniform(-bound, bound, outputs)", "rng.uniform(bound, bound, outputs)"),
            ),
        ],
        hints=[
            "Four layers: which is the number of inputs of each?",
            "rng.uniform(-bound, bound, shape).astype(np.float32) with bound = 1 / np.sqrt(inputs), for W and for b.",
            "sizes (D, H), (H, 2J), (J, H), (H, D); W{i} has the size, b{i} the number of outputs, the bound the number of inputs",
        ],
    ),
    "train_epoch": Function(
        read=READ,
        overwrites=("p",),
        probe=probes.trained,
        float32=False,
        cases=[
            Case(
                "in a typical case, two epochs of 11 images in batches of 4",
                p=P,
                images=IMAGES,
                batch_size=4,
                learning_rate=0.002,
            )
        ],
        mistakes=[
            Mistake(
                "the last, smaller batch is dropped",
                "Some images are never shown in this epoch.",
                ("range(0, len(images), batch_size)", "range(0, len(images) - batch_size + 1, batch_size)"),
            ),
            Mistake(
                "the images are drawn with replacement",
                "Some are then shown twice in an epoch, and others not at all.",
                ("rng.permutation(len(images))", "rng.integers(0, len(images), len(images))"),
            ),
            Mistake(
                "the order is not shuffled",
                "Batches are then always the same, and whatever order the file has shows in the training.",
                ("rng.permutation(len(images))", "np.arange(len(images))"),
            ),
            Mistake(
                "the order is the same in each epoch",
                "Draw it from the generator that you are given, so that it goes on; a generator made anew with a seed begins at the start each time.",
                ("rng.permutation(len(images))", "np.random.default_rng(0).permutation(len(images))"),
            ),
            Mistake(
                "only the first batch is shown",
                "",
                ("range(0, len(images), batch_size)", "range(0, batch_size, batch_size)"),
            ),
            Mistake(
                "every batch is the first one",
                "The slice must begin at `start`.",
                ("order[start : start + batch_size]", "order[:batch_size]"),
            ),
            Mistake(
                "noise is drawn once, and used for every batch",
                "The mean over the noise is then never taken: the model learns this noise by heart.",
                (
                    "rng.standard_normal((1, len(x), J), np.float32)",
                    "np.random.default_rng(0).standard_normal((1, len(x), J), np.float32)",
                ),
                read=NOISE,
            ),
            Mistake(
                "noise is uniform",
                "eps is from N(0, 1), which has mean 0 and variance 1; uniform noise between 0 and 1 has mean ½ and variance 1/12.",
                ("rng.standard_normal((1, len(x), J), np.float32)", "rng.random((1, len(x), J), np.float32)"),
                read="notebook 10, “1. Uniform noise”",
            ),
            Mistake(
                "there is no noise",
                "Then nothing tells the encoder how sure to be.",
                ("rng.standard_normal((1, len(x), J), np.float32)", "np.zeros((1, len(x), J), np.float32)"),
                read=NOISE,
            ),
            Mistake(
                "all images of a batch share one noise",
                "Each image needs noise of its own.",
                (
                    "rng.standard_normal((1, len(x), J), np.float32)",
                    "np.repeat(rng.standard_normal((1, 1, J), np.float32), len(x), axis=1)[:, :, :]",
                ),
                read=NOISE,
            ),
            Mistake(
                "the axis of the draws is missing in eps",
                "eps is (L, B, J), with L = 1 here.",
                ("rng.standard_normal((1, len(x), J), np.float32)", "rng.standard_normal((len(x), J), np.float32)"),
            ),
            Mistake(
                "t does not count on",
                "t counts all steps since the beginning: Adam's correction 1 − βᵗ is by step.",
                ("        t += 1\n", ""),
                ("m, v, t, learning_rate", "m, v, t + 1, learning_rate"),
                read=EPOCH,
            ),
            Mistake(
                "t is never counted up",
                "t is 1 in the first step, and one more in each. With t = 0 Adam divides by 1 − β⁰ = 0: everything is nan.",
                ("        t += 1\n", ""),
                read=EPOCH,
            ),
            Mistake(
                "t begins anew in each epoch",
                "Adam's correction then comes back each epoch, and the first steps of each are too long or too short.",
                ("total, J = 0.0", "t = 0\n    total, J = 0.0"),
                read=EPOCH,
            ),
            Mistake(
                "t counts epochs, not steps",
                "By epoch, the 1 − βᵗ of Adam's correction stay far too small.",
                ("        t += 1\n", ""),
                ("total, J = 0.0", "t += 1\n    total, J = 0.0"),
                read=EPOCH,
            ),
            Mistake(
                "t counts arrays, not steps",
                "All arrays of p are stepped with the same t.",
                ("        t += 1\n", ""),
                ("            m, v = moments[name]", "            t += 1\n            m, v = moments[name]"),
            ),
            Mistake(
                "t counts from 0",
                "t is 1 in the first step; with 0 Adam divides by zero.",
                ("        t += 1\n", ""),
                ("            moments[name] = m, v\n", "            moments[name] = m, v\n        t += 1\n"),
            ),
            Mistake("t counts images, not steps", "One step for each batch.", ("t += 1", "t += len(x)")),
            Mistake(
                "the moments are not kept",
                "Without the m and v of the last step, Adam begins anew at each step.",
                ("            moments[name] = m, v\n", ""),
            ),
            Mistake(
                "only the first array of p is stepped",
                "Every array of p is stepped, for each batch: does the loop end too soon?",
                ("            moments[name] = m, v\n", "            moments[name] = m, v\n            break\n"),
            ),
            Mistake(
                "the biases are not stepped",
                "Every array of p is stepped, for each batch.",
                ("for name in p:", 'for name in [name for name in p if name.startswith("W")]:'),
            ),
            Mistake(
                "the decoder is not stepped",
                "Every array of p is stepped, for each batch.",
                ("for name in p:", 'for name in ["W1", "b1", "W2", "b2"]:'),
            ),
            Mistake(
                "the gradient has the other sign",
                "adam_step goes against the gradient by itself.",
                ("adam_step(p[name], d[name]", "adam_step(p[name], -d[name]"),
            ),
            Mistake(
                "backward is given the values of an earlier batch",
                "The values belong to the loss that has just been computed.",
                (
                    "        d = backward(p, values)\n",
                    '        d = backward(p, moments.setdefault("values", values))\n',
                ),
            ),
            Mistake(
                "order and noise come from a generator of its own",
                "With rng the caller decides: the same generator gives the same training.",
                ("    total, J = 0.0", "    rng = np.random.default_rng(t)\n    total, J = 0.0"),
            ),
            Mistake(
                "ink and paper are swapped",
                "Ink is 1.",
                (
                    "scale(images[order[start : start + batch_size]])",
                    "1 - scale(images[order[start : start + batch_size]])",
                ),
            ),
            Mistake(
                "the parameters are not kept",
                "p must hold what adam_step returned.",
                ("p[name], m, v = adam_step", "_, m, v = adam_step"),
            ),
            Mistake(
                "the gradient is taken once, and never again",
                "Each batch has a gradient of its own, at the parameters of the moment.",
                (
                    "        d = backward(p, values)\n",
                    '        d = moments.setdefault("first", None) or backward(p, values)\n        moments["first"] = d\n',
                ),
            ),
            Mistake(
                "the loss is the mean over the batches",
                "The last batch is smaller: weigh each batch with its number of images.",
                ("total += loss * len(x)", "total += loss"),
                ("total / len(images)", "total / len(range(0, len(images), batch_size))"),
            ),
            Mistake(
                "the loss is that of the last batch",
                "",
                ("total += loss * len(x)", "total = loss"),
                ("total / len(images)", "total"),
            ),
            Mistake(
                "the losses of the batches are summed, and not divided",
                "",
                ("total += loss * len(x)", "total += loss"),
                ("total / len(images)", "total"),
            ),
            Mistake("the losses of all images are summed, and not divided", "", ("total / len(images)", "total")),
            Mistake(
                "the losses of the batches are summed, and divided by the number of images",
                "The loss of a batch is a mean over it: times its number of images.",
                ("total += loss * len(x)", "total += loss"),
            ),
            Mistake("the learning rate is not passed on", "", (", t, learning_rate)", ", t)")),
            Mistake(
                "images are not scaled",
                "The model takes pixels from 0 to 1.",
                (
                    "scale(images[order[start : start + batch_size]])",
                    "images[order[start : start + batch_size]].astype(np.float32)",
                ),
            ),
            Mistake(
                "images are divided by 256",
                "`scale` divides by 255.",
                (
                    "scale(images[order[start : start + batch_size]])",
                    "images[order[start : start + batch_size]].astype(np.float32) / 256",
                ),
            ),
        ],
        hints=[
            "Draw an order of all images; go through it in slices of batch_size. What happens for each slice?",
            "scale, noise of shape (1, B, J), forward, backward, t + 1, then adam_step for each array of p with its own m and v, which must be kept.",
            "for name in p: p[name], m, v = adam_step(p[name], d[name], *moments[name], t, learning_rate); moments[name] = m, v",
        ],
    ),
}
