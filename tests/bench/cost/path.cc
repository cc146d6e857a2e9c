// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "hot_path.h"

#include <cstdio>
#include <cstdlib>
#include <utility>

#include <fcntl.h>

namespace srpfs::cost {
namespace {

constexpr unsigned ring_queues = 1;
constexpr unsigned ring_entries = 40;  // more than a case's depth

fs::test::WorldSizes sizes_of(Way way) {
    fs::test::WorldSizes sizes;
    sizes.engine = {};
    sizes.staging = {};
    sizes.queue_depth = 62;
    if (way == Way::ring) sizes.engine.entries = ring_entries;
    if (way == Way::window) sizes.registration = fabric::Registration::window;
    return sizes;
}

// About what Supervisor gives one.
lun::EngineLimits limits_of_helper() {
    lun::EngineLimits limits;
    limits.park_bytes_max = 0;
    limits.intake_buffers = 12;
    limits.write_buffers_4k = 64;
    limits.write_buffers_64k = 16;
    limits.read_buffers_4k = limits.read_buffers_64k = limits.read_buffers_1m = limits.edge_buffers = 1;
    return limits;
}

int null_descriptor() { return open("/dev/null", O_RDWR | O_CLOEXEC); }

}  // namespace

Path::Path(Way way)
    : world_(std::vector<target::LunConfig>(way == Way::pair ? 2 : 1,
                                            {.kind = target::StoreKind::null, .bytes = unit_bytes}),
             sizes_of(way)) {
    kernel.handles.clear();
    for (unsigned unit = 0; unit < (way == Way::pair ? 2U : 1U); ++unit) {
        const auto lun = luns_.emplace_back(std::make_shared<LunData>());
        lun->unit = &world_.unit(unit);
        lun->capacity_bytes = world_.unit(unit).info()->capacity_bytes();
        OpenFileDetails details;
        details.node = NodeId{2 + unit};
        details.lun = lun;
        details.writable = true;
        kernel.handles.push_back(files_.open(std::move(details)));
    }
    kernel.fd = null_descriptor();
    if (way != Way::helper) {
        channel_ = std::make_shared<FuseChannel>(0, kernel.fd, world_.engine(), files_, host_);
        world_.source = [this] {
            const bool worked = channel_->poll();
            channel_->flush();
            return worked;
        };
    } else {
        channel_ = std::make_shared<FuseChannel>(0, null_descriptor(), world_.engine(), files_, host_);
        reader_engine_ = std::move(*lun::Engine::create(limits_of_helper(), {}, world_.executor(), random_));
        reader_ = std::make_shared<FuseChannel>(1, kernel.fd, *reader_engine_, files_, host_);
        channel_->set_peers({channel_, reader_});
        reader_->set_peers({channel_, reader_});
        channel_->set_reading(false, false);
        reader_->share_all();
        world_.source = [this] {
            bool worked = false;
            for (FuseChannel* const one : {reader_.get(), channel_.get()}) {
                worked = one->poll() || worked;
                one->flush();
            }
            return worked;
        };
    }
    if (way == Way::ring) {
        auto ring = fs::make_ring(world_.engine(), ring_queues);
        if (!ring || !channel_->start_ring(std::move(*ring))) {
            std::fprintf(stderr, "the ring does not start\n");
            std::exit(1);
        }
    }
}

Path::~Path() {
    kernel.fd = -1;
    kernel.waiting = 0;
    if (reader_) reader_->leave();
    channel_->leave();
    world_.settle();
    reader_.reset();
    channel_.reset();
    world_.source = nullptr;
}

void Path::begin(const Case& one) {
    kernel.now = one;
    run(one.batches);
    kernel.next_offset = 0;
}

void Path::run(unsigned batches) {
    for (unsigned i = 0; i < batches; ++i) {
        kernel.waiting = kernel.unanswered = kernel.now.depth;
        tell_ring();
        while (kernel.unanswered > 0) (void)world_.turn();
    }
    world_.settle();
}

}  // namespace srpfs::cost
