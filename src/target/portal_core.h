// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The working part of a portal: logins, and the way of a command from its arrival to its response.

#pragma once

#include "channel.h"
#include "device_state.h"
#include "staging.h"
#include "task.h"

#include <srpfs/target/portal.h>

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace srpfs::target {

class PortalCore final : public Portal, private fabric::ListenHandler {
public:
    PortalCore(DeviceState& device, reactor::Executor& executor, fabric::Fabric& fabric, fabric::Address address,
               std::unique_ptr<Staging> staging);
    ~PortalCore() override;
    Result<void> listen();

    // Portal.
    void close() override;
    bool is_closed() const override;
    std::size_t channels() const override { return channels_.size(); }
    std::size_t commands() const override;

    // From any thread: runs `work` on this portal's thread unless the portal is destroyed first.
    void post(const std::function<void(PortalCore&)>& work);

    // Levers of the Device, on this portal's thread.
    void crash();
    void restart();
    void release_held();
    void disconnect(std::optional<ChannelId> channel);
    void send_credit_request(std::optional<ChannelId> channel, std::int32_t credit_delta);
    void send_owed_credits(std::optional<ChannelId> channel);
    void send_async_event(std::optional<ChannelId> channel, const scsi::Lun& lun, const scsi::Sense& sense);
    void send_target_logout(std::optional<ChannelId> channel, std::uint32_t reason);

    // From channels.
    Task& take_task(Channel& channel) {
        if (!idle_) [[unlikely]]
            make_task();
        Task& task = *idle_;
        idle_ = task.next_idle;
        --idle_count_;
        task.channel = &channel;
        channel.tasks().push_back(task);
        return task;
    }
    void start(Task& task, std::span<const std::byte> immediate);
    void start_task_management(Task& task, const srp::TaskManagement& request, bool is_known_function);
    void fail_malformed(Task& task);
    void on_data_moved(Task& task);  // all RDMA READs are done, or all RDMA WRITEs are posted
    void on_channel_ended(Channel& channel);
    void on_channel_gone(Channel& channel);
    // Nothing may be left of it but its place in the pool.
    void release(Task& task);

    // From tasks.
    void on_store_done(Task& task, StoreResult result);
    void on_timer(Task& task);

    [[nodiscard]] DeviceState& device() { return device_; }
    [[nodiscard]] Behaviour* behaviour() { return device_.behaviour.load(std::memory_order_relaxed); }
    [[nodiscard]] reactor::TimerQueue& timers() { return executor_.timers(); }
    [[nodiscard]] Staging& staging() { return *staging_; }
    [[nodiscard]] const std::shared_ptr<const void>& alive() const { return alive_; }

    PortalCounters counters;

private:
    void on_request(std::unique_ptr<fabric::ConnectRequest> request) override;
    std::optional<srp::RejectReason> refusal_of(const srp::LoginRequest& login, unsigned channels_of_nexus);
    void reject(fabric::ConnectRequest& request, const srp::LoginRequest& login, srp::RejectReason reason);
    void accept(fabric::ConnectRequest& request, const srp::LoginRequest& login);
    Channel* find_channel(ChannelId id);
    template <typename Visit>
    void for_channels(std::optional<ChannelId> id, Visit&& visit);

    void make_task();

    // A command, in the order of its life.
    // Inline is what each command runs through, apart what hardly one does. False: task.failure says why.
    inline bool admit(Task& task);
    inline bool find_unit(Task& task);
    inline bool understand(Task& task);
    bool understand_rare(Task& task);
    [[gnu::always_inline]] inline bool understand_blocks(Task& task, Task::Work work);
    inline void refresh_units();
    void take_units();
    [[nodiscard, gnu::always_inline]] inline std::optional<unsigned> number_of(const scsi::Lun& lun) const;
    inline std::size_t staging_bytes_of(const Task& task) const;
    inline void get_staging(Task& task, std::span<const std::byte> immediate);
    void have_staging(Task& task, std::span<const std::byte> immediate);
    inline void have_data(Task& task);
    void carry_out(Task& task);
    void carry_out_rare(Task& task);
    void submit(Task& task, StoreIo::Kind kind, std::uint64_t lba, std::uint64_t blocks);
    Told tell(Task& task, std::span<std::byte> out);
    inline void on_applied(Task& task);
    inline void observe(Task& task);
    static void tell_behaviour(const Task& task, Behaviour& behaviour);
    inline void complete(Task& task);
    void complete_rare(Task& task);
    void fail(Task& task, Failure failure);
    void next_unmap(Task& task);
    void park(Task& task);
    inline void deliver(Task& task);
    void hand_out_staging();

    // Task management.
    void abort_task(Task& request, srp::Tag managed);
    void reset_unit(Task& request);
    void abort_unit(const Identity& identity, ChannelId by, const std::shared_ptr<AbortJob>& job);
    void abort(Task& task, bool is_silent, const std::shared_ptr<AbortJob>& job);
    void finish_abort(Task& task);
    // Answers `request` with 00 when everybody has let go of it, after raising 29/03 on the unit that was reset.
    std::shared_ptr<AbortJob> make_job(const Task& request, std::optional<unsigned> reset_unit);
    void complete_concerned(const Task& request, const srp::TaskManagement& function, Duration answers_after);
    void answer(Task& request, srp::TaskCode code);

    DeviceState& device_;
    reactor::Executor& executor_;
    fabric::Fabric& fabric_;
    const fabric::Address address_;
    std::unique_ptr<Staging> staging_;
    std::shared_ptr<const void> alive_;
    std::unique_ptr<fabric::Listener> listener_;
    bool closing_ = false;
    bool handing_out_ = false;
    std::uint64_t crashes_seen_ = 0;
    std::uint64_t units_generation_ = UINT64_MAX;
    std::shared_ptr<const UnitMap> units_;
    std::vector<std::unique_ptr<Channel>> channels_;
    std::vector<std::unique_ptr<Task>> pool_;
    Task* idle_ = nullptr;  // of the pool; the warm one first
    std::size_t idle_count_ = 0;
    IntrusiveList<Task, WaitingTag> waiting_for_staging_;
    IntrusiveList<Task, BelongingTag> orphans_;  // commands whose channel has ended, and that go on
};

}  // namespace srpfs::target
