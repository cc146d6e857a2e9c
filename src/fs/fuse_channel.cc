// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "fuse_channel.h"

#include "errno_map.h"

#include <srpfs/base/assert.h>
#include <srpfs/lun/unit.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <new>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

namespace srpfs::fs {
namespace {

constexpr std::uint64_t offset_max = std::numeric_limits<std::int64_t>::max();
constexpr std::uint32_t records_at_start = 4096;
constexpr unsigned turns_not_looked_max = 4;
constexpr int first_private_fd = 10;  // away from 0..2, whatever the program does with them

// A channel without an idle turn for so long has no time for more.
constexpr auto busy_time = std::chrono::microseconds(100);
// Who is asked for help and finds nothing to do is left alone for so long.
constexpr auto ask_interval = std::chrono::microseconds(100);
// What a channel that helps has handed over and not answered; the rest is left to others.
constexpr unsigned helping_requests_max = 32;
constexpr std::size_t helping_bytes_max = std::size_t{4} << 20;
constexpr unsigned helping_empty_looks_max = 4;
// Copying so much to a caller costs more than telling a helper to do it. It gets so many answers at one time: one is
// being copied and one waits.
constexpr std::size_t large_answer = std::size_t{64} << 10;
constexpr unsigned loans_max = 2;

constexpr Duration killed_look_pause = std::chrono::milliseconds(300);

lun::Durability durability_of(bool is_durable) {
    return is_durable ? lun::Durability::stable : lun::Durability::cached;
}

// With so much of its data.
std::vector<std::byte> joined(const Incoming& request, std::size_t data_bytes_max = SIZE_MAX) {
    const auto data = request.data.first(std::min(request.data.size(), data_bytes_max));
    std::vector<std::byte> whole(request.head.size() + data.size());
    std::memcpy(whole.data(), request.head.data(), request.head.size());
    if (!data.empty()) std::memcpy(whole.data() + request.head.size(), data.data(), data.size());
    return whole;
}

Mail interrupt_of(const ReplyTo& to) {
    Mail mail;
    mail.kind = Mail::Kind::interrupt;
    mail.to = to;
    return mail;
}

}  // namespace

FuseChannel::FuseChannel(unsigned index, int fd, lun::Engine& engine, const OpenFiles& files, ChannelHost& host)
    : engine_(engine), descriptor_(fd, engine), files_(files), zero_jobs_(*this), fills_(*this, engine.timers()),
      killed_look_(engine.timers(), [this] { look_for_killed(); }), index_(index), host_(&host) {
    records_.reserve(records_at_start);
}

FuseChannel::~FuseChannel() {
    for (const Record& record : records_)
        SRPFS_ASSERT(record.holder != Holder::operation && record.holder != Holder::lent);
}

void FuseChannel::set_peers(std::vector<std::weak_ptr<FuseChannel>> peers) {
    peers_ = std::move(peers);
    for (std::size_t peer = 0; peer < peers_.size(); ++peer) {
        const auto channel = peers_[peer].lock();
        const bool is_other = channel && peer != index_;
        peers_descriptors_.push_back(is_other ? channel->share_descriptor() : nullptr);
        Outgoing& outgoing = outgoing_.emplace_back();
        if (is_other) outgoing.desk = channel->desk_;
    }
}

// The same open file, in whose table the kernel looks for the request; one for all, closed by the last.
std::shared_ptr<DescriptorIntake> FuseChannel::share_descriptor() {
    auto shared = shared_descriptor_.lock();
    if (!shared) {
        // -1: answers go by our mail.
        const int fd = fcntl(descriptor_.fd(), F_DUPFD_CLOEXEC, first_private_fd);
        is_duplicated_ = fd >= 0;
        shared = std::make_shared<DescriptorIntake>(fd, engine_);
        shared_descriptor_ = shared;
    }
    return shared;
}

void FuseChannel::set_reading(bool reading, bool asks_for_help) {
    is_reading_ = reading;
    asks_for_help_ = asks_for_help;
    desk_->set_reads(reading);
    nothing_to_read_ = false;
}

// ---- intake ----

bool FuseChannel::poll() {
    undisturbed_.after_answers();
    if (peers_.empty()) return !disconnected_ && read_intake();
    if (!std::exchange(worked_, false)) busy_since_ = engine_.timers().now();
    desk_->wake_up();
    bool worked = take_mail();
    undisturbed_.after_answers();
    if (const auto asked = desk_->was_asked(); asked == Desk::Asked::to_help)
        help();
    else if (asked == Desk::Asked::to_stop)
        stop_helping();
    if (disconnected_) {
        stop_helping();
        return worked;
    }
    if (ring_)
        worked = read_intake() || worked;
    else if (helps_)
        worked = read_helping() > 0 || worked;
    else if (is_reading_) {
        worked = read_intake() || worked;
        if (!descriptor_.is_drained() && !disconnected_) ask_for_help();
    }
    worked_ = worked_ || worked;
    return worked;
}

bool FuseChannel::is_busy() const { return engine_.timers().now() - busy_since_ >= busy_time; }

// Without peers nobody helps, and everybody is the reader.
bool FuseChannel::read_intake() {
    bool worked = false;
    if (ring_) {
        // All that has come, before an INTERRUPT of it is read from the descriptor.
        const bool both = ring_->descriptor_is_ready();
        worked = ring_->poll(*this, both ? whatever_has_come : Batch{}) > 0;
        // Not before sleep: a busy reactor may never sleep. Some of them may wait at other homes.
        if (worked && pending() + requests_elsewhere_ > 0 && !killed_look_.armed())
            killed_look_.arm_after(killed_look_pause);
        if (!both) return worked;
    }
    // Looking again at a descriptor that was empty a turn ago costs a system call and hardly ever finds anything;
    // the reactor does not sleep while there is something.
    if (!ring_ && !is_worth_looking()) return worked;
    const unsigned taken = descriptor_.poll(*this, Batch{});
    if (reactor::Habit* const look = std::exchange(look_, nullptr)) look->tried(taken > 0);
    nothing_to_read_ = is_told_ && descriptor_.is_drained();
    turns_not_looked_ = 0;
    if (ring_ && taken < batch_max && !disconnected_) ring_->watch_descriptor();
    return worked || taken > 0;
}

Result<void> FuseChannel::start_ring(std::shared_ptr<Ring> ring) {
    if (!descriptor_.is_open() || disconnected_) return {};  // over before it began
    if (auto started = ring->start(descriptor_.fd()); !started) return started;
    ring_ = std::move(ring);
    return {};
}

bool FuseChannel::prepare_to_sleep() {
    if (ring_ && !ring_->prepare_to_sleep()) return false;
    // What could not be sent because the ring had not been flushed.
    if (has_outgoing_ || fills_.has_something_to_send()) return false;
    if (helps_ && requests_elsewhere_ == 0) stop_helping();
    // Their target may be stuck: others may help until some of them are answered.
    if (helps_ && is_full()) desk_->set_full(true);
    return peers_.empty() || desk_->fall_asleep();
}

void FuseChannel::sleep_on(std::vector<int>& fds) {
    if (disconnected_) return;
    // The ring watches the descriptor.
    if (is_reading_ && !sleeper()) descriptor_.sleep_on(fds);
}

void FuseChannel::woken(std::span<const int> readable) {
    is_told_ = true;
    look_ = nullptr;
    turns_not_looked_ = 0;
    nothing_to_read_ = std::find(readable.begin(), readable.end(), descriptor_.fd()) == readable.end();
}

bool FuseChannel::is_worth_looking() {
    if (!nothing_to_read_) return true;
    ++turns_not_looked_;
    if (turns_not_looked_ == 1 || (turns_not_looked_ < turns_not_looked_max && !later_looks_.is_due())) return false;
    look_ = &later_looks_;
    return true;
}

// While requests are in flight, whoever ran may just as well have worked on one of them.
void FuseChannel::look_again() {
    if (!is_told_) return;
    look_ = nullptr;
    const bool is_extra = pending() > 0;
    nothing_to_read_ = is_extra && !extra_looks_.is_due();
    if (nothing_to_read_) return;
    turns_not_looked_ = 0;
    if (is_extra) look_ = &extra_looks_;
}

void FuseChannel::on_intake_ended(int errno_value) {
    disconnected_ = true;
    // Whoever unmounts waits until the kernel has its entries back.
    if (ring_) ring_->close();
    if (host_) host_->on_disconnected(index_, errno_value);
}

void FuseChannel::malformed(const Request& request) {
    ++counters_.malformed;
    if (!is_unanswered(request.header.opcode) || is_in_entry(request.to)) reply(request.to, EINVAL);
}

void FuseChannel::on_incoming(const Incoming& incoming) {
    ++counters_.requests;
    Request request;
    static_cast<Incoming&>(request) = incoming;
    fuse_in_header& header = request.header;
    if (!read_struct(request.head, 0, header)) {
        ++counters_.malformed;  // nobody to answer
        return;
    }
    request.to = {.unique = header.unique, .channel = static_cast<std::uint16_t>(index_), .slot = incoming.slot};
    if (header.len != request.head.size() + request.data.size()) return malformed(request);
    // An INTERRUPT's own number is that of its request plus one.
    if (header.opcode != FUSE_INTERRUPT) unique_seen_max_ = std::max(unique_seen_max_, header.unique);
    switch (header.opcode) {
        case FUSE_READ: return on_read(request);
        case FUSE_WRITE: return on_write(request);
        case FUSE_FSYNC: return on_fsync(request);
        // Comes at each close of each duplicate and says nothing about durability.
        case FUSE_FLUSH: return on_flush(request);
        case FUSE_INTERRUPT: return on_interrupt(request);
        case FUSE_FALLOCATE: return on_fallocate(request);
        case FUSE_LSEEK: return on_lseek(request);
        // Inode numbers are stable and nodes are not counted, so nothing is freed by forgetting.
        case FUSE_FORGET:
        case FUSE_BATCH_FORGET:
        case FUSE_NOTIFY_REPLY:
            if (is_in_entry(request.to)) reply(request.to, 0);  // does not happen; the entry would be lost
            return;
        default: break;
    }
    const int error = check_for_libfuse(request.head);
    if (error != 0) {
        if (error == EINVAL) ++counters_.malformed;
        return reply(request.to, error);
    }
    // Two for each file of `ls -l`.
    if (is_foreign_attribute(request.head)) return reply(request.to, ENODATA);
    hand_to_control(request);
}

LunData* FuseChannel::lun_of(std::uint64_t handle, const Request& request) {
    const OpenFile* file = files_.find(handle);
    if (!file) [[unlikely]] {
        reply(request.to, ENODEV);
        return nullptr;
    }
    LunData* lun = file->lun;
    if (!lun) [[unlikely]] {
        hand_to_control(request);
        return nullptr;
    }
    if (!file->is_used.load(std::memory_order_relaxed)) [[unlikely]]
        file->is_used.store(true, std::memory_order_relaxed);
    if (lun->reactor != index_) [[unlikely]] {
        hand_to_home(*lun, request);
        return nullptr;
    }
    if (!lun->unit.load(std::memory_order_relaxed)) [[unlikely]] {
        reply(request.to, ENODEV);
        return nullptr;
    }
    return lun;
}

void FuseChannel::on_read(const Request& request) {
    fuse_read_in in{};
    if (!read_struct(request.head, sizeof request.header, in)) return malformed(request);
    if (in.offset > offset_max) return reply(request.to, EINVAL);
    LunData* lun = lun_of(in.fh, request);
    if (!lun) return;
    // All but those that the kernel makes to fill its pages have an owner.
    std::uint64_t fill = 0;
    if ((in.read_flags & FUSE_READ_LOCKOWNER) == 0) [[unlikely]]
        fill = begin_fill(*lun, request, in);

    const std::uint64_t capacity = lun->capacity_bytes.load(std::memory_order_relaxed);
    if (in.offset >= capacity || in.size == 0) return read_nothing(request, *lun, fill);
    const std::uint64_t wanted = std::min<std::uint64_t>(in.size, lun::intake_payload_bytes_max);
    const auto bytes = static_cast<std::uint32_t>(std::min(wanted, capacity - in.offset));

    lun::Operation* operation = engine_.take();
    if (!operation) {
        if (fill != 0) fills_.failed(fill);
        return reply(request.to, EIO);
    }
    lun::Unit& unit = *lun->unit.load(std::memory_order_relaxed);
    if (is_in_entry(request.to)) engine_.lend_entry_for_read(*operation, request.to.slot);
    operation->prepare_read(unit, in.offset, bytes, *this);
    start(unit, *operation, {.to = request.to, .operation = operation, .lun = lun, .bytes = bytes, .pages = fill});
}

// What may change without anybody being told is not kept: a write whose end nobody knows.
std::uint64_t FuseChannel::begin_fill(const LunData& lun, const Request& request, const fuse_read_in& in) {
    const OpenFile* const file = files_.find(in.fh);
    // Who reads has not closed it: a duplicate of the descriptor was, or it is mapped.
    if (file && file->is_cached) file->is_flushed.store(false, std::memory_order_release);
    const bool keeps = file && file->is_cached && !lun.unit.load(std::memory_order_relaxed)->has_ghosts();
    return fills_.begin(lun, NodeId{request.header.nodeid}, {in.offset, in.offset + in.size},
                        keeps ? PageFills::Stay::until_changed : PageFills::Stay::is_short);
}

// Beyond the end. The kernel makes zeros of what is missing, so that is a fill like others.
void FuseChannel::read_nothing(const Request& request, LunData& lun, std::uint64_t fill) {
    if (fill == 0) return reply(request.to, 0);
    const std::uint32_t index = take_record();
    records_[index] = {.to = request.to, .lun = &lun, .holder = Holder::operation, .pages = fill};
    if (!answer_read(index)) return;
    fills_.answered(fill);
    free_record(index);
}

void FuseChannel::on_write(const Request& request) {
    fuse_write_in in{};
    static_assert(sizeof request.header + sizeof in == lun::intake_header_bytes);
    if (!read_struct(request.head, sizeof request.header, in)) return malformed(request);
    if (in.size != request.data.size()) return malformed(request);
    if (in.offset > offset_max) return reply(request.to, EINVAL);
    LunData* lun = lun_of(in.fh, request);
    if (!lun) return;

    const std::uint64_t capacity = lun->capacity_bytes.load(std::memory_order_relaxed);
    if (in.size == 0) {
        const fuse_write_out nothing{};
        return reply(request.to, 0, bytes_of(nothing));
    }
    if (in.offset >= capacity) return reply(request.to, ENOSPC);
    const auto bytes = static_cast<std::uint32_t>(std::min<std::uint64_t>(in.size, capacity - in.offset));
    const auto durability = durability_of(is_durable(in.flags));
    std::uint64_t write = 0;
    if (!zero_jobs_.idle()) [[unlikely]] {
        const auto begun =
            zero_jobs_.take_write(in.fh, *lun, {in.offset, in.offset + bytes}, durability, request.to, request);
        if (!begun) return;
        write = *begun;
    }
    const auto fail = [&] {
        if (write != 0) end_shown_write(write, false);
        reply(request.to, EIO);
    };

    lun::Operation* operation = engine_.take();
    if (!operation) return fail();
    lun::Unit& unit = *lun->unit.load(std::memory_order_relaxed);
    if (is_in_entry(request.to)) {
        engine_.lend_entry_for_write(*operation, unit, request.to.slot, bytes);
    } else if (!(request.is_elsewhere ? engine_.take_copy_of(*operation, unit, request.data.first(bytes))
                                      : engine_.take_over_intake(*operation, unit, bytes))) {
        operation->release();
        return fail();
    }
    operation->prepare_write(unit, in.offset, durability, *this);
    start(unit, *operation, {.to = request.to, .operation = operation, .lun = lun, .bytes = bytes, .write = write});
}

void FuseChannel::end_shown_write(std::uint64_t write, bool succeeded) {
    zero_jobs_.end_write(write, succeeded);
    zero_jobs_.go_on();
}

void FuseChannel::on_flush(const Request& request) {
    fuse_flush_in in{};
    if (!read_struct(request.head, sizeof request.header, in)) return malformed(request);
    if (const OpenFile* const file = files_.find(in.fh)) file->is_flushed.store(true, std::memory_order_release);
    reply(request.to, 0);
}

void FuseChannel::on_fsync(const Request& request) {
    fuse_fsync_in in{};
    if (!read_struct(request.head, sizeof request.header, in)) return malformed(request);
    const OpenFile* file = files_.find(in.fh);
    if (file && !file->lun) return reply(request.to, 0);  // control files keep nothing back
    LunData* lun = lun_of(in.fh, request);
    if (!lun) return;

    lun::Operation* operation = engine_.take();
    if (!operation) return reply(request.to, EIO);
    lun::Unit& unit = *lun->unit.load(std::memory_order_relaxed);
    operation->prepare_flush(unit, *this, &file->losses_seen);
    start(unit, *operation, {.to = request.to, .operation = operation, .lun = lun});
}

// Space of a LUN is always "allocated", so mode 0 inside it is done. A hole is a range of zeros.
void FuseChannel::on_fallocate(const Request& request) {
    fuse_fallocate_in in{};
    if (!read_struct(request.head, sizeof request.header, in)) return malformed(request);
    const OpenFile* file = files_.find(in.fh);
    if (file && !file->lun) return reply(request.to, EOPNOTSUPP);
    LunData* lun = lun_of(in.fh, request);
    if (!lun) return;

    const bool punches = (in.mode & FALLOC_FL_PUNCH_HOLE) != 0, zeroes = (in.mode & FALLOC_FL_ZERO_RANGE) != 0,
               keeps_size = (in.mode & FALLOC_FL_KEEP_SIZE) != 0;
    constexpr std::uint32_t known = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
    if ((in.mode & ~known) != 0 || (punches && (zeroes || !keeps_size))) return reply(request.to, EOPNOTSUPP);
    const std::uint64_t capacity = lun->capacity_bytes.load(std::memory_order_relaxed);
    const bool inside = in.offset <= capacity && in.length <= capacity - in.offset;
    // What lies beyond the end reads as nothing, hole or not.
    if (!inside && !(keeps_size && (punches || zeroes))) return reply(request.to, EFBIG);
    if (in.offset >= capacity || in.length == 0) return reply(request.to, 0);
    const lun::ByteRange range{in.offset, in.offset + std::min(in.length, capacity - in.offset)};
    const auto durability = durability_of(file->is_durable);
    if (punches || zeroes) return zero_jobs_.zero(in.fh, *lun, range, punches, !keeps_size, durability, request.to);
    if (keeps_size) return reply(request.to, 0);
    zero_jobs_.extend(in.fh, *lun, range.end, durability, request.to);
}

// The hole begins at the end, and within where the unit tells. Nothing else reaches us: the kernel does SEEK_SET, CUR
// and END itself.
void FuseChannel::on_lseek(const Request& request) {
    fuse_lseek_in in{};
    if (!read_struct(request.head, sizeof request.header, in)) return malformed(request);
    const OpenFile* file = files_.find(in.fh);
    if (!file) return reply(request.to, ENODEV);
    if (in.whence != SEEK_DATA && in.whence != SEEK_HOLE) return reply(request.to, EINVAL);
    if (!file->lun) return reply(request.to, ENXIO);  // a control file's size is 0
    LunData* lun = lun_of(in.fh, request);
    if (!lun) return;
    const std::uint64_t capacity = lun->capacity_bytes.load(std::memory_order_relaxed);
    if (in.offset >= capacity) return reply(request.to, ENXIO);
    const auto sought = in.whence == SEEK_DATA ? lun::Sought::data : lun::Sought::hole;
    lun::Unit& unit = *lun->unit.load(std::memory_order_relaxed);
    if (!unit.info()->tells_holes) {
        const fuse_lseek_out out{.offset = sought == lun::Sought::data ? in.offset : capacity};
        return reply(request.to, 0, bytes_of(out));
    }
    const auto place = searches_.insert(searches_.end(), Search{});
    place->record = take_record();
    Record& record = records_[place->record];
    record.to = request.to;
    record.lun = lun;
    record.holder = Holder::search;
    place->search = std::make_unique<lun::ExtentSearch>(
        unit, in.offset, sought, [this, place, sought](lun::OutcomeKind kind, std::uint64_t offset) {
            end_search(place, sought, kind, offset);
        });
    place->search->start();
}

void FuseChannel::end_search(std::list<Search>::iterator place, lun::Sought sought, lun::OutcomeKind kind,
                             std::uint64_t offset) {
    const Search over = std::move(*place);  // it is calling us, and looks at nothing of its own any more
    searches_.erase(place);
    const Record record = records_[over.record];
    SRPFS_ASSERT(record.holder == Holder::search);
    const std::uint64_t capacity = record.lun->capacity_bytes.load(std::memory_order_relaxed);
    const fuse_lseek_out out{.offset = std::min(offset, capacity)};
    if (kind != lun::OutcomeKind::ok)
        reply(record.to, errno_of({.kind = kind}, lun::OperationKind::read));
    else if (sought == lun::Sought::data && offset >= capacity)
        reply(record.to, ENXIO);
    else
        reply(record.to, 0, bytes_of(out));
    free_record(over.record);
    note_answered(record.lun);
}

void FuseChannel::interrupt_search(std::uint32_t record) {
    const auto place =
        std::find_if(searches_.begin(), searches_.end(), [&](const Search& one) { return one.record == record; });
    if (place != searches_.end()) place->search->interrupt();
}

void FuseChannel::hand_to_control(const Request& request) {
    if (!host_) return;
    const std::uint32_t index = take_record();
    Record& record = records_[index];
    record.to = request.to;
    record.holder = Holder::control;
    // Of a command that is too long as much as shows that.
    host_->on_control_request({.channel = index_, .record = index, .unique = request.to.unique},
                              joined(request, command_bytes_max + 1));
}

void FuseChannel::finish(const Origin& origin, std::span<const std::byte> answer) {
    if (origin.record >= records_.size()) return;
    const Record& record = records_[origin.record];
    if (record.holder != Holder::control || record.to.unique != origin.unique) return;  // left meanwhile
    const ReplyTo to = record.to;
    free_record(origin.record);
    if (!answer.empty())
        answer_whole(to, answer);
    else if (is_in_entry(to))
        this->answer(to, EIO, {});
}

// ---- several reactors: a unit has one home ----

void FuseChannel::post_to(unsigned peer, const Mail& mail, bool urgent) {
    Outgoing& outgoing = outgoing_[peer];
    Mail& copy = outgoing.mail.emplace_back(mail);
    copy.from = static_cast<std::uint16_t>(index_);
    outgoing.urgent = outgoing.urgent || urgent;
    has_outgoing_ = true;
    if (!host_) deliver();  // nobody calls flush() any more
}

void FuseChannel::deliver() {
    has_outgoing_ = false;
    // What the mail says has been answered is to be so.
    if (wrote_in_ring_) [[unlikely]] {
        ring_->flush();
        if (ring_->is_flushed() || !host_)
            wrote_in_ring_ = false;
        else
            has_outgoing_ = true;
        if (wrote_in_ring_) return;
    }
    for (unsigned peer = 0; peer < outgoing_.size(); ++peer) {
        Outgoing& outgoing = outgoing_[peer];
        if (!outgoing.mail.empty() && outgoing.desk->put(outgoing.mail, std::exchange(outgoing.urgent, false)))
            wake(peer);
    }
}

void FuseChannel::wake(unsigned peer) {
    if (auto channel = peers_[peer].lock()) {
        reactor::Executor& executor = channel->executor();
        executor.post([channel = std::move(channel)] { channel->take_mail(); });
    }
}

bool FuseChannel::take_mail() {
    if (peers_.empty()) return false;
    bool found = false;
    do {
        desk_->take(taken_);
        found = found || !taken_.empty();
        for (const Mail& mail : taken_) on_mail(mail);
        taken_.clear();
        if (!host_) (void)desk_->was_asked();
    } while (!host_ && !desk_->fall_asleep());  // nobody calls poll() any more
    worked_ = worked_ || found;
    return found;
}

void FuseChannel::on_mail(const Mail& mail) {
    switch (mail.kind) {
        case Mail::Kind::request: return on_request_of_peer(mail);
        case Mail::Kind::interrupt: return (void)mark_interrupted(mail.to.unique);
        case Mail::Kind::answer:
        case Mail::Kind::answered: return on_answer_of_home(mail);
        case Mail::Kind::written: --outgoing_[mail.from].lent; return end_loan(mail.record);
        case Mail::Kind::copied:
            if (mail.buffer) engine_.take_back(*mail.buffer);
            delete[] mail.copy;
            return;
    }
}

void FuseChannel::hand_to_home(const LunData& lun, const Request& request) {
    const unsigned home = lun.reactor;
    if (home >= outgoing_.size() || peers_[home].expired() || !host_) return reply(request.to, ENODEV);
    Mail mail;
    mail.head_bytes = static_cast<std::uint8_t>(std::min(request.head.size(), mail.head.size()));
    std::memcpy(mail.head.data(), request.head.data(), mail.head_bytes);
    mail.to = request.to;
    mail.data = request.data;  // in an entry of a ring it stays until the answer
    if (!request.data.empty() && request.to.slot == no_slot) {
        mail.buffer = engine_.lend_intake(static_cast<std::uint32_t>(request.data.size()));
        if (mail.buffer) {
            mail.data = mail.buffer->bytes.first(request.data.size());
        } else {
            mail.copy = new (std::nothrow) std::byte[request.data.size()];
            if (!mail.copy) return reply(request.to, EIO);
            std::memcpy(mail.copy, request.data.data(), request.data.size());
            mail.data = {mail.copy, request.data.size()};
        }
    }
    mail.to.record = take_record();
    Record& record = records_[mail.to.record];
    record.to = mail.to;
    record.holder = Holder::peer;
    record.home = static_cast<std::uint16_t>(home);
    record.bytes = static_cast<std::uint32_t>(data_bytes(request));
    // It is pending there.
    pending_.store(pending_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
    ++requests_elsewhere_;
    bytes_elsewhere_ += record.bytes;
    ++counters_.handed_over;
    post_to(home, mail);
}

void FuseChannel::on_request_of_peer(const Mail& mail) {
    serve_elsewhere(mail.to, {.head = std::span(mail.head).first(mail.head_bytes), .data = mail.data});
    // Whatever has become of it, the data is not looked at any more.
    if (!mail.buffer && !mail.copy) return;
    Mail done;
    done.kind = Mail::Kind::copied;
    done.buffer = mail.buffer;
    done.copy = mail.copy;
    post_to(mail.from, done);
}

void FuseChannel::on_answer_of_home(const Mail& mail) {
    if (mail.to.channel == index_) forget_peer(mail);
    if (mail.kind == Mail::Kind::answered) return;
    ++counters_.answered_for_home;
    const bool is_lent = mail.record != no_record;
    const auto body = is_lent ? mail.data : std::span<const std::byte>(mail.head).first(mail.head_bytes);
    if (mail.to.channel == index_)
        answer(mail.to, mail.error, body);
    else if (mail.to.channel < peers_descriptors_.size() && peers_descriptors_[mail.to.channel] &&
             !peers_descriptors_[mail.to.channel]->answer(mail.to, mail.error, body))
        ++counters_.replies_lost;
    if (!is_lent) return;
    if (mail.to.channel == index_ && mail.to.slot != no_slot) wrote_in_ring_ = true;
    Mail done;
    done.kind = Mail::Kind::written;
    done.record = mail.record;
    post_to(mail.from, done);
}

// It was handed over, and is answered or about to be.
void FuseChannel::forget_peer(const Mail& mail) {
    SRPFS_ASSERT(mail.to.record < records_.size());
    const Record record = records_[mail.to.record];
    SRPFS_ASSERT(record.holder == Holder::peer && record.to.unique == mail.to.unique);
    free_record(mail.to.record);
    --requests_elsewhere_;
    bytes_elsewhere_ -= record.bytes;
    if (desk_->is_full() && !is_full()) desk_->set_full(false);
    note_done(record.bytes);
}

// A request that this channel has read is answered, or as good as that.
void FuseChannel::note_done(std::size_t bytes) { desk_->count_work(work_of(bytes)); }

void FuseChannel::serve_for(const ReplyTo& to, std::span<const std::byte> whole) {
    serve_elsewhere(to, split_request(whole));
}

void FuseChannel::serve_elsewhere(const ReplyTo& to, const Incoming& incoming) {
    if (!descriptor_.is_open()) return reply(to, ENODEV);
    Request request;
    static_cast<Incoming&>(request) = incoming;
    request.to = to;
    request.is_elsewhere = true;
    if (!read_struct(request.head, 0, request.header)) return reply(to, EINVAL);
    switch (request.header.opcode) {
        case FUSE_READ: return on_read(request);
        case FUSE_WRITE: return on_write(request);
        case FUSE_FSYNC: return on_fsync(request);
        case FUSE_FALLOCATE: return on_fallocate(request);
        case FUSE_LSEEK: return on_lseek(request);
        default: return reply(to, ENOSYS);
    }
}

// ---- who reads ----

void FuseChannel::help() {
    if (helps_ || ring_ || is_reading_) return;
    helps_ = true;
    nothing_to_read_ = false;
    empty_looks_ = 0;
    desk_->set_helps(true);
}

void FuseChannel::stop_helping() {
    helps_ = false;
    desk_->set_helps(false);
}

bool FuseChannel::is_full() const {
    return requests_elsewhere_ >= helping_requests_max || bytes_elsewhere_ >= helping_bytes_max;
}

unsigned FuseChannel::read_helping() {
    if (is_reading_) {
        stop_helping();  // goes on without being asked
        return 0;
    }
    if (is_full()) return 0;
    const unsigned taken = descriptor_.poll(*this, Batch{.requests = helping_requests_max - requests_elsewhere_});
    if (taken > 0)
        empty_looks_ = 0;
    else if (++empty_looks_ >= helping_empty_looks_max)
        stop_helping();
    return taken;
}

// A turn has left requests in the kernel.
void FuseChannel::ask_for_help() {
    if (!asks_for_help_ || !is_busy()) return;
    const Instant now = engine_.timers().now();
    std::uint64_t work = desk_->work_done();
    unsigned helpers_max = 0, helping = 0;
    for (const Outgoing& peer : outgoing_) {
        if (!peer.desk) continue;
        work += peer.desk->work_done();
        helpers_max += peer.desk->reads() || peer.desk->is_full() ? 0 : 1;
        helping += (peer.desk->helps() && !peer.desk->is_full()) || peer.desk->is_asked_to_help() ? 1 : 0;
    }
    if (helpers_max == 0) return;
    const unsigned wanted = staffing_.on_backlog(now, work, helpers_max);
    if (helping > wanted) {
        for (const Outgoing& peer : outgoing_)
            if (peer.desk && peer.desk->helps() && !peer.desk->is_full() && helping > wanted) {
                peer.desk->dismiss();
                --helping;
            }
    } else if (helping < wanted && now >= ask_at_) {
        ask_at_ = now + ask_interval;
        // One at a time; rather one that has nothing to do.
        for (const bool asleep : {true, false})
            for (unsigned peer = 0; peer < outgoing_.size(); ++peer) {
                Desk* desk = outgoing_[peer].desk.get();
                if (!desk || desk->reads() || desk->helps() || desk->is_asked_to_help() || desk->is_full() ||
                    desk->is_asleep() != asleep)
                    continue;
                if (desk->ask()) wake(peer);
                return;
            }
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
    if (record.holder != Holder::peer)
        pending_.store(pending_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
    record.holder = Holder::nobody;
    record.operation = nullptr;
    record.lun = nullptr;
    record.pages = 0;
    record.write = 0;
    record.error = 0;
    record.is_interrupted = false;
    record.next_free = first_free_;
    first_free_ = index;
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

    worked_ = true;
    const bool ours = record.to.unique == 0;
    int error = errno_of(operation.outcome(), operation.kind());
    if (record.write != 0) [[unlikely]]
        end_shown_write(record.write, error == 0);
    // Commands of an operation that failed early may be in flight: with the answer the kernel gets the entry's memory.
    if (is_in_entry(record.to)) engine_.take_entry_back(operation, record.to.slot);
    if (error != 0) [[unlikely]] {
        if (record.pages != 0) fills_.failed(record.pages);
        // Some of a failed write may be there.
        if (operation.kind() == lun::OperationKind::write && fills_.any() && write_waits_for_pages(index, error))
            return;
        if (!ours) reply(record.to, error);
    } else if (operation.kind() == lun::OperationKind::read) {
        SRPFS_ASSERT(operation.data().size() == record.bytes);
        if (outgoing_.empty())
            answer(record.to, 0, operation.data());
        else if (!answer_read(index))
            return;
        if (record.pages != 0) [[unlikely]]
            fills_.answered(record.pages);
    } else if (operation.kind() == lun::OperationKind::write) {
        note_written(*record.lun);
        if (fills_.any() && write_waits_for_pages(index, error)) [[unlikely]]
            return;
        reply_to_write(record, error);
    } else if (!ours) {
        reply(record.to, 0);
    }
    if (!outgoing_.empty() && record.to.channel == index_) note_done(record.bytes);
    operation.release();
    free_record(index);
    note_answered(record.lun);
}

void FuseChannel::note_written(LunData& lun) {
    lun.last_write.store(engine_.timers().now().time_since_epoch().count(), std::memory_order_relaxed);
}

// The copy to the caller is the larger part of what a read costs, and may be another channel's: false, and it has the
// data until it says that the kernel has it.
bool FuseChannel::answer_read(std::uint32_t index) {
    Record& record = records_[index];
    const auto data = record.operation ? record.operation->data() : std::span<const std::byte>{};
    unsigned peer = record.to.channel;
    if (peer == index_) {
        if (data.size() >= large_answer && record.to.slot == no_slot && is_duplicated_) peer = idle_helper();
        if (peer == index_) {
            answer(record.to, 0, data);
            return true;
        }
    } else if (answers_itself(record.to)) {
        answer_on_duplicate(record.to, 0, data);
        return true;
    }
    record.holder = Holder::lent;
    Mail mail;
    mail.kind = Mail::Kind::answer;
    mail.to = record.to;
    mail.record = index;
    mail.data = data;
    ++outgoing_[peer].lent;
    post_to(peer, mail);
    if (data.size() >= large_answer) deliver();
    return false;
}

// One that has little to copy; this channel if there is none.
unsigned FuseChannel::idle_helper() const {
    for (unsigned peer = 0; peer < outgoing_.size(); ++peer)
        if (outgoing_[peer].desk && outgoing_[peer].lent < loans_max && outgoing_[peer].desk->helps() &&
            !outgoing_[peer].desk->is_full())
            return peer;
    return index_;
}

void FuseChannel::end_loan(std::uint32_t index) {
    SRPFS_ASSERT(index < records_.size());
    const Record record = records_[index];
    SRPFS_ASSERT(record.holder == Holder::lent);
    if (record.to.channel == index_) note_done(record.bytes);
    if (record.pages != 0) [[unlikely]]
        fills_.answered(record.pages);
    if (record.operation) record.operation->release();
    free_record(index);
    note_answered(record.lun);
}

// ---- pages of the kernel's ----

bool FuseChannel::write_waits_for_pages(std::uint32_t index, int& error) {
    Record& record = records_[index];
    lun::Operation& operation = *record.operation;
    const lun::ByteRange range{operation.offset(), operation.offset() + record.bytes};
    // Who has been interrupted does not wait. He may live on: as long as others may read what was there before, he is
    // not told that it is over.
    if (record.is_interrupted) {
        if (!fills_.change(*record.lun, range) && error == 0) error = EINTR;
        return false;
    }
    record.pages = fills_.wait(*record.lun, range, [this, index] { end_write(index); });
    if (record.pages == 0) return false;
    record.error = error;
    record.holder = Holder::pages;
    record.operation = nullptr;
    operation.release();
    return true;
}

void FuseChannel::reply_to_write(const Record& record, int error) {
    if (error != 0) return reply(record.to, error);
    const fuse_write_out out{.size = record.bytes, .padding = 0};
    reply(record.to, 0, bytes_of(out));
}

void FuseChannel::end_write(std::uint32_t index) {
    const Record record = records_[index];
    SRPFS_ASSERT(record.holder == Holder::pages);
    reply_to_write(record, record.error != 0 || !record.is_interrupted ? record.error : EINTR);
    if (!outgoing_.empty() && record.to.channel == index_) note_done(record.bytes);
    free_record(index);
    note_answered(record.lun);
}

void FuseChannel::send_drops() {
    if (!ring_ || ring_->is_flushed()) fills_.send();
}

void FuseChannel::drop_pages(NodeId node, std::vector<lun::ByteRange> ranges, std::uint64_t ticket) {
    if (host_) host_->on_drop_pages(index_, node, std::move(ranges), ticket);
}

bool FuseChannel::has_read_nothing(std::uint64_t fill) const {
    return std::any_of(records_.begin(), records_.end(), [fill](const Record& record) {
        return record.pages == fill && record.holder == Holder::operation && record.operation &&
               record.operation->has_read_nothing();
    });
}

void FuseChannel::after_pages(const std::shared_ptr<LunData>& lun, std::function<void()> done) {
    const auto told = std::make_shared<std::function<void()>>(std::move(done));
    if (wait_for_pages(*lun, {0, UINT64_MAX}, [lun, told] { (*told)(); }) == 0) (*told)();
}

void FuseChannel::note_answered(const LunData* lun) {
    if (!drains_.empty()) [[unlikely]]
        note_drained(lun);
    if (self_ && pending() == 0) [[unlikely]]
        executor().post([last = std::exchange(self_, nullptr)] {});
}

std::unique_ptr<lun::ParkedRequest> FuseChannel::park(const LunData& lun, const Incoming& write,
                                                      lun::ParkedRequestOwner& owner) {
    return engine_.park_request(*lun.unit.load(std::memory_order_relaxed), owner, write.head, write.data);
}

void FuseChannel::on_shed() {
    executor().post([self = shared_from_this()] { self->zero_jobs_.end_shed(); });
}

std::uint32_t FuseChannel::on_waiting(const ReplyTo& to, LunData* lun) {
    const std::uint32_t index = take_record();
    Record& record = records_[index];
    record.to = to;
    record.holder = Holder::zero_job;
    record.lun = lun;
    return index;
}

ReplyTo FuseChannel::on_waited(std::uint32_t index) {
    const Record record = records_[index];
    SRPFS_ASSERT(record.holder == Holder::zero_job);
    free_record(index);
    note_answered(record.lun);
    return record.to;
}

void FuseChannel::truncate(std::uint64_t handle, const std::shared_ptr<LunData>& lun, std::uint64_t end,
                           std::uint64_t unique, std::function<void(int)> on_done) {
    if (!descriptor_.is_open()) return on_done(ENODEV);
    const ReplyTo to{.unique = unique, .channel = static_cast<std::uint16_t>(index_)};
    // Those that have begun before anybody had truncated a file.
    for (Record& record : records_) {
        const lun::Operation* const operation = record.holder == Holder::operation ? record.operation : nullptr;
        if (!operation || record.write != 0 || operation->kind() != lun::OperationKind::write) continue;
        const lun::ByteRange range{operation->offset(), operation->offset() + record.bytes};
        record.write = zero_jobs_.begin_write(0, *record.lun, range);
    }
    const OpenFile* const file = files_.find(handle);
    const auto durability = durability_of(file && file->is_durable);
    zero_jobs_.truncate(handle, *lun, end, durability, to,
                        [lun, on_done = std::move(on_done)](int error) { on_done(error); });
}

void FuseChannel::interrupt_truncation(std::uint64_t unique) {
    for (std::uint32_t index = 0; index < records_.size(); ++index)
        if (records_[index].holder == Holder::zero_job && records_[index].to.unique == unique)
            return zero_jobs_.interrupt(index);
}

void FuseChannel::flush_after_close(std::shared_ptr<LunData> lun) {
    lun::Unit* unit = lun->unit.load(std::memory_order_relaxed);
    if (!descriptor_.is_open() || !unit) return;
    lun::Operation* operation = engine_.take();
    if (!operation) return;  // everything is busy: the next close, fsync or the end of the mount flushes
    operation->prepare_flush(*unit, *this);
    start(*unit, *operation, {.operation = operation, .lun = lun.get()});
}

void FuseChannel::drain(const LunData* lun, std::function<void()> done) {
    fills_.drop_file(lun);
    auto end = [this, lun, done = std::move(done)] {
        zero_jobs_.forget_file(lun);
        fills_.forget_file(lun);
        done();
    };
    drains_.push_back({lun, std::move(end)});
    zero_jobs_.end_waiting(lun);
    note_drained(lun);
}

void FuseChannel::note_drained(const LunData* lun) {
    const auto is_left = [lun](const Record& record) {
        return record.lun == lun && record.holder != Holder::nobody && record.holder != Holder::control;
    };
    for (std::size_t i = 0; i < drains_.size(); ++i) {
        if (drains_[i].lun != lun || std::any_of(records_.begin(), records_.end(), is_left)) continue;
        const auto done = std::move(drains_[i].done);
        drains_.erase(drains_.begin() + static_cast<std::ptrdiff_t>(i--));
        done();
    }
}

// ---- INTERRUPT ----

void FuseChannel::on_interrupt(const Request& request) {
    fuse_interrupt_in in{};
    if (!read_struct(request.head, sizeof request.header, in)) return malformed(request);
    if (mark_interrupted(in.unique)) return;
    // The kernel queues an INTERRUPT only once its request has been copied out. So another reactor has read it, and
    // will have served it, or noted that it has handed it over, before it gets this; or it has been answered, and then
    // nobody finds it.
    for (std::size_t peer = 0; peer < peers_.size(); ++peer) {
        if (peer == index_) continue;
        if (const auto channel = peers_[peer].lock())
            channel->executor().post([channel, unique = in.unique] { (void)channel->interrupt(unique); });
    }
    // A request that is still to come, which Linux rules out, is worth asking for again: EAGAIN makes the kernel queue
    // the INTERRUPT once more if it knows the request, and is ignored if it does not.
    if (in.unique > unique_seen_max_) reply(request.to, EAGAIN);
}

bool FuseChannel::interrupt(std::uint64_t unique) {
    if (mark_interrupted(unique)) return true;
    // Its request may have been copied into an entry and not been looked at.
    if (!ring_ || disconnected_ || ring_->poll(*this, whatever_has_come) == 0) return false;
    if (!killed_look_.armed()) killed_look_.arm_after(killed_look_pause);
    return mark_interrupted(unique);
}

bool FuseChannel::mark_interrupted(std::uint64_t unique) {
    if (unique == 0) return false;
    for (std::uint32_t index = 0; index < records_.size(); ++index) {
        Record& record = records_[index];
        if (record.holder == Holder::nobody || record.to.unique != unique) continue;
        record.is_interrupted = true;
        if (record.holder == Holder::operation)
            record.operation->unit().interrupt(*record.operation);
        else if (record.holder == Holder::zero_job)
            zero_jobs_.interrupt(index);
        else if (record.holder == Holder::pages)
            fills_.give_up(record.pages);
        else if (record.holder == Holder::search)
            interrupt_search(index);
        else if (record.holder == Holder::peer)
            post_to(record.home, interrupt_of(record.to));  // behind the request
        else if (record.holder == Holder::control && host_)
            host_->on_control_interrupt({.channel = index_, .record = index, .unique = unique});
        return true;
    }
    return false;
}

// Of what has been waiting since the last look, and not all the time.
void FuseChannel::look_for_killed() {
    std::vector<std::uint64_t> killed;
    bool some_wait = false;
    for (const Record& record : records_) {
        if (record.holder == Holder::nobody || record.is_interrupted || !is_in_entry(record.to)) continue;
        if (record.to.unique <= killed_look_unique_ && ring_->requester_was_killed(record.to.slot))
            killed.push_back(record.to.unique);
        else
            some_wait = true;
    }
    killed_look_unique_ = unique_seen_max_;
    if (some_wait) killed_look_.arm_after(killed_look_pause);
    for (const std::uint64_t unique : killed) mark_interrupted(unique);
}

void FuseChannel::leave() {
    killed_look_.disarm();
    undisturbed_.after_answers();  // poll() will not
    if (ring_) ring_->close();
    descriptor_.close();
    peers_descriptors_.clear();
    host_ = nullptr;
    stop_helping();
    deliver();
    take_mail();
    auto keep = shared_from_this();
    for (std::uint32_t index = 0; index < records_.size(); ++index) {
        if (records_[index].holder == Holder::control) free_record(index);
        if (records_[index].holder == Holder::operation)
            records_[index].operation->unit().interrupt(*records_[index].operation);
        if (records_[index].holder == Holder::search) interrupt_search(index);
    }
    zero_jobs_.leave();
    fills_.leave();
    if (pending() > 0) self_ = std::move(keep);
}

// ---- answers ----

void FuseChannel::reply(const ReplyTo& to, int error, std::span<const std::byte> body) {
    if (to.channel == index_) [[likely]]
        return answer(to, error, body);
    if (to.channel >= outgoing_.size()) return;
    if (answers_itself(to)) return answer_on_duplicate(to, error, body);
    Mail mail;
    mail.kind = Mail::Kind::answer;
    mail.to = to;
    SRPFS_ASSERT(body.size() <= mail.head.size());
    mail.error = error;
    mail.head_bytes = static_cast<std::uint8_t>(body.size());
    if (!body.empty()) std::memcpy(mail.head.data(), body.data(), body.size());
    post_to(to.channel, mail);
}

// A request that another channel has read: that one would have to be woken to answer it, unless it has read it to help.
// May change its mind from one call to the next.
bool FuseChannel::answers_itself(const ReplyTo& to) const {
    return to.slot == no_slot && to.channel < peers_descriptors_.size() && peers_descriptors_[to.channel] &&
           peers_descriptors_[to.channel]->is_open() && !outgoing_[to.channel].desk->helps();
}

void FuseChannel::answer_on_duplicate(const ReplyTo& to, int error, std::span<const std::byte> body) {
    if (host_) undisturbed_.before_answer();
    if (!peers_descriptors_[to.channel]->answer(to, error, body)) ++counters_.replies_lost;
    Mail mail;
    mail.kind = Mail::Kind::answered;
    mail.to = to;
    post_to(to.channel, mail, false);
}

void FuseChannel::answer(const ReplyTo& to, int error, std::span<const std::byte> body) {
    if (to.slot == no_slot && host_) undisturbed_.before_answer();
    Intake& intake = to.slot == no_slot ? static_cast<Intake&>(descriptor_) : *ring_;
    if (!intake.answer(to, error, body)) [[unlikely]]
        ++counters_.replies_lost;
}

void FuseChannel::answer_whole(const ReplyTo& to, std::span<const std::byte> whole) {
    fuse_out_header header{};
    if (!read_struct(whole, 0, header)) return;
    answer(to, -header.error, whole.subspan(sizeof header));
}

}  // namespace srpfs::fs
