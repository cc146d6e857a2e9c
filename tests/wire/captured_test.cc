// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Bytes that other implementations sent (captured/README.md): each has to parse and, where there is one canonical
// encoding, to be written again byte for byte.
#include "hex.h"

#include <srpfs/srp/srp.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <string>

namespace srpfs::srp {
namespace {

using Bytes = std::vector<std::byte>;

// What came of one unit.
enum class Verdict { same_bytes, parsed_only, wrong };
struct Outcome {
    Verdict verdict = Verdict::wrong;
    std::string reason;
};

Outcome fault(WireFault wire_fault) { return {Verdict::wrong, to_string(wire_fault)}; }

// Padding up to the size of the connection manager's private data may follow a login unit.
Outcome compare(Bytes written, std::span<const std::byte> captured) {
    const auto tail = captured.subspan(std::min(captured.size(), written.size()));
    if (std::any_of(tail.begin(), tail.end(), [](std::byte one) { return one != std::byte{0}; }))
        return {Verdict::wrong, "bytes that are not zero follow the unit"};
    written.resize(captured.size());
    const auto [ours, theirs] = std::mismatch(written.begin(), written.end(), captured.begin());
    if (ours == written.end()) return {Verdict::same_bytes, ""};
    return {Verdict::wrong, fmt::format("byte {} is {:02x}, encoded as {:02x}", ours - written.begin(),
                                        std::to_integer<unsigned>(*theirs), std::to_integer<unsigned>(*ours))};
}

template <typename Encode>
Bytes encoded_by(Encode&& encode_into) {
    Bytes buffer(65536, std::byte{0xee});
    buffer.resize(encode_into(buffer));
    return buffer;
}

Outcome check_login_request(const Bytes& bytes, LoginForm form) {
    const auto login = parse_login_request(bytes, form);
    if (!login) return fault(login.fault);
    return compare(encoded_by([&](auto& buffer) { return encode(*login, form, buffer); }), bytes);
}

template <typename Parse>
Outcome check(const Bytes& bytes, Parse&& parse) {
    const auto unit = parse(bytes);
    if (!unit) return fault(unit.fault);
    return compare(encoded_by([&](auto& buffer) { return encode(*unit, buffer); }), bytes);
}

// An initiator may leave anything between the count and the immediate data: those bytes are taken over.
Outcome check_command(const Bytes& bytes) {
    const auto command = parse_command(bytes, immediate_data_offset);
    if (!command) return fault(command.fault);
    const bool one_descriptor = command->descriptors.size() <= 1 &&
                                (std::to_integer<unsigned>(bytes[5]) & 0x22) != 0x02 &&
                                (std::to_integer<unsigned>(bytes[5]) & 0xf0) != 0x20;
    if (!one_descriptor || command->cdb.size() > 16) return {Verdict::parsed_only, ""};

    CommandHead head{
        .tag = command->tag, .lun = command->lun, .attribute = command->attribute, .direction = command->direction};
    std::copy(command->cdb.begin(), command->cdb.end(), head.cdb.bytes.begin());
    head.cdb.length = 16;
    if (command->immediate) head.immediate_bytes = static_cast<std::uint32_t>(command->data_bytes);
    if (!command->descriptors.empty()) head.descriptor = command->descriptors[0];
    Bytes again = encoded_by([&](auto& buffer) { return encode(head, buffer); });
    if (command->immediate) {
        std::copy(bytes.begin() + 52, bytes.begin() + immediate_data_offset, again.begin() + 52);
        again.insert(again.end(), command->immediate_data.begin(), command->immediate_data.end());
    }
    return compare(std::move(again), bytes);
}

Outcome check_response(const Bytes& bytes) {
    const auto response = parse_response(bytes);
    if (!response) return fault(response.fault);
    const bool has_code_only = response->task_code ? bytes[35] == std::byte{4} : bytes[35] == std::byte{0};
    if (!has_code_only) return {Verdict::parsed_only, ""};
    return compare(encoded_by([&](auto& buffer) { return encode(*response, buffer); }), bytes);
}

const std::map<std::string, std::function<Outcome(const Bytes&)>, std::less<>> checks = {
    {"login-request-rdma", [](const Bytes& bytes) { return check_login_request(bytes, LoginForm::rdma_cm); }},
    {"login-request-ib", [](const Bytes& bytes) { return check_login_request(bytes, LoginForm::ib_cm); }},
    {"login-response", [](const Bytes& bytes) { return check(bytes, parse_login_response); }},
    {"login-reject", [](const Bytes& bytes) { return check(bytes, parse_login_reject); }},
    {"command", check_command},
    {"response", check_response},
    {"task-management", [](const Bytes& bytes) { return check(bytes, parse_task_management); }},
};

struct Line {
    std::string kind;
    Outcome outcome;
};

Line check_line(const std::string& line) {
    const std::size_t blank = line.find(' ');
    Line result{line.substr(0, blank), {}};
    const std::string digits = blank == std::string::npos ? "" : line.substr(blank + 1);
    const auto known = checks.find(result.kind);
    if (known == checks.end())
        result.outcome.reason = "unknown kind";
    else if (digits.empty() || digits.size() % 2 != 0 ||
             digits.find_first_not_of("0123456789abcdef") != std::string::npos)
        result.outcome.reason = "not an even number of lower-case hex digits";
    else
        result.outcome = known->second(test::hex(digits));
    return result;
}

TEST(CapturedUnits, ParseAndAreWrittenAgainByteForByte) {
    std::map<std::string, std::map<Verdict, unsigned>> seen;
    for (const auto& entry : std::filesystem::directory_iterator(SRPFS_CAPTURED_DIRECTORY)) {
        if (entry.path().extension() != ".hex") continue;
        std::ifstream file(entry.path());
        ASSERT_TRUE(file) << entry.path();
        unsigned number = 0;
        for (std::string line; std::getline(file, line);) {
            ++number;
            if (line.empty() || line.starts_with('#')) continue;
            const Line checked = check_line(line);
            ++seen[checked.kind][checked.outcome.verdict];
            EXPECT_NE(checked.outcome.verdict, Verdict::wrong) << entry.path().filename() << " line " << number << ": "
                                                               << checked.kind << ": " << checked.outcome.reason;
        }
    }
    for (const auto& [kind, ignored] : checks) {
        auto& counts = seen[kind];
        std::cout << fmt::format("captured {:<20} {:>5} the same byte for byte, {} parsed only\n", kind + ":",
                                 counts[Verdict::same_bytes], counts[Verdict::parsed_only]);
    }
}

// ---- the check itself, on lines written by hand ----

const std::string zeros_8 = "0000000000000000";
const std::string response_head = "c10000000000000100000000000000420000";
const std::string captured_command =
    "0200000000"
    "FF"
    "0000"
    "0000000000000042"
    "00000000"
    "0005000000000000"
    "00000000"
    "28000000000800000100000000000000";

std::string command_line(const std::string& format, const std::string& rest) {
    std::string text = captured_command;
    return "command " + text.replace(text.find("FF"), 2, format) + rest;
}

TEST(CapturedCheck, AcceptsUnitsInTheirCanonicalForm) {
    const std::string descriptor = "00000000000010000000007700000200";
    const std::string lines[] = {
        command_line("00", ""),
        command_line("01", descriptor),
        command_line("10", descriptor),
        command_line("30",
                     "00000002"
                     "deadbeefdeadbeefdeadbeefdeadbeef"
                     "abcd"),  // stale padding
        "response " + response_head + "0000" + zeros_8 + zeros_8,
        "response " + response_head + "0202" + zeros_8 + "0000000200000000" + "7206",
        "response " + response_head + "0100" + zeros_8 + "0000000000000004" + "00000005",
        "task-management 01"
        "00000000000000"
        "8000000000000001"
        "00000000"
        "0005000000000000"
        "00000800"
        "0000000000000042" +
            zeros_8,
        "login-reject c200000000010006" + zeros_8 + zeros_8 + "0006000000000000" + zeros_8,
    };
    for (const std::string& line : lines) {
        const Line checked = check_line(line);
        EXPECT_EQ(checked.outcome.verdict, Verdict::same_bytes) << line << ": " << checked.outcome.reason;
    }
}

TEST(CapturedCheck, OnlyParsesUnitsOfManyForms) {
    const std::string indirect =
        "000000000000beef0000007700000010"
        "00000200"
        "00000000000010000000007700000200";
    std::string line = command_line("02", indirect);
    line.replace(std::string("command ").size() + 14, 2, "01");  // one descriptor inline

    EXPECT_EQ(check_line(line).outcome.verdict, Verdict::parsed_only) << check_line(line).outcome.reason;
}

TEST(CapturedCheck, RefusesOneChangedReservedByteAndWhatIsNoUnit) {
    const std::string lines[] = {
        "response " + response_head + "0000" + zeros_8 + zeros_8 + "01",
        "response c10000010000000100000000000000420000"
        "0000" +
            zeros_8 + zeros_8,
        "response c100",
        "response",
        "response c1g0",
        "response c1000",
        "answer c100",
        "task-management 02",
    };
    for (const std::string& line : lines) EXPECT_EQ(check_line(line).outcome.verdict, Verdict::wrong) << line;
}

}  // namespace
}  // namespace srpfs::srp
