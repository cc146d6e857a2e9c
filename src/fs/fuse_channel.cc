// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "fuse_channel.h"

#include "errno_map.h"

#include <srpfs/base/assert.h>
#include <srpfs/base/log.h>
#include <srpfs/lun/unit.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

namespace srpfs::fs {
namespace {

constexpr std::uint64_t offset_max = std::numeric_limits<std::int64_t>::max();
constexpr std::uint32_t records_at_start = 4096;

bool is_durable(std::uint32_t open_flags) { return (open_flags & (O_DSYNC | O_SYNC)) != 0; }

}  // namespace

FuseChannel::FuseChannel(unsigned index, int fd, lun::Engine& engine, const OpenFiles& files, ChannelHost& host)
    : fd_(fd), engine_(engine), files_(files), index_(index), host_(&host) {
    records_.reserve(records_at_start);
}

FuseChannel::~FuseChannel() {
    for (const Record& record : records_) SRPFS_ASSERT(record.holder != Holder::operation);
    if (fd_ >= 0) close(fd_);
}

void FuseChannel::set_peers(std::vector<std::weak_ptr<FuseChannel>> peers) { peers_ = std::move(peers); }

// ---- intake ----

bool FuseChannel::poll() {
    if (fd_ < 0 || disconnected_) return false;
    unsigned taken = 0;
    for (; taken < batch_max && fd_ >= 0; ++taken) {
        const auto buffer = engine_.intake();
        const ssize_t count = ::read(fd_, buffer.data(), buffer.size());
        if (count > 0) [[likely]] {
            on_request(buffer.first(static_cast<std::size_t>(count)));
            continue;
        }
        if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
        // ENOENT: the caller was killed while its request was being copied to us.
        if (count < 0 && (errno == EINTR || errno == ENOENT)) continue;
        disconnected(count == 0 ? ENODEV : errno);
        break;
    }
    return taken > 0;
}

void FuseChannel::sleep_on(std::vector<int>& fds) {
    if (fd_ >= 0 && !disconnected_) fds.push_back(fd_);
}

void FuseChannel::disconnected(int errno_value) {
    disconnected_ = true;
    if (host_) host_->on_disconnected(index_, errno_value);
}

void FuseChannel::malformed(const fuse_in_header& header) {
    ++counters_.malformed;
    if (!is_unanswered(header.opcode)) write_reply(header.unique, EINVAL, {});
}

void FuseChannel::on_request(std::span<std::byte> request) {
    ++counters_.requests;
    fuse_in_header header{};
    if (!read_struct(request, 0, header)) {
        ++counters_.malformed;  // nobody to answer
        return;
    }
    if (header.len != request.size()) return malformed(header);
    // An INTERRUPT's own number is that of its request plus one.
    if (header.opcode != FUSE_INTERRUPT) unique_seen_max_ = std::max(unique_seen_max_, header.unique);
    switch (header.opcode) {
        case FUSE_READ: return on_read(header, request, index_);
        case FUSE_WRITE: return on_write(header, request, index_);
        case FUSE_FSYNC: return on_fsync(header, request, index_);
        // Comes at each close of each duplicate and says nothing about durability.
        case FUSE_FLUSH: return write_reply(header.unique, 0, {});
        case FUSE_INTERRUPT: return on_interrupt(header, request);
        case FUSE_FALLOCATE: return on_fallocate(header, request);
        case FUSE_LSEEK: return on_lseek(header, request);
        // Inode numbers are stable and nodes are not counted, so nothing is freed by forgetting.
        case FUSE_FORGET:
        case FUSE_BATCH_FORGET:
        case FUSE_NOTIFY_REPLY: return;
        default: break;
    }
    const int error = check_for_libfuse(request);
    if (error != 0) {
        if (error == EINVAL) ++counters_.malformed;
        return write_reply(header.unique, error, {});
    }
    hand_to_control(header, request);
}

LunData* FuseChannel::lun_of(std::uint64_t handle, const fuse_in_header& header, std::span<const std::byte> request,
                             unsigned from) {
    const OpenFile* file = files_.find(handle);
    if (!file) [[unlikely]] {
        reply(header.unique, from, ENODEV);
        return nullptr;
    }
    LunData* lun = file->lun;
    if (!lun) [[unlikely]] {
        hand_to_control(header, request);
        return nullptr;
    }
    if (lun->reactor != index_) [[unlikely]] {
        hand_to_home(*lun, request);
        return nullptr;
    }
    if (!lun->unit.load(std::memory_order_relaxed)) [[unlikely]] {
        reply(header.unique, from, ENODEV);
        return nullptr;
    }
    return lun;
}

void FuseChannel::on_read(const fuse_in_header& header, std::span<std::byte> request, unsigned from) {
    fuse_read_in in{};
    if (!read_struct(request, sizeof header, in)) return malformed(header);
    if (in.offset > offset_max) return reply(header.unique, from, EINVAL);
    LunData* lun = lun_of(in.fh, header, request, from);
    if (!lun) return;

    const std::uint64_t capacity = lun->capacity_bytes.load(std::memory_order_relaxed);
    if (in.offset >= capacity || in.size == 0) return reply(header.unique, from, 0);
    const std::uint64_t wanted = std::min<std::uint64_t>(in.size, lun::intake_payload_bytes_max);
    const auto bytes = static_cast<std::uint32_t>(std::min(wanted, capacity - in.offset));

    lun::Operation* operation = engine_.take();
    if (!operation) return reply(header.unique, from, EIO);
    lun::Unit& unit = *lun->unit.load(std::memory_order_relaxed);
    operation->prepare_read(unit, in.offset, bytes, *this);
    start(unit, *operation,
          {.unique = header.unique,
           .operation = operation,
           .lun = lun,
           .bytes = bytes,
           .from = static_cast<std::uint16_t>(from)});
}

void FuseChannel::on_write(const fuse_in_header& header, std::span<std::byte> request, unsigned from) {
    fuse_write_in in{};
    static_assert(sizeof header + sizeof in == lun::intake_header_bytes);
    if (!read_struct(request, sizeof header, in)) return malformed(header);
    if (in.size != request.size() - lun::intake_header_bytes) return malformed(header);
    if (in.offset > offset_max) return reply(header.unique, from, EINVAL);
    LunData* lun = lun_of(in.fh, header, request, from);
    if (!lun) return;

    const std::uint64_t capacity = lun->capacity_bytes.load(std::memory_order_relaxed);
    if (in.size == 0) {
        const fuse_write_out nothing{};
        return reply(header.unique, from, 0, bytes_of(nothing));
    }
    if (in.offset >= capacity) return reply(header.unique, from, ENOSPC);
    const auto bytes = static_cast<std::uint32_t>(std::min<std::uint64_t>(in.size, capacity - in.offset));

    lun::Operation* operation = engine_.take();
    if (!operation) return reply(header.unique, from, EIO);
    lun::Unit& unit = *lun->unit.load(std::memory_order_relaxed);
    if (!engine_.take_over_intake(*operation, unit, bytes)) {
        operation->release();
        return reply(header.unique, from, EIO);
    }
    const auto durability = is_durable(in.flags) ? lun::Durability::stable : lun::Durability::cached;
    operation->prepare_write(unit, in.offset, durability, *this);
    start(unit, *operation,
          {.unique = header.unique,
           .operation = operation,
           .lun = lun,
           .bytes = bytes,
           .from = static_cast<std::uint16_t>(from)});
}

void FuseChannel::on_fsync(const fuse_in_header& header, std::span<std::byte> request, unsigned from) {
    fuse_fsync_in in{};
    if (!read_struct(request, sizeof header, in)) return malformed(header);
    const OpenFile* file = files_.find(in.fh);
    if (file && !file->lun) return reply(header.unique, from, 0);  // control files keep nothing back
    LunData* lun = lun_of(in.fh, header, request, from);
    if (!lun) return;

    lun::Operation* operation = engine_.take();
    if (!operation) return reply(header.unique, from, EIO);
    lun::Unit& unit = *lun->unit.load(std::memory_order_relaxed);
    operation->prepare_flush(unit, *this);
    start(unit, *operation,
          {.unique = header.unique, .operation = operation, .lun = lun, .from = static_cast<std::uint16_t>(from)});
}

// Space of a LUN is always "allocated", so mode 0 inside it is done; nothing else is offered.
void FuseChannel::on_fallocate(const fuse_in_header& header, std::span<const std::byte> request) {
    fuse_fallocate_in in{};
    if (!read_struct(request, sizeof header, in)) return malformed(header);
    const OpenFile* file = files_.find(in.fh);
    if (!file) return write_reply(header.unique, ENODEV, {});
    if (!file->lun || in.mode != 0) return write_reply(header.unique, EOPNOTSUPP, {});
    const std::uint64_t capacity = file->lun->capacity_bytes.load(std::memory_order_relaxed);
    const bool inside = in.offset <= capacity && in.length <= capacity - in.offset;
    write_reply(header.unique, inside ? 0 : EFBIG, {});
}

// A LUN is all data; the hole begins at its end. Nothing else reaches us: the kernel does SEEK_SET, CUR and END itself.
void FuseChannel::on_lseek(const fuse_in_header& header, std::span<const std::byte> request) {
    fuse_lseek_in in{};
    if (!read_struct(request, sizeof header, in)) return malformed(header);
    const OpenFile* file = files_.find(in.fh);
    if (!file) return write_reply(header.unique, ENODEV, {});
    if (in.whence != SEEK_DATA && in.whence != SEEK_HOLE) return write_reply(header.unique, EINVAL, {});
    const std::uint64_t capacity = file->lun ? file->lun->capacity_bytes.load(std::memory_order_relaxed) : 0;
    if (in.offset >= capacity) return write_reply(header.unique, ENXIO, {});
    const fuse_lseek_out out{.offset = in.whence == SEEK_DATA ? in.offset : capacity};
    write_reply(header.unique, 0, bytes_of(out));
}

void FuseChannel::hand_to_control(const fuse_in_header& header, std::span<const std::byte> request) {
    if (header.opcode == FUSE_WRITE && request.size() - lun::intake_header_bytes > command_bytes_max)
        return write_reply(header.unique, E2BIG, {});
    if (!host_) return;
    const std::uint32_t index = take_record();
    Record& record = records_[index];
    record.unique = header.unique;
    record.holder = Holder::control;
    host_->on_control_request({.channel = index_, .record = index, .unique = header.unique},
                              std::vector<std::byte>(request.begin(), request.end()));
}

void FuseChannel::finish(const Origin& origin, std::span<const std::byte> answer) {
    if (origin.record >= records_.size()) return;
    Record& record = records_[origin.record];
    if (record.holder != Holder::control || record.unique != origin.unique) return;  // left meanwhile
    free_record(origin.record);
    if (!answer.empty()) write_whole(answer);
}

// ---- several reactors: a unit has one home ----

void FuseChannel::hand_to_home(const LunData& lun, std::span<const std::byte> request) {
    const auto home = lun.reactor < peers_.size() ? peers_[lun.reactor].lock() : nullptr;
    fuse_in_header header{};
    if (!read_struct(request, 0, header)) return;
    if (!home) return write_reply(header.unique, ENODEV, {});
    home->executor().post([home, from = index_, copy = std::vector<std::byte>(request.begin(), request.end())] {
        home->serve_for(from, copy);
    });
}

void FuseChannel::serve_for(unsigned from, std::span<const std::byte> request) {
    fuse_in_header header{};
    if (!read_struct(request, 0, header)) return;
    if (fd_ < 0) return reply(header.unique, from, ENODEV);
    // The payload has to be where the engine takes it over from.
    const auto buffer = engine_.intake();
    SRPFS_ASSERT(request.size() <= buffer.size());
    std::memcpy(buffer.data(), request.data(), request.size());
    const auto here = buffer.first(request.size());
    switch (header.opcode) {
        case FUSE_READ: return on_read(header, here, from);
        case FUSE_WRITE: return on_write(header, here, from);
        case FUSE_FSYNC: return on_fsync(header, here, from);
        default: return reply(header.unique, from, ENOSYS);
    }
}

// ---- operations ----

std::uint32_t FuseChannel::take_record() {
    std::uint32_t index = first_free_;
    if (index != no_record) [[likely]] {
        first_free_ = records_[index].next_free;
    } else {
        index = static_cast<std::uint32_t>(records_.size());
        records_.emplace_back();  // grows to the most requests ever pending, then never again
    }
    pending_.store(pending_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    return index;
}

void FuseChannel::free_record(std::uint32_t index) {
    Record& record = records_[index];
    SRPFS_ASSERT(record.holder != Holder::nobody);
    record.holder = Holder::nobody;
    record.operation = nullptr;
    record.lun = nullptr;
    record.next_free = first_free_;
    first_free_ = index;
    pending_.store(pending_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
}

void FuseChannel::start(lun::Unit& unit, lun::Operation& operation, const Record& request) {
    const std::uint32_t index = take_record();
    Record& record = records_[index];
    record = request;
    record.holder = Holder::operation;
    operation.cookie = index;
    unit.start(operation);
}

void FuseChannel::on_answered(lun::Operation& operation) {
    const auto index = static_cast<std::uint32_t>(operation.cookie);
    SRPFS_ASSERT(index < records_.size());
    const Record record = records_[index];
    SRPFS_ASSERT(record.holder == Holder::operation);
    SRPFS_ASSERT(record.operation == &operation);

    const bool ours = record.unique == 0;
    const int error = errno_of(operation.outcome(), operation.kind());
    if (error != 0) [[unlikely]] {
        if (!ours) reply(record.unique, record.from, error);
    } else if (operation.kind() == lun::OperationKind::read) {
        SRPFS_ASSERT(operation.data().size() == record.bytes);
        reply(record.unique, record.from, 0, operation.data());
    } else if (operation.kind() == lun::OperationKind::write) {
        record.lun->last_write.store(engine_.timers().now().time_since_epoch().count(), std::memory_order_relaxed);
        const fuse_write_out out{.size = record.bytes, .padding = 0};
        reply(record.unique, record.from, 0, bytes_of(out));
    } else if (!ours) {
        reply(record.unique, record.from, 0);
    }
    operation.release();
    free_record(index);
    if (!drains_.empty()) [[unlikely]]
        note_drained(record.lun);
    if (self_ && pending() == 0) [[unlikely]]
        executor().post([last = std::exchange(self_, nullptr)] {});
}

void FuseChannel::flush_after_close(std::shared_ptr<LunData> lun) {
    lun::Unit* unit = lun->unit.load(std::memory_order_relaxed);
    if (fd_ < 0 || !unit) return;
    lun::Operation* operation = engine_.take();
    if (!operation) return;  // everything is busy: the next close, fsync or the end of the mount flushes
    operation->prepare_flush(*unit, *this);
    start(*unit, *operation, {.operation = operation, .lun = lun.get(), .from = static_cast<std::uint16_t>(index_)});
}

void FuseChannel::drain(const LunData* lun, std::function<void()> done) {
    std::size_t requests = 0;
    for (const Record& record : records_)
        if (record.holder == Holder::operation && record.lun == lun) ++requests;
    if (requests == 0) return done();
    drains_.push_back({lun, requests, std::move(done)});
}

void FuseChannel::note_drained(const LunData* lun) {
    for (std::size_t i = 0; i < drains_.size(); ++i) {
        if (drains_[i].lun != lun || --drains_[i].requests_left > 0) continue;
        const auto done = std::move(drains_[i].done);
        drains_.erase(drains_.begin() + static_cast<std::ptrdiff_t>(i--));
        done();
    }
}

// ---- INTERRUPT ----

void FuseChannel::on_interrupt(const fuse_in_header& header, std::span<const std::byte> request) {
    fuse_interrupt_in in{};
    if (!read_struct(request, sizeof header, in)) return malformed(header);
    if (interrupt(in.unique)) return;
    // The kernel queues an INTERRUPT only once its request has been copied out. So another reactor has read it, and
    // will have served or noted it before it looks at its mail; or it has been answered, and then nobody finds it.
    for (std::size_t peer = 0; peer < peers_.size(); ++peer) {
        if (peer == index_) continue;
        if (const auto channel = peers_[peer].lock())
            channel->executor().post([channel, unique = in.unique] { channel->interrupt(unique); });
    }
    // A request that is still to come, which Linux rules out, is worth asking for again: EAGAIN makes the kernel queue
    // the INTERRUPT once more if it knows the request, and is ignored if it does not.
    if (in.unique > unique_seen_max_) write_reply(header.unique, EAGAIN, {});
}

bool FuseChannel::interrupt(std::uint64_t unique) {
    if (unique == 0) return false;
    for (std::uint32_t index = 0; index < records_.size(); ++index) {
        const Record& record = records_[index];
        if (record.holder == Holder::nobody || record.unique != unique) continue;
        if (record.holder == Holder::operation)
            record.operation->unit().interrupt(*record.operation);
        else if (host_)
            host_->on_control_interrupt({.channel = index_, .record = index, .unique = unique});
        return true;
    }
    return false;
}

void FuseChannel::leave() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
    host_ = nullptr;
    auto keep = shared_from_this();
    for (std::uint32_t index = 0; index < records_.size(); ++index) {
        if (records_[index].holder == Holder::control) free_record(index);
        if (records_[index].holder == Holder::operation)
            records_[index].operation->unit().interrupt(*records_[index].operation);
    }
    if (pending() > 0) self_ = std::move(keep);
}

// ---- answers ----

void FuseChannel::reply(std::uint64_t unique, unsigned from, int error, std::span<const std::byte> body) {
    if (from == index_) [[likely]]
        return write_reply(unique, error, body);
    const auto reader = from < peers_.size() ? peers_[from].lock() : nullptr;
    if (!reader) return;
    reader->executor().post([reader, answer = make_reply(unique, error, body)] { reader->write_whole(answer); });
}

void FuseChannel::write_reply(std::uint64_t unique, int error, std::span<const std::byte> body) {
    if (fd_ < 0) return;
    if (error != 0) body = {};
    fuse_out_header header{};
    header.len = static_cast<std::uint32_t>(sizeof header + body.size());
    header.error = -error;
    header.unique = unique;
    iovec parts[2] = {{&header, sizeof header}, {const_cast<std::byte*>(body.data()), body.size()}};
    ssize_t written = 0;
    do {
        written = ::writev(fd_, parts, body.empty() ? 1 : 2);
    } while (written < 0 && errno == EINTR);
    if (written < 0) [[unlikely]]
        on_reply_failed(unique, errno, !body.empty());
}

void FuseChannel::write_whole(std::span<const std::byte> answer) {
    fuse_out_header header{};
    if (!read_struct(answer, 0, header)) return;
    write_reply(header.unique, -header.error, answer.subspan(sizeof header));
}

void FuseChannel::on_reply_failed(std::uint64_t unique, int errno_value, bool retry_as_error) {
    ++counters_.replies_lost;
    // ENOENT: nobody waits for it any more. ENODEV and ECONNABORTED: the mount is gone; the next read tells.
    const bool expected = errno_value == ENOENT || errno_value == ENODEV || errno_value == ECONNABORTED ||
                          errno_value == EPIPE || errno_value == ECONNRESET;
    if (expected) return;
    log::warning("fuse", "answer to request {} was refused ({}){}", unique, std::strerror(errno_value),
                 retry_as_error ? "; answering EIO instead" : "");
    if (retry_as_error) write_reply(unique, EIO, {});
}

}  // namespace srpfs::fs
