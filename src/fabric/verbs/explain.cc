// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "explain.h"

#include <fmt/format.h>

#include <infiniband/verbs.h>

#include <sys/resource.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

namespace srpfs::fabric::verbs {
namespace {

namespace stdfs = std::filesystem;

std::string errno_text(int errno_value) { return std::generic_category().message(errno_value); }

End make_end(EndReason reason, int errno_value, std::string text) {
    End end;
    end.reason = reason;
    end.errno_value = errno_value;
    end.text = std::move(text);
    return end;
}

constexpr const char* device_permission_hint =
    "no permission to use /dev/infiniband/uverbs*: run as root, or give the user read and write access to it";

}  // namespace

Environment observe_environment() {
    Environment environment;
    const char* cm_node = "/dev/infiniband/rdma_cm";
    environment.has_cm_node = access(cm_node, F_OK) == 0;
    environment.may_use_cm_node = access(cm_node, R_OK | W_OK) == 0;
    std::error_code ignored;
    environment.has_device = stdfs::directory_iterator("/sys/class/infiniband", ignored) != stdfs::directory_iterator();
    int count = 0;
    if (ibv_device** list = ibv_get_device_list(&count)) ibv_free_device_list(list);
    environment.has_user_device = count > 0;
    for (const auto& node : stdfs::directory_iterator("/dev/infiniband", ignored))
        if (node.path().filename().string().starts_with("uverbs") && access(node.path().c_str(), R_OK | W_OK) != 0)
            environment.may_use_devices = false;
    return environment;
}

Error cm_unavailable(int errno_value, const Environment& environment) {
    if (!environment.has_device)
        return {ENODEV,
                "this machine has no RDMA device (nothing in /sys/class/infiniband): load the driver of the "
                "adapter, or make a software device with 'rdma link add rxe0 type rxe netdev IFNAME'"};
    if (!environment.has_cm_node)
        return {ENOENT, "there is no /dev/infiniband/rdma_cm: the module rdma_ucm is not loaded ('modprobe rdma_ucm')"};
    if (!environment.may_use_cm_node)
        return {EACCES,
                "no permission to use /dev/infiniband/rdma_cm: run as root, or give the user read and write "
                "access to it"};
    if (!environment.has_user_device)
        return {ENODEV,
                "the kernel has an RDMA device, but libibverbs does not know it: the module ib_uverbs is not "
                "loaded, or the package ibverbs-providers is missing"};
    return {errno_value, fmt::format("opening the RDMA connection manager failed: {}", errno_text(errno_value))};
}

Error device_not_opened(const std::string& device, int errno_value, const Environment& environment) {
    if (!environment.may_use_devices)
        return {EACCES, fmt::format("cannot open RDMA device {}: {}", device, device_permission_hint)};
    return {errno_value, fmt::format("cannot open RDMA device {}: {}", device, errno_text(errno_value))};
}

std::string bytes_text(std::uint64_t bytes) {
    const char* unit = "bytes";
    std::uint64_t factor = 1;
    for (const char* larger : {"KiB", "MiB", "GiB", "TiB"}) {
        if (bytes / factor < 1024) break;
        factor *= 1024;
        unit = larger;
    }
    if (bytes % factor == 0) return fmt::format("{} {}", bytes / factor, unit);
    return fmt::format("{:.1f} {}", static_cast<double>(bytes) / static_cast<double>(factor), unit);
}

Error memory_not_registered(const std::string& device, int errno_value, const MemoryLimit& limit) {
    const std::string what = fmt::format("cannot register {} of memory with {}: {}", bytes_text(limit.bytes), device,
                                         errno_text(errno_value));
    if ((errno_value != ENOMEM && errno_value != EAGAIN && errno_value != EPERM) || limit.limit_bytes == UINT64_MAX)
        return {errno_value, what};
    return {
        errno_value,
        fmt::format("{}; the limit on locked memory (RLIMIT_MEMLOCK) is {} and {} are needed: raise it ('ulimit -l', "
                    "LimitMEMLOCK= in a systemd unit, memlock in /etc/security/limits.conf), run as root, or use "
                    "less memory",
                    what, bytes_text(limit.limit_bytes), bytes_text(limit.total_bytes))};
}

std::uint64_t locked_memory_limit() {
    rlimit limit{};
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
    return limit.rlim_cur;
}

End address_error(const std::string& peer, int status, const Environment& environment) {
    const int errno_value = status == -1 || status == 0 ? ENODEV : -status;
    if (status == -1 && !environment.may_use_devices)
        return make_end(EndReason::local_error, EACCES, fmt::format("{}: {}", peer, device_permission_hint));
    const char* why = "";
    if (errno_value == ENODEV)
        why = ": the interface that routes there belongs to no RDMA device, or its port is down";
    else if (errno_value == ENETUNREACH)
        why = ": no route";
    else if (errno_value == EHOSTUNREACH || errno_value == ETIMEDOUT)
        why = ": no answer to ARP or neighbour discovery";
    return make_end(EndReason::address_unresolved, errno_value,
                    fmt::format("{}: the address was not resolved ({}){}", peer, errno_text(errno_value), why));
}

End route_error(const std::string& peer, int status) {
    const int errno_value = status < -1 ? -status : status > 0 ? EHOSTUNREACH : ENODEV;
    return make_end(
        EndReason::route_unresolved, errno_value,
        fmt::format("{}: no path there ({})", peer,
                    status > 0 ? fmt::format("subnet administrator's status {}", status) : errno_text(errno_value)));
}

End unreachable(const std::string& peer, int status) {
    const int errno_value = status < -1 ? -status : ETIMEDOUT;
    return make_end(EndReason::unreachable, errno_value,
                    fmt::format("{}: no answer to the connect request ({})", peer, errno_text(errno_value)));
}

const char* reject_reason_text(int reason) {
    switch (reason) {
        case 1: return "no queue pair available";
        case 2: return "no end-to-end context available";
        case 3: return "no resources";
        case 4: return "timeout";
        case 5: return "unsupported request";
        case 6: return "invalid communication id";
        case 7: return "invalid communication instance";
        case 8: return "invalid service id: nobody listens there";
        case 9: return "invalid transport service type";
        case 10: return "stale connection";
        case 11: return "no reliable datagram channel";
        case 12: return "primary GID rejected";
        case 13: return "primary LID rejected";
        case 14: return "invalid primary service level";
        case 15: return "invalid primary traffic class";
        case 16: return "invalid primary hop limit";
        case 17: return "primary packet rate rejected";
        case 18: return "alternate GID rejected";
        case 19: return "alternate LID rejected";
        case 20: return "invalid alternate service level";
        case 21: return "invalid alternate traffic class";
        case 22: return "invalid alternate hop limit";
        case 23: return "alternate packet rate rejected";
        case 24: return "redirected to another port and connection manager";
        case 25: return "redirected to another port";
        case 26: return "invalid path MTU";
        case 27: return "insufficient responder resources";
        case 28: return "refused by the application";
        case 29: return "receiver-not-ready retries rejected";
        case 30: return "duplicate local communication id";
        case 31: return "invalid class version";
        case 32: return "invalid flow label";
        case 33: return "invalid alternate flow label";
        case 35: return "vendor option not supported";
        default: return "unknown reason";
    }
}

End rejected(const std::string& peer, int status, std::span<const std::byte> private_data) {
    // iWARP knows no reasons. With private data it was the application that refused.
    const int reason = status >= 0 ? status : 28;
    End end =
        make_end(EndReason::rejected, reason == 10 || reason == 30 ? ECONNRESET : ECONNREFUSED,
                 fmt::format("{}: connection rejected (reason {}, {})", peer, reason, reject_reason_text(reason)));
    end.cm_reason = reason;
    end.private_data = private_data;
    return end;
}

End port_down(const LocalPort& port) {
    return make_end(
        EndReason::transport_error, ENETDOWN,
        fmt::format("local port {} {} is not active: check cable, switch and interface", port.device, port.port));
}

const char* to_string(Operation operation) {
    switch (operation) {
        case Operation::receive: return "receive";
        case Operation::send: return "send";
        case Operation::rdma_read: return "RDMA read";
        case Operation::rdma_write: return "RDMA write";
        case Operation::bind: return "binding of a memory window";
        case Operation::invalidate: return "invalidation of a memory window";
    }
    return "?";
}

End completion_error(const std::string& peer, Operation operation, int status, std::uint32_t vendor_error) {
    int errno_value = EIO;
    const char* why = "";
    switch (status) {
        case IBV_WC_RETRY_EXC_ERR:
            errno_value = ETIMEDOUT;
            why = ": the peer does not acknowledge any more";
            break;
        case IBV_WC_RNR_RETRY_EXC_ERR:
            errno_value = ETIMEDOUT;
            why = ": the peer has no receive buffers";
            break;
        case IBV_WC_REM_ACCESS_ERR:
            errno_value = EACCES;
            why = ": the peer refused access to its memory";
            break;
        case IBV_WC_REM_INV_REQ_ERR:
        case IBV_WC_REM_OP_ERR: why = ": the peer could not handle it"; break;
        case IBV_WC_LOC_LEN_ERR:
            errno_value = EMSGSIZE;
            why = ": a message was longer than its buffer";
            break;
        case IBV_WC_WR_FLUSH_ERR:
            errno_value = ECONNRESET;
            why = ": the queue pair was in error before";
            break;
        default: break;
    }
    return make_end(EndReason::transport_error, errno_value,
                    fmt::format("{}: {} failed: {} ({}, vendor error 0x{:x}){}", peer, to_string(operation),
                                ibv_wc_status_str(static_cast<ibv_wc_status>(status)), status, vendor_error, why));
}

}  // namespace srpfs::fabric::verbs
