// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// FUSE over io_uring as bytes (Linux 6.14 and later; <linux/fuse.h> of older systems does not have it). An entry is a
// place for one request: this header and a payload, both written by the kernel when a request comes, and by us when it
// is answered. Values in the byte order of the machine.

#pragma once

#include "intake.h"
#include "request.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace srpfs::fs {

// Flag of INIT (bit 41: bit 9 of flags2).
inline constexpr std::uint32_t fuse_over_io_uring_flags2 = 1U << 9;

// cmd_op of IORING_OP_URING_CMD on the descriptor of a connection.
enum class EntryCommand : std::uint32_t {
    register_entry = 1,  // sqe.addr: two iovecs, header and payload; -EAGAIN before INIT has been answered
    commit_and_fetch = 2,
};

// The command's own part of the SQE (from byte 48 on, of 128).
struct EntryCommandArguments {
    std::uint64_t flags = 0;
    std::uint64_t commit_id = 0;  // of commit_and_fetch: what the entry said
    std::uint16_t queue = 0;      // one for each possible CPU; a request comes on that of whoever asks
    std::uint8_t padding[6] = {};
};
static_assert(sizeof(EntryCommandArguments) == 24);

struct EntryHeader {
    std::byte in_out[128];  // fuse_in_header, then fuse_out_header
    std::byte op_in[128];   // the operation's fixed argument
    struct {
        std::uint64_t flags;
        std::uint64_t commit_id;
        std::uint32_t payload_bytes;
        std::uint32_t padding;
        std::uint64_t reserved;
    } state;
};
static_assert(sizeof(EntryHeader) == 288);

// The request in an entry; nullopt if its lengths do not agree, or a READ or WRITE is not laid out as such. `head` is
// put together in the header itself, or in `scratch` if there is more than the fixed argument (names); a WRITE's data
// stays in the payload.
[[nodiscard]] std::optional<Incoming> request_in_entry(EntryHeader& header, std::span<const std::byte> payload,
                                                       std::vector<std::byte>& scratch);

// Makes the header that of an answer with `payload_bytes` of body in the payload (none with an error).
void put_answer(EntryHeader& header, std::uint64_t unique, int error, std::uint32_t payload_bytes);

}  // namespace srpfs::fs
