// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The embedded SRP target: logical units, the initiators logged in, unit attentions. Its portals, one per reactor,
// carry out the commands. It behaves like LIO's ib_srpt unless its configuration says otherwise.
//
// Thread-safe. What a lever does to connections and commands happens in the portals' next turns (Executor::post);
// changes of logical units and unit attentions hold at once.

#pragma once

#include <srpfs/base/result.h>
#include <srpfs/scsi/reservation.h>
#include <srpfs/srp/srp.h>
#include <srpfs/target/behaviour.h>
#include <srpfs/target/block_store.h>
#include <srpfs/target/lun_config.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace srpfs::target {

struct DeviceConfig {
    std::uint64_t service_guid = 1;              // both halves of the target port id
    std::int32_t credits = 128;                  // initial request limit of a channel, 1..4096
    std::uint32_t request_bytes_max = 8276;      // longest initiator-to-target IU (srp_max_req_size), 64..65536
    std::uint32_t transfer_bytes_max = 8 << 20;  // of one command; also in VPD B0h; at most the largest staging buffer
    bool immediate_data = true;
    bool multi_channel = true;  // false: a login with action "multi" is rejected (00010005)
    std::uint16_t buffer_formats = srp::format_direct | srp::format_indirect;
    unsigned channels_per_nexus_max = 0;  // 0: no limit
    srp::RejectReason channel_limit_reason = srp::RejectReason::channel_limit;
    std::vector<srp::PortId> initiators;  // the access list; empty: everybody
    // Where SCST and arrays differ from LIO:
    bool attention_at_login = false;  // UA 29/00 on every unit of a new channel
    // UA 2A/09 on resize, 2A/01 when read-only changes, 3F/0E on a new unit itself as well.
    bool attention_at_change = false;
    bool flat_lun_addresses = false;  // units are reported and accepted as 40h nn (flat space)
    std::size_t sense_bytes = 96;     // 18..96; LIO always sends 96
    VolatileCache volatile_cache = VolatileCache::not_modelled;
};

struct DeviceCounters {
    std::array<std::uint64_t, 256> commands{};  // received, by operation code
    std::uint64_t task_managements = 0;
    std::uint64_t logins = 0, logins_rejected = 0;
    std::uint64_t check_conditions = 0;
    std::uint64_t blocks_read = 0, blocks_written = 0;
    std::uint64_t aborted = 0;    // commands ended by task management
    std::uint64_t late = 0;       // commands carried out after their channel had ended
    std::uint64_t malformed = 0;  // IUs that could not be parsed
};

struct ChannelInfo {
    ChannelId id = 0;
    srp::PortId initiator{};
    srp::MultiChannel action = srp::MultiChannel::single;
    bool live = false;  // established and not ended
};

// Persistent reservations of a unit, as they are now.
struct ReservationState {
    struct Registrant {
        srp::PortId initiator{};
        std::uint64_t key = 0;
    };
    std::uint32_t generation = 0;
    std::vector<Registrant> registrants;
    std::optional<scsi::ReservationType> type;  // of the reservation there is
};

struct DeviceState;

class Device {
public:
    // LUN n is luns[n]. Errors are those of make_store(), with the LUN named.
    static Result<std::unique_ptr<Device>> create(const DeviceConfig& config, const std::vector<LunConfig>& luns);
    ~Device();  // no portal may be left
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;

    // nullptr: none. Must outlive the device or be replaced while no portal works.
    void set_behaviour(Behaviour* behaviour);

    // ---- logical units; number < 16384. Every other unit of every channel gets UA 3F/0E when the map changes ----
    Result<void> add_lun(unsigned number, const LunConfig& config);  // EEXIST
    Result<void> add_lun(unsigned number, const LunConfig& config, std::unique_ptr<BlockStore> store);
    Result<void> remove_lun(unsigned number);  // ENXIO
    Result<void> resize_lun(unsigned number, std::uint64_t bytes);
    Result<void> set_read_only(unsigned number, bool read_only);
    [[nodiscard]] BlockStore* store(unsigned number);  // nullptr: no such unit; valid until it is removed
    // The wwid as VPD page 83h tells it ("naa.6001405..."); empty: no such unit.
    [[nodiscard]] std::string wwid(unsigned number) const;
    // A unit attention for every channel that is logged in now.
    void raise_attention(unsigned number, std::uint8_t asc, std::uint8_t ascq);

    // ---- persistent reservations, as another initiator has them that has no channel here ----
    // PERSISTENT RESERVE OUT. ENXIO: no such unit; EBUSY: RESERVATION CONFLICT; EINVAL: refused otherwise.
    Result<void> reserve_as(const srp::PortId& initiator, unsigned number, const scsi::Cdb& cdb,
                            std::span<const std::byte> data);
    [[nodiscard]] ReservationState reservations(unsigned number) const;  // of no unit: none
    // Whether the medium may not be read, or not be written, by an initiator now. False without such a unit.
    [[nodiscard]] bool refuses(const srp::PortId& initiator, unsigned number, bool writes) const;

    // ---- trouble ----
    // false: as LIO's enable=0: all channels are disconnected, logins rejected with 00010001.
    void set_enabled(bool enabled);
    // Power failure: connections drop, commands are forgotten, unflushed writes are lost as lose_cache() says, and
    // nobody listens until restart().
    void crash(const std::function<bool(unsigned lun, std::uint64_t offset)>& lost);
    void restart();
    // Only the volatile write cache (needs VolatileCache::modelled).
    void lose_cache(const std::function<bool(unsigned lun, std::uint64_t offset)>& lost);
    // Lets all commands go on that a CommandPlan holds.
    void release_held();
    // nullopt: all channels.
    void disconnect(std::optional<ChannelId> channel);
    void send_credit_request(std::optional<ChannelId> channel, std::int32_t credit_delta);
    void send_owed_credits(std::optional<ChannelId> channel);  // in a CRED_REQ; nothing when none are owed
    void send_async_event(std::optional<ChannelId> channel, const scsi::Lun& lun, const scsi::Sense& sense);
    void send_target_logout(std::optional<ChannelId> channel, std::uint32_t reason);

    [[nodiscard]] std::vector<ChannelInfo> channels() const;
    [[nodiscard]] DeviceCounters counters() const;
    [[nodiscard]] const DeviceConfig& config() const;

    [[nodiscard]] DeviceState& state() { return *state_; }  // for portals

private:
    explicit Device(std::unique_ptr<DeviceState> state);
    std::unique_ptr<DeviceState> state_;
};

}  // namespace srpfs::target
