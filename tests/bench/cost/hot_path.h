// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Requests through everything of srpfs that is not the kernel: FuseChannel, unit, initiator, loopback fabric, embedded
// target (a null unit) and back, on one thread, with a clock that stands still, so that each run executes the same
// instructions.
//
// The descriptor of /dev/fuse is played by __wrap_read() and __wrap_writev() (the linker's --wrap; kernel.cc), which
// copy no data: in reality the kernel does.

#pragma once

#include "fuse_channel.h"
#include "world.h"

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include <fcntl.h>

namespace srpfs::cost {

using fs::FuseChannel, fs::LunData, fs::NodeId, fs::OpenFileDetails, fs::OpenFiles, fs::Origin;

inline constexpr std::uint32_t kib = 1024, mib = 1024 * kib;
inline constexpr std::uint64_t unit_bytes = std::uint64_t{1} << 30;

struct Case {
    std::string_view name;
    std::uint32_t opcode;
    std::uint32_t bytes;
    unsigned depth;
    unsigned batches;  // measured, of `depth` requests each
};
inline constexpr Case cases[] = {
    {"read-512-qd32", FUSE_READ, 512, 32, 32},      {"read-512-qd1", FUSE_READ, 512, 1, 256},
    {"read-4k-qd32", FUSE_READ, 4 * kib, 32, 32},   {"read-4k-qd1", FUSE_READ, 4 * kib, 1, 256},
    {"write-4k-qd32", FUSE_WRITE, 4 * kib, 32, 32}, {"write-4k-qd1", FUSE_WRITE, 4 * kib, 1, 256},
    {"read-1m-qd32", FUSE_READ, mib, 32, 2},        {"read-1m-qd1", FUSE_READ, mib, 1, 32},
    {"write-1m-qd32", FUSE_WRITE, mib, 32, 2},      {"write-1m-qd1", FUSE_WRITE, mib, 1, 32},
};

// What the kernel would have in its queue, and what it gets back.
struct Kernel {
    int fd = -1;
    Case now{};
    std::uint64_t handle = 0;
    std::uint64_t next_offset = 0;
    std::uint64_t unique = 0;
    unsigned waiting = 0;
    unsigned unanswered = 0;
};
extern Kernel kernel;

struct Host final : fs::ChannelHost {
    void on_control_request(const Origin&, std::vector<std::byte>) override {}
    void on_control_interrupt(const Origin&) override {}
    void on_disconnected(unsigned, int) override {}
    void on_drop_pages(unsigned, fs::NodeId, std::vector<lun::ByteRange>, std::uint64_t) override {}
};

struct Path {
    Path() {
        lun->unit = &world.unit();
        lun->capacity_bytes = world.unit().info()->capacity_bytes();
        OpenFileDetails details;
        details.node = NodeId{2};
        details.lun = lun;
        details.writable = true;
        kernel.handle = files.open(std::move(details));
        kernel.fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        channel = std::make_shared<FuseChannel>(0, kernel.fd, world.engine(), files, host);
        world.source = [this] { return channel->poll(); };
    }
    ~Path() {
        kernel.fd = -1;
        channel->leave();
        channel.reset();
        world.source = nullptr;
    }

    // Warms up.
    void begin(const Case& one) {
        kernel.now = one;
        run(2);
        kernel.next_offset = 0;
    }
    void run(unsigned batches) {
        for (unsigned i = 0; i < batches; ++i) {
            kernel.waiting = kernel.unanswered = kernel.now.depth;
            while (kernel.unanswered > 0) (void)world.turn();
        }
        world.settle();
    }

    static fs::test::WorldSizes sizes() {
        fs::test::WorldSizes sizes;
        sizes.engine = {};
        sizes.staging = {};
        sizes.queue_depth = 62;
        return sizes;
    }

    Host host;
    OpenFiles files;
    fs::test::World world{std::vector<target::LunConfig>{{.kind = target::StoreKind::null, .bytes = unit_bytes}},
                          sizes()};
    std::shared_ptr<LunData> lun = std::make_shared<LunData>();
    std::shared_ptr<FuseChannel> channel;
};

}  // namespace srpfs::cost
