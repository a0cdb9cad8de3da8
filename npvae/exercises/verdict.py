"""What is said about a function, or about an answer."""

from dataclasses import asdict, dataclass, field

NOTHING_YET = ("not written yet", "not answered yet")


@dataclass
class Verdict:
    """What is to be said about one function.

    Attributes
    ----------
    function : str
    passed : bool
    headline : str
        What is the matter, in a few words; 'right' if nothing is.
    details : list of str
        Where, and how far off.
    mistake : str
        Which mistake it is, if it is known; why that is one, follows in `why`.
    everywhere : bool
        Whether it gives what was found in all cases, and not only where it was compared.
    read : str
        What to read about it.
    notes : list of str
        What is not wrong, but worth to know.
    """

    function: str
    passed: bool
    headline: str
    details: list = field(default_factory=list)
    mistake: str = ""
    why: str = ""
    read: str = ""
    notes: list = field(default_factory=list)
    everywhere: bool = True
    seconds: float = 0.0

    def as_dict(self):
        return asdict(self)

    @property
    def mark(self):
        """✓, ✗, or · where there is nothing to judge yet."""
        return "✓" if self.passed else "·" if self.headline in NOTHING_YET else "✗"

    def lines(self):
        """The verdict in lines of text, without a mark."""
        exactly = "Exactly what comes out" if self.everywhere else "What comes out here"
        said = [f"{exactly} when {self.mistake}."] if self.mistake else []
        read = [f"Read: {self.read}."] if self.read else []
        return [
            f"{self.function}: {self.headline}",
            *self.details,
            *said,
            *filter(None, [self.why]),
            *read,
            *self.notes,
        ]

    def __str__(self):
        first, *rest = self.lines()
        return "\n".join([f"{self.mark} {first}", *(f"  {line}" for line in rest)])

    __repr__ = __str__

    def _repr_html_(self):
        from npvae.exercises.report import as_html

        return as_html(self)
