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

Files::Files(Scheduler& scheduler, SimulatedExecutor& control, std::vector<Seat> seats, unsigned home,
             std::uint64_t seed, std::function<void(const std::string&)> on_wrong)
    : scheduler_(scheduler), control_(control), seats_(std::move(seats)), home_(home), random_(seed),
      on_wrong_(std::move(on_wrong)), received_(message_bytes_max) {
    std::vector<std::weak_ptr<fs::FuseChannel>> peers;
    for (unsigned index = 0; index < seats_.size(); ++index) {
        int pair[2];
        SRPFS_ASSERT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
        const int bytes = message_bytes_max;
        for (const int fd : pair)
            for (const int option : {SO_SNDBUF, SO_SNDBUFFORCE, SO_RCVBUF, SO_RCVBUFFORCE})
                (void)setsockopt(fd, SOL_SOCKET, option, &bytes, sizeof bytes);
        connections_.push_back({.kernel = pair[0], .sent = 0});
        channels_.push_back(
            std::make_shared<fs::FuseChannel>(index, pair[1], *seats_[index].engine, open_files_, *this));
        peers.push_back(channels_.back());
    }
    if (channels_.size() > 1)
        for (const auto& channel : channels_) channel->set_peers(peers);
    scheduler_.sources.push_back(this);
}

Files::~Files() {
    std::erase(scheduler_.sources, this);
    for (const Connection& connection : connections_) ::close(connection.kernel);
}

// ---- what the daemon does ----

void Files::add(const void* unit, lun::Unit* pointer, const lun::UnitInfo& info) {
    auto data = std::make_shared<fs::LunData>();
    data->reactor = home_;
    data->unit = pointer;
    data->capacity_bytes = info.capacity_bytes();
    data->read_only = info.read_only;
    luns_[unit] = std::move(data);
}

void Files::update(const void* unit, const lun::UnitInfo& info) {
    const auto found = luns_.find(unit);
    if (found == luns_.end()) return;
    found->second->capacity_bytes = info.capacity_bytes();
    found->second->read_only = info.read_only;
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
std::uint64_t Files::ask(std::uint32_t opcode, const In& in, std::span<const std::byte> data, OnAnswer on_answer) {
    const std::uint64_t unique = last_unique_ += 2;
    fuse_in_header header{};
    header.len = static_cast<std::uint32_t>(sizeof header + sizeof in + data.size());
    header.opcode = opcode;
    header.unique = unique;
    header.nodeid = 2;
    std::vector<std::byte> request(header.len);
    std::memcpy(request.data(), &header, sizeof header);
    std::memcpy(request.data() + sizeof header, &in, sizeof in);
    if (!data.empty()) std::memcpy(request.data() + sizeof header + sizeof in, data.data(), data.size());
    const auto channel = static_cast<unsigned>(random_.below(channels_.size()));
    if (channel != home_) ++handed_over_;
    asked_[unique] = {.channel = channel, .on_answer = std::move(on_answer)};
    send(channel, request);
    return unique;
}

void Files::send(unsigned channel, std::span<const std::byte> request) {
    ++connections_[channel].sent;
    SRPFS_ASSERT(::send(connections_[channel].kernel, request.data(), request.size(), MSG_NOSIGNAL) ==
                 static_cast<ssize_t>(request.size()));
}

std::uint64_t Files::read(std::uint64_t handle, std::uint64_t offset, std::uint32_t bytes, OnAnswer on_answer) {
    fuse_read_in in{};
    in.fh = handle;
    in.offset = offset;
    in.size = bytes;
    return ask(FUSE_READ, in, {}, std::move(on_answer));
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
    asked_[unique] = {.channel = home_, .on_answer = std::move(on_answer), .truncates = true};
    control_.post([this, handle, size, unique] {
        const auto found = handles_.find(handle);
        const auto is_there = [&](const auto& lun) { return lun.second == found->second; };
        if (found == handles_.end() || std::none_of(luns_.begin(), luns_.end(), is_there))
            return answered(unique, ENODEV, {});
        seats_[home_].executor->post([this, home = channels_[home_], handle, lun = found->second, size, unique] {
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
    if (found->second.truncates) {
        control_.post([this, unique] {
            seats_[home_].executor->post([home = channels_[home_], unique] { home->interrupt_truncation(unique); });
        });
        return;
    }
    send_interrupt(unique);
}

// The kernel hands one out only after its request: here, once the channel has nothing to read any more.
void Files::send_interrupt(std::uint64_t unique) {
    const auto found = asked_.find(unique);
    if (found == asked_.end()) return;
    if (has_requests(found->second.channel)) {
        again_.push_back(
            std::make_unique<reactor::Timer>(scheduler_.timers, [this, unique] { send_interrupt(unique); }));
        again_.back()->arm_after(10us);
        return;
    }
    fuse_in_header header{};
    fuse_interrupt_in in{};
    in.unique = unique;
    header.len = sizeof header + sizeof in;
    header.opcode = FUSE_INTERRUPT;
    header.unique = unique | 1;
    std::vector<std::byte> request(header.len);
    std::memcpy(request.data(), &header, sizeof header);
    std::memcpy(request.data() + sizeof header, &in, sizeof in);
    send(static_cast<unsigned>(random_.below(channels_.size())), request);
}

void Files::on_control_request(const fs::Origin&, std::vector<std::byte>) {
    on_wrong_("a request was handed to the control thread");
}

// ---- turns ----

bool Files::has_requests(std::size_t channel) const {
    return connections_[channel].sent > channels_[channel]->counters().requests;
}

bool Files::is_ready() {
    for (std::size_t channel = 0; channel < channels_.size(); ++channel)
        if (has_requests(channel)) return true;
    return false;
}

void Files::turn() {
    std::vector<std::size_t> ready;
    for (std::size_t channel = 0; channel < channels_.size(); ++channel)
        if (has_requests(channel)) ready.push_back(channel);
    channels_[ready[random_.below(ready.size())]]->poll();
}

void Files::after_step() {
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
                const std::uint64_t unique = header.unique & ~std::uint64_t{1};
                if (header.error == -EAGAIN) send_interrupt(unique);
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
    again_.clear();
    for (std::size_t index = 0; index < channels_.size(); ++index)
        seats_[index].executor->post([channel = channels_[index]] { channel->leave(); });
}

}  // namespace srpfs::simulation
