// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Arbitrary bytes as FUSE requests: the channel survives, and answers no request twice. What it would hand to libfuse
// is checked for what libfuse relies on.

#include "fuse_channel.h"

#include "client.h"
#include "world.h"

#include <srpfs/base/assert.h>
#include <srpfs/base/log.h>

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
    std::vector<Origin> waiting;
};

struct Fixture {
    Fixture() : world({.kind = target::StoreKind::ram, .bytes = 1 << 20}) {
        log::configure(log::Destination::none, log::Level::error);
        lun.unit = &world.unit();
        lun.capacity_bytes = 1 << 20;
        OpenFileDetails details;
        details.node = NodeId{2};
        details.lun = std::shared_ptr<LunData>(&lun, [](LunData*) {});
        (void)files.open(std::move(details));  // handle 1 << 32
        OpenFileDetails control;
        control.node = NodeId{3};
        (void)files.open(std::move(control));
    }
    World world;
    LunData lun;
    OpenFiles files;
};

}  // namespace

// The input is a sequence of requests, each after two bytes of length.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static Fixture fixture;
    Host host;
    Client client;
    auto channel =
        std::make_shared<FuseChannel>(0, client.take_server_end(), fixture.world.engine(), fixture.files, host);
    fixture.world.source = [&channel] { return channel->poll(); };
    std::span<const std::uint8_t> left(data, size);
    while (left.size() > 2) {
        const std::size_t length = std::min<std::size_t>(left[0] + 256u * left[1], left.size() - 2);
        if (length > 0) client.send_raw(std::as_bytes(left.subspan(2, length)));
        left = left.subspan(2 + length);
        fixture.world.settle();
        for (const Origin& origin : host.waiting) channel->finish(origin, make_reply(origin.unique, EIO));
        host.waiting.clear();
        while (client.receive()) {
        }
    }
    SRPFS_ASSERT(channel->pending() == 0);
    channel->leave();
    fixture.world.source = nullptr;
    return 0;
}
