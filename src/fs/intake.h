// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What brings requests to a FuseChannel and takes its answers back: the descriptor of the connection (every kernel,
// every request), or a ring beside it (ring.h). What a request means is the channel's business alone.

#pragma once

#include <srpfs/reactor/habit.h>
#include <srpfs/lun/engine.h>

#include <climits>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace srpfs::fs {

// A request that occupies none: it came from the descriptor.
inline constexpr std::uint16_t no_slot = UINT16_MAX;

inline constexpr std::uint32_t no_record = UINT32_MAX;

// Where the answer to a request has to go, whoever serves it.
struct ReplyTo {
    std::uint64_t unique = 0;          // 0: nowhere
    std::uint16_t channel = 0;         // that took it in
    std::uint16_t slot = no_slot;      // of that channel's ring, occupied until it is answered
    std::uint32_t record = no_record;  // that channel's note of it, if another one serves it
};

// A request as it came in; the bytes are valid during the call.
struct Incoming {
    std::span<const std::byte> head;  // fuse_in_header and what follows it, of a WRITE without its data
    std::span<const std::byte> data;  // of a WRITE
    std::uint16_t slot = no_slot;
};

class IntakeListener {
public:
    virtual void on_incoming(const Incoming& request) = 0;
    // The connection has ended (umount, abort); nothing comes any more.
    virtual void on_intake_ended(int errno_value) = 0;

protected:
    ~IntakeListener() = default;
};

// How much is taken in before what has come is served: up to so many requests, and none after so many bytes of data,
// going in or to come out. Bounded, the data is in the cache when it is used, and the target gets the first command
// before the last one has been copied.
struct Batch {
    unsigned requests = 32;
    std::size_t bytes = std::size_t{128} << 10;
};
inline constexpr Batch whatever_has_come{.requests = UINT_MAX, .bytes = SIZE_MAX};

// One reactor's thread.
class Intake {
public:
    virtual ~Intake() = default;
    // Takes requests in without blocking; how many it found.
    virtual unsigned poll(IntakeListener& listener, const Batch& most) = 0;
    // Header and body of an answer; `error` is a positive errno value or 0, and then `body` follows. False: the kernel
    // did not want it any more.
    virtual bool answer(const ReplyTo& to, int error, std::span<const std::byte> body) = 0;
    // Takes no more requests, drops answers, and gives up what it has of the kernel's.
    virtual void close() = 0;
    [[nodiscard]] virtual bool is_open() const = 0;
    // Appends the descriptor that becomes readable when poll() has something to do.
    virtual void sleep_on(std::vector<int>& fds) = 0;
};

// Reads requests straight into the engine's intake buffer, so that a listener can have Engine::take_over_intake() give
// the data of a WRITE away.
class DescriptorIntake final : public Intake {
public:
    // Owns `fd`: non-blocking; /dev/fuse or a message socket.
    DescriptorIntake(int fd, lun::Engine& engine) : fd_(fd), engine_(engine) {}
    ~DescriptorIntake() override { close(); }
    DescriptorIntake(const DescriptorIntake&) = delete;
    DescriptorIntake& operator=(const DescriptorIntake&) = delete;

    unsigned poll(IntakeListener& listener, const Batch& most) override;
    bool answer(const ReplyTo& to, int error, std::span<const std::byte> body) override;
    void close() override;
    [[nodiscard]] bool is_open() const override { return fd_ >= 0; }
    void sleep_on(std::vector<int>& fds) override;
    // The last poll() has left nothing, or hardly ever does.
    [[nodiscard]] bool is_drained() const { return is_drained_; }
    [[nodiscard]] int fd() const { return fd_; }  // -1 after close()

private:
    bool on_refused(const ReplyTo& to, int errno_value, bool retry_as_error);

    int fd_;
    bool is_drained_ = false;
    reactor::Habit second_reads_;  // after the first request of a poll()
    lun::Engine& engine_;
};

// A request of a stored copy or of one buffer: where the data of a WRITE begins is known by its opcode.
[[nodiscard]] Incoming split_request(std::span<const std::byte> whole);

// Of a READ what is asked for, of a WRITE what has come.
[[nodiscard]] std::size_t data_bytes(const Incoming& request);

}  // namespace srpfs::fs
