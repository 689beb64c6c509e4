"""The colours of pictures and pages: Okabe and Ito's, which colour-blind readers tell apart.

Figures are drawn in the colours of :data:`LIGHT`. Inside a page each of them becomes the CSS
variable of its name, which the page sets for light, dark and print. No picture relies on colour
alone: lines also differ in dash and marker.

Source: M. Okabe and K. Ito, Color Universal Design, 2008.
"""

from __future__ import annotations

from typing import Final

BLUE: Final = "#0072b2"
VERMILION: Final = "#d55e00"
GREEN: Final = "#009e73"
PURPLE: Final = "#cc79a7"
OCHRE: Final = "#b87a00"  # the palette's orange, dark enough for a thin line on white
SKY: Final = "#56b4e9"
INK: Final = "#1b1e21"
SOFT: Final = "#59616a"
RULE: Final = "#d5d9dd"

LIGHT: Final = {
    "paper": "#ffffff",
    "panel": "#f5f6f7",
    "rule": RULE,
    "ink": INK,
    "soft": SOFT,
    "accent": BLUE,
    "alarm": "#a84300",
    "series-a": BLUE,
    "series-b": VERMILION,
    "series-c": GREEN,
    "series-d": PURPLE,
    "series-e": OCHRE,
}
# Blue and vermilion are too dark for a line on a dark page; these are lighter.
DARK: Final = {
    "paper": "#15181b",
    "panel": "#1d2125",
    "rule": "#363d44",
    "ink": "#e7e9eb",
    "soft": "#a2abb4",
    "accent": SKY,
    "alarm": "#e69f00",
    "series-a": SKY,
    "series-b": "#ee7d33",
    "series-c": "#1fbf93",
    "series-d": PURPLE,
    "series-e": "#e69f00",
}

# Colour, dash and marker as matplotlib names them, for the lines of one picture.
LINES: Final = (
    (BLUE, "-", "o"),
    (VERMILION, "--", "s"),
    (GREEN, "-.", "^"),
    (PURPLE, ":", "P"),
    (OCHRE, "-", "v"),
    (SKY, "--", "X"),
    (INK, "-", "D"),
)
