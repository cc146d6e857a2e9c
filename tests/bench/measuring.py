# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What the benchmarks have in common: jobs of fio, machine and load, reports and plots. Imported, never run."""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
import typing
import xml.sax.saxutils

TOP = pathlib.Path(__file__).resolve().parents[2]
TICKS = os.sysconf("SC_CLK_TCK")
BLUE, LIGHT_BLUE, DARK_BLUE, ORANGE, GREY = "#1f5fa8", "#5b9bd5", "#123a66", "#d98c2b", "#9a9a9a"


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
    job("rw1p", "4 KiB random write, psync", "randwrite", "4k", 1, "psync", quick=False),
    job("rr32u", "4 KiB random read, io_uring, depth 32", "randread", "4k", 32, "io_uring"),
    job("rw32u", "4 KiB random write, io_uring, depth 32", "randwrite", "4k", 32, "io_uring"),
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


def machine() -> dict[str, typing.Any]:
    virtual = " hypervisor " in pathlib.Path("/proc/cpuinfo").read_text()
    return {"cpus": os.cpu_count() or 1, "model": cpu_model(), "virtual": virtual, "kernel": platform.release(),
            "architecture": platform.machine()}


def srpfs_version() -> str:
    return first_line("git", "describe", "--always", "--dirty")


# ---- what else keeps the machine busy ----

def stat_of(pid: str) -> list[str]:
    """From the third field on: state, parent, group, session, ..."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of these processes, of all their threads."""
    total = 0
    for pid in pids:
        fields = stat_of(str(pid))
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def busy_seconds() -> float:
    """Of all CPUs, what hypervisors took included."""
    fields = [int(word) for word in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (sum(fields[:3]) + sum(fields[5:8])) / TICKS


def own_seconds() -> float:
    """Of this program and its children that have ended."""
    times = os.times()
    return times.children_user + times.children_system + times.user + times.system


class Watch:
    """CPU time from its making on: of servers that are no children of this program, and of everything that is measured neither
    there nor here."""

    def __init__(self, servers: list[int]) -> None:
        self.servers, self.began = servers, time.monotonic()
        self.busy_before, self.servers_before, self.own_before = busy_seconds(), cpu_seconds(servers), own_seconds()

    def server_seconds(self) -> float:
        return cpu_seconds(self.servers) - self.servers_before

    def others_cpus(self) -> float:
        """How many CPUs others kept busy. Children that still run are others."""
        others = busy_seconds() - self.busy_before - self.server_seconds() - (own_seconds() - self.own_before)
        return max(0.0, others / (time.monotonic() - self.began))


def load_of(average_before: float, others: list[float]) -> dict[str, float]:
    """For a report: `average_before` is the load average of the minute before, `others` what Watch has said of each run."""
    return {"average_before": round(average_before, 2), "others_cpus_median": round(statistics.median(others), 3),
            "others_cpus_max": round(max(others), 3)}


def surroundings(report: dict) -> str:
    """One line of Markdown, of a report that has "machine", "srpfs" and "load"."""
    about, load = report["machine"], report["load"]
    return (f"{about['cpus']} {'virtual ' if about['virtual'] else ''}CPUs ({about['model']}), Linux {about['kernel']}, srpfs {report['srpfs']}; "
            f"load average before {load['average_before']:.2f}, other programs kept {load['others_cpus_median']:.2f} CPUs busy meanwhile "
            f"({load['others_cpus_max']:.2f} at most).")


# ---- reports ----

OUTPUT_HELP = "where the report goes, as Markdown, JSON and a plot, SVG (BUILD/bench)"


def add_directories(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path(os.environ.get("SRPFS_BUILD", TOP / "build")), metavar="DIR",
                        help="build directory (build)")
    parser.add_argument("--output", type=pathlib.Path, metavar="DIR", help=OUTPUT_HELP)


def resolve_directories(arguments: argparse.Namespace) -> None:
    arguments.build = arguments.build.resolve()
    arguments.output = (arguments.output or arguments.build / "bench").resolve()


def write_report(directory: pathlib.Path, name: str, text: str, report: typing.Any, plot: str) -> None:
    """Prints the text, and puts NAME.md, NAME.json and NAME.svg there."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.md").write_text(text)
    (directory / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    (directory / f"{name}.svg").write_text(plot)
    print(text)
    print(f"the same as JSON, and a plot: {directory}/{name}.json, {name}.svg", file=sys.stderr, flush=True)


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
    bars: list[Bar]  # not empty, nor is one of them


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
        scale = width / (max(max(one.numbers) for one in panel.bars) or 1)
        for place, one in enumerate(panel.bars):
            line, middle = y + 30 + place * (bar + gap), statistics.median(one.numbers)
            out.append(f'<text x="{x + left - 8}" y="{line + 12}" text-anchor="end">{text(one.label)}</text>')
            out.append(f'<rect x="{x + left}" y="{line}" width="{middle * scale:.1f}" height="{bar}" fill="{one.colour}"/>')
            out.append(f'<line x1="{x + left + min(one.numbers) * scale:.1f}" x2="{x + left + max(one.numbers) * scale:.1f}" '
                       f'y1="{line + bar / 2}" y2="{line + bar / 2}" stroke="black"/>')
            out.append(f'<text x="{x + left + max(one.numbers) * scale + 6:.1f}" y="{line + 12}">{middle:,.{panel.digits}f}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"
