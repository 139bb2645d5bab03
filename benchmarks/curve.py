"""`python -m benchmarks.curve < LINES > FILE.svg`: figures over the number of servers that wait, as a picture.

LINES are those of JSON that the benchmarks have printed.
"""

import json
import math
import sys
from html import escape
from typing import Any

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 44, 48
LINES = {
    "busy_p99_ms": ("API p99 while servers come and go, ms", "#1f5fa8"),
    "idle_p99_ms": ("API p99 of an idle Hub, ms", "#6b7280"),
    "still_commands_per_s": ("commands per second", "#b45309"),
}


def curve(found: list[dict[str, Any]]) -> str:
    """An SVG of our figures; both axes are logarithmic."""
    rows = sorted((one for one in found if one["spawner"] == "ours"), key=lambda one: one["servers"])
    values = [one[name] for one in rows for name in LINES]
    across = _scale([one["servers"] for one in rows], LEFT, WIDTH - RIGHT)
    up = _scale(values, HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12" role="img" aria-label="Figures over the number of servers that wait">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for power in range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1):
        y = up(10**power)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#e5e7eb"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#374151">{10.0**power:g}</text>')
    for one in rows:
        x = across(one["servers"])
        label = f"{one['servers']:,}"
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle" fill="#374151">{label}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle" fill="#374151">servers that wait</text>')
    for place, (name, (title, colour)) in enumerate(LINES.items()):
        points = [(across(one["servers"]), up(one[name])) for one in rows]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        x = LEFT + (0, 252, 428)[place]
        parts.append(f'<text x="{x}" y="20" font-size="11" fill="{colour}">{escape(title)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _scale(values: list[float], low: float, high: float) -> Any:
    least = math.floor(math.log10(min(values)))
    most = max(math.ceil(math.log10(max(values))), least + 1)
    return lambda value: low + (math.log10(value) - least) / (most - least) * (high - low)


if __name__ == "__main__":
    lines = [json.loads(line) for line in sys.stdin if line.startswith("{")]
    sys.stdout.write(curve([one for one in lines if one["figure"] in ("waiting", "large-site")]))
