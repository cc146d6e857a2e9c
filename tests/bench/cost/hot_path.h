// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Requests through everything of srpfs that is not the kernel: FuseChannel, unit, initiator, loopback fabric, embedded
// target (a null unit) and back, on one thread, with a clock that stands still, so that each run executes the same
// instructions.
//
// The kernel is played by what the linker's --wrap puts in the place of its calls: the descriptor of /dev/fuse by
// __wrap_read() and __wrap_writev() (kernel.cc), io_uring by functions of liburing's names (ring_kernel.cc). They copy
// no data: in reality the kernel does.

#pragma once

#include "fuse_channel.h"
#include "world.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace srpfs::cost {

using fs::FuseChannel, fs::LunData, fs::NodeId, fs::OpenFileDetails, fs::OpenFiles, fs::Origin;

inline constexpr std::uint32_t kib = 1024, mib = 1024 * kib;
inline constexpr std::uint64_t unit_bytes = std::uint64_t{1} << 30;

// What a mount's options make of a request's way.
enum class Way : std::uint8_t {
    plain,   // the descriptor, one reactor, register=pool
    window,  // register=window
    ring,    // io_uring=on
    helper,  // a reactor that is not the unit's home has read it, and gives the answer
    pair,    // to two units of one target in turn, which share its places
};
inline constexpr Way ways[] = {Way::plain, Way::window, Way::ring, Way::helper, Way::pair};

struct Case {
    std::string_view name;
    Way way;
    std::uint32_t opcode;
    std::uint32_t bytes;
    unsigned depth;
    unsigned batches;  // measured, of `depth` requests each
};
inline constexpr Case cases[] = {
    {"read-512-qd32", Way::plain, FUSE_READ, 512, 32, 32},
    {"read-512-qd1", Way::plain, FUSE_READ, 512, 1, 256},
    {"read-4k-qd32", Way::plain, FUSE_READ, 4 * kib, 32, 32},
    {"read-4k-qd1", Way::plain, FUSE_READ, 4 * kib, 1, 256},
    {"write-4k-qd32", Way::plain, FUSE_WRITE, 4 * kib, 32, 32},
    {"write-4k-qd1", Way::plain, FUSE_WRITE, 4 * kib, 1, 256},
    {"read-1m-qd32", Way::plain, FUSE_READ, mib, 32, 2},
    {"read-1m-qd1", Way::plain, FUSE_READ, mib, 1, 32},
    {"write-1m-qd32", Way::plain, FUSE_WRITE, mib, 32, 2},
    {"write-1m-qd1", Way::plain, FUSE_WRITE, mib, 1, 32},
    // 4 KiB writes travel in the message and need no window.
    {"window-read-4k-qd32", Way::window, FUSE_READ, 4 * kib, 32, 32},
    {"window-read-4k-qd1", Way::window, FUSE_READ, 4 * kib, 1, 256},
    {"window-read-1m-qd1", Way::window, FUSE_READ, mib, 1, 32},
    {"window-write-1m-qd1", Way::window, FUSE_WRITE, mib, 1, 32},
    {"ring-read-4k-qd32", Way::ring, FUSE_READ, 4 * kib, 32, 32},
    {"ring-read-4k-qd1", Way::ring, FUSE_READ, 4 * kib, 1, 256},
    {"ring-write-4k-qd32", Way::ring, FUSE_WRITE, 4 * kib, 32, 32},
    {"ring-write-4k-qd1", Way::ring, FUSE_WRITE, 4 * kib, 1, 256},
    {"ring-read-1m-qd1", Way::ring, FUSE_READ, mib, 1, 32},
    {"ring-write-1m-qd1", Way::ring, FUSE_WRITE, mib, 1, 32},
    {"helper-read-4k-qd32", Way::helper, FUSE_READ, 4 * kib, 32, 32},
    {"helper-read-4k-qd1", Way::helper, FUSE_READ, 4 * kib, 1, 256},
    {"helper-write-4k-qd32", Way::helper, FUSE_WRITE, 4 * kib, 32, 32},
    {"helper-read-1m-qd1", Way::helper, FUSE_READ, mib, 1, 32},
    {"helper-write-1m-qd1", Way::helper, FUSE_WRITE, mib, 1, 32},
    {"pair-read-4k-qd32", Way::pair, FUSE_READ, 4 * kib, 32, 32},
    {"pair-write-4k-qd32", Way::pair, FUSE_WRITE, 4 * kib, 32, 32},
    // More than there are places, so units wait for their turn.
    {"pair-read-4k-qd96", Way::pair, FUSE_READ, 4 * kib, 96, 16},
};

// What the kernel would have in its queue, and what it gets back.
struct Kernel {
    int fd = -1;  // requests are read from it
    Case now{};
    std::vector<std::uint64_t> handles;  // of the files, which get requests in turn
    std::uint64_t next_offset = 0;
    std::uint64_t unique = 0;
    unsigned waiting = 0;
    unsigned unanswered = 0;
};
extern Kernel kernel;

// The next request's header and argument.
struct RequestHead {
    fuse_in_header header{};
    fuse_read_in read{};
    fuse_write_in write{};
    [[nodiscard]] bool is_read() const { return header.opcode == FUSE_READ; }
};
[[nodiscard]] RequestHead next_request();
// Ends the program if that is not what the request is to be answered with. `bytes`: with the header.
void take_answer(const fuse_out_header& header, std::size_t bytes);

// ring_kernel.cc: tells the ring that requests wait. Nothing without one.
void tell_ring();
// Why there are no cases of Way::ring; empty if there are.
[[nodiscard]] std::string ring_missing();

struct Host final : fs::ChannelHost {
    void on_control_request(const Origin&, std::vector<std::byte>) override {}
    void on_control_interrupt(const Origin&) override {}
    void on_disconnected(unsigned, int) override {}
    void on_drop_pages(unsigned, fs::NodeId, std::vector<lun::ByteRange>, std::uint64_t) override {}
};

class Path {
public:
    explicit Path(Way way);
    ~Path();
    Path(const Path&) = delete;
    Path& operator=(const Path&) = delete;

    // Warms up.
    void begin(const Case& one);
    void run(unsigned batches);

private:
    Host host_;
    OpenFiles files_;
    Random random_{1};
    fs::test::World world_;
    std::vector<std::shared_ptr<LunData>> luns_;
    std::shared_ptr<FuseChannel> channel_;  // the unit's home
    std::unique_ptr<lun::Engine> reader_engine_;
    std::shared_ptr<FuseChannel> reader_;  // or nobody
};

}  // namespace srpfs::cost
