# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What the benchmarks have in common: jobs of fio, what is said, and plots. Imported, never run."""

import dataclasses
import math
import pathlib
import statistics
import subprocess
import typing
import xml.sax.saxutils

TOP = pathlib.Path(__file__).resolve().parents[2]


class Failure(Exception):
    """One sentence for whoever started the benchmark."""


@dataclasses.dataclass(frozen=True)
class Job:
    name: str
    words: str
    arguments: tuple[str, ...]
    quick: bool = True
    in_mib: bool = False  # shown in MiB/s instead of thousands of requests a second

    @property
    def writes(self) -> bool:
        return "write" in self.arguments[0]


def job(name: str, words: str, mode: str, block: str, depth: int, engine: str = "libaio", jobs: int = 1, quick: bool = True) -> Job:
    return Job(name, words, (f"--rw={mode}", f"--bs={block}", f"--iodepth={depth}", f"--ioengine={engine}", f"--numjobs={jobs}"),
               quick, block == "1m")


JOBS = [
    job("rr32", "4 KiB random read, depth 32", "randread", "4k", 32),
    job("rw32", "4 KiB random write, depth 32", "randwrite", "4k", 32),
    job("r512", "512 B random read, depth 32", "randread", "512", 32),
    job("rr1", "4 KiB random read, depth 1", "randread", "4k", 1),
    job("sr1m", "1 MiB sequential read, depth 8", "read", "1m", 8),
    job("sw1m", "1 MiB sequential write, depth 8", "write", "1m", 8),
    job("rw1", "4 KiB random write, depth 1", "randwrite", "4k", 1, quick=False),
    job("rr1p", "4 KiB random read, psync", "randread", "4k", 1, "psync", quick=False),
    job("rr32u", "4 KiB random read, io_uring, depth 32", "randread", "4k", 32, "io_uring"),
    job("rr2x32", "4 KiB random read, 2 jobs, depth 32 each", "randread", "4k", 32, jobs=2, quick=False),
    job("rw2x32", "4 KiB random write, 2 jobs, depth 32 each", "randwrite", "4k", 32, jobs=2, quick=False),
]


def jobs_named(names: typing.Iterable[str]) -> list[Job]:
    """In the order of JOBS."""
    wanted = list(names)
    if unknown := [name for name in wanted if name not in {one.name for one in JOBS}]:
        raise Failure(f"--jobs: there is no {unknown[0]}; there are {', '.join(one.name for one in JOBS)}")
    return [one for one in JOBS if one.name in wanted]


def first_line(*command: str) -> str:
    """Of what it prints; "?" if that is nothing."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=TOP)
    except OSError:
        return "?"
    return (done.stdout.strip() or "?").splitlines()[0]


def cpu_model() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "?"


@dataclasses.dataclass
class Bar:
    label: str
    colour: str
    numbers: list[float]


@dataclasses.dataclass
class Panel:
    heading: str
    unit: str
    digits: int
    bars: list[Bar]


def bars_svg(title: str, subtitle: str, panels: list[Panel]) -> str:
    """A panel for each job: a bar for each of those measured, the median, with a line from the smallest to the largest."""
    bar, gap, left, width, right = 16, 5, 150, 420, 130
    panel_height = 30 + max(len(panel.bars) for panel in panels) * (bar + gap) + 14
    columns = 2 if len(panels) > 1 else 1
    total_width, top = columns * (left + width + right), 46
    total_height = top + math.ceil(len(panels) / columns) * panel_height + 10
    text = xml.sax.saxutils.escape
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{total_width}" height="{total_height}" '
           f'viewBox="0 0 {total_width} {total_height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{total_width}" height="{total_height}" fill="white"/>',
           f'<text x="12" y="22" font-size="15" font-weight="bold">{text(title)}</text>',
           f'<text x="12" y="38" fill="#555">{text(subtitle)}</text>']
    for index, panel in enumerate(panels):
        x, y = (index % columns) * (left + width + right), top + (index // columns) * panel_height
        out.append(f'<text x="{x + 12}" y="{y + 20}" font-weight="bold">{text(panel.heading)} <tspan font-weight="normal" '
                   f'fill="#555">({text(panel.unit)})</tspan></text>')
        scale = width / max(max(one.numbers) for one in panel.bars)
        for place, one in enumerate(panel.bars):
            line, middle = y + 30 + place * (bar + gap), statistics.median(one.numbers)
            out.append(f'<text x="{x + left - 8}" y="{line + 12}" text-anchor="end">{text(one.label)}</text>')
            out.append(f'<rect x="{x + left}" y="{line}" width="{middle * scale:.1f}" height="{bar}" fill="{one.colour}"/>')
            out.append(f'<line x1="{x + left + min(one.numbers) * scale:.1f}" x2="{x + left + max(one.numbers) * scale:.1f}" '
                       f'y1="{line + bar / 2}" y2="{line + bar / 2}" stroke="black"/>')
            out.append(f'<text x="{x + left + max(one.numbers) * scale + 6:.1f}" y="{line + 12}">{middle:,.{panel.digits}f}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"
