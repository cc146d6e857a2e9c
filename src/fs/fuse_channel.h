// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// One reactor's FUSE requests: carries out READ, WRITE and FSYNC of LUN files, hands everything else to the control
// thread, and gives each answer to the intake its request came from (the kernel keeps its table of pending requests per
// descriptor).
//
// Lives on its reactor. Shared: the reactor's mailbox holds references, and after leave() the channel holds itself
// until its last operation has been answered.

#pragma once

#include "intake.h"
#include "open_files.h"
#include "page_fills.h"
#include "peers.h"
#include "request.h"
#include "undisturbed.h"
#include "zero_jobs.h"
#include "ring.h"
#include "staffing.h"

#include <srpfs/base/count.h>
#include <srpfs/reactor/habit.h>
#include <srpfs/lun/engine.h>
#include <srpfs/lun/extent_search.h>
#include <srpfs/lun/operation.h>
#include <srpfs/reactor/reactor.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <span>
#include <vector>

namespace srpfs::fs {

// What a channel needs from its surroundings. Called on the channel's reactor.
class ChannelHost {
public:
    // A whole request that the control thread has to answer, through FuseChannel::finish(), exactly once.
    virtual void on_control_request(const Origin& origin, std::vector<std::byte> request) = 0;
    // The caller of a request handed over before got a signal.
    virtual void on_control_interrupt(const Origin& origin) = 0;
    // The connection has ended (umount, abort); `errno_value` is what read said. Once.
    virtual void on_disconnected(unsigned channel, int errno_value) = 0;
    // The kernel is to drop these pages of the file `node`; FuseChannel::on_pages_dropped(ticket) follows, by mail.
    virtual void on_drop_pages(unsigned channel, NodeId node, std::vector<lun::ByteRange> ranges,
                               std::uint64_t ticket) = 0;

protected:
    ~ChannelHost() = default;
};

struct ChannelCounters {
    Count requests;           // read
    Count malformed;          // answered EINVAL, or dropped when not even a header
    Count replies_lost;       // the kernel did not want the answer any more
    Count handed_over;        // to the home of their unit
    Count answered_for_home;  // answers of units that live elsewhere
};

class FuseChannel final : public reactor::Source,
                          public std::enable_shared_from_this<FuseChannel>,
                          private IntakeListener,
                          private lun::OperationListener,
                          private ZeroJobsHost,
                          private PageFillsHost {
public:
    // Owns `fd` (non-blocking; /dev/fuse or a message socket) and closes it. `engine`, `files` and `host` outlive
    // leave(); `engine` outlives the channel.
    FuseChannel(unsigned index, int fd, lun::Engine& engine, const OpenFiles& files, ChannelHost& host);
    ~FuseChannel() override;

    // All channels by index, this one included; before the first poll() of any of them. Not called when this is the
    // only one.
    void set_peers(std::vector<std::weak_ptr<FuseChannel>> peers);

    // Whether requests are read from the descriptor, as they are at first. Without it nothing that comes there wakes
    // the reactor; it serves what others have read, and helps those that cannot keep up, if one of them
    // `asks_for_help`. A ring is served all the same. On the reactor; the connection needs one channel that reads, or
    // nobody sees its end, and at most one that asks.
    void set_reading(bool reading, bool asks_for_help);
    // For tests, before the first poll(): answers whatever it has read, as helpers do, though it is none.
    void share_all() { desk_->set_helps(true); }

    // The most requests taken in by one turn; a ring's are more when the descriptor has to be read after them.
    static constexpr unsigned batch_max = Batch{}.requests;

    // Has requests come through `ring` as well. On the reactor, before anything of the ring is used. An Error: the
    // descriptor goes on alone.
    Result<void> start_ring(std::shared_ptr<Ring> ring);

    // ---- reactor::Source ----
    bool poll() override;
    void flush() override {
        if (ring_) ring_->flush();
        if (has_outgoing_) deliver();
        if (fills_.any()) [[unlikely]]
            send_drops();
    }
    bool prepare_to_sleep() override;
    void sleep_on(std::vector<int>& fds) override;
    reactor::Sleeper* sleeper() override { return ring_ && ring_->is_open() ? ring_.get() : nullptr; }
    void woken(std::span<const int> readable) override;
    void look_again() override;

    // ---- by mail ----
    // The control thread's answer (fuse_out_header first; empty: none) to a request handed to it.
    void finish(const Origin& origin, std::span<const std::byte> reply);
    // What lies on the desk. Sent to wake the reactor; otherwise poll() looks.
    bool take_mail();
    // Marks the request `unique` if it is here; true when it was. From another channel that has read the INTERRUPT.
    bool interrupt(std::uint64_t unique);
    // `done` is called, here, when no request refers to `lun` any more; files showing it must be unpublished.
    void drain(const LunData* lun, std::function<void()> done);
    // SYNCHRONIZE CACHE after the last writer has closed; nobody waits for it.
    void flush_after_close(std::shared_ptr<LunData> lun);
    // ftruncate() of a file that cannot shrink, see ZeroJobs; `unique` is what an INTERRUPT of it names. `on_done` is
    // called here, once.
    void truncate(std::uint64_t handle, const std::shared_ptr<LunData>& lun, std::uint64_t end, std::uint64_t unique,
                  std::function<void(int)> on_done);
    void interrupt_truncation(std::uint64_t unique);
    // The unit of `lun` has been changed by somebody else's command: `done` is called, here, once no page of the
    // kernel's shows what was there before.
    void after_pages(const std::shared_ptr<LunData>& lun, std::function<void()> done);
    void on_pages_dropped(std::uint64_t ticket) { fills_.dropped(ticket); }
    // Nobody has this file open any more who reads it through them.
    void drop_file(const LunData* lun) { fills_.drop_file(lun); }
    // Nobody has this file open any more.
    void on_file_closed(std::uint64_t handle) { zero_jobs_.forget(handle); }
    // Stops reading and answering, closes the descriptor, interrupts what is in flight.
    void leave();

    // Any thread: requests read and not answered.
    [[nodiscard]] unsigned pending() const { return pending_.load(std::memory_order_relaxed); }
    // Any thread, these two.
    [[nodiscard]] const ChannelCounters& counters() const { return counters_; }
    [[nodiscard]] const PageCounters& page_counters() const { return fills_.counters(); }
    [[nodiscard]] reactor::Executor& executor() const { return engine_.executor(); }

private:
    // peer: another channel serves it. lent: it is done, and another channel has its data until it has answered it.
    // pages: a write that is done, or has failed, and waits until the kernel has dropped what it had read there before.
    enum class Holder : std::uint8_t { nobody, operation, control, zero_job, search, peer, lent, pages };
    // A request that is being served. The hot path takes and frees them from a stack, so they stay in the cache.
    struct Record {
        ReplyTo to{};  // unique 0: our own flush after a close
        lun::Operation* operation = nullptr;
        LunData* lun = nullptr;
        std::uint32_t bytes = 0;
        std::uint32_t next_free = no_record;
        Holder holder = Holder::nobody;
        std::uint16_t home = 0;   // the peer
        std::uint64_t pages = 0;  // of PageFills: number of the fill that this READ is; of Holder::pages: of its wait
        std::uint64_t write = 0;  // of ZeroJobs: number of the write that this is; 0: it has not been shown
        int error = 0;            // of Holder::pages: what the write is answered with
        bool is_interrupted = false;
    };
    struct Request : Incoming {
        fuse_in_header header{};
        ReplyTo to{};
        bool is_elsewhere = false;  // not in the engine's intake buffer, nor in an entry of our ring
    };
    struct Search {  // SEEK_DATA, SEEK_HOLE
        std::uint32_t record = no_record;
        std::unique_ptr<lun::ExtentSearch> search;
    };
    struct Drain {
        const LunData* lun;
        std::function<void()> done;
    };

    bool is_worth_looking();
    void on_incoming(const Incoming& request) override;
    void on_intake_ended(int errno_value) override;
    void on_answered(lun::Operation& operation) override;
    std::unique_ptr<lun::ParkedRequest> park(const LunData& lun, const Incoming& write,
                                             lun::ParkedRequestOwner& owner) override;
    std::uint32_t on_waiting(const ReplyTo& to, LunData* lun) override;
    ReplyTo on_waited(std::uint32_t record) override;
    void serve_for(const ReplyTo& to, std::span<const std::byte> request) override;
    void on_shed() override;
    void on_zeroed(const ReplyTo& to, int error) override { reply(to, error); }
    void on_zeroes_written(LunData& lun) override { note_written(lun); }
    void note_written(LunData& lun);
    std::uint64_t wait_for_pages(const LunData& lun, lun::ByteRange range, std::function<void()> done) override {
        return fills_.any() ? fills_.wait(lun, range, std::move(done)) : 0;
    }
    void give_up_pages(std::uint64_t wait) override { fills_.give_up(wait); }
    void drop_pages(NodeId node, std::vector<lun::ByteRange> ranges, std::uint64_t ticket) override;
    [[nodiscard]] bool has_read_nothing(std::uint64_t fill) const override;
    void send_drops();
    void read_nothing(const Request& request, LunData& lun, std::uint64_t fill);
    std::uint64_t begin_fill(const LunData& lun, const Request& request, const fuse_read_in& in);
    bool write_waits_for_pages(std::uint32_t record, int& error);
    void reply_to_write(const Record& record, int error);
    void end_write(std::uint32_t record);

    void on_read(const Request& request);
    void on_write(const Request& request);
    void end_shown_write(std::uint64_t write, bool succeeded);
    void on_flush(const Request& request);
    void on_fsync(const Request& request);
    void on_fallocate(const Request& request);
    void on_lseek(const Request& request);
    void end_search(std::list<Search>::iterator place, lun::Sought sought, lun::OutcomeKind kind, std::uint64_t offset);
    void interrupt_search(std::uint32_t record);
    void on_interrupt(const Request& request);
    void hand_to_control(const Request& request);
    void hand_to_home(const LunData& lun, const Request& request);
    void serve_elsewhere(const ReplyTo& to, const Incoming& request);
    // nullptr: no such file (answered), not a LUN (handed to control), or another reactor's (handed there).
    LunData* lun_of(std::uint64_t handle, const Request& request);

    std::uint32_t take_record();
    void free_record(std::uint32_t index);
    void start(lun::Unit& unit, lun::Operation& operation, const Record& request);
    void note_drained(const LunData* lun);
    void note_answered(const LunData* lun);

    void post_to(unsigned peer, const Mail& mail, bool urgent = true);
    void deliver();
    void wake(unsigned peer);
    void on_mail(const Mail& mail);
    void on_request_of_peer(const Mail& mail);
    void on_answer_of_home(const Mail& mail);
    bool read_intake();
    [[nodiscard]] bool answer_read(std::uint32_t record);
    [[nodiscard]] unsigned idle_helper() const;
    void end_loan(std::uint32_t record);
    void forget_peer(const Mail& mail);
    void note_done(std::size_t bytes);
    [[nodiscard]] bool is_busy() const;
    [[nodiscard]] bool answers_itself(const ReplyTo& to) const;
    void answer_on_duplicate(const ReplyTo& to, int error, std::span<const std::byte> body);
    void help();
    unsigned read_helping();
    [[nodiscard]] bool is_full() const;
    void stop_helping();
    void ask_for_help();

    void reply(const ReplyTo& to, int error, std::span<const std::byte> body = {});
    void answer(const ReplyTo& to, int error, std::span<const std::byte> body);
    bool mark_interrupted(std::uint64_t unique);
    void look_for_killed();
    [[nodiscard]] bool is_in_entry(const ReplyTo& to) const { return to.slot != no_slot && to.channel == index_; }
    void answer_whole(const ReplyTo& to, std::span<const std::byte> reply);
    void malformed(const Request& request);

    // Touched by each request.
    lun::Engine& engine_;
    DescriptorIntake descriptor_;
    std::shared_ptr<Ring> ring_;    // nullptr: none
    bool is_told_ = false;          // by woken(), so that poll() may leave the descriptor alone:
    bool nothing_to_read_ = false;  // it was empty, or is not thought to have anything
    unsigned turns_not_looked_ = 0;
    reactor::Habit* look_ = nullptr;  // what the next look at it is for
    reactor::Habit later_looks_;      // two turns after it was empty
    reactor::Habit extra_looks_;      // see look_again()
    Undisturbed undisturbed_{kernel_scheduling()};
    bool wrote_in_ring_ = false;  // an answer for a home, which the kernel gets with the next flush of the ring
    bool has_outgoing_ = false;   // mail that deliver() is to take along
    bool worked_ = false;         // something was done since the last poll() began
    bool is_reading_ = true;
    bool asks_for_help_ = false;
    bool helps_ = false;    // reads because another channel has asked for it
    Instant busy_since_{};  // no turn since then had nothing to do
    const OpenFiles& files_;
    std::uint32_t first_free_ = no_record;
    std::vector<Record> records_;
    std::uint64_t unique_seen_max_ = 0;
    std::atomic<unsigned> pending_{0};
    ChannelCounters counters_;
    std::vector<Drain> drains_;  // usually empty
    ZeroJobs zero_jobs_;
    PageFills fills_;  // of the units whose home this is
    std::list<Search> searches_;
    // Linux (as of 6.18) sends no INTERRUPT of a request whose user is killed between its getting an entry of the ring
    // and its being copied there (fuse_uring_prepare_send() does not look again); he could not end before the answer.
    reactor::Timer killed_look_;
    std::uint64_t killed_look_unique_ = 0;  // what there was at the last look

    // The rest.
    const unsigned index_;
    ChannelHost* host_;  // nullptr after leave()
    bool disconnected_ = false;
    std::vector<std::weak_ptr<FuseChannel>> peers_;
    std::shared_ptr<Desk> desk_ = std::make_shared<Desk>();
    struct Outgoing {
        std::shared_ptr<Desk> desk;
        std::vector<Mail> mail;
        bool urgent = false;
        unsigned lent = 0;  // answers that are being given there
    };
    std::vector<Outgoing> outgoing_;  // by peer
    std::vector<Mail> taken_;         // being read
    // Handed over and not answered yet.
    unsigned requests_elsewhere_ = 0;
    std::size_t bytes_elsewhere_ = 0;
    unsigned empty_looks_ = 0;  // while helping
    Instant ask_at_{};
    Staffing staffing_;
    // Descriptors of the peers', of our own: an answer to what a peer has read goes the straight way.
    std::vector<std::shared_ptr<DescriptorIntake>> peers_descriptors_;
    std::weak_ptr<DescriptorIntake> shared_descriptor_;
    bool is_duplicated_ = false;  // peers can answer what we have read
    std::shared_ptr<DescriptorIntake> share_descriptor();
    std::shared_ptr<FuseChannel> self_;  // after leave(), while operations are in flight
};

}  // namespace srpfs::fs
