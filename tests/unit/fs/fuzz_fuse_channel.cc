// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Arbitrary bytes as FUSE requests: the channel survives, serves what is left, and forgets nothing. What it hands to
// control is at least a header. Also part of fs-test, which runs the corpus (corpus_test.cc).

#include "fuse_channel.h"

#include "client.h"
#include "world.h"

#include <srpfs/base/assert.h>

#include <cstddef>
#include <cstdint>

namespace {

using namespace srpfs;
using namespace srpfs::fs;
using namespace srpfs::fs::test;

struct Host final : ChannelHost {
    void on_control_request(const Origin& origin, std::vector<std::byte> request) override {
        SRPFS_ASSERT(request.size() >= sizeof(fuse_in_header));
        waiting.push_back(origin);
    }
    void on_control_interrupt(const Origin&) override {}
    void on_disconnected(unsigned, int) override {}
    void on_drop_pages(unsigned, NodeId, std::vector<lun::ByteRange>, std::uint64_t ticket) override {
        tickets.push_back(ticket);
    }
    std::vector<Origin> waiting;
    std::vector<std::uint64_t> tickets;
};

struct Fixture {
    Fixture() : world({.kind = target::StoreKind::ram, .bytes = 1 << 20}) {
        lun.unit = &world.unit();
        lun.capacity_bytes = 1 << 20;
        OpenFileDetails details;
        details.node = NodeId{2};
        details.lun = std::shared_ptr<LunData>(&lun, [](LunData*) {});
        (void)files.open(std::move(details));  // handle 1 << 32
        OpenFileDetails control;
        control.node = NodeId{3};
        (void)files.open(std::move(control));  // handle 1 << 32 | 1
        world.source = [this] {
            const bool worked = channel->poll();
            channel->flush();
            return worked;
        };
    }
    ~Fixture() {
        channel->leave();
        channel.reset();
        world.source = nullptr;
    }
    World world;
    LunData lun;
    OpenFiles files;
    Host host;
    Client client;
    std::shared_ptr<FuseChannel> channel =
        std::make_shared<FuseChannel>(0, client.take_server_end(), world.engine(), files, host);
};

}  // namespace

// The input is a sequence of requests, each after two bytes of length.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static Fixture fixture;
    std::span<const std::uint8_t> left(data, size);
    while (left.size() > 2) {
        const std::size_t length = std::min<std::size_t>(left[0] + 256U * left[1], left.size() - 2);
        if (length > 0) fixture.client.send_raw(std::as_bytes(left.subspan(2, length)));
        left = left.subspan(2 + length);
        fixture.world.settle();
        while (!fixture.host.tickets.empty()) {
            for (const std::uint64_t ticket : std::exchange(fixture.host.tickets, {}))
                fixture.channel->on_pages_dropped(ticket);
            fixture.world.settle();
        }
        for (const Origin& origin : fixture.host.waiting)
            fixture.channel->finish(origin, make_reply(origin.unique, EIO));
        fixture.host.waiting.clear();
        while (fixture.client.receive()) {
        }
    }
    SRPFS_ASSERT(fixture.channel->pending() == 0);
    return 0;
}
