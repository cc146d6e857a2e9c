// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What the program was asked to do, after its command line has been understood.

#pragma once

#include <srpfs/base/instant.h>
#include <srpfs/config/config_file.h>
#include <srpfs/fabric/verbs.h>
#include <srpfs/fs/file_system.h>
#include <srpfs/initiator/target_port.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace srpfs::daemon {

inline constexpr unsigned reactors_max = 64;

// Whether the program stays in memory and works when there is none left.
enum class MemoryLock : std::uint8_t {
    off,
    tried,     // as far as it is permitted; the log says what is not
    required,  // or nothing is mounted
};

// Which SCSI commands may be sent to units by hand (RawDoor).
enum class RawCommands : std::uint8_t {
    none,
    read,  // those that change nothing
    all,
};

enum class WaitForTargets { until_done, none };

struct Config {
    std::string source;          // "none", "all", "demo[:LUNS]", a login string, or the path of a configuration file
    bool is_configured = false;  // SOURCE is "all" or a file: there is nothing but what `logins` says
    fs::MountOptions mount;
    initiator::TransportTimers timers;  // of new targets
    Duration login_timeout = std::chrono::seconds(10);
    Duration command_timeout = std::chrono::seconds(30);
    initiator::TaskLimits task_limits;
    Duration shutdown_timeout = std::chrono::seconds(5);
    std::optional<std::uint8_t> ack_timeout;              // of logins that name none
    initiator::PathLimits path;                           // of new targets
    Duration rescan_interval = std::chrono::seconds(60);  // see lun::InventoryConfig
    fabric::Registration registration = fabric::Registration::pool;
    fabric::CompletionModeration moderation;
    unsigned ch_count = 1;  // of logins that name none
    // Threads that carry I/O, 1..reactors_max; empty: as many as plan_reactors() says.
    std::optional<unsigned> reactors;
    std::vector<unsigned> cpus;    // the processors they are bound to, in turn; empty: the kernel chooses
    std::optional<Duration> spin;  // see reactor::Reactor::set_spin(); empty: 50 us, with one processor 0
    std::size_t memory_bytes = 0;  // budget of registered memory of all reactors; 0: the default
    std::size_t park_bytes = std::size_t{256} << 20;
    bool use_imm_data = true;  // of logins that name nothing else
    unsigned max_imm_data = 8192;
    WaitForTargets wait = WaitForTargets::until_done;
    std::string pid_file;  // absolute; empty: none
    MemoryLock memory_lock = MemoryLock::off;
    RawCommands raw_commands = RawCommands::read;
    std::vector<config::TargetRule> target_rules;  // defaults of logins, by the target's names
    std::vector<std::string> logins;               // to be made beside SOURCE's, and again when they fail or are lost
    std::vector<config::LunRule> lun_rules;        // how units are shown, by their names
    bool foreground = false;
    bool debug = false;  // log level debug
};

namespace exit_code {
inline constexpr int ok = 0, usage = 1, system = 2, mount_failed = 32;  // mount(8)'s
}

// Mounts, serves and unmounts. In the background unless config.foreground: then it returns in the parent, with the exit
// code, as soon as the mount serves or cannot, and the reason is on stderr; the child ends by itself.
int run(const Config& config);

}  // namespace srpfs::daemon
