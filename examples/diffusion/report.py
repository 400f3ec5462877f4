"""All pictures in one: report.py FOLDER MOSAIC.png.

The folder holds `<instance>-plot.png`; instances of one rate follow each other, so that the mosaic
shows three bands, slow diffusion above, fast below.
"""

import struct
import sys
import zlib
from pathlib import Path

from plot import png

COLUMNS = 20
GAP = 2  # pixels
GAP_COLOUR = 255


def read_png(path):
    """The rows of colour numbers of a picture that plot.py drew."""
    data = path.read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    packed, position = b"", 8
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        if data[position + 4 : position + 8] == b"IDAT":
            packed += data[position + 8 : position + 8 + length]
        position += length + 12
    pixels = zlib.decompress(packed)
    if len(pixels) != (width + 1) * height:
        raise SystemExit(f"{path} was not drawn by plot.py")
    return [pixels[row * (width + 1) + 1 : (row + 1) * (width + 1)] for row in range(height)]


def mosaic(pictures):
    """Rows of one picture that shows all of them, `COLUMNS` side by side."""
    width = len(pictures[0][0])
    blank = [bytes(width)] * len(pictures[0])
    gap = bytes([GAP_COLOUR]) * GAP
    rows = []
    for start in range(0, len(pictures), COLUMNS):
        strip = pictures[start : start + COLUMNS]
        strip += [blank] * (COLUMNS - len(strip))
        rows += [gap.join(picture[line] for picture in strip) for line in range(len(blank))]
        rows += [bytes([GAP_COLOUR]) * len(rows[0])] * GAP
    return rows[:-GAP]


def main():
    """Put the pictures of the folder together, in the order of their instances."""
    folder, target = sys.argv[1:]
    paths = sorted(Path(folder).iterdir(), key=lambda path: int(path.name.split("-")[0]))
    if not paths:
        raise SystemExit(f"there is no picture in {folder}")
    Path(target).write_bytes(png(mosaic([read_png(path) for path in paths])))
    print(f"{len(paths)} pictures in {target}")


if __name__ == "__main__":
    main()
