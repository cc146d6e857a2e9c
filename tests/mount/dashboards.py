# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What watches srpfs: the Grafana dashboard and the script for node_exporter, beside the metrics of a real mount."""

import json
import re

from harness import TOP, check, equal, read_file, run, succeeds, test


@test
def every_metric_of_the_dashboard_exists(t):
    dashboard = json.loads((TOP / "contrib/grafana/srpfs.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [variable["query"] for variable in dashboard["templating"]["list"]]
    used = {name for expression in expressions for name in re.findall(r"srpfs_\w+", expression)}
    check(len(used) > 10, f"only {used}")
    metrics = read_file(t.mount().path / "metrics")
    # Errors have no sample before the first one.
    known = set(re.findall(r"^(?:# TYPE )?(srpfs_\w+)", metrics, re.M))
    equal(sorted(used - known), [], "metrics that srpfs does not have")
    labels = set(re.findall(r'[{,](\w+)="', metrics)) | {"instance"}
    wanted = {name for by in re.findall(r"by \(([^)]*)\)", " ".join(expressions)) for name in by.split(", ")}
    equal(sorted(wanted - labels), [], "labels that srpfs does not have")


@test
def metrics_are_copied_whole_or_not_at_all(t):
    mount = t.mount()
    script, file = TOP / "contrib/prometheus/srpfs-textfile", t.path("srpfs.prom")
    succeeds(script, mount.path, file)
    check("srpfs_uptime_seconds" in file.read_text() and file.read_text().endswith("\n"), "no metrics in the file")
    equal(file.stat().st_mode & 0o777, 0o644, "mode of the file")
    mount.umount()
    equal(run(script, mount.path, file).returncode, 1, "exit code without a mount")
    equal([path.name for path in t.dir.glob("srpfs.prom*")], [], "files after the mount has gone")
