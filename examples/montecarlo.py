"""The price of an Asian option by Monte Carlo, on all agents of a project.

    python examples/montecarlo.py

A plain Python function goes to the agents through an Executor, which is a
`concurrent.futures.Executor`: nothing here knows where the calls run. The agents need nothing but
Python's standard library.
"""

from __future__ import annotations

import argparse
import math
import random

from airavata_scheduler.client.executor import Executor

SPOT, STRIKE, RATE, VOLATILITY, YEARS, DATES = 100.0, 100.0, 0.05, 0.2, 1.0, 12


def batch(seed: int, paths: int) -> tuple[float, float]:
    """Sum and sum of squares of the discounted pay-offs of some random price paths."""
    chance = random.Random(seed)
    step = YEARS / DATES
    drift, spread = (RATE - VOLATILITY**2 / 2) * step, VOLATILITY * math.sqrt(step)
    total = squares = 0.0
    for _ in range(paths):
        price, average = SPOT, 0.0
        for _ in range(DATES):
            price *= math.exp(drift + spread * chance.gauss(0.0, 1.0))
            average += price / DATES
        payoff = math.exp(-RATE * YEARS) * max(average - STRIKE, 0.0)
        total += payoff
        squares += payoff * payoff
    return total, squares


def main() -> None:
    """Run the batches, and print the price with its standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=40, help="calls (default 40)")
    parser.add_argument("--paths", type=int, default=5000, help="price paths a call (default 5000)")
    options = parser.parse_args()
    with Executor() as executor:
        sums = list(executor.map(batch, range(options.batches), [options.paths] * options.batches))
    paths = options.batches * options.paths
    mean = sum(total for total, _ in sums) / paths
    variance = sum(squares for _, squares in sums) / paths - mean * mean
    error = math.sqrt(variance / paths)
    print(f"price {mean:.4f} ± {error:.4f} from {paths:,} paths in {options.batches} calls")


if __name__ == "__main__":
    main()
