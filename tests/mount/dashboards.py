# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What watches srpfs: the Grafana dashboard and the script for node_exporter, beside the metrics of a real mount."""

import json
import os
import re

from ctl_screens import kept
from harness import TOP, check, contains, equal, eventually, opened, pattern, read_file, run, succeeds, test


@test
def targets_and_reactors_have_the_sums_of_their_parts(t):
    mount = t.mount("demo:ram:1M+ram:1M++ram:1M")
    for number in (0, 1):
        with opened(mount.lun(number)) as handle:
            for block in range(3):
                os.pwrite(handle, pattern(4096), block * 4096)
            os.fsync(handle)
            equal(os.pread(handle, 4096, 0), pattern(4096), "what was written")
    eventually(lambda: sum(one["slots_in_use"] for one in mount.stats()["reactors"]) == 0, "no slot in use")
    stats = mount.stats()
    first, second = stats["targets"]
    equal([first["total"][name] for name in ("reads", "writes", "bytes_read", "bytes_written", "errors", "retries")],
          [2, 6, 8192, 24576, 0, 0], "what was done")
    equal([first["total"]["latency"][name]["count"] for name in ("read", "write")], [2, 6], "in the histograms")
    equal(sum(count for _, count in first["total"]["latency"]["write"]["buckets_us"]), 6, "in their buckets")
    check(0 < first["total"]["latency"]["write"]["p50_us"] <= first["total"]["latency"]["write"]["p999_us"], "quantiles")
    equal((second["total"]["writes"], second["total"]["latency"]["write"]["p50_us"]), (0, 0), "of the other one")
    equal((stats["events"]["target_added"], stats["events"]["lun_added"]), (2, 3), "events")
    equal(sum(one["slots"] for one in stats["reactors"]), 2 * 62, "slots")
    homes = {one["name"]: one["total"] for one in stats["reactors"]}
    for target in (first, second):
        check(target["reactor"] in homes, f"home {target['reactor']} of a target is none of {list(homes)}")
    equal(sum(one["writes"] for one in homes.values()), 6, "writes of the reactors")
    equal(sum(one["latency"]["write"]["count"] for one in homes.values()), 6, "writes in their histograms")
    with opened(mount.path / "events", os.O_RDONLY) as handle:
        (mount.target / "reconnect_delay").write_text("11")
        os.read(handle, 65536)
    equal(mount.stats()["events"]["timer_set"], 1, "events of a kind that had not been there")


@test
def a_reactor_counts_the_requests_of_the_targets_it_is_home_to(t):
    mount = t.mount("demo:ram:1M++ram:1M", "reactors=2")
    for target, writes in zip(mount.stats()["targets"], (5, 3)):
        with opened(mount.path / target["port"] / target["name"] / "lun0") as handle:
            for block in range(writes):
                os.pwrite(handle, pattern(4096), block * 4096)
    first, second = mount.stats()["targets"]
    check(first["reactor"] != second["reactor"], f"both targets live on {first['reactor']}")
    by_name = {one["name"]: one for one in mount.stats()["reactors"]}
    equal([by_name[one["reactor"]]["total"]["writes"] for one in (first, second)], [5, 3], "writes of the reactors")
    equal([by_name[one["reactor"]]["total"]["bytes_written"] for one in (first, second)], [20480, 12288], "bytes")
    check(sum(one["requests_read"] for one in by_name.values()) >= 8, "requests read")
    metrics = read_file(mount.path / "metrics")
    for one, writes in ((first, 5), (second, 3)):
        contains(metrics, f'srpfs_target_info{{port="srp-demo0-1",target="{one["name"]}",address="{one["address"]}",reactor="{one["reactor"]}"}} 1\n', "label")
        contains(metrics, f'srpfs_reactor_request_duration_seconds_count{{reactor="{one["reactor"]}",operation="write"}} {writes}\n', "histogram")
    # A counter does not go back when its target goes.
    (mount.path / first["port"] / first["name"] / "delete").write_text("1")
    eventually(lambda: len(mount.stats()["targets"]) == 1, "one target left")
    equal([one["total"]["writes"] for one in mount.stats()["reactors"] if one["name"] == first["reactor"]], [5],
          "writes of the reactor whose target has gone")


@test
def channels_count_what_they_carry(t):
    mount = t.mount("demo:ram:1M", "ch_count=2")
    def sums():
        channels = mount.stats()["targets"][0]["channel_list"]
        return {name: sum(one[name] for one in channels) for name in ("bytes_read", "bytes_written", "errors")} | {
            name: sum(one["latency"][name]["count"] for one in channels) for name in ("read", "write", "other")}
    before = sums()
    with opened(mount.lun(0)) as handle:
        for block in range(8):
            os.pwrite(handle, pattern(4096), block * 4096)
        for block in range(6):
            equal(os.pread(handle, 4096, block * 4096), pattern(4096), "what was written")
    after = sums()
    equal({name: after[name] - before[name] for name in ("bytes_read", "bytes_written", "read", "write", "errors")},
          {"bytes_read": 6 * 4096, "bytes_written": 8 * 4096, "read": 6, "write": 8, "errors": 0}, "of both channels")
    channels = mount.stats()["targets"][0]["channel_list"]
    equal([one["bytes_written"] > 0 for one in channels], [True, True], "both channels are used")
    for one in channels:
        check(0 < one["latency"]["write"]["p50_us"] <= one["latency"]["write"]["p99_us"], "quantiles")
    metrics = read_file(mount.path / "metrics")
    for one in channels:
        labels = f'channel="{one["index"]}",operation="write"'
        contains(metrics, f'{labels}}} {one["latency"]["write"]["count"]}\n', "count of the histogram")
        contains(metrics, f'{labels},quantile="0.99"}} ', "quantile")
    (mount.target / "reset").write_text("1")
    eventually(lambda: [one["bytes_written"] for one in mount.stats()["targets"][0]["channel_list"] if one["state"] == "live"] == [0, 0],
               "two new channels, which have carried nothing")


@test
def metrics_are_those_that_are_kept(t):
    """Families, their help and types, and all samples with their labels."""
    mount = t.mount("demo:ram:1M++ram:1M,ro", "reactors=1")
    lines = [line if line.startswith("#") else re.sub(r'version="[^"]*"', 'version="#"', line).rpartition(" ")[0] + " #"
             for line in read_file(mount.path / "metrics").splitlines()]
    kept("metrics", "\n".join(lines) + "\n")


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
