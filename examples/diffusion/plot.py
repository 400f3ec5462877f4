"""A space-time picture of one simulation: PNG, written with the standard library only.

plot.py RESULT.csv PICTURE.png: the rod from left to right, time downwards, heat as colour.
"""

import struct
import sys
import zlib
from pathlib import Path

# From cold to hot; the 256 colours lie between these.
ANCHORS = [(0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)]
GAMMA = 0.6  # shows faint heat


def palette():
    """256 RGB colours as bytes."""
    colours = bytearray()
    for index in range(256):
        place = index / 255 * (len(ANCHORS) - 1)
        low = min(int(place), len(ANCHORS) - 2)
        below, above, part = ANCHORS[low], ANCHORS[low + 1], place - low
        colours += bytes(round(below[i] + (above[i] - below[i]) * part) for i in range(3))
    return bytes(colours)


def chunk(kind, data):
    """One chunk of a PNG file."""
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def png(rows):
    """A PNG file of rows of colour numbers (bytes of equal length)."""
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 3, 0, 0, 0)
    pixels = b"".join(b"\0" + row for row in rows)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"PLTE", palette()),
            chunk(b"IDAT", zlib.compress(pixels, 6)),
            chunk(b"IEND", b""),
        ]
    )


def main():
    """Draw the table that is named first into the file that is named second."""
    source, target = sys.argv[1:]
    lines = Path(source).read_text(encoding="ascii").splitlines()
    table = [[float(value) for value in line.split(",")] for line in lines]
    hottest = max(max(row) for row in table) or 1.0
    rows = [bytes(round(255 * (max(u, 0.0) / hottest) ** GAMMA) for u in row) for row in table]
    Path(target).write_bytes(png(rows))


if __name__ == "__main__":
    main()
