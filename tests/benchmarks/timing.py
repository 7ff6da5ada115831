"""Interleaved timing on one thread."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def interleave(
    contenders: Mapping[str, Callable[[], Any]], *, rounds: int
) -> dict[str, list[float]]:
    """Return CPU seconds of every contender by round; in a round each runs once, in turn.

    CPU time of the process, not wall time: on one thread the two agree on an idle machine, and
    only the first leaves out the time that other programs take.
    """
    for run in contenders.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            began = time.process_time()
            run()
            seconds[name].append(time.process_time() - began)
    return seconds


def ratio(above: list[float], below: list[float]) -> float:
    """Return the median over rounds of the ratio within a round: slow drifts cancel."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))
