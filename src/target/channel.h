// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// One login: a connection, its credits, and the commands received over it. Owned by its portal; destroyed when the
// fabric says the connection is gone.

#pragma once

#include "device_state.h"
#include "task.h"

#include <srpfs/base/intrusive_list.h>
#include <srpfs/fabric/fabric.h>
#include <srpfs/reactor/timer_queue.h>

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace srpfs::target {

class Channel final : public fabric::ConnectionHandler {
public:
    Channel(PortalCore& portal, std::shared_ptr<ChannelRecord> record, std::uint16_t immediate_offset);
    Channel(const Channel&) = delete;
    Channel& operator=(const Channel&) = delete;

    void accept(fabric::ConnectRequest& request, std::span<const std::byte> login_response);
    void disconnect() { connection_->disconnect(); }

    [[nodiscard]] ChannelRecord& record() { return *record_; }
    [[nodiscard]] const std::shared_ptr<ChannelRecord>& shared_record() const { return record_; }
    [[nodiscard]] IntrusiveList<Task, BelongingTag>& tasks() { return tasks_; }
    [[nodiscard]] CommandView view_of(const Task& task) const;

    // Posts what is left of the task's RDMA READs (fetching) or WRITEs (sending). False: the send queue is full; the
    // task waits and the portal is told when all are posted.
    bool move_data(Task& task);
    void stop_waiting(Task& task);

    void respond(Task& task);
    void owe_credit() { ++credits_owed_; }
    void send_credit_request(std::int32_t delta);
    void send_owed_credits();
    void send_async_event(const scsi::Lun& lun, const scsi::Sense& sense);
    void send_target_logout(std::uint32_t reason);

private:
    std::span<const std::byte> on_route(const fabric::LocalPort&) override { return {}; }
    std::optional<fabric::ReceiveRing> on_reply(std::span<const std::byte>) override { return std::nullopt; }
    void on_established() override;
    void on_received(std::span<const std::byte> message) override;
    void on_rdma_done(std::uint64_t context) override;
    void on_ended(const fabric::End& end) override;
    void on_gone() override;

    inline void on_command(std::span<const std::byte> message);
    void on_rare(std::span<const std::byte> message);
    void tell_of_excess();
    void on_task_management(std::span<const std::byte> message);
    void on_malformed(std::span<const std::byte> message, srp::WireFault fault);
    static constexpr std::size_t sense_bytes_max = 96;
    using SenseBytes = std::array<std::byte, sense_bytes_max>;
    srp::Response response_to(const Task& task, SenseBytes& sense);
    void respond_at_length(const Task& task);
    void respond_as_planned(Task& task, Behaviour& behaviour);
    inline std::int32_t credits_to_return();
    inline void post(std::span<const std::byte> message);
    void post_later(std::span<const std::byte> message);
    void post_waiting();
    void resume_waiting();

    PortalCore& portal_;
    fabric::Connection* connection_ = nullptr;
    const std::uint16_t immediate_offset_;  // 0: not negotiated
    const std::uint64_t crashes_;           // DeviceState::crashes at login: after the next one it is void
    bool ended_ = false;
    std::int32_t request_limit_;  // as the initiator should see it
    std::int32_t credits_owed_ = 0;
    unsigned rdma_outstanding_ = 0;
    srp::ReceivedCommand received_;  // the one just parsed; here because of its memory
    IntrusiveList<Task, BelongingTag> tasks_;
    IntrusiveList<Task, WaitingTag> waiting_;  // for room in the send queue
    std::deque<std::vector<std::byte>> unsent_;
    reactor::Timer retry_;                // the send queue was full
    std::uint64_t next_request_tag_ = 1;  // of CRED_REQ and AER_REQ
    std::shared_ptr<ChannelRecord> record_;
    std::string name_;
};

}  // namespace srpfs::target
