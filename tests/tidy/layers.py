# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The layers and what each may include: the table of docs/architecture.md, as data.

A change here is a change of the architecture: the table there changes in the same commit, and a check compares them.
"""

# Lowest first. A layer may include itself and what stands here.
MAY_INCLUDE = {
    "base": (),
    "reactor": ("base",),
    "scsi": ("base",),
    "srp": ("base", "scsi"),
    "config": ("base", "srp"),
    "fabric": ("base", "reactor"),
    "initiator": ("base", "reactor", "scsi", "srp", "fabric"),
    "lun": ("base", "reactor", "scsi", "srp", "fabric", "initiator"),
    "fs": ("base", "reactor", "lun"),
    "target": ("base", "reactor", "scsi", "srp", "fabric"),
    "daemon": ("base", "reactor", "scsi", "srp", "config", "fabric", "initiator", "lun", "fs", "target"),
    "cli": ("base", "srp", "config", "target", "daemon"),
    "ctl": ("base", "config"),
}

# Header of another project (how its path begins): the only folders that may include it.
FOREIGN = {
    "rdma/": ("src/fabric/verbs",),
    "infiniband/": ("src/fabric/verbs",),
    "fuse": ("src/fs",),
    "linux/fuse.h": ("src/fs",),
    "nlohmann/": ("src/daemon", "src/cli", "src/ctl", "include/srpfs/ctl"),
    "CLI/": ("src/cli", "src/ctl"),
    "syslog.h": ("src/base",),
}

# `base` is what everybody may use, so it grows only on purpose.
BASE_HEADERS = ("assert.h", "bytes.h", "count.h", "instant.h", "intrusive_list.h", "latency.h", "log.h", "random.h", "result.h", "utf8.h")

# Words that must not occur in the shipped program, and the files that may use them all the same, with the reason.
BANNED = {
    "a clock is read": (
        r"\bclock_gettime\b|_clock::now\b|\bgettimeofday\b|\btimespec_get\b|\bstd::time\b|(?<![\w.>:])time\((nullptr|NULL|0|&)",
        {
            "src/reactor/reactor.cc": "the one place where time enters",
            "src/fs/mounted_file_system.cc": "once at start: the wall-clock time of an Instant, for st_mtime",
            "src/base/sink.cc": "what the system log expects in front of each line; nothing is decided by it",
            "src/daemon/event_log.cc": "wall-clock text for people; nothing is decided by it",
            "src/ctl/live_terminal.cc": "srpctl top: the time between two looks",
            "src/ctl/when.cc": "srpctl events --since 10m: what that is before",
        },
    ),
    "somebody sleeps": (
        r"\bsleep_for\b|\bsleep_until\b|\busleep\b|\bnanosleep\b|(?<![\w.>:])sleep\(\w",
        {},
    ),
    "randomness comes from nowhere": (
        r"\brandom_device\b|(?<![\w.>:])s?rand\(|\bdrand48\b|\bgetrandom\b|\bgetentropy\b|\bmt19937",
        {
            "include/srpfs/base/random.h": "the one generator; it is given its seed",
            "src/daemon/login_lock.cc": "tells processes with the same id apart",
            "src/daemon/supervisor.cc": "draws the seed that everything else is given",
        },
    ),
    "an exception is thrown": (r"(?<!\w)throw\b(?! away)", {}),
    "a line of the log goes past the log": (
        r"\bstd::c(out|err|log)\b|(\bstd::|\bfmt::|(?<![\w.>:]))(f?printf|perror|f?puts|print)\(",
        {"src/cli/cli.cc": "prints what the user asked for", "src/cli/mount_helper.cc": "the same, for mount(8)"},
    ),
    "the shell is asked": (r"(?<![\w.>:])(system|popen)\(", {}),
}
