#!/usr/bin/env python3
"""Draws the sweeps among the JSON lines of the benches: plot.py [--out FOLDER] [FILE...], or from standard input.

Lines that are not JSON are passed over, so that a bench's whole output will do:
    make bench-ingest WORK="streams rules workers" | tee /tmp/ingest && scripts/plot.py /tmp/ingest
"""

import argparse
import fileinput
import json
import math
from html import escape
from pathlib import Path

SERVER, BASELINE = ("GopherWatch", "#1f5fa8"), ("decode and count only", "#b3561d")
CPU = ("CPU-seconds per million reports", [("server_cpu_s_per_million", SERVER), ("baseline_cpu_s_per_million", BASELINE)])
SPEED = ("reports per second", [("server_reports_per_s", SERVER), ("baseline_reports_per_s", BASELINE)])
BYTES = (
    "bytes per service above idle",
    [("bytes_per_service", ("after 2 rounds", "#1f5fa8")), ("bytes_per_service_10_rounds", ("after 10 rounds", "#2a7f4f"))],
)
# Of each plot: its lines, the horizontal axis, its label, the title, and the panels.
PLOTS = {
    "streams": (("ingest", "streams"), "streams", "streams at once", "Ingest by streams", [CPU, SPEED]),
    "rules": (("ingest", "rules"), "rules", "rules, each a comparison", "Ingest by rules", [CPU, SPEED]),
    "workers": (("ingest", "workers"), "workers", "threads that evaluate rules (--workers)", "Ingest by workers", [CPU, SPEED]),
    "memory": (("memory", "w3"), "services", "services of 4 metrics", "Memory per service", [BYTES]),
}
WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 64, 52


def short(number):
    """1500000 -> 1.5M"""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def ticks(most):
    """Round numbers from 0 to `most` or just above."""
    rough = (most or 1) / 4
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * n for n in (1, 2, 2.5, 5, 10) if size * n >= rough)
    return [step * n for n in range(math.ceil(most / step - 1e-9) + 1)]


def text(x, y, words, anchor="middle", more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(words)}</text>'


def panel(x0, label, x_label, xs, series):
    """One pair of axes, whose left edge is at `x0`; x is logarithmic, y begins at 0."""
    left, right, top, bottom = x0 + LEFT, x0 + WIDTH - RIGHT, TOP, TOP + HEIGHT
    low, high = math.log(min(xs)), math.log(max(xs))
    scale = ticks(max(max(values) for _, values in series))

    def place(x):
        return (left + right) / 2 if low == high else left + 16 + (math.log(x) - low) / (high - low) * (right - left - 32)

    def rise(y):
        return bottom - y / scale[-1] * (bottom - top)

    out = [text(left, top - 28, label, "start", 'font-weight="600"')]
    for y in scale:
        out.append(f'<line x1="{left}" x2="{right}" y1="{rise(y):.1f}" y2="{rise(y):.1f}" stroke="#ddd"/>')
        out.append(text(left - 8, rise(y) + 4, short(y), "end"))
    out.append(f'<line x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}" stroke="#333"/>')
    for x in xs:
        out.append(f'<line x1="{place(x):.1f}" x2="{place(x):.1f}" y1="{bottom}" y2="{bottom + 4}" stroke="#333"/>')
        out.append(text(place(x), bottom + 18, short(x)))
    out.append(text((left + right) / 2, bottom + 38, f"{x_label} (logarithmic)"))
    legend = left
    for (name, colour), values in series:
        points = [(place(x), rise(y)) for x, y in zip(xs, values)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points]
        out.append(f'<circle cx="{legend + 4}" cy="{top - 14}" r="4" fill="{colour}"/>')
        out.append(text(legend + 13, top - 10, name, "start", f'fill="{colour}"'))
        legend += 30 + 7 * len(name)
    return out


def plot(rows, key, x_label, title, panels):
    rows = sorted(rows, key=lambda row: row[key])
    xs = [row[key] for row in rows]
    width, height = WIDTH * len(panels) + 12, TOP + HEIGHT + BOTTOM
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#222">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        text(LEFT, 20, title, "start", 'font-size="15" font-weight="700"'),
    ]
    for idx, (label, lines) in enumerate(panels):
        series = [(look, [row[figure] for row in rows]) for figure, look in lines]
        out += panel(idx * WIDTH, label, x_label, xs, series)
    return "\n".join([*out, "</svg>", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "benches" / "plots")
    parser.add_argument("files", nargs="*")
    args = parser.parse_args()
    rows = [json.loads(line) for line in fileinput.input(args.files or ["-"]) if line.startswith("{")]
    args.out.mkdir(parents=True, exist_ok=True)
    for name, (kind, key, x_label, title, panels) in PLOTS.items():
        # A figure measured again replaces the earlier one.
        chosen = {row[key]: row for row in rows if (row.get("bench"), row.get("work")) == kind}
        if chosen:
            path = args.out / f"{name}.svg"
            path.write_text(plot(list(chosen.values()), key, x_label, title, panels), encoding="utf-8")
            print(path)


if __name__ == "__main__":
    main()
