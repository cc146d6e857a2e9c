// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/scsi/raw_command.h>

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <iterator>
#include <string>

namespace srpfs::scsi {
namespace {

// Where a CDB says how much data there is.
enum class Length : std::uint8_t {
    nothing,  // there is none
    fixed,    // `offset` bytes, whatever the CDB says
    bytes,    // a number of bytes at `offset`
    blocks,   // a number of blocks at `offset`; in CDBs of six bytes 0 means 256
    pairs,    // of COMPARE AND WRITE: twice as many blocks
    block,    // one block
};

struct Known {
    std::uint8_t opcode;
    std::int8_t service_action;  // -1: there is none
    DataWay way;
    Length length;
    std::uint8_t offset, width;
    bool changes;
};

constexpr std::int8_t any = -1;
constexpr bool asks = false, changes = true;

constexpr Known known[] = {
    // What asks or reads.
    {0x00, any, DataWay::none, Length::nothing, 0, 0, asks},  // TEST UNIT READY
    {0x08, any, DataWay::in, Length::blocks, 4, 1, asks},     // READ(6)
    {0x12, any, DataWay::in, Length::bytes, 3, 2, asks},      // INQUIRY
    {0x1a, any, DataWay::in, Length::bytes, 4, 1, asks},      // MODE SENSE(6)
    {0x1c, any, DataWay::in, Length::bytes, 3, 2, asks},      // RECEIVE DIAGNOSTIC RESULTS
    {0x25, any, DataWay::in, Length::fixed, 8, 0, asks},      // READ CAPACITY(10)
    {0x28, any, DataWay::in, Length::blocks, 7, 2, asks},     // READ(10)
    {0x2f, any, DataWay::none, Length::nothing, 0, 0, asks},  // VERIFY(10)
    {0x34, any, DataWay::none, Length::nothing, 0, 0, asks},  // PRE-FETCH(10)
    {0x35, any, DataWay::none, Length::nothing, 0, 0, asks},  // SYNCHRONIZE CACHE(10)
    {0x37, any, DataWay::in, Length::bytes, 7, 2, asks},      // READ DEFECT DATA(10)
    {0x3c, any, DataWay::in, Length::bytes, 6, 3, asks},      // READ BUFFER(10)
    {0x4d, any, DataWay::in, Length::bytes, 7, 2, asks},      // LOG SENSE
    {0x5a, any, DataWay::in, Length::bytes, 7, 2, asks},      // MODE SENSE(10)
    {0x5e, any, DataWay::in, Length::bytes, 7, 2, asks},      // PERSISTENT RESERVE IN
    {0x84, 0x03, DataWay::in, Length::bytes, 10, 4, asks},    // RECEIVE COPY OPERATING PARAMETERS
    {0x88, any, DataWay::in, Length::blocks, 10, 4, asks},    // READ(16)
    {0x8f, any, DataWay::none, Length::nothing, 0, 0, asks},  // VERIFY(16)
    {0x90, any, DataWay::none, Length::nothing, 0, 0, asks},  // PRE-FETCH(16)
    {0x91, any, DataWay::none, Length::nothing, 0, 0, asks},  // SYNCHRONIZE CACHE(16)
    {0x9e, 0x10, DataWay::in, Length::bytes, 10, 4, asks},    // READ CAPACITY(16)
    {0x9e, 0x12, DataWay::in, Length::bytes, 10, 4, asks},    // GET LBA STATUS
    {0x9e, 0x13, DataWay::in, Length::bytes, 10, 4, asks},    // REPORT REFERRALS
    {0xa3, 0x05, DataWay::in, Length::bytes, 6, 4, asks},     // REPORT IDENTIFYING INFORMATION
    {0xa3, 0x0a, DataWay::in, Length::bytes, 6, 4, asks},     // REPORT TARGET PORT GROUPS
    {0xa3, 0x0b, DataWay::in, Length::bytes, 6, 4, asks},     // REPORT ALIASES
    {0xa3, 0x0c, DataWay::in, Length::bytes, 6, 4, asks},     // REPORT SUPPORTED OPERATION CODES
    {0xa3, 0x0d, DataWay::in, Length::bytes, 6, 4, asks},     // REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS
    {0xa3, 0x0e, DataWay::in, Length::bytes, 6, 4, asks},     // REPORT PRIORITY
    {0xa3, 0x0f, DataWay::in, Length::bytes, 6, 4, asks},     // REPORT TIMESTAMP
    {0xa8, any, DataWay::in, Length::blocks, 6, 4, asks},     // READ(12)
    {0xab, 0x01, DataWay::in, Length::bytes, 6, 4, asks},     // READ MEDIA SERIAL NUMBER
    {0xaf, any, DataWay::none, Length::nothing, 0, 0, asks},  // VERIFY(12)
    {0xb7, any, DataWay::in, Length::bytes, 6, 4, asks},      // READ DEFECT DATA(12)
    // What does not. Whatever is not listed at all is taken for one of them.
    {0x0a, any, DataWay::out, Length::blocks, 4, 1, changes},    // WRITE(6)
    {0x15, any, DataWay::out, Length::bytes, 4, 1, changes},     // MODE SELECT(6)
    {0x16, any, DataWay::none, Length::nothing, 0, 0, changes},  // RESERVE(6)
    {0x17, any, DataWay::none, Length::nothing, 0, 0, changes},  // RELEASE(6)
    {0x1b, any, DataWay::none, Length::nothing, 0, 0, changes},  // START STOP UNIT
    {0x1d, any, DataWay::out, Length::bytes, 3, 2, changes},     // SEND DIAGNOSTIC
    {0x1e, any, DataWay::none, Length::nothing, 0, 0, changes},  // PREVENT ALLOW MEDIUM REMOVAL
    {0x2a, any, DataWay::out, Length::blocks, 7, 2, changes},    // WRITE(10)
    {0x2e, any, DataWay::out, Length::blocks, 7, 2, changes},    // WRITE AND VERIFY(10)
    {0x3b, any, DataWay::out, Length::bytes, 6, 3, changes},     // WRITE BUFFER
    {0x41, any, DataWay::out, Length::block, 0, 0, changes},     // WRITE SAME(10)
    {0x42, any, DataWay::out, Length::bytes, 7, 2, changes},     // UNMAP
    {0x48, any, DataWay::out, Length::bytes, 7, 2, changes},     // SANITIZE
    {0x55, any, DataWay::out, Length::bytes, 7, 2, changes},     // MODE SELECT(10)
    {0x5f, any, DataWay::out, Length::bytes, 5, 4, changes},     // PERSISTENT RESERVE OUT
    {0x83, any, DataWay::out, Length::bytes, 10, 4, changes},    // EXTENDED COPY
    {0x89, any, DataWay::out, Length::pairs, 13, 1, changes},    // COMPARE AND WRITE
    {0x8a, any, DataWay::out, Length::blocks, 10, 4, changes},   // WRITE(16)
    {0x8e, any, DataWay::out, Length::blocks, 10, 4, changes},   // WRITE AND VERIFY(16)
    {0x93, any, DataWay::out, Length::block, 0, 0, changes},     // WRITE SAME(16)
    {0xaa, any, DataWay::out, Length::blocks, 6, 4, changes},    // WRITE(12)
    {0xae, any, DataWay::out, Length::blocks, 6, 4, changes},    // WRITE AND VERIFY(12)
};

std::uint8_t byte_of(const Cdb& cdb, std::size_t index) { return std::to_integer<std::uint8_t>(cdb.bytes[index]); }

// Does a field of it make another command of it than the one in the table?
bool is_special(const Cdb& cdb) {
    const std::uint8_t flags = byte_of(cdb, 1);
    switch (cdb.opcode()) {
        case 0x28:
        case 0x2a:
        case 0x2e:
        case 0x88:
        case 0x89:
        case 0x8a:
        case 0x8e:
        case 0xa8:
        case 0xaa:
        case 0xae: return flags >> 5 != 0;  // protection information travels with each block
        case 0x2f:
        case 0x8f:
        case 0xaf: return flags >> 5 != 0 || (flags & 0x06) != 0;  // BYTCHK: compares with data
        case 0x41:
        case 0x93: return flags >> 5 != 0 || (flags & 0x01) != 0;  // NDOB
        case 0x4d: return (flags & 0x01) != 0;                     // SP: saves
        default: return false;
    }
}

const Known* find(const Cdb& cdb) {
    const auto found = std::find_if(std::begin(known), std::end(known), [&](const Known& one) {
        return one.opcode == cdb.opcode() &&
               (one.service_action == any || one.service_action == (byte_of(cdb, 1) & 0x1f));
    });
    return found == std::end(known) || is_special(cdb) ? nullptr : &*found;
}

std::uint64_t bytes_of(const Known& one, const Cdb& cdb, std::uint32_t block_bytes) {
    std::uint64_t field = 0;
    if (one.length != Length::fixed)
        for (unsigned i = 0; i < one.width; ++i) field = field << 8 | byte_of(cdb, one.offset + i);
    switch (one.length) {
        case Length::nothing: return 0;
        case Length::fixed: return one.offset;
        case Length::bytes: return field;
        case Length::blocks: return (cdb.length == 6 && field == 0 ? 256 : field) * block_bytes;
        case Length::pairs: return 2 * field * block_bytes;
        case Length::block: return block_bytes;
    }
    return 0;
}

// By the group of the operation code; 0: it may be any (vendors) or is not told by it (variable length).
unsigned cdb_bytes_of(std::uint8_t opcode) {
    switch (opcode >> 5) {
        case 0: return 6;
        case 1:
        case 2: return 10;
        case 4: return 16;
        case 5: return 12;
        default: return 0;
    }
}

Error wrong(const std::string& what) { return Error(EINVAL, "cdb: " + what); }

// For a message: it is any bytes.
std::string shown(std::string_view word) {
    constexpr std::size_t most = 40;
    std::string text(word.substr(0, most));
    for (char& one : text)
        if (one < 0x20 || one > 0x7e) one = '?';
    return word.size() > most ? text + "..." : text;
}

std::string_view take_word(std::string_view& text) {
    const auto begin = std::min(text.find_first_not_of(" \t"), text.size());
    text.remove_prefix(begin);
    const std::string_view word = text.substr(0, text.find_first_of(" \t"));
    text.remove_prefix(word.size());
    return word;
}

std::optional<std::uint64_t> parse_number(std::string_view text, std::uint64_t most, int base) {
    std::uint64_t value = 0;
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (fault != std::errc{} || end != text.data() + text.size() || value > most) return std::nullopt;
    return value;
}

std::optional<std::vector<std::byte>> parse_hex(std::string_view text) {
    std::vector<std::byte> bytes;
    if (text.empty() || text.size() % 2 != 0) return std::nullopt;
    for (; !text.empty(); text.remove_prefix(2)) {
        const auto one = parse_number(text.substr(0, 2), 0xff, 16);
        if (!one) return std::nullopt;
        bytes.push_back(static_cast<std::byte>(*one));
    }
    return bytes;
}

std::string say(DataWay way, std::uint64_t bytes) {
    if (way == DataWay::none || bytes == 0) return "no data";
    return fmt::format("{} bytes {}", bytes, way == DataWay::in ? "in" : "out");
}

}  // namespace

Result<RawCommand> parse_raw_command(std::string_view text) {
    constexpr std::string_view syntax =
        "expected is the CDB in hexadecimal, byte by byte, then in=BYTES, out=HEX and timeout=SECONDS as wanted";
    RawCommand command;
    bool has_time_limit = false, has_options = false;
    for (std::string_view word = take_word(text); !word.empty(); word = take_word(text)) {
        const auto equals = word.find('=');
        if (equals == std::string_view::npos) {
            const bool has_prefix = word.starts_with("0x") || word.starts_with("0X");
            const auto one = parse_number(word.substr(has_prefix ? 2 : 0), 0xff, 16);
            if (has_options || !one) return wrong(fmt::format("'{}' is no byte of a CDB; {}", shown(word), syntax));
            if (command.cdb.length == command.cdb.bytes.size()) return wrong("a CDB has 16 bytes at most");
            command.cdb.bytes[command.cdb.length++] = static_cast<std::byte>(*one);
            continue;
        }
        has_options = true;
        const std::string_view name = word.substr(0, equals), value = word.substr(equals + 1);
        if (name == "in" && !command.in_bytes) {
            const auto bytes = parse_number(value, raw_data_bytes_max, 10);
            if (!bytes)
                return wrong(fmt::format("in={}: a number up to {} is expected", shown(value), raw_data_bytes_max));
            command.in_bytes = static_cast<std::uint32_t>(*bytes);
        } else if (name == "out" && command.out.empty()) {
            auto bytes = parse_hex(value);
            if (!bytes) return wrong("out: an even number of hexadecimal digits is expected, without blanks");
            command.out = std::move(*bytes);
        } else if (name == "timeout" && !has_time_limit) {
            constexpr auto most = std::chrono::duration_cast<std::chrono::seconds>(raw_text_time_limit_max).count();
            const auto seconds = parse_number(value, static_cast<std::uint64_t>(most), 10);
            if (!seconds || *seconds == 0)
                return wrong(fmt::format("timeout={}: a number from 1 to {} is expected", shown(value), most));
            command.time_limit = std::chrono::seconds(*seconds);
            has_time_limit = true;
        } else {
            return wrong(fmt::format("'{}' is unknown, or there already; {}", shown(word), syntax));
        }
    }
    if (command.cdb.length == 0) return wrong(fmt::format("there is no CDB; {}", syntax));
    return command;
}

Result<RawPlan> plan_raw_command(const RawCommand& command, std::uint32_t block_bytes) {
    const Cdb& cdb = command.cdb;
    if (cdb.length < 6 || cdb.length > cdb.bytes.size())
        return wrong(fmt::format("a CDB has 6 to 16 bytes, this one has {}", cdb.length));
    if (cdb.opcode() == 0x7f) return wrong("CDBs of variable length are not sent");
    // These take unit attentions away that have to be seen here: another unit, or a cache that was lost.
    if (cdb.opcode() == 0x03)
        return wrong("REQUEST SENSE is not sent: sense data comes with the answer to the command it is about");
    if (cdb.opcode() == 0xa0)
        return wrong("REPORT LUNS is not sent: the directory shows the units, and 'rescan' looks for others");
    const unsigned wanted = cdb_bytes_of(cdb.opcode());
    if (wanted != 0 && cdb.length != wanted)
        return wrong(fmt::format("CDBs with operation code {:02x} have {} bytes, this one has {}", cdb.opcode(), wanted,
                                 cdb.length));
    // NACA would leave everybody waiting after the first failure; the other two are obsolete and as bad.
    if (wanted != 0 && (byte_of(cdb, cdb.length - 1u) & 0x07) != 0)
        return wrong(
            fmt::format("the control byte {:02x} asks for ACA or for linked commands", byte_of(cdb, cdb.length - 1u)));
    const std::uint32_t in_bytes = command.in_bytes.value_or(0);
    if (in_bytes > 0 && !command.out.empty()) return wrong("data goes in or out, not both ways");
    if (in_bytes > raw_data_bytes_max || command.out.size() > raw_data_bytes_max)
        return wrong(fmt::format("at most {} bytes of data", raw_data_bytes_max));

    RawPlan plan;
    if (in_bytes > 0) plan = {.way = DataWay::in, .bytes = in_bytes};
    if (!command.out.empty()) plan = {.way = DataWay::out, .bytes = static_cast<std::uint32_t>(command.out.size())};
    const Known* const one = find(cdb);
    if (!one) return plan;

    plan.changes = one->changes;
    const std::uint64_t bytes = bytes_of(*one, cdb, block_bytes);
    if (bytes > raw_data_bytes_max)
        return wrong(
            fmt::format("the CDB asks for {}; {} can be had at a time", say(one->way, bytes), raw_data_bytes_max));
    if (!command.in_bytes && command.out.empty() && one->way == DataWay::in) {
        plan.way = bytes > 0 ? DataWay::in : DataWay::none;
        plan.bytes = static_cast<std::uint32_t>(bytes);
    }
    if (plan.bytes != bytes || (bytes > 0 && plan.way != one->way))
        return wrong(
            fmt::format("the CDB says {}, and what is given is {}", say(one->way, bytes), say(plan.way, plan.bytes)));
    return plan;
}

}  // namespace srpfs::scsi
