"""A judgement in words, with a grade that a program can read."""

from dataclasses import dataclass
from typing import Literal

Grade = Literal["good", "doubtful", "bad", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """What a diagnostic concludes.

    Attributes
    ----------
    grade : {"good", "doubtful", "bad", "unknown"}
        ``unknown`` where the numbers allow no judgement.
    text : str
        One to three sentences: the figure, what it means, and what to do where it is not good.
    """

    grade: Grade
    text: str
