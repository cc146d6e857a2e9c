// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "files.h"

#include "request.h"

#include <srpfs/base/assert.h>

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

// The linker has each writev(2) of the program come through here: after it there may be answers.
extern "C" {
ssize_t __real_writev(int fd, const iovec* parts, int count);
ssize_t __wrap_writev(int fd, const iovec* parts, int count);
}

namespace {

std::uint64_t writes = 0;  // one thread

}  // namespace

extern "C" ssize_t __wrap_writev(int fd, const iovec* parts, int count) {
    ++writes;
    return __real_writev(fd, parts, count);
}

namespace srpfs::simulation {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t message_bytes_max = std::size_t{4} << 20;

}  // namespace

Files::Files(Scheduler& scheduler, SimulatedExecutor& control, std::vector<Seat> seats, std::uint64_t seed,
             std::function<void(const std::string&)> on_wrong)
    : scheduler_(scheduler), control_(control), seats_(std::move(seats)), random_(seed), on_wrong_(std::move(on_wrong)),
      received_(message_bytes_max) {
    std::vector<std::weak_ptr<fs::FuseChannel>> peers;
    for (unsigned index = 0; index < seats_.size(); ++index) {
        int pair[2];
        SRPFS_ASSERT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
        const int bytes = message_bytes_max;
        for (const int fd : pair)
            for (const int option : {SO_SNDBUF, SO_SNDBUFFORCE, SO_RCVBUF, SO_RCVBUFFORCE})
                (void)setsockopt(fd, SOL_SOCKET, option, &bytes, sizeof bytes);
        connections_.push_back({.kernel = pair[0], .other = fcntl(pair[1], F_DUPFD_CLOEXEC, 0)});
        channels_.push_back(
            std::make_shared<fs::FuseChannel>(index, pair[1], *seats_[index].engine, open_files_, *this));
        peers.push_back(channels_.back());
    }
    // In half of the seeds whoever has read a request answers it, as a helper would, instead of the home.
    const bool shares = seed % 2 == 1;
    for (const auto& channel : channels_) {
        if (channels_.size() > 1) channel->set_peers(peers);
        if (shares) channel->share_all();
    }
    has_cache_ = seed / 2 % 2 == 1;
    keeps_pages_ = seed / 4 % 2 == 1;
    scheduler_.sources.push_back(this);
}

Files::~Files() {
    std::erase(scheduler_.sources, this);
    for (const Connection& connection : connections_) {
        ::close(connection.kernel);
        ::close(connection.other);
    }
}

// ---- what the daemon does ----

void Files::add(const void* unit, unsigned home, lun::Unit* pointer, const lun::UnitInfo& info) {
    auto data = std::make_shared<fs::LunData>();
    data->reactor = home;
    data->unit = pointer;
    data->capacity_bytes = info.capacity_bytes();
    data->read_only = info.read_only;
    nodes_[data.get()] = ++last_node_;  // an earlier one may have had its place in memory
    luns_[unit] = std::move(data);
}

void Files::update(const void* unit, const lun::UnitInfo& info) {
    const auto found = luns_.find(unit);
    if (found == luns_.end()) return;
    found->second->capacity_bytes = info.capacity_bytes();
    found->second->read_only = info.read_only;
}

void Files::drop_pages() {
    // In the order in which they came: where they lie in memory is no part of a seed.
    std::map<std::uint64_t, std::shared_ptr<fs::LunData>> in_order;
    for (const auto& [unit, lun] : luns_) in_order[nodes_.at(lun.get())] = lun;
    for (const auto& [node, lun] : in_order)
        seats_[lun->reactor].executor->post(
            [home = channels_[lun->reactor], lun = lun] { home->after_pages(lun, [] {}); });
}

void Files::remove(const void* unit, std::function<void()> when_released) {
    const auto found = luns_.find(unit);
    if (found == luns_.end()) return when_released();
    const auto data = found->second;
    luns_.erase(found);
    for (const auto& [handle, lun] : handles_)
        if (lun == data) open_files_.unpublish(handle);
    const auto left = std::make_shared<std::size_t>(channels_.size());
    for (std::size_t index = 0; index < channels_.size(); ++index)
        seats_[index].executor->post([this, channel = channels_[index], data, left, when_released] {
            channel->drain(data.get(), [this, data, left, when_released] {
                control_.post([data, left, when_released] {
                    if (--*left == 0) when_released();
                });
            });
        });
}

std::uint64_t Files::open(const void* unit) {
    const auto found = luns_.find(unit);
    if (found == luns_.end()) return 0;
    fs::OpenFileDetails details;
    details.lun = found->second;
    details.writable = true;
    details.is_cached = keeps_pages_;
    details.losses_seen = found->second->unit.load()->counters()->write_losses_told.load();
    const std::uint64_t handle = open_files_.open(std::move(details));
    SRPFS_ASSERT(handle != 0);
    handles_[handle] = found->second;
    return handle;
}

void Files::close(std::uint64_t handle) {
    const auto found = handles_.find(handle);
    if (found == handles_.end()) return;
    handles_.erase(found);
    const auto held = std::make_shared<std::optional<fs::OpenFileDetails>>(open_files_.close(handle));
    const auto left = std::make_shared<std::size_t>(channels_.size());
    for (std::size_t index = 0; index < channels_.size(); ++index)
        seats_[index].executor->post([this, channel = channels_[index], handle, held, left] {
            channel->on_file_closed(handle);
            control_.post([this, handle, held, left] {
                if (--*left == 0) open_files_.free_index(handle);
            });
        });
}

bool Files::shows(std::uint64_t handle, const void* unit) const {
    const auto file = handles_.find(handle);
    const auto lun = luns_.find(unit);
    return file != handles_.end() && lun != luns_.end() && file->second == lun->second;
}

std::uint64_t Files::losses_seen(std::uint64_t handle) const {
    const fs::OpenFile* file = open_files_.find(handle);
    return file ? file->losses_seen.load() : 0;
}

std::optional<std::uint64_t> Files::capacity(const void* unit) const {
    const auto found = luns_.find(unit);
    if (found == luns_.end()) return std::nullopt;
    return found->second->capacity_bytes.load();
}

// ---- what the kernel does ----

template <typename In>
std::uint64_t Files::ask(std::uint32_t opcode, const In& in, std::span<const std::byte> data, OnAnswer on_answer,
                         std::uint64_t node) {
    const std::uint64_t unique = last_unique_ += 2;
    fuse_in_header header{};
    header.len = static_cast<std::uint32_t>(sizeof header + sizeof in + data.size());
    header.opcode = opcode;
    header.unique = unique;
    header.nodeid = node;
    std::vector<std::byte> request(header.len);
    std::memcpy(request.data(), &header, sizeof header);
    std::memcpy(request.data() + sizeof header, &in, sizeof in);
    if (!data.empty()) std::memcpy(request.data() + sizeof header + sizeof in, data.data(), data.size());
    asked_[unique] = {.on_answer = std::move(on_answer), .home = home_of(in.fh)};
    queue_.push_back({unique, std::move(request)});
    return unique;
}

unsigned Files::home_of(std::uint64_t handle) const {
    const auto file = handles_.find(handle);
    return file == handles_.end() ? 0 : file->second->reactor;
}

std::uint64_t Files::read(std::uint64_t handle, std::uint64_t offset, std::uint32_t bytes, OnAnswer on_answer) {
    fuse_read_in in{};
    in.fh = handle;
    in.offset = offset;
    in.size = bytes;
    in.read_flags = FUSE_READ_LOCKOWNER;
    return ask(FUSE_READ, in, {}, std::move(on_answer));
}

std::uint64_t Files::read_cached(std::uint64_t handle, std::uint64_t offset, std::uint32_t bytes, OnAnswer on_answer) {
    const std::uint64_t node = nodes_.at(handles_.at(handle).get());
    const std::uint64_t begin = offset / page_bytes * page_bytes;
    const std::uint64_t end = (offset + bytes + page_bytes - 1) / page_bytes * page_bytes;
    std::vector<std::byte> found;
    const Pages& pages = cache_[node];
    for (std::uint64_t at = begin; at < end; at += page_bytes) {
        const auto page = pages.find(at / page_bytes);
        if (page == pages.end()) break;
        found.insert(found.end(), page->second.begin(), page->second.end());
    }
    if (found.size() == end - begin) {
        const std::uint64_t unique = last_unique_ += 2;
        asked_[unique] = {.on_answer = std::move(on_answer), .cached = true};
        const auto part = found.begin() + static_cast<std::ptrdiff_t>(offset - begin);
        control_.post([this, unique, data = std::vector<std::byte>(part, part + bytes)] { answered(unique, 0, data); });
        return unique;
    }
    fuse_read_in in{};  // without an owner
    in.fh = handle;
    in.offset = begin;
    in.size = static_cast<std::uint32_t>(end - begin);
    const auto install = [this, node, offset, bytes, begin, on_answer = std::move(on_answer)](
                             int error, std::span<const std::byte> body) {
        if (error != 0) return on_answer(error, {});
        for (std::uint64_t at = 0; at + page_bytes <= body.size(); at += page_bytes) {
            const auto page = body.subspan(at, page_bytes);
            cache_[node][(begin + at) / page_bytes].assign(page.begin(), page.end());
        }
        body = body.subspan(std::min<std::size_t>(offset - begin, body.size()));
        on_answer(0, body.first(std::min<std::size_t>(bytes, body.size())));
    };
    return ask(FUSE_READ, in, {}, install, node);
}

void Files::on_drop_pages(unsigned channel, fs::NodeId node, std::vector<lun::ByteRange> ranges, std::uint64_t ticket) {
    control_.post([this, channel, node, ranges = std::move(ranges), ticket] {
        for (const lun::ByteRange& range : ranges)
            std::erase_if(cache_[static_cast<std::uint64_t>(node)], [&](const auto& page) {
                return page.first * page_bytes < range.end && range.begin < (page.first + 1) * page_bytes;
            });
        seats_[channel].executor->post([home = channels_[channel], ticket] { home->on_pages_dropped(ticket); });
    });
}

std::uint64_t Files::write(std::uint64_t handle, std::uint64_t offset, std::span<const std::byte> data, bool stable,
                           OnAnswer on_answer) {
    fuse_write_in in{};
    in.fh = handle;
    in.offset = offset;
    in.size = static_cast<std::uint32_t>(data.size());
    in.flags = stable ? O_DSYNC : 0;
    return ask(FUSE_WRITE, in, data, std::move(on_answer));
}

std::uint64_t Files::fsync(std::uint64_t handle, OnAnswer on_answer) {
    fuse_fsync_in in{};
    in.fh = handle;
    return ask(FUSE_FSYNC, in, {}, std::move(on_answer));
}

std::uint64_t Files::fallocate(std::uint64_t handle, int mode, std::uint64_t offset, std::uint64_t length,
                               OnAnswer on_answer) {
    fuse_fallocate_in in{};
    in.fh = handle;
    in.offset = offset;
    in.length = length;
    in.mode = static_cast<std::uint32_t>(mode);
    return ask(FUSE_FALLOCATE, in, {}, std::move(on_answer));
}

// Truncations come through the control thread (MountedFileSystem), which sends them to the home.
std::uint64_t Files::truncate(std::uint64_t handle, std::uint64_t size, OnAnswer on_answer) {
    const std::uint64_t unique = last_unique_ += 2;
    const unsigned home = home_of(handle);
    asked_[unique] = {.on_answer = std::move(on_answer), .channel = home, .truncates = true, .home = home};
    control_.post([this, handle, size, unique] {
        const auto found = handles_.find(handle);
        const auto is_there = [&](const auto& lun) { return lun.second == found->second; };
        if (found == handles_.end() || std::none_of(luns_.begin(), luns_.end(), is_there))
            return answered(unique, ENODEV, {});
        const unsigned seat = found->second->reactor;
        seats_[seat].executor->post([this, home = channels_[seat], handle, lun = found->second, size, unique] {
            home->truncate(handle, lun, size, unique, [this, unique](int error) {
                control_.post([this, unique, error] { answered(unique, error, {}); });
            });
        });
    });
    return unique;
}

void Files::interrupt(std::uint64_t unique) {
    const auto found = asked_.find(unique);
    if (found == asked_.end() || std::exchange(found->second.interrupted, true)) return;
    if (found->second.cached) return;  // nobody can be asked to give it up, and it ends at once
    if (found->second.truncates) {
        control_.post([this, unique, seat = found->second.home] {
            seats_[seat].executor->post([home = channels_[seat], unique] { home->interrupt_truncation(unique); });
        });
        return;
    }
    // Not read yet: nobody else need know of it.
    const auto waiting =
        std::find_if(queue_.begin(), queue_.end(), [&](const Message& one) { return one.unique == unique; });
    if (waiting == queue_.end()) return queue_interrupt(unique);
    queue_.erase(waiting);
    answered(unique, EINTR, {});
}

void Files::queue_interrupt(std::uint64_t unique) {
    if (!asked_.contains(unique)) return;
    fuse_in_header header{};
    fuse_interrupt_in in{};
    in.unique = unique;
    header.len = sizeof header + sizeof in;
    header.opcode = FUSE_INTERRUPT;
    header.unique = unique | 1;
    std::vector<std::byte> request(header.len);
    std::memcpy(request.data(), &header, sizeof header);
    std::memcpy(request.data() + sizeof header, &in, sizeof in);
    // They go before requests.
    queue_.push_front({unique | 1, std::move(request)});
}

void Files::on_control_request(const fs::Origin&, std::vector<std::byte>) {
    on_wrong_("a request was handed to the control thread");
}

// ---- turns ----

std::vector<int> Files::descriptors_of(std::size_t channel) const {
    std::vector<int> fds;
    channels_[channel]->sleep_on(fds);
    return fds;
}

std::vector<std::size_t> Files::ready() const {
    std::vector<std::size_t> ready;
    for (std::size_t channel = 0; channel < channels_.size(); ++channel)
        if (connections_[channel].awake || (!queue_.empty() && !descriptors_of(channel).empty()))
            ready.push_back(channel);
    return ready;
}

bool Files::is_ready() { return !left_ && !ready().empty(); }

// What a reactor does, with the next few requests where it would find them.
void Files::turn() {
    const auto candidates = ready();
    const std::size_t chosen = candidates[random_.below(candidates.size())];
    Connection& connection = connections_[chosen];
    fs::FuseChannel& channel = *channels_[chosen];
    if (!connection.awake) {
        connection.awake = true;
        const auto fds = descriptors_of(chosen);
        channel.woken(fds);
    }
    const std::size_t offered = std::min<std::size_t>(queue_.size(), random_.between(1, 8));
    for (std::size_t i = 0; i < offered; ++i) {
        const auto& bytes = queue_[i].bytes;
        SRPFS_ASSERT(::send(connection.kernel, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
                     static_cast<ssize_t>(bytes.size()));
    }
    const bool worked = channel.poll();
    channel.flush();
    std::size_t left = 0;
    while (recv(connection.other, received_.data(), received_.size(), MSG_DONTWAIT) > 0) ++left;
    for (std::size_t i = 0; i < offered - left; ++i) {
        const std::uint64_t unique = queue_.front().unique;
        queue_.pop_front();
        if ((unique & 1) != 0) continue;
        const auto asked = asked_.find(unique);
        if (asked == asked_.end()) continue;
        asked->second.channel = static_cast<unsigned>(chosen);
        if (chosen != asked->second.home) ++handed_over_;
    }
    if (!worked && channel.prepare_to_sleep()) connection.awake = false;
}

void Files::after_step(const SimulatedExecutor* thread) {
    if (left_) return;
    for (std::size_t channel = 0; channel < channels_.size(); ++channel) {
        if (thread == seats_[channel].executor) connections_[channel].awake = true;
        channels_[channel]->flush();
    }
    take_answers();
}

void Files::take_answers() {
    if (writes_seen_ == writes) return;
    writes_seen_ = writes;
    for (unsigned channel = 0; channel < connections_.size(); ++channel) {
        while (true) {
            const ssize_t count = recv(connections_[channel].kernel, received_.data(), received_.size(), MSG_DONTWAIT);
            if (count <= 0) break;
            const auto whole = std::span(received_).first(static_cast<std::size_t>(count));
            fuse_out_header header{};
            if (!fs::read_struct(whole, 0, header) || header.len != whole.size()) {
                on_wrong_("an answer has another length than it says");
                continue;
            }
            if ((header.unique & 1) != 0) {  // of an INTERRUPT: EAGAIN has it sent again
                if (header.error == -EAGAIN) queue_interrupt(header.unique & ~std::uint64_t{1});
                continue;
            }
            const auto found = asked_.find(header.unique);
            if (found == asked_.end() || found->second.channel != channel) {
                on_wrong_(fmt::format("request {} was answered {}", header.unique,
                                      found == asked_.end() ? "twice" : "where it was not read"));
                continue;
            }
            const std::vector<std::byte> body(whole.begin() + sizeof header, whole.end());
            answered(header.unique, -header.error, body);
        }
    }
}

void Files::answered(std::uint64_t unique, int error, std::span<const std::byte> body) {
    const auto found = asked_.find(unique);
    if (found == asked_.end()) return on_wrong_(fmt::format("request {} was answered twice", unique));
    const OnAnswer on_answer = std::move(found->second.on_answer);
    asked_.erase(found);
    on_answer(error, body);
}

unsigned Files::pending() const {
    unsigned pending = 0;
    for (const auto& channel : channels_) pending += channel->pending();
    return pending;
}

void Files::leave() {
    left_ = true;
    for (std::size_t index = 0; index < channels_.size(); ++index)
        seats_[index].executor->post([channel = channels_[index]] { channel->leave(); });
}

}  // namespace srpfs::simulation
