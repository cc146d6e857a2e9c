// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "mounted_file_system.h"

#include <srpfs/base/assert.h>
#include <srpfs/base/log.h>

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <set>
#include <utility>

#include <time.h>
#include <unistd.h>

namespace srpfs::fs {

namespace {

std::string no_rings(const Error& reason) {
    return fmt::format("requests come from /dev/fuse and not through io_uring: {}", reason.context);
}

}  // namespace

Result<std::unique_ptr<FileSystem>> FileSystem::mount(const MountOptions& options, reactor::Executor& control,
                                                      std::vector<ReactorResources> reactors,
                                                      FileSystemListener& listener) {
    return MountedFileSystem::create(options, control, std::move(reactors), listener);
}

std::string FileSystem::versions() {
    return fmt::format("FUSE protocol {}.{}, libfuse {}", FUSE_KERNEL_VERSION, FUSE_KERNEL_MINOR_VERSION,
                       fuse_pkgversion());
}

MountedFileSystem::MountedFileSystem(reactor::Executor& control, std::vector<ReactorResources> reactors,
                                     FileSystemListener& listener)
    : control_(control), reactors_(std::move(reactors)), listener_(listener) {}

Result<std::unique_ptr<FileSystem>> MountedFileSystem::create(const MountOptions& options, reactor::Executor& control,
                                                              std::vector<ReactorResources> reactors,
                                                              FileSystemListener& listener) {
    SRPFS_ASSERT(!reactors.empty());
    std::unique_ptr<MountedFileSystem> file_system(new MountedFileSystem(control, std::move(reactors), listener));
    if (auto started = file_system->start(options); !started) return started.error();
    return std::unique_ptr<FileSystem>(std::move(file_system));
}

// Made before the mount, because the kernel waits for them once it has been told of them.
Result<std::vector<std::unique_ptr<Ring>>> MountedFileSystem::make_rings(const MountOptions& options) {
    std::vector<std::unique_ptr<Ring>> rings;
    if (options.io_uring == RingUse::off) return rings;
    if (!options.io_uring_obstacle.empty()) return Error(EOPNOTSUPP, options.io_uring_obstacle);
    const unsigned queues = ring_queues();
    for (const ReactorResources& reactor : reactors_) {
        if (reactor.engine->entries() == 0) continue;
        auto ring = make_ring(*reactor.engine, queues);
        if (!ring) return ring.error();
        rings.push_back(std::move(*ring));
    }
    if (rings.empty()) return Error(EOPNOTSUPP, "there is no memory for it");
    return rings;
}

Result<void> MountedFileSystem::start(const MountOptions& options) {
    auto rings = make_rings(options);
    unsigned entries = 0;
    if (rings && !rings->empty())
        for (const ReactorResources& reactor : reactors_) entries += reactor.engine->entries();
    const unsigned ring_depth = entries / ring_queues();
    rings_required_ = options.io_uring == RingUse::on;
    truncation_ = options.truncation;
    if (!rings && rings_required_) return Error(rings.error().errno_value(), no_rings(rings.error()));

    auto session = Session::create(options, ring_depth);
    if (!session) return session.error();
    session_ = std::move(*session);
    if (rings && !rings->empty() && !session_->uses_rings()) rings = Error(EOPNOTSUPP, "the kernel does not offer it");
    if (!rings && rings_required_) return Error(rings.error().errno_value(), no_rings(rings.error()));
    if (!rings) log::info("fuse", "{}", no_rings(rings.error()));
    if (session_->uses_rings())
        log::info("fuse", "requests come through io_uring: {} queues of {} entries, at most {} asynchronous requests",
                  ring_queues(), ring_depth, session_->init_reply().max_background);

    TreeDefaults defaults;
    defaults.uid = options.uid;
    defaults.gid = options.gid;
    defaults.umask = options.umask;
    defaults.owner_uid = geteuid();  // root; somebody else owns what he mounts
    defaults.owner_gid = getegid();
    defaults.read_only = options.read_only;
    defaults.instant = control_.timers().now();
    clock_gettime(CLOCK_REALTIME, &defaults.wall_time);  // once: files show wall time, the reactors know only Instants
    tree_ = std::make_unique<TreeNodes>(defaults, static_cast<TreeWatcher&>(*this), files_);
    session_->serve(*tree_, files_, static_cast<SessionHost&>(*this), control_);
    calls_ = std::make_unique<ControlCalls>(files_, static_cast<ReplySink&>(*this), control_);
    notifier_ = std::make_unique<Notifier>(session_->duplicate_real().release());
    // A clone holds no requests, and may stay open while the others are closed.
    auto to_drop = session_->make_intake(false);
    if (!to_drop) return to_drop.error();
    auto dropper = PageDropper::create(to_drop->release(), control_);
    if (!dropper) return dropper.error();
    dropper_ = std::move(*dropper);

    for (unsigned index = 0; index < reactors_.size(); ++index) {
        auto intake = session_->make_intake(index == 0);
        if (!intake) {
            channels_.clear();
            return intake.error();
        }
        channels_.push_back(std::make_shared<FuseChannel>(index, intake->release(), *reactors_[index].engine, files_,
                                                          static_cast<ChannelHost&>(*this)));
    }
    if (channels_.size() > 1) {
        const std::vector<std::weak_ptr<FuseChannel>> peers(channels_.begin(), channels_.end());
        for (const auto& channel : channels_) channel->set_peers(peers);
        if (options.shares_all)
            for (const auto& channel : channels_) channel->share_all();
    }
    // The rings are on the first reactors.
    rings_starting_ = rings ? rings->size() : 0;
    for (unsigned index = 0; index < reactors_.size(); ++index) {
        std::shared_ptr<Ring> ring;
        if (index < rings_starting_) ring = std::move((*rings)[index]);
        reactors_[index].reactor->post([this_address = address_, control = &control_, ring = std::move(ring),
                                        reactor = reactors_[index].reactor, channel = channels_[index]] {
            reactor->add_source(*channel);
            if (!ring) return;
            control->post([this_address, started = channel->start_ring(ring)] {
                if (this_address->file_system) this_address->file_system->on_ring_started(started);
            });
        });
    }
    if (rings_starting_ == 0) post_to_control([](MountedFileSystem& self) { self.listener_.on_serving(); });
    return {};
}

void MountedFileSystem::on_ring_started(const Result<void>& started) {
    if (!started && !ring_failure_) ring_failure_ = started.error();
    if (--rings_starting_ > 0) return;
    if (ring_failure_ && rings_required_)
        return listener_.on_refused(Error(ring_failure_->errno_value(), no_rings(*ring_failure_)));
    if (ring_failure_) log::info("fuse", "{}", no_rings(*ring_failure_));
    listener_.on_serving();
}

MountedFileSystem::~MountedFileSystem() {
    SRPFS_ASSERT(closed_ || channels_.empty());
    address_->file_system = nullptr;
    if (notifier_) notifier_->stop();
    if (dropper_) (void)dropper_->stop();
    calls_.reset();
}

void MountedFileSystem::post_to_control(std::function<void(MountedFileSystem&)> work) {
    control_.post([address = address_, work = std::move(work)] {
        if (address->file_system) work(*address->file_system);
    });
}

// ---- on the reactors ----

void MountedFileSystem::on_control_request(const Origin& origin, std::vector<std::byte> request) {
    post_to_control([origin, request = std::move(request)](MountedFileSystem& self) { self.serve(origin, request); });
}

void MountedFileSystem::on_control_interrupt(const Origin& origin) {
    post_to_control([origin](MountedFileSystem& self) {
        if (const auto truncation = self.truncations_.find(origin.unique); truncation != self.truncations_.end()) {
            const auto& home = self.channels_[truncation->second];
            home->executor().post([home, unique = origin.unique] { home->interrupt_truncation(unique); });
        } else if (self.calls_) {
            self.calls_->on_interrupt(origin);
        }
    });
}

void MountedFileSystem::on_disconnected(unsigned, int errno_value) {
    post_to_control([errno_value](MountedFileSystem& self) { self.unmounted(errno_value); });
}

void MountedFileSystem::on_drop_pages(unsigned channel, NodeId node, std::vector<lun::ByteRange> ranges,
                                      std::uint64_t ticket) {
    const auto& home = channels_[channel];
    dropper_->drop(node, std::move(ranges), home->executor(), [home, ticket] { home->on_pages_dropped(ticket); });
}

// ---- control thread ----

void MountedFileSystem::serve(const Origin& origin, const std::vector<std::byte>& request) {
    if (closed_) return;
    fuse_in_header header{};
    if (!read_struct(request, 0, header)) return;
    if (header.opcode == FUSE_READ || header.opcode == FUSE_WRITE) return calls_->on_request(origin, request);
    if (fuse_ioctl_in ioctl{}; header.opcode == FUSE_IOCTL && read_struct(request, sizeof header, ioctl)) {
        const Node* node = tree_->node(NodeId{header.nodeid});
        if (node && node->ioctl && node->ioctl_number == ioctl.cmd)
            return calls_->on_ioctl(origin, request, node->ioctl);
    }
    if (header.opcode == FUSE_SETATTR && takes_truncation(origin, header, request)) return;
    answer(origin, session_->answer(request));
}

bool MountedFileSystem::takes_truncation(const Origin& origin, const fuse_in_header& header,
                                         const std::vector<std::byte>& request) {
    fuse_setattr_in in{};
    if (!read_struct(request, sizeof header, in) || (in.valid & FATTR_SIZE) == 0) return false;
    const Node* node = tree_->node(NodeId{header.nodeid});
    // What is wrong with it is libfuse's to say.
    if (!node || node->kind != NodeKind::lun || node->lun->read_only || in.size > node->lun->capacity_bytes)
        return false;
    if (truncation_ == Truncation::device) return false;
    if (truncation_ == Truncation::deny) {
        answer(origin, make_reply(origin.unique, EPERM));
        return true;
    }
    // open(O_TRUNC) truncates by name, right after it has opened.
    const auto handle = (in.valid & FATTR_FH) != 0
                            ? std::optional<std::uint64_t>(in.fh)
                            : files_.writer_to_truncate(node->id, static_cast<std::int32_t>(header.pid));
    if (!handle) {
        log::warning("fuse",
                     "truncating {} is refused: several processes of PID namespaces that are not seen from here have "
                     "it open, and which of them is meant is not known",
                     node->name);
        answer(origin, make_reply(origin.unique, EBUSY));
        return true;
    }
    OpenFileDetails* const details = files_.details(*handle);
    if (!details || details->lun != node->lun) return false;  // nobody who could write on
    details->is_truncated = true;
    const auto& home = channels_[node->lun->reactor];
    truncations_[origin.unique] = node->lun->reactor;
    auto on_done = [control = &control_, address = address_, origin, request](int error) {
        control->post([address, origin, request, error] {
            MountedFileSystem* self = address->file_system;
            if (!self || self->closed_) return;
            self->truncations_.erase(origin.unique);
            self->answer(origin, error != 0 ? make_reply(origin.unique, error) : self->session_->answer(request));
        });
    };
    home->executor().post(
        [home, handle = *handle, lun = node->lun, size = in.size, unique = origin.unique,
         on_done = std::move(on_done)]() mutable { home->truncate(handle, lun, size, unique, std::move(on_done)); });
    return true;
}

void MountedFileSystem::answer(const Origin& origin, std::vector<std::byte> reply) {
    SRPFS_ASSERT(origin.channel < channels_.size());
    const auto& channel = channels_[origin.channel];
    channel->executor().post([channel, origin, reply = std::move(reply)] { channel->finish(origin, reply); });
}

void MountedFileSystem::after_notifications(std::function<void()> work) {
    notifier_->after_delivery(control_, std::move(work));
}

void MountedFileSystem::unmounted(int errno_value) {
    if (std::exchange(unmounted_, true)) return;
    log::debug("fuse", "the mount has ended ({})", std::strerror(errno_value));
    listener_.on_unmounted();
}

void MountedFileSystem::on_attributes_changed(NodeId node) {
    // The kernel asks for those of the top directory each time, and must not be told (session_operations.cc).
    if (notifier_ && node != NodeId::root) notifier_->attributes_changed(node);
}

void MountedFileSystem::on_each_reactor(std::function<void(FuseChannel&, std::function<void()>)> work,
                                        std::function<void()> done) {
    struct Countdown {
        std::size_t left;
        std::function<void()> done;
    };
    const auto countdown = std::make_shared<Countdown>(Countdown{channels_.size(), std::move(done)});
    const auto one_done = [control = &control_, countdown] {
        control->post([countdown] {
            if (--countdown->left == 0) countdown->done();
        });
    };
    for (const auto& channel : channels_)
        channel->executor().post([channel, work, one_done] { work(*channel, one_done); });
}

void MountedFileSystem::on_unreachable(std::vector<NodeId> nodes, std::vector<std::shared_ptr<LunData>> luns,
                                       std::function<void()> done) {
    for (const NodeId node : nodes)
        for (const std::uint64_t handle : files_.of_node(node)) files_.unpublish(handle);
    if (luns.empty() || channels_.empty()) {
        if (done) control_.post(std::move(done));
        return;
    }
    // One after the other on each reactor; the data outlives the last of them.
    on_each_reactor(
        [luns](FuseChannel& channel, const std::function<void()>& one_done) {
            const auto left = std::make_shared<std::size_t>(luns.size());
            for (const auto& lun : luns)
                channel.drain(lun.get(), [left, one_done] {
                    if (--*left == 0) one_done();
                });
        },
        [luns, done = std::move(done)] {
            if (done) done();
        });
}

// Not before, because what is read by sendfile(2) and mappings of direct files is ahead soon dropped again.
void MountedFileSystem::on_cached() {
    if (!closed_ && !std::exchange(reads_ahead_, true)) session_->set_readahead();
}

void MountedFileSystem::on_changed_elsewhere(const std::shared_ptr<LunData>& lun, std::function<void()> done) {
    if (closed_ || channels_.empty()) return done();
    const auto& home = channels_[lun->reactor];
    home->executor().post([home, lun, control = &control_, done = std::move(done)]() mutable {
        home->after_pages(lun, [control, done = std::move(done)]() mutable { control->post(std::move(done)); });
    });
}

void MountedFileSystem::on_released(std::uint64_t handle, OpenFileDetails details) {
    // The habit "dd; sync" reaches nobody on a FUSE mount, so the last writer's close flushes, without anybody waiting.
    // A node that came back under the same number (logged out and in) is not the one that was open.
    if (details.lun && details.writable && !details.removed && files_.writers_of_node(details.node) == 0) {
        const auto& home = channels_[details.lun->reactor];
        home->executor().post([home, lun = details.lun] { home->flush_after_close(lun); });
    }
    if (details.is_cached && !details.removed && !files_.has_cached(details.node)) {
        const auto& home = channels_[details.lun->reactor];
        home->executor().post([home, lun = details.lun] { home->drop_file(lun.get()); });
    }
    on_each_reactor(
        [handle](FuseChannel& channel, const std::function<void()>& one_done) {
            channel.on_file_closed(handle);
            one_done();
        },
        [address = address_, handle, held = std::move(details)] {
            if (address->file_system) address->file_system->files_.free_index(handle);
        });
}

void MountedFileSystem::set_readers(const std::vector<bool>& reads) {
    SRPFS_ASSERT(reads.size() == channels_.size());
    const auto first = std::find(reads.begin(), reads.end(), true) - reads.begin();
    SRPFS_ASSERT(static_cast<std::size_t>(first) < reads.size());
    // Whoever comes first: while nobody reads, requests wait in the kernel.
    for (std::size_t index = 0; index < reads.size(); ++index) {
        const auto& channel = channels_[index];
        const bool asks = static_cast<std::size_t>(first) == index;
        channel->executor().post([channel, reading = reads[index], asks] { channel->set_reading(reading, asks); });
    }
}

void MountedFileSystem::abort() {
    if (unmounted_ || closed_) return;
    if (session_->abort()) return;
    log::warning("fuse", "the connection cannot be aborted from outside; it ends when its descriptors are closed");
    post_to_control([](MountedFileSystem& self) { self.unmounted(ECONNABORTED); });
}

unsigned MountedFileSystem::requests_pending() const {
    unsigned pending = 0;
    for (const auto& channel : channels_) pending += channel->pending();
    return pending;
}

PageStatistics MountedFileSystem::page_statistics() const {
    PageStatistics sum;
    for (const auto& channel : channels_) {
        const PageCounters& counters = channel->page_counters();
        sum.fills += counters.fills;
        sum.fills_cached += counters.fills_cached;
        sum.drops += counters.drops;
        sum.drop_ranges += counters.drop_ranges;
        sum.drop_bytes += counters.drop_bytes;
        sum.waits += counters.waits;
        sum.waits_given_up += counters.waits_given_up;
        sum.drop_latency += counters.drop_latency.read();
        sum.wait_latency += counters.wait_latency.read();
    }
    return sum;
}

std::vector<RequestStatistics> MountedFileSystem::request_statistics() const {
    std::vector<RequestStatistics> all;
    for (const auto& channel : channels_) {
        const ChannelCounters& counters = channel->counters();
        all.push_back({.read = counters.requests,
                       .handed_over = counters.handed_over,
                       .answered_for_home = counters.answered_for_home});
    }
    return all;
}

void MountedFileSystem::close() {
    if (std::exchange(closed_, true)) return;
    if (!unmounted_) session_->detach();
    // Each reactor lets go of its descriptor before libfuse gets its own back.
    struct Gate {
        std::mutex mutex;
        std::condition_variable changed;
        std::size_t left;
    };
    const auto gate = std::make_shared<Gate>();
    gate->left = channels_.size();
    for (std::size_t index = 0; index < channels_.size(); ++index) {
        reactors_[index].reactor->post([gate, reactor = reactors_[index].reactor, channel = channels_[index]] {
            reactor->remove_source(*channel);
            channel->leave();
            const std::lock_guard lock(gate->mutex);
            --gate->left;
            gate->changed.notify_all();
        });
    }
    {
        std::unique_lock lock(gate->mutex);
        gate->changed.wait(lock, [&gate] { return gate->left == 0; });
    }
    calls_.reset();
    notifier_->stop();
    // It may wait for pages that nobody brings any more.
    if (!dropper_->stop() && !unmounted_) (void)session_->abort();
    session_->close(unmounted_);
}

}  // namespace srpfs::fs
