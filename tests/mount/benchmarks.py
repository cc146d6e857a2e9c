# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The benchmarks that measure a mount: that they run, and what their reports have. What they measure proves nothing here."""

import json
import os
import pathlib
import xml.etree.ElementTree

from harness import TOP, check, contains, equal, needs, succeeds, test


def report_of(t, name, benchmark, *arguments):
    """What the JSON has, after all three files and the output have been looked at."""
    directory = t.path("report")
    said = succeeds(TOP / "tests/bench" / benchmark, "--build", pathlib.Path(t.program).parent, "--output", directory, *arguments)
    text, report = (directory / f"{name}.md").read_text(), json.loads((directory / f"{name}.json").read_text())
    equal(said.rstrip("\n"), text.rstrip("\n"), "what is printed")
    plot = xml.etree.ElementTree.fromstring((directory / f"{name}.svg").read_text())
    shown = " ".join("".join(one.itertext()) for one in plot.iter("{http://www.w3.org/2000/svg}text"))
    for where, words in (("the Markdown", text), ("the plot", shown)):
        contains(words, f"Linux {os.uname().release}", where)
        contains(words, "load average before", where)
    equal(report["machine"]["cpus"], os.cpu_count(), "CPUs in the JSON")
    equal(sorted(report["load"]), ["average_before", "others_cpus_max", "others_cpus_median"], "load in the JSON")
    return report, text, shown


@test
def the_report_on_scale_has_numbers_machine_and_load(t):
    report, text, shown = report_of(t, "scale", "scale", "--targets", 2, "--luns", 2, "--idle", 1)
    equal((report["found"]["targets"], report["found"]["units"]), (2, 4), "what was mounted")
    check(0 < report["found"]["login of all, s"] <= report["found"]["all units, s"], f"times {report['found']}")
    contains(text, "| units | 4 |", "the Markdown")
    contains(shown, "resident", "the plot")


@test
def the_report_on_isolation_has_every_run(t):
    needs("fio")
    report, text, shown = report_of(t, "isolation", "isolation", "--rounds", 1, "--seconds", 1, "stuck-lun")
    result, = report["results"]
    for way in ("alone", "beside"):
        check(len(result["runs"][way]) == 1 and result["runs"][way][0]["IOPS"] > 0, f"runs {way}: {result['runs']}")
    contains(text, "| stuck-lun | p99, us |", "the Markdown")
    contains(shown, "stuck-lun: IOPS (a second)", "the plot")


@test
def the_profile_of_the_host_adds_up(t):
    needs("fio", "perf")
    directory = t.path("report")
    succeeds(TOP / "tests/bench/host-profile", "--build", pathlib.Path(t.program).parent, "--output", directory, "--only", "ceiling",
             "--jobs", "rr32", "--seconds", "2")
    report = json.loads((directory / "host-profile.json").read_text())
    result, = report["results"]
    check(result["iops"] > 0 and result["looks"] > 0, f"what was measured: {result['iops']}, {result['looks']}")
    # Together they are the time of all processors.
    whole = os.cpu_count() / result["iops"] * 1e6
    total = sum(one["us"] for one in result["groups"])
    check(abs(total - whole) < 0.02 * whole, f"{total} us of {whole}")
    # On a busy machine these two are hardly ever seen.
    for whose in ("fio", "server"):
        check(any(one["whose"] == whose and one["us"] > 0 for one in result["groups"]), f"{whose}: {result['groups']}")
    check(any(one["group"] == "FUSE" and one["us"] > 0 for one in result["groups"]), f"FUSE: {result['groups']}")
    equal(len(result["counts"]), 4, f"what was counted: {result['counts']}")
    contains((directory / "host-profile.md").read_text(), "| **server, together** |", "the Markdown")
