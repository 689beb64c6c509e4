"""The colours of every picture: Okabe & Ito's, which colour-blind readers tell apart.

Source: M. Okabe and K. Ito, Color Universal Design, 2008. No picture rests on colour alone: lines
also differ in dash and marker.
"""

from __future__ import annotations

from typing import Final

BLUE: Final = "#0072B2"
VERMILION: Final = "#D55E00"
GREEN: Final = "#009E73"
PURPLE: Final = "#CC79A7"
ORANGE: Final = "#E69F00"
SKY: Final = "#56B4E9"
BLACK: Final = "#000000"

# Colour, dash and marker as matplotlib writes them, for lines in one picture.
LINES: Final = (
    (BLUE, "-", "o"), (VERMILION, "--", "s"), (GREEN, "-.", "^"), (PURPLE, ":", "D"),
    (ORANGE, "-", "v"),
)  # fmt: skip
