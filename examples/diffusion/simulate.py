"""Heat along a rod with closed ends: the diffusion equation by explicit finite differences.

Prints a CSV: one line for each of `LINES` instants, one column for each of `CELLS` cells.
`--rate` is D·dt/dx², the share of the difference to a neighbour that flows in one step.
"""

import argparse
import random

CELLS = 96
LINES = 64
SPOTS = 5


def hot_spots(seed):
    """A cold rod with some hot spots, placed at random."""
    chance = random.Random(seed)
    heat = [0.0] * CELLS
    for _ in range(SPOTS):
        centre, half_width = chance.randrange(CELLS), chance.randrange(1, 6)
        for cell in range(max(0, centre - half_width), min(CELLS, centre + half_width + 1)):
            heat[cell] += chance.uniform(0.5, 1.0)
    return heat


def step(heat, rate):
    """The heat after one step; what leaves a cell enters its neighbours, so none is lost."""
    left = heat[:1] + heat[:-1]
    right = heat[1:] + heat[-1:]
    return list(map(lambda a, u, b: u + rate * (a - 2 * u + b), left, heat, right))


def main():
    """Simulate, and print the heat at evenly spaced instants."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    heat = hot_spots(options.seed)
    at_start = sum(heat)
    done = 0
    for line in range(LINES):
        while done < options.steps * line // (LINES - 1):
            heat = step(heat, options.rate)
            done += 1
        print(",".join(f"{value:.4f}" for value in heat))
    if abs(sum(heat) - at_start) > 1e-9 * max(1.0, at_start):
        raise SystemExit("heat was lost: the simulation is wrong")


if __name__ == "__main__":
    main()
