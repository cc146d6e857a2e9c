// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "machine_files.h"

#include <srpfs/ctl/actions.h>
#include <srpfs/ctl/text.h>
#include <srpfs/ctl/tree_files.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace srpfs::ctl {
namespace {

using Verdict = Finding::Verdict;

constexpr unsigned capability_ipc_lock = 14;       // capabilities(7): CAP_IPC_LOCK
constexpr std::uint64_t pages_of_a_request = 256;  // 1 MiB, as srpfs asks for

Finding good(std::string subject, std::string text) { return {Verdict::good, std::move(subject), std::move(text), ""}; }
Finding note(std::string subject, std::string text, std::string advice) {
    return {Verdict::note, std::move(subject), std::move(text), std::move(advice)};
}
Finding wrong(std::string subject, std::string text, std::string advice) {
    return {Verdict::wrong, std::move(subject), std::move(text), std::move(advice)};
}

std::optional<std::string> value_of(const Machine& machine, const std::string& path) {
    const auto value = read_value(machine.root + path);
    if (!value) return std::nullopt;
    return std::string(trimmed(*value));
}

std::vector<std::string> names_of(const Machine& machine, const std::string& path) {
    const auto names = list_directory(machine.root + path);
    return names ? *names : std::vector<std::string>{};
}

std::optional<std::uint64_t> number_of(std::string_view text, int base = 10) {
    std::uint64_t number = 0;
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), number, base);
    if (text.empty() || fault != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return number;
}

std::string text_at(const Json& object, const char* name) {
    const auto found = object.find(name);
    if (found == object.end() || found->is_null()) return {};
    return found->is_string() ? found->get<std::string>() : found->dump();
}

const Json& list_at(const Json& object, const char* name) {
    static const Json none = Json::array();
    const auto found = object.find(name);
    return found != object.end() && found->is_array() ? *found : none;
}

// ---- ports ----

struct Port {
    std::string device, number, state, physical_state;  // states as words: "ACTIVE", "LinkUp"
    bool is_ethernet = false;
    bool has_manager = true;              // a subnet manager has been there; counts for InfiniBand only
    std::vector<std::string> gids;        // without those that are 0
    std::vector<std::string> interfaces;  // of Ethernet
    std::vector<std::string> pkeys;
    [[nodiscard]] bool is_active() const { return state == "ACTIVE"; }
    [[nodiscard]] std::string name() const { return fmt::format("{} {}", device, number); }
};

// "4: ACTIVE"
std::string state_word(const std::optional<std::string>& value) {
    if (!value) return "unknown";
    const auto blank = value->rfind(' ');
    return blank == std::string::npos ? *value : value->substr(blank + 1);
}

std::vector<std::string> values_below(const Machine& machine, const std::string& directory) {
    std::vector<std::string> values;
    for (const std::string& name : names_of(machine, directory))
        if (const auto value = value_of(machine, directory + "/" + name); value && !value->empty())
            if (std::find(values.begin(), values.end(), *value) == values.end()) values.push_back(*value);
    return values;
}

std::vector<Port> ports_of(const Machine& machine) {
    std::vector<Port> ports;
    for (const std::string& device : names_of(machine, "/sys/class/infiniband"))
        for (const std::string& number : names_of(machine, "/sys/class/infiniband/" + device + "/ports")) {
            const std::string path = fmt::format("/sys/class/infiniband/{}/ports/{}", device, number);
            Port port{device,
                      number,
                      state_word(value_of(machine, path + "/state")),
                      state_word(value_of(machine, path + "/phys_state")),
                      false,
                      true,
                      {},
                      {},
                      {}};
            const auto manager = value_of(machine, path + "/sm_lid");
            port.has_manager = !manager || manager->find_first_not_of("0x") != std::string::npos;
            port.is_ethernet = value_of(machine, path + "/link_layer") == "Ethernet";
            port.gids = values_below(machine, path + "/gids");
            std::erase_if(port.gids,
                          [](const std::string& gid) { return gid.find_first_not_of("0:") == std::string::npos; });
            port.interfaces = values_below(machine, path + "/gid_attrs/ndevs");
            port.pkeys = values_below(machine, path + "/pkeys");
            ports.push_back(std::move(port));
        }
    return ports;
}

std::string joined(const std::vector<std::string>& words) {
    std::string text;
    for (const std::string& word : words) text += fmt::format("{}{}", text.empty() ? "" : ", ", word);
    return text;
}

Finding about(const Port& port, bool others_are_active) {
    const std::string subject = "port " + port.name();
    const std::string interfaces = port.interfaces.empty() ? "its network interface" : joined(port.interfaces);
    const auto bad = [&](std::string text, std::string advice) {
        return others_are_active ? note(subject, std::move(text), std::move(advice))
                                 : wrong(subject, std::move(text), std::move(advice));
    };
    if (port.is_active()) {
        if (!port.is_ethernet && !port.has_manager)
            return bad(
                "The port is active, but no subnet manager is known to it (SM LID 0), so no path can be asked for.",
                "Start a subnet manager in this fabric: on a switch, or opensm on one host.");
        if (!port.gids.empty())
            return good(subject, fmt::format("{} and active; {} GID{}, the first is {}.",
                                             port.is_ethernet ? "Ethernet" : "InfiniBand", port.gids.size(),
                                             port.gids.size() == 1 ? "" : "s", port.gids.front()));
        return bad("The port is active but has no GID, so nobody can be reached from it.",
                   port.is_ethernet
                       ? fmt::format("Give {} an address: ip address add ADDRESS/LENGTH dev INTERFACE.", interfaces)
                       : "The subnet manager assigns it: look at the subnet manager's log.");
    }
    if (port.is_ethernet)
        return bad(fmt::format("The port is {}: {} is down.", port.state, interfaces),
                   "Switch it on (ip link set INTERFACE up); if it is on, check cable and switch.");
    if (port.state == "INIT" || port.state == "ARMED")
        return bad(fmt::format("The port has a link, but no subnet manager has configured it (it is {}).", port.state),
                   "Start a subnet manager in this fabric: on a switch, or opensm on one host.");
    if (port.physical_state == "Disabled")
        return bad("The port is disabled.", "Enable it: ibportstate -D 0 PORT enable.");
    return bad(fmt::format("The port is {} ({}): nothing answers at the other end of its cable.", port.state,
                           port.physical_state),
               "Check the cable, and whether the other end is switched on.");
}

// ---- login strings ----

std::string item_of(std::string_view login, std::string_view wanted) {
    std::string value;
    for (const std::string_view part : split(login, ',')) {
        const std::string_view item = trimmed(part);
        const auto equals = item.find('=');
        if (equals != std::string_view::npos && trimmed(item.substr(0, equals)) == wanted)
            value = trimmed(item.substr(equals + 1));
    }
    return value;
}

Finding about_destination(const Machine& machine, const std::string& destination) {
    const auto colon = destination.rfind(':');
    std::string host = destination.substr(0, colon);
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    const std::string subject = "route to " + host;
    const Route route = machine.route_to(host);
    if (route.errno_value == EINVAL)
        return wrong(subject, fmt::format("{} is not a numeric IPv4 or IPv6 address.", host),
                     "Write dest=192.168.7.1:5555, or dest=[fd00::1]:5555.");
    if (route.errno_value != 0)
        return wrong(subject, fmt::format("There is no route to {} ({}).", host, std::strerror(route.errno_value)),
                     fmt::format("See what the kernel says: ip route get {}.", host));
    std::vector<std::string> with_rdma;
    for (const Port& port : ports_of(machine)) {
        for (const std::string& interface : port.interfaces) {
            with_rdma.push_back(fmt::format("{} ({})", interface, port.name()));
            if (interface != route.interface) continue;
            if (!port.is_active())
                return wrong(subject,
                             fmt::format("Packets to {} leave by {}, whose RDMA port {} is {}.", host, interface,
                                         port.name(), port.state),
                             "Check the interface, its cable and the switch.");
            return good(subject,
                        fmt::format("Packets to {} leave by {}, which is RDMA port {}.", host, interface, port.name()));
        }
    }
    if (route.interface.empty())
        return note(subject, fmt::format("There is a route to {}.", host),
                    "By which interface could not be found out.");
    return wrong(subject,
                 fmt::format("Packets to {} leave by {}, which has no RDMA device{}{}.", host, route.interface,
                             with_rdma.empty() ? "" : "; those that have one are ", joined(with_rdma)),
                 "Use an address of the target's that is in a network of an RDMA interface, or change the route.");
}

Findings about_gid(const Machine& machine, const std::string& dgid, const std::string& pkey) {
    std::string digits = dgid;
    std::erase(digits, ':');
    const std::string subject = "route to " + dgid;
    if (digits.size() != 32)
        return {wrong(subject, fmt::format("dgid has {} hexadecimal digits instead of 32.", digits.size()),
                      "Take it from: ibsrpdm -c.")};
    std::vector<std::string> prefixes;
    for (const Port& port : ports_of(machine)) {
        if (port.is_ethernet || !port.is_active() || port.gids.empty()) continue;
        std::string own = port.gids.front();
        std::erase(own, ':');
        prefixes.push_back(fmt::format("{} ({})", own.substr(0, 16), port.name()));
        if (own.substr(0, 16) != digits.substr(0, 16)) continue;
        Findings findings = {good(subject, fmt::format("It is in the subnet of port {}.", port.name()))};
        const auto wanted = number_of(pkey.starts_with("0x") ? pkey.substr(2) : pkey, 16);
        const bool has_key = std::any_of(port.pkeys.begin(), port.pkeys.end(), [&](const std::string& one) {
            const auto number = number_of(one.starts_with("0x") ? one.substr(2) : one, 16);
            return number && wanted && *number != 0 && (*number & 0x7fff) == (*wanted & 0x7fff);
        });
        if (wanted && !has_key)
            findings.push_back(wrong("pkey " + pkey, fmt::format("Port {} is not in this partition.", port.name()),
                                     "The subnet manager decides who is: its partitions.conf, or another pkey."));
        return findings;
    }
    return {wrong(subject,
                  fmt::format("No active InfiniBand port is in its subnet, {}{}{}.", digits.substr(0, 16),
                              prefixes.empty() ? "" : "; there are ", joined(prefixes)),
                  "Log in from a port of that subnet, or check dgid against: ibsrpdm -c.")};
}

// ---- this machine ----

int open_errno_here(const std::string& path) {
    const int descriptor = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) return errno;
    ::close(descriptor);
    return 0;
}

// Asks the kernel where packets would leave: connecting a datagram socket sends none.
Route route_from_here(const std::string& host) {
    addrinfo hints{};
    hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
    hints.ai_socktype = SOCK_DGRAM;
    addrinfo* found = nullptr;
    if (getaddrinfo(host.c_str(), "5555", &hints, &found) != 0 || !found) return {EINVAL, ""};
    Route route;
    const int descriptor = ::socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_storage local{};
    socklen_t length = sizeof local;
    if (descriptor < 0 || ::connect(descriptor, found->ai_addr, found->ai_addrlen) != 0 ||
        ::getsockname(descriptor, reinterpret_cast<sockaddr*>(&local), &length) != 0)
        route.errno_value = errno;
    if (descriptor >= 0) ::close(descriptor);
    freeaddrinfo(found);
    ifaddrs* all = nullptr;
    if (route.errno_value != 0 || getifaddrs(&all) != 0) return route;
    for (const ifaddrs* one = all; one; one = one->ifa_next) {
        if (!one->ifa_addr || one->ifa_addr->sa_family != local.ss_family) continue;
        const bool is_it =
            local.ss_family == AF_INET
                ? reinterpret_cast<const sockaddr_in*>(one->ifa_addr)->sin_addr.s_addr ==
                      reinterpret_cast<const sockaddr_in*>(&local)->sin_addr.s_addr
                : std::memcmp(&reinterpret_cast<const sockaddr_in6*>(one->ifa_addr)->sin6_addr,
                              &reinterpret_cast<const sockaddr_in6*>(&local)->sin6_addr, sizeof(in6_addr)) == 0;
        if (is_it) route.interface = one->ifa_name;
    }
    freeifaddrs(all);
    return route;
}

}  // namespace

Machine this_machine() { return {"", open_errno_here, route_from_here, geteuid()}; }

Findings check_fuse(const Machine& machine) {
    const int fault = machine.open_errno("/dev/fuse");
    if (fault == ENOENT || fault == ENODEV || fault == ENXIO)
        return {wrong("fuse", "There is no /dev/fuse: the kernel has no FUSE here.",
                      "Load it (modprobe fuse); in a container, pass the device /dev/fuse in.")};
    if (fault == EPERM)
        return {wrong("fuse", "/dev/fuse must not be opened here: Operation not permitted.",
                      "This is what containers say: allow the device (docker run --device /dev/fuse), or in a unit "
                      "DeviceAllow=/dev/fuse rw.")};
    if (fault != 0)
        return {wrong("fuse", fmt::format("/dev/fuse cannot be opened: {}.", std::strerror(fault)),
                      "Run srpfs as root, or see who may use the device: ls -l /dev/fuse.")};
    return {good("fuse", "/dev/fuse can be opened.")};
}

Findings check_devices(const Machine& machine, bool is_needed) {
    const auto devices = names_of(machine, "/sys/class/infiniband");
    if (devices.empty()) {
        const std::string text = "There is no RDMA device.";
        const std::string advice =
            "Load the adapter's driver (lspci, dmesg), or make a software device: rdma link add rxe0 type rxe netdev "
            "INTERFACE.";
        return {is_needed ? wrong("RDMA device", text, advice)
                          : note("RDMA device", text + " Only the demo works.", advice)};
    }
    Findings findings = {
        good("RDMA device", fmt::format("There {} {}.", devices.size() == 1 ? "is" : "are", joined(devices)))};
    std::vector<std::string> nodes;
    for (const std::string& name : names_of(machine, "/dev/infiniband"))
        if (name.starts_with("uverbs")) nodes.push_back(name);
    if (nodes.empty())
        findings.push_back(wrong("verbs", "There is no /dev/infiniband/uverbs*: programs cannot use the device.",
                                 "Load the module (modprobe ib_uverbs); in a container, pass /dev/infiniband in."));
    for (const std::string& name : nodes)
        if (const int fault = machine.open_errno("/dev/infiniband/" + name); fault != 0)
            findings.push_back(
                wrong("verbs", fmt::format("/dev/infiniband/{} cannot be opened: {}.", name, std::strerror(fault)),
                      "Run srpfs as root, or join the group that has it: ls -l /dev/infiniband."));
    const int fault = machine.open_errno("/dev/infiniband/rdma_cm");
    if (fault == ENOENT)
        findings.push_back(wrong("connection manager", "There is no /dev/infiniband/rdma_cm: programs cannot connect.",
                                 "Load the module: modprobe rdma_ucm."));
    else if (fault != 0)
        findings.push_back(wrong("connection manager",
                                 fmt::format("/dev/infiniband/rdma_cm cannot be opened: {}.", std::strerror(fault)),
                                 "Run srpfs as root, or join the group that has it: ls -l /dev/infiniband."));
    const auto ports = ports_of(machine);
    const auto files = names_of(machine, "/dev/infiniband");
    if (std::any_of(ports.begin(), ports.end(), [](const Port& port) { return !port.is_ethernet; }) &&
        std::none_of(files.begin(), files.end(), [](const std::string& name) { return name.starts_with("umad"); }))
        findings.push_back(note("subnet", "There is no /dev/infiniband/umad*: ibsrpdm cannot look for targets.",
                                "Load the module: modprobe ib_umad."));
    if (findings.size() == 1) findings.push_back(good("verbs", "Programs may use the device, and connect."));
    return findings;
}

Findings check_ports(const Machine& machine) {
    const auto ports = ports_of(machine);
    Findings findings;
    for (const Port& port : ports) {
        const bool others = std::any_of(ports.begin(), ports.end(), [&](const Port& other) {
            return &other != &port && other.is_active() && !other.gids.empty();
        });
        findings.push_back(about(port, others));
    }
    return findings;
}

std::optional<std::uint64_t> locked_memory_of(const std::string& directory) {
    const auto status = read_file(directory + "/status"), limits = read_file(directory + "/limits");
    if (!status || !limits) return std::nullopt;
    for (const std::string_view line : split(*status, '\n'))
        if (line.starts_with("CapEff:"))
            if (const auto set = number_of(trimmed(line.substr(7)), 16); set && (*set >> capability_ipc_lock & 1) != 0)
                return UINT64_MAX;
    for (const std::string_view line : split(*limits, '\n')) {
        constexpr std::string_view title = "Max locked memory";
        if (!line.starts_with(title)) continue;
        const std::string_view rest = trimmed(line.substr(title.size()));
        return number_of(rest.substr(0, rest.find(' '))).value_or(UINT64_MAX);  // "unlimited"
    }
    return std::nullopt;
}

Findings check_locked_memory(const Machine& machine) {
    const auto limit = locked_memory_of(machine.root + "/proc/self");
    if (!limit) return {};
    if (*limit == UINT64_MAX) return {good("locked memory", "This user may lock any amount of it.")};
    if (*limit >= memory_needed) return {good("locked memory", fmt::format("{} may be locked.", human_bytes(*limit)))};
    return {wrong("locked memory",
                  fmt::format("Only {} may be locked by this user, and srpfs needs about {} for each reactor.",
                              human_bytes(*limit), human_bytes(memory_needed)),
                  fmt::format("Raise it: ulimit -l unlimited, memlock in /etc/security/limits.conf, or "
                              "LimitMEMLOCK=infinity in a unit{}.",
                              *limit < memory_least ? "" : "; or mount with -o memory=24M"))};
}

Findings check_kernel(const Machine& machine) {
    Findings findings;
    const auto number_in = [&](const char* path) {
        const auto value = value_of(machine, path);
        return value ? number_of(*value) : std::nullopt;
    };
    if (const auto pages = number_in("/proc/sys/fs/fuse/max_pages_limit"); pages && *pages < pages_of_a_request)
        findings.push_back(
            note("kernel",
                 fmt::format("Requests are cut at {} pages (fs.fuse.max_pages_limit), which makes large ones slower.",
                             *pages),
                 fmt::format("sysctl fs.fuse.max_pages_limit={}", pages_of_a_request)));
    for (const char* name : {"default_request_timeout", "max_request_timeout"})
        if (const auto seconds = number_in(fmt::format("/proc/sys/fs/fuse/{}", name).c_str()); seconds && *seconds != 0)
            findings.push_back(
                wrong("kernel",
                      fmt::format(
                          "The kernel ends a FUSE mount when a request takes longer than {} s (fs.fuse.{}), and I/O of "
                          "a target that is lost takes as long as fast_io_fail_tmo.",
                          *seconds, name),
                      fmt::format("sysctl fs.fuse.{}=0, then mount again", name)));
    const auto offer = value_of(machine, "/sys/module/fuse/parameters/enable_uring");
    if (const auto disabled = number_in("/proc/sys/kernel/io_uring_disabled"); offer && disabled && *disabled != 0)
        findings.push_back(note("kernel",
                                fmt::format("Programs may not use io_uring (kernel.io_uring_disabled={}), so srpfs "
                                            "takes requests from /dev/fuse only.",
                                            *disabled),
                                "sysctl kernel.io_uring_disabled=0, for -o io_uring=on"));
    if (findings.empty()) findings.push_back(good("kernel", "Its settings for FUSE are fine."));
    return findings;
}

namespace {

// ", whose port is blocked": what the transport class says of a login of ib_srp's; empty while it runs.
std::string remote_port_of(const Machine& machine, const std::string& host) {
    const auto state = value_of(machine, fmt::format("/sys/class/srp_remote_ports/port-{}:1/state",
                                                     host.substr(std::min(host.size(), std::strlen("host")))));
    return state && *state != "running" ? fmt::format(", and its remote port is {}", *state) : "";
}

}  // namespace

Findings check_ib_srp(const Machine& machine) {
    Findings findings;
    for (const std::string& host : names_of(machine, "/sys/class/scsi_host")) {
        const std::string path = "/sys/class/scsi_host/" + host;
        const auto id_ext = value_of(machine, path + "/id_ext"), ioc_guid = value_of(machine, path + "/ioc_guid");
        if (!id_ext || !ioc_guid) continue;
        findings.push_back(
            note("ib_srp",
                 fmt::format("The kernel's ib_srp ({}) is logged in to id_ext={},ioc_guid={} through {} port {}{}.",
                             host, *id_ext, *ioc_guid, value_of(machine, path + "/local_ib_device").value_or("?"),
                             value_of(machine, path + "/local_ib_port").value_or("?"), remote_port_of(machine, host)),
                 "srpfs can log in to the same target from there with another initiator_ext only."));
    }
    return findings;
}

namespace {

std::string advice_or(const std::string& reason, const char* usual) {
    const std::string advice = advice_about(reason);
    return advice.empty() ? usual : advice;
}

}  // namespace

namespace {

// Why a target does not run: what has ended its connections, and not what a timer made of that.
std::string reason_of(const Json& target) {
    const Json& history = list_at(target, "history");
    for (auto change = history.rbegin(); change != history.rend(); ++change)
        if (text_at(*change, "from") == "running") return text_at(*change, "reason");
    return text_at(target, "last_error");
}

}  // namespace

Findings check_mount(const Json& mount) {
    const std::string path = text_at(mount, "path"), last_error = text_at(mount, "last_error");
    Findings findings;
    if (list_at(mount, "targets").empty()) {
        if (last_error.empty())
            findings.push_back(note(path, "No target is logged in to.", "See: srpctl login --help."));
        else
            findings.push_back(wrong(path,
                                     fmt::format("No target is logged in to. The last attempt failed: {}", last_error),
                                     advice_or(last_error, "When that is put right: srpctl login.")));
    } else if (!last_error.empty()) {
        findings.push_back(note(path, fmt::format("The last command or login that failed: {}", last_error),
                                advice_or(last_error, "It may be over; srpctl list shows what there is.")));
    }
    for (const Json& target : list_at(mount, "targets")) {
        const std::string name = text_at(target, "port") + "/" + text_at(target, "name");
        const std::string state = text_at(target, "state"), reason = reason_of(target);
        const std::string because = reason.empty() ? "." : ": " + reason;
        if (state != "running") {
            const bool waits = state == "blocked";
            const std::string limit = text_at(target, waits ? "fast_io_fail_tmo" : "dev_loss_tmo");
            const std::string next =
                waits ? (limit.empty() ? "I/O waits for ever, since fast_io_fail_tmo is off."
                                       : fmt::format("I/O fails after {} s (fast_io_fail_tmo).", limit))
                      : (limit.empty() ? "Its files stay, since dev_loss_tmo is off."
                                       : fmt::format("Its files vanish {} s after the loss (dev_loss_tmo).", limit));
            findings.push_back(
                wrong(name,
                      fmt::format("The connection to {} is lost and I/O {}{}", text_at(target, "address"),
                                  waits ? "waits" : "fails", because),
                      fmt::format("srpfs tries again by itself ({} attempts have failed). {} {}",
                                  text_at(target, "failed_reconnects"),
                                  advice_or(reason, "Check whether the target runs and is reachable."), next)));
            continue;
        }
        bool is_fine = true;
        if (list_at(target, "luns").empty()) {
            is_fine = false;
            findings.push_back(wrong(name, "The target has accepted the login and shows no LUN.",
                                     fmt::format("It may have no LUN for this initiator: see its ACLs and LUN maps for "
                                                 "an initiator port with GID {}. Then: srpctl rescan.",
                                                 text_at(target, "sgid"))));
        }
        for (const Json& lun : list_at(target, "luns")) {
            const std::string lun_state = text_at(lun, "state"), lun_reason = text_at(lun, "last_error");
            const std::string subject = name + "/" + text_at(lun, "name");
            const auto counters = lun.find("counters");
            const std::string errors = counters == lun.end() ? "" : text_at(*counters, "errors");
            if (lun_state != "running") {
                findings.push_back(
                    wrong(subject,
                          fmt::format("The LUN is {} although its target runs{}", lun_state,
                                      lun_reason.empty() ? "." : ": " + lun_reason),
                          advice_or(lun_reason, "Look at the device at the target; then: srpctl rescan.")));
                is_fine = false;
            } else if (!errors.empty() && errors != "0") {
                findings.push_back(note(subject,
                                        fmt::format("{} requests have failed{}", errors,
                                                    lun_reason.empty() ? "." : ". The last: " + lun_reason),
                                        advice_or(lun_reason, "srpctl events shows new ones.")));
                is_fine = false;
            }
        }
        if (is_fine)
            findings.push_back(good(name, fmt::format("Runs, with {} LUN{}.", list_at(target, "luns").size(),
                                                      list_at(target, "luns").size() == 1 ? "" : "s")));
    }
    return findings;
}

Findings check_login(const Machine& machine, std::string_view login) {
    Findings findings;
    const auto name = directory_of_login(login);
    if (!name)
        findings.push_back(wrong("login string", "id_ext and ioc_guid are missing, or are no hexadecimal numbers.",
                                 "Take the line from: ibsrpdm -c; srpfs(8), LOGIN STRINGS, has the grammar."));
    const std::string destination = item_of(login, "dest"), dgid = item_of(login, "dgid");
    if (!destination.empty()) {
        if (!destination.starts_with("demo")) findings.push_back(about_destination(machine, destination));
    } else if (!dgid.empty()) {
        const Findings more = about_gid(machine, dgid, item_of(login, "pkey"));
        findings.insert(findings.end(), more.begin(), more.end());
    } else {
        findings.push_back(wrong("login string", "It has neither dest nor dgid, so there is no address in it.",
                                 "Add dest=ADDRESS:PORT, or dgid, pkey and service_id as ibsrpdm -c prints them."));
    }
    if (!name) return findings;
    for (Finding& one : check_locks(machine, login)) findings.push_back(std::move(one));
    for (const std::string& host : names_of(machine, "/sys/class/scsi_host")) {
        const std::string path = "/sys/class/scsi_host/" + host;
        const auto id_ext = value_of(machine, path + "/id_ext"), ioc_guid = value_of(machine, path + "/ioc_guid");
        if (!id_ext || !ioc_guid ||
            directory_of_login(fmt::format("id_ext={},ioc_guid={}", *id_ext, *ioc_guid)) != *name)
            continue;
        findings.push_back(wrong(
            "ib_srp",
            fmt::format("The kernel's ib_srp ({}) is logged in to this target with the same initiator_ext{}.", host,
                        remote_port_of(machine, host)),
            fmt::format("Log it out (echo 1 > /sys/class/srp_remote_ports/port-{}:1/delete), or add initiator_ext=1 to "
                        "the login string.",
                        host.substr(host.find_first_of("0123456789")))));
    }
    return findings;
}

// ---- saying it ----

namespace {

const char* word_of(Verdict verdict) {
    switch (verdict) {
        case Verdict::good: return "good";
        case Verdict::note: return "note";
        case Verdict::wrong: return "wrong";
    }
    return "";
}

}  // namespace

Json why_document(const Findings& findings) {
    Json document;
    document["schema"] = json_schema;
    document["findings"] = Json::array();
    for (const Finding& one : findings)
        document["findings"].push_back(Json{
            {"verdict", word_of(one.verdict)}, {"subject", one.subject}, {"text", one.text}, {"advice", one.advice}});
    return document;
}

Findings findings_of(std::string_view text) {
    const Json document = Json::parse(text, nullptr, false);
    Findings findings;
    if (!document.is_object()) return findings;
    for (const Json& one : list_at(document, "findings")) {
        Finding finding{Verdict::good, text_at(one, "subject"), text_at(one, "text"), text_at(one, "advice")};
        for (const Verdict verdict : {Verdict::note, Verdict::wrong})
            if (text_at(one, "verdict") == word_of(verdict)) finding.verdict = verdict;
        findings.push_back(std::move(finding));
    }
    return findings;
}

std::string render_why(const Findings& findings, Format format, const Screen& screen) {
    if (format == Format::json) return json_text(why_document(findings));
    std::string text;
    if (format == Format::plain) {
        for (const Finding& one : findings)
            text += fmt::format("{}\t{}\t{}\t{}\n", word_of(one.verdict), printable(one.subject, Charset::utf8),
                                printable(one.text, Charset::utf8),
                                one.advice.empty() ? "-" : printable(one.advice, Charset::utf8));
        return text;
    }
    constexpr std::size_t indent = 7;  // "wrong  "
    std::size_t count = 0;
    for (const Finding& one : findings) {
        const Paint paint = one.verdict == Verdict::good   ? Paint::good
                            : one.verdict == Verdict::note ? Paint::warning
                                                           : Paint::bad;
        count += one.verdict == Verdict::wrong;
        const std::string word = word_of(one.verdict);
        const std::string sentence = printable(fmt::format("{}: {}", one.subject, one.text), screen.charset);
        text += fmt::format("{}{:{}}{}\n", painted(word, paint, screen), "", indent - word.size(),
                            wrapped(sentence, screen.width, indent));
        if (!one.advice.empty()) {
            const std::string advice = printable("Do: " + one.advice, screen.charset);
            text += fmt::format("{:{}}{}\n", "", indent, wrapped(advice, screen.width, indent));
        }
    }
    text += count == 0   ? "\nNothing is wrong as far as this can be seen from here.\n"
            : count == 1 ? "\nOne thing is wrong.\n"
                         : fmt::format("\n{} things are wrong.\n", count);
    return text;
}

}  // namespace srpfs::ctl
