"""How everything looks, light and dark: one hue for ours, greys for others."""

from __future__ import annotations

LIGHT = {
    "paper": "#ffffff",
    "panel": "#f5f6f8",
    "ink": "#1a1e24",
    "muted": "#586170",
    "rule": "#dde1e7",
    "ours": "#1d5fc4",
    "ours-soft": "#9dbdee",
    "peer": "#868f9c",
    "peer-soft": "#c3c9d1",
    "good": "#146c43",
    "bad": "#b02a1f",
}
DARK = {
    "paper": "#14171c",
    "panel": "#1c2027",
    "ink": "#e8eaee",
    "muted": "#a4adba",
    "rule": "#333a45",
    "ours": "#6ba6ff",
    "ours-soft": "#345a94",
    "peer": "#858e9b",
    "peer-soft": "#4b535f",
    "good": "#5fce96",
    "bad": "#ff8f85",
}


def _variables(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())


COLOURS = (
    f":root{{color-scheme:light dark;{_variables(LIGHT)}}}"
    f"@media (prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}"
    f"@media print{{:root{{color-scheme:light;{_variables(LIGHT)}}}}}"
)
FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"
