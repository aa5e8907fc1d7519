"""Charts as SVG, drawn here. Colours are classes of the style sheet; numbers stand beside them."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 720, 180
_LEFT, _BOTTOM, _TOP = 56, 24, 8


@dataclass(frozen=True, slots=True)
class Bar:
    """A stacked bar.

    Attributes:
        label: below it; empty: none.
        parts: class of the style sheet -> height.
    """

    label: str
    parts: dict[str, float]

    @property
    def whole(self) -> float:
        return sum(self.parts.values())


def stacked(bars: Sequence[Bar], title: str, unit: str) -> Markup:
    """Bars beside each other, from the left to the right, with an axis from 0.

    Args:
        title: what a person who does not see it is told.
        unit: of the axis.
    """
    highest = _round_up(max((bar.whole for bar in bars), default=0.0))
    inner, base = WIDTH - _LEFT, HEIGHT - _BOTTOM
    step = inner / max(len(bars), 1)
    drawn = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="{escape(title)}">'
    ]
    for share in (0, 0.5, 1):
        y = base - share * (base - _TOP)
        drawn.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        said = f"{highest * share:,.0f}" if highest >= 2 or share in (0, 1) else ""
        drawn.append(f'<text class="axis end" x="{_LEFT - 6}" y="{y + 4:.1f}">{said}</text>')
    drawn.append(f'<text class="axis" x="{_LEFT + 4}" y="{_TOP + 8}">{escape(unit)}</text>')
    for number, bar in enumerate(bars):
        x, y = _LEFT + number * step, float(base)
        for name, height in bar.parts.items():
            tall = height / highest * (base - _TOP)
            y -= tall
            if tall > 0:
                drawn.append(
                    f'<rect class="{escape(name)}" x="{x + step * 0.1:.1f}" y="{y:.1f}"'
                    f' width="{step * 0.8:.1f}" height="{tall:.1f}"/>'
                )
        if bar.label:
            drawn.append(
                f'<text class="axis middle" x="{x + step / 2:.1f}" y="{HEIGHT - 6}">'
                f"{escape(bar.label)}</text>"
            )
    return Markup("".join(drawn) + "</svg>")


def _round_up(value: float) -> float:
    """To a number that reads well on an axis: 1, 2 or 5, and zeros."""
    size = 1.0
    while True:
        for first in (1, 2, 5):
            if first * size >= value:
                return first * size
        size *= 10
