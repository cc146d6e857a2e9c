// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "ring_entry.h"

#include <cstring>

namespace srpfs::fs {

std::optional<Incoming> request_in_entry(EntryHeader& header, std::span<const std::byte> payload,
                                         std::vector<std::byte>& scratch) {
    fuse_in_header in{};
    std::memcpy(&in, header.in_out, sizeof in);
    const std::size_t data_bytes = header.state.payload_bytes;
    if (data_bytes > payload.size() || in.len < sizeof in + data_bytes) return std::nullopt;
    const std::size_t argument_bytes = in.len - sizeof in - data_bytes;
    if (argument_bytes > sizeof header.op_in) return std::nullopt;

    // The fixed argument begins where in_out ends, so the header goes right before it.
    static_assert(offsetof(EntryHeader, op_in) == sizeof header.in_out);
    std::byte* const begin = reinterpret_cast<std::byte*>(&header) + offsetof(EntryHeader, op_in) - sizeof in;
    std::memmove(begin, header.in_out, sizeof in);
    const std::span<const std::byte> head(begin, sizeof in + argument_bytes);
    if (in.opcode == FUSE_WRITE) {
        if (head.size() != lun::intake_header_bytes) return std::nullopt;
        return Incoming{.head = head, .data = payload.first(data_bytes)};
    }
    if (data_bytes == 0) return Incoming{.head = head, .data = {}};
    scratch.resize(in.len);
    std::memcpy(scratch.data(), head.data(), head.size());
    std::memcpy(scratch.data() + head.size(), payload.data(), data_bytes);
    return Incoming{.head = scratch, .data = {}};
}

void put_answer(EntryHeader& header, std::uint64_t unique, int error, std::uint32_t payload_bytes) {
    if (error != 0) payload_bytes = 0;
    fuse_out_header out{};
    out.len = static_cast<std::uint32_t>(sizeof out + payload_bytes);
    out.error = -error;
    out.unique = unique;
    std::memcpy(header.in_out, &out, sizeof out);
    header.state.payload_bytes = payload_bytes;
}

}  // namespace srpfs::fs
