// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/config/config_file.h>

namespace srpfs::config {

Knowledge mount_option_names() {
    Knowledge known;
    known.mount_flags = {"allow_other", "allow_root", "default_permissions",
                         "debug",       "ro",         "rw",
                         "dev",         "nodev",      "suid",
                         "nosuid",      "exec",       "noexec",
                         "atime",       "noatime",    "sync",
                         "async",       "dirsync"};
    known.mount_values = {"reconnect_delay",
                          "fast_io_fail_tmo",
                          "dev_loss_tmo",
                          "login_timeout",
                          "command_timeout",
                          "abort_timeout",
                          "reset_timeout",
                          "shutdown_timeout",
                          "ack_timeout",
                          "tur_interval",
                          "tur_timeout",
                          "register",
                          "cq_moderation",
                          "rescan_interval",
                          "ch_count",
                          "use_imm_data",
                          "max_imm_data",
                          "reactors",
                          "cpus",
                          "spin",
                          "memory",
                          "park",
                          "wait",
                          "memory_lock",
                          "raw_commands",
                          "uid",
                          "gid",
                          "umask",
                          "config",
                          "lun",
                          "fsname",
                          "subtype",
                          "max_background",
                          "readahead",
                          "truncate",
                          "io_uring",
                          "io_uring_queue_depth",
                          "pid_file"};
    return known;
}

}  // namespace srpfs::config
