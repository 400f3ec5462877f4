"""The period of a real pendulum: pendulum.py LABEL LENGTH_M ANGLE_DEG DAMPING_PER_S.

Fourth-order Runge-Kutta from rest; the period is four times the way to the lowest point, which is
exact without damping. Prints one line of CSV, with the small-angle formula beside it.
"""

import csv
import math
import sys

G = 9.80665  # m/s²
STEPS = 4000  # in one small-angle period


def slope(angle, speed, length, damping):
    """How angle and angular speed change."""
    return speed, -G / length * math.sin(angle) - damping * speed


def period(length, start, damping):
    """Seconds of one swing from `start` radians and back."""
    dt = 2 * math.pi * math.sqrt(length / G) / STEPS
    time, angle, speed = 0.0, start, 0.0
    while angle > 0:
        before = angle
        k1 = slope(angle, speed, length, damping)
        k2 = slope(angle + dt / 2 * k1[0], speed + dt / 2 * k1[1], length, damping)
        k3 = slope(angle + dt / 2 * k2[0], speed + dt / 2 * k2[1], length, damping)
        k4 = slope(angle + dt * k3[0], speed + dt * k3[1], length, damping)
        angle += dt / 6 * (k1[0] + 2 * k2[0] + 2 * k3[0] + k4[0])
        speed += dt / 6 * (k1[1] + 2 * k2[1] + 2 * k3[1] + k4[1])
        time += dt
    return 4 * (time - dt * angle / (angle - before))  # back to where the angle was 0


def main():
    """Print the line for the pendulum of the arguments."""
    label, length, angle, damping = sys.argv[1], *map(float, sys.argv[2:])
    seconds = period(length, math.radians(angle), damping)
    simple = 2 * math.pi * math.sqrt(length / G)
    line = [label, length, angle, f"{seconds:.4f}", f"{simple:.4f}"]
    csv.writer(sys.stdout, lineterminator="\n").writerow(line)


if __name__ == "__main__":
    main()
