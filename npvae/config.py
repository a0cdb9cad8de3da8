"""The settings of a run, and what each of them may be."""

import dataclasses
import json
import re
from dataclasses import dataclass

from npvae.commands import UserError
from npvae.data.pixels import BINARIZATIONS
from npvae.distributions import LIKELIHOODS
from npvae.layers import ACTIVATIONS
from npvae.objectives import OBJECTIVES
from npvae.optimizers import OPTIMIZERS

# what may be another when a run goes on; the images must be the same
EXTENDABLE = ("epochs", "film", "checkpoint_every", "dataset", "data_dir")
# a stage of a learning rate schedule, EPOCHS:RATE
STAGE = re.compile(r"(\d{1,7}):((?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?)")


def setting(default, help, kind=str, low=None, high=None, choices=None, above=None, pattern=None):
    """A field of `Config`: default, help text, and what it may be (from `low` or above `above`, up to `high`)."""
    return dataclasses.field(
        default=default,
        metadata={
            "help": help,
            "kind": kind,
            "many": isinstance(default, tuple),
            "low": low,
            "above": above,
            "high": high,
            "choices": choices,
            "pattern": pattern,
        },
    )


@dataclass(frozen=True)
class Config:
    """What a run is made of; the same settings and data give the same numbers."""

    dataset: str = setting(
        "auto",
        "auto, mnist, fashion-mnist, kmnist, binarized-mnist, strokes, frey, or a folder with the IDX files of MNIST",
    )
    data_dir: str = setting("", "folder that holds a folder per data set (default: $NPVAE_DATA, else data/)")
    binarize: str = setting(
        "none",
        "grey pixels as they are, x ≥ 0.5, one draw of each pixel for good, or a new draw for each batch",
        choices=tuple(BINARIZATIONS),
    )
    likelihood: str = setting("bernoulli", "p(x|z) of a pixel", choices=tuple(LIKELIHOODS))
    conditional: bool = setting(False, "give the label to encoder and decoder", bool)
    hidden: tuple = setting(
        (500,), "units of each hidden layer of the encoder; the decoder's are in reverse", int, 1, 100_000
    )
    latent: int = setting(20, "number of latent variables", int, 1, 100_000)
    activation: str = setting("tanh", "of the hidden layers", choices=tuple(ACTIVATIONS))
    output_bias: str = setting(
        "mean",
        "initial bias of the decoder's outputs; with mean it decodes to the mean training image",
        choices=("mean", "random"),
    )
    objective: str = setting(
        "elbo",
        "bound to train on, and its gradient; iwae and iwae-dreg with, say, --samples 5",
        choices=tuple(OBJECTIVES),
    )
    samples: int = setting(1, "samples of z per example: L of eq. 7, or K of iwae", int, 1, 100_000)
    beta: float = setting(1.0, "weight of the KL term in training; evaluation is always at 1", float, 0, 1000)
    kl_warmup: float = setting(0.0, "epochs in which beta rises linearly from 0", float, 0, 1_000_000)
    optimizer: str = setting("adam", "sgd has momentum 0.9", choices=tuple(OPTIMIZERS))
    learning_rate: float = setting(1e-3, "step size of the optimizer", float, above=0, high=1000)
    learning_rate_schedule: tuple = setting(
        (), "stages EPOCHS:RATE, the learning rate after so many epochs, as 50:5e-4 80:1e-4", pattern=STAGE
    )
    adam_beta1: float = setting(0.9, "decay of Adam's mean of gradients", float, 0, 0.999_999)
    adam_beta2: float = setting(0.999, "decay of Adam's mean of squared gradients", float, 0, 0.999_999)
    adam_epsilon: float = setting(1e-8, "what Adam adds to the root", float, 1e-30, 1000)
    batch_size: int = setting(100, "examples per step", int, 1, 1_000_000)
    epochs: int = setting(10, "passes over the training set", int, 1, 1_000_000)
    checkpoint_every: float = setting(
        60.0, "seconds, at least, to the next checkpoint within an epoch; there is one after each", float, 0, 1_000_000
    )
    film: bool = setting(False, "film the model as it learns, at steps evenly spaced in log time: RUN/film.gif", bool)
    seed: int = setting(
        0, "of the initial weights, the order of the examples, the noise and dynamic binarization", int, 0, 2**63 - 1
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.metadata["many"]:
                if isinstance(value, list):
                    value = tuple(value)
                    object.__setattr__(self, field.name, value)  # the dataclass is frozen
                valid = isinstance(value, tuple) and all(allowed(field, item) for item in value)
                valid = valid and (len(value) > 0 or len(field.default) == 0)
            else:
                valid = allowed(field, value)
            if not valid:
                raise UserError(f"{option_name(field.name)} {value}: expected {expected(field)}")
        if self.likelihood == "gaussian" and self.binary:
            how = f"--dataset {self.dataset}" if self.binarize == "none" else f"--binarize {self.binarize}"
            raise UserError(f"--likelihood gaussian needs grey pixels, not {how}")
        epochs = [epoch for epoch, _ in self.stages]
        if epochs != sorted(set(epochs)) or not all(0 < rate <= 1000 for _, rate in self.stages):
            stages = " ".join(self.learning_rate_schedule)
            raise UserError(
                f"--learning-rate-schedule {stages}: expected rising epochs, and rates from above 0 to 1,000"
            )
        if OBJECTIVES[self.objective].importance_weighted and self.samples == 1:
            raise UserError(f"--objective {self.objective} needs --samples 2 or more: with 1 it is the ELBO again")
        if self.optimizer != "adam":
            for field in dataclasses.fields(self):
                if field.name.startswith("adam_") and getattr(self, field.name) != field.default:
                    name = option_name(field.name)
                    raise UserError(f"{name} is a constant of adam, not of --optimizer {self.optimizer}")

    @property
    def binary(self):
        """Whether each pixel is 0 or 1."""
        return self.binarize != "none" or self.dataset == "binarized-mnist"

    @property
    def bound(self):
        """The bound of −log p(x) that is trained on, in words."""
        weighted = OBJECTIVES[self.objective].importance_weighted
        return f"−IWAE bound, K = {self.samples}" if weighted else "−ELBO"

    @property
    def evidence(self):
        """What is bounded."""
        return "p(x|y)" if self.conditional else "p(x)"

    @property
    def stages(self):
        """The learning rate schedule as (epochs, rate) pairs."""
        matches = [STAGE.fullmatch(stage) for stage in self.learning_rate_schedule]
        return [(int(match[1]), float(match[2])) for match in matches]

    def learning_rate_after(self, epochs):
        """The learning rate when so many epochs are finished: that of the last stage that has begun."""
        return [self.learning_rate, *(rate for start, rate in self.stages if start <= epochs)][-1]

    def beta_after(self, epochs):
        """The weight of the KL term (Higgins et al. 2017) when so many epochs, or parts of one, are finished.

        The linear warm-up is that of Bowman et al. 2016 and Sønderby et al. 2016.
        """
        return self.beta * min(1.0, epochs / self.kl_warmup) if self.kl_warmup else self.beta

    def fixed(self):
        """The settings that a run cannot change, as JSON gives them back."""
        settings = json.loads(self.to_json())
        return {name: value for name, value in settings.items() if name not in EXTENDABLE}

    @classmethod
    def from_json(cls, text):
        """The settings that `to_json` wrote; those it does not name have their defaults."""
        values = json.loads(text)
        unknown = set(values) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise UserError(f"unknown setting {', '.join(sorted(unknown))}")
        return cls(**values)

    def to_json(self):
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def option_name(name):
    """The command-line option of the setting `name`."""
    return f"--{spelled(name)}"


def spelled(name):
    """The name of a setting as a reader writes it."""
    return name.replace("_", "-")


def as_text(value):
    """The value of a setting, for a reader."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)


def allowed(field, value):
    """Whether this may be the value of a setting, or one of its values where it has many."""
    limits = field.metadata
    if limits["kind"] is bool:
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, (int, float) if limits["kind"] is float else limits["kind"]):
        return False
    return (
        (limits["choices"] is None or value in limits["choices"])
        and (limits["pattern"] is None or limits["pattern"].fullmatch(value) is not None)
        and (limits["low"] is None or value >= limits["low"])
        and (limits["above"] is None or value > limits["above"])
        and (limits["high"] is None or value <= limits["high"])
    )


def expected(field):
    """What may be, in words."""
    limits = field.metadata
    if limits["choices"]:
        return "one of " + ", ".join(limits["choices"])
    if limits["pattern"] is not None:
        return "EPOCHS:RATE, as 50:5e-4"
    noun = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}[limits["kind"]]
    if limits["above"] is not None:
        return f"{noun} above {limits['above']}, at most {limits['high']:,}"
    if limits["low"] is not None:
        return f"{noun} from {limits['low']:,} to {limits['high']:,}"
    return noun
