// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The first two bytes are the negotiated offset of immediate data, the rest is the unit.
#include "fuzz.h"

#include <srpfs/srp/srp.h>

using namespace srpfs::srp;

namespace srpfs::fuzz {
namespace {

void writes_again_to_the_same(const ReceivedCommand& command, std::uint16_t immediate_offset) {
    if (command.cdb.size() != 16 || command.descriptors.size() > 1) return;  // more than an initiator of ours sends
    CommandHead head{
        .tag = command.tag, .lun = command.lun, .attribute = command.attribute, .direction = command.direction};
    std::copy(command.cdb.begin(), command.cdb.end(), head.cdb.bytes.begin());
    head.cdb.length = 16;
    if (!command.descriptors.empty()) head.descriptor = command.descriptors[0];
    if (command.immediate) {
        head.immediate_bytes = static_cast<std::uint32_t>(command.data_bytes);
        head.immediate_offset = immediate_offset;
    }
    Bytes unit = written(65536, [&](auto buffer) { return encode(head, buffer); });
    unit.insert(unit.end(), command.immediate_data.begin(), command.immediate_data.end());
    const auto again = parse_command(unit, immediate_offset);
    PROPERTY(again);
    PROPERTY(again->tag == command.tag);
    PROPERTY(again->lun == command.lun);
    PROPERTY(again->attribute == command.attribute);
    PROPERTY(same_bytes(again->cdb, command.cdb));
    PROPERTY(again->direction == command.direction);
    PROPERTY(again->descriptors == command.descriptors);
    PROPERTY(again->data_bytes == command.data_bytes);
    PROPERTY(again->immediate == command.immediate);
    PROPERTY(same_bytes(again->immediate_data, command.immediate_data));
}

}  // namespace
}  // namespace srpfs::fuzz

SRPFS_FUZZ_TARGET(command) {
    if (input.size() < 2) return;
    const std::uint16_t immediate_offset = ByteReader(input).u16();
    const auto unit = input.subspan(2);
    const auto command = parse_command(unit, immediate_offset);
    if (!command) {
        PROPERTY(command->descriptors.empty());
        PROPERTY(command->immediate_data.empty());
        PROPERTY(command->data_bytes == 0);
        return;
    }
    PROPERTY(command->cdb.size() >= 16 && command->cdb.size() <= 16 + 252);
    PROPERTY(is_inside(command->immediate_data, unit));
    PROPERTY(command->immediate == !command->immediate_data.empty());
    PROPERTY((command->direction == DataDirection::none) == (command->data_bytes == 0));
    std::uint64_t data_bytes = command->immediate_data.size();
    for (const Descriptor& descriptor : command->descriptors) {
        PROPERTY(descriptor.length > 0);
        data_bytes += descriptor.length;
    }
    PROPERTY(command->data_bytes == data_bytes);
    writes_again_to_the_same(*command, immediate_offset);
}
