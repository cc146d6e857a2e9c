// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What travels from initiator to target after login.
#include <srpfs/base/assert.h>
#include <srpfs/srp/srp.h>

#include <algorithm>

namespace srpfs::srp {
namespace {

enum BufferFormat : unsigned { none = 0, direct = 1, indirect = 2, immediate = 3 };

constexpr std::size_t immediate_count_bytes = 4;
constexpr std::size_t cdb_bytes = 16;
constexpr std::size_t head_bytes = command_bytes - cdb_bytes;  // of an SRP_CMD, before its CDB

std::uint8_t buffer_format_byte(const CommandHead& command) {
    switch (command.direction) {
        case DataDirection::none: return none;
        case DataDirection::from_target: return direct;
        case DataDirection::to_target:
            return static_cast<std::uint8_t>((command.immediate_bytes ? immediate : direct) << 4);
    }
    return none;
}

TaskAttribute attribute_of(std::uint8_t byte) {
    switch (byte & 0x07) {
        case 0: return TaskAttribute::simple;
        case 1: return TaskAttribute::head_of_queue;
        case 4: return TaskAttribute::aca;
        default: return TaskAttribute::ordered;
    }
}

// Zeros if it is not there as a whole.
inline Descriptor read_descriptor(ByteReader& in) {
    const auto bytes = in.take(descriptor_bytes);
    if (bytes.size() != descriptor_bytes) return {};
    return {load_big_endian<std::uint64_t>(bytes.data()), load_big_endian<std::uint32_t>(bytes.data() + 8),
            load_big_endian<std::uint32_t>(bytes.data() + 12)};
}

void write_descriptor(ByteWriter& out, const Descriptor& descriptor) {
    out.u64(descriptor.address).u32(descriptor.key).u32(descriptor.length);
}

void write_cdb(std::span<std::byte, cdb_bytes> out, const scsi::Cdb& cdb) {
    std::copy(cdb.bytes.begin(), cdb.bytes.end(), out.begin());
    for (std::size_t at = cdb.length; at < cdb_bytes; ++at) out[at] = std::byte{0};
}

inline WireFault parse_direct(ByteReader in, ReceivedCommand& command) {
    const Descriptor descriptor = read_descriptor(in);
    if (in.overran()) return WireFault::truncated;
    if (descriptor.length == 0) return WireFault::bad_length;
    command.descriptors.push_back(descriptor);
    command.data_bytes = descriptor.length;
    return WireFault::none;
}

// Table descriptor, total data length (4), then the descriptors. The table in the initiator's memory is never read, so
// the inline list has to be complete.
[[gnu::noinline]] WireFault parse_indirect(std::span<const std::byte> bytes, std::size_t inline_count,
                                           ReceivedCommand& command) {
    ByteReader in(bytes);
    const Descriptor table = read_descriptor(in);
    const std::uint32_t data_bytes = in.u32();
    if (in.overran()) return WireFault::truncated;
    if (table.length % descriptor_bytes != 0) return WireFault::bad_length;
    const std::size_t table_count = table.length / descriptor_bytes;
    if (table_count > inline_count) return WireFault::bad_format;
    if (table_count < inline_count || inline_count == 0) return WireFault::bad_length;
    if (in.left() < inline_count * descriptor_bytes) return WireFault::truncated;

    command.descriptors.reserve(inline_count);
    for (std::size_t index = 0; index < inline_count; ++index) {
        const Descriptor descriptor = read_descriptor(in);
        if (descriptor.length == 0) return WireFault::bad_length;
        command.data_bytes += descriptor.length;
        command.descriptors.push_back(descriptor);
    }
    return command.data_bytes == data_bytes ? WireFault::none : WireFault::bad_length;
}

// A count (4), padding up to the negotiated offset from the start of the unit, then the data itself.
inline WireFault parse_immediate(ByteReader in, std::uint16_t offset, ReceivedCommand& command) {
    if (offset == 0) return WireFault::bad_format;
    const std::uint32_t data_bytes = in.u32();
    if (in.overran()) return WireFault::truncated;
    if (data_bytes == 0 || in.position() > offset) return WireFault::bad_length;
    in.seek(offset);
    if (in.overran() || in.left() < data_bytes) return WireFault::truncated;
    command.immediate = true;
    command.immediate_data = in.take(data_bytes);
    command.data_bytes = data_bytes;
    return WireFault::none;
}

inline WireFault parse_data(ByteReader in, unsigned format, std::size_t inline_count, std::uint16_t immediate_offset,
                            ReceivedCommand& command) {
    switch (format) {
        case direct: return parse_direct(in, command);
        case indirect: return parse_indirect(in.take(in.left()), inline_count, command);
        case immediate:
            if (command.direction != DataDirection::to_target) return WireFault::bad_format;
            return parse_immediate(in, immediate_offset, command);
        default: return WireFault::bad_format;
    }
}

struct Head {
    std::uint8_t opcode = 0;
    std::uint8_t formats = 0;
    unsigned out_count = 0, in_count = 0;
    std::size_t additional_cdb_bytes = 0;
};
// Inline: a reader whose length is known to the compiler needs no test for each field.
[[gnu::always_inline]] inline Head read_head(ByteReader& in, ReceivedCommand& command) {
    Head head;
    head.opcode = in.u8();
    in.skip(4);
    head.formats = in.u8();
    head.out_count = in.u8();
    head.in_count = in.u8();
    command.tag = in.u64();
    in.skip(4);
    command.lun.bytes = in.array<8>();
    in.skip(1);
    command.attribute = attribute_of(in.u8());
    in.skip(1);
    head.additional_cdb_bytes = in.u8() & ~3u;  // the two low bits are reserved
    return head;
}

}  // namespace

std::size_t encode(const CommandHead& command, std::span<std::byte> buffer) {
    SRPFS_ASSERT(command.cdb.length <= command.cdb.bytes.size());
    if (command.immediate_bytes) {
        SRPFS_ASSERT(command.direction == DataDirection::to_target);
        SRPFS_ASSERT(!command.descriptor);
        SRPFS_ASSERT(*command.immediate_bytes > 0);
        SRPFS_ASSERT(command.immediate_offset >= command_bytes + immediate_count_bytes);
    } else if (command.descriptor) {
        SRPFS_ASSERT(command.direction != DataDirection::none);
        SRPFS_ASSERT(command.descriptor->length > 0);  // LIO crashes on an empty one (srp-wire 4.1)
    } else {
        SRPFS_ASSERT(command.direction == DataDirection::none);
    }

    const bool overran = buffer.size() < command_bytes;
    SRPFS_ASSERT(!overran);
    // Of a piece whose length is known the compiler sees that nothing overruns it.
    ByteWriter head(buffer.first(head_bytes));
    head.u8(byte_of(Opcode::command)).zeros(4);
    head.u8(buffer_format_byte(command)).zeros(2);  // descriptor counts: indirect format only
    head.u64(command.tag).zeros(4).bytes(command.lun.bytes);
    head.zeros(1).u8(static_cast<std::uint8_t>(command.attribute)).zeros(2);  // no additional CDB
    write_cdb(buffer.subspan(head_bytes).first<cdb_bytes>(), command.cdb);

    ByteWriter out(buffer.subspan(command_bytes));
    if (command.descriptor) write_descriptor(out, *command.descriptor);
    if (command.immediate_bytes) {
        out.u32(*command.immediate_bytes);
        out.zeros(command.immediate_offset - (command_bytes + immediate_count_bytes));
    }
    SRPFS_ASSERT(!out.overran());
    return command_bytes + out.position();
}

Parsed<ReceivedCommand> parse_command(std::span<const std::byte> bytes, std::uint16_t immediate_offset) {
    Parsed<ReceivedCommand> parsed;
    parsed.fault = parse_command(bytes, immediate_offset, parsed.value);
    return parsed;
}

WireFault parse_command(std::span<const std::byte> bytes, std::uint16_t immediate_offset, ReceivedCommand& command) {
    ByteReader in(bytes);
    command.cdb = {};
    command.immediate_data = {};
    command.direction = DataDirection::none;
    command.descriptors.clear();
    command.data_bytes = 0;
    command.immediate = false;
    if (bytes.size() < command_bytes) [[unlikely]] {
        (void)read_head(in, command);
        return WireFault::truncated;
    }
    ByteReader fixed(in.take(head_bytes).first<head_bytes>());
    const Head head = read_head(fixed, command);
    const auto cdb = in.take(cdb_bytes + head.additional_cdb_bytes);
    if (in.overran()) return WireFault::truncated;
    if (head.opcode != byte_of(Opcode::command)) return WireFault::wrong_opcode;
    command.cdb = cdb;

    const unsigned out_format = head.formats >> 4;
    const unsigned in_format = head.formats & 0x0f;
    if (out_format == none && in_format == none) return WireFault::none;
    if (out_format != none && in_format != none) return WireFault::bad_format;
    const bool reads = in_format != none;
    command.direction = reads ? DataDirection::from_target : DataDirection::to_target;
    const WireFault fault = parse_data(in, reads ? in_format : out_format, reads ? head.in_count : head.out_count,
                                       immediate_offset, command);
    if (fault != WireFault::none) {
        command.descriptors.clear();
        command.data_bytes = 0;
    }
    return fault;
}

std::size_t encode(const TaskManagement& request, std::span<std::byte> buffer) {
    ByteWriter out(buffer);
    out.u8(byte_of(Opcode::task_management)).zeros(7).u64(request.tag);
    out.zeros(4).bytes(request.lun.bytes);
    out.zeros(2).u8(static_cast<std::uint8_t>(request.function)).zeros(1);
    out.u64(request.managed_tag).zeros(8);
    SRPFS_ASSERT(!out.overran());
    return out.position();
}

Parsed<TaskManagement> parse_task_management(std::span<const std::byte> bytes) {
    ByteReader in(bytes);
    TaskManagement request;
    const std::uint8_t opcode = in.u8();
    in.skip(7);
    request.tag = in.u64();
    in.skip(4);
    request.lun.bytes = in.array<8>();
    in.skip(2);
    const std::uint8_t function = in.u8();
    in.skip(1);
    request.managed_tag = in.u64();
    in.skip(8);
    if (in.overran()) return {request, WireFault::truncated};
    if (opcode != byte_of(Opcode::task_management)) return {request, WireFault::wrong_opcode};
    switch (static_cast<TaskFunction>(function)) {
        case TaskFunction::abort_task:
        case TaskFunction::abort_task_set:
        case TaskFunction::clear_task_set:
        case TaskFunction::lun_reset:
        case TaskFunction::clear_aca: request.function = static_cast<TaskFunction>(function); return {request};
    }
    return {request, WireFault::bad_value};
}

std::size_t encode_credit_response(Tag tag, std::span<std::byte> buffer) {
    ByteWriter out(buffer);
    out.u8(byte_of(Opcode::credit_response)).zeros(7).u64(tag);
    SRPFS_ASSERT(!out.overran());
    return out.position();
}

std::size_t encode_async_event_response(Tag tag, std::span<std::byte> buffer) {
    ByteWriter out(buffer);
    out.u8(byte_of(Opcode::async_event_response)).zeros(7).u64(tag);
    SRPFS_ASSERT(!out.overran());
    return out.position();
}

}  // namespace srpfs::srp
