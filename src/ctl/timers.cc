// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/timers.h>

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <deque>

namespace srpfs::ctl {
namespace {

constexpr std::uint64_t fast_io_fail_max = 600, dev_loss_max = 2147483646, reconnect_usual = 10;

struct Member {
    const char* file;
    Seconds Timers::*value;
};
// Of several orders of the same length the first of these comes first.
constexpr Member members[] = {{"fast_io_fail_tmo", &Timers::fast_io_fail_tmo},
                              {"dev_loss_tmo", &Timers::dev_loss_tmo},
                              {"reconnect_delay", &Timers::reconnect_delay}};

}  // namespace

bool is_allowed(const Timers& timers) {
    const auto& [reconnect, fail, loss] = timers;
    if (!reconnect && !fail && !loss) return false;
    if (reconnect == std::uint64_t{0}) return false;
    if (fail && *fail > fast_io_fail_max) return false;
    if (!fail && loss && *loss > fast_io_fail_max) return false;
    if (loss && *loss > dev_loss_max) return false;
    return !(fail && loss && *fail >= *loss);
}

std::optional<Seconds> parse_seconds(std::string_view text) {
    if (text.starts_with("off")) return Seconds{};
    const bool is_negative = text.starts_with('-');
    if (is_negative) text.remove_prefix(1);
    int base = 10;
    if (text.starts_with("0x") || text.starts_with("0X")) {
        base = 16;
        text.remove_prefix(2);
    } else if (text.size() > 1 && text[0] == '0') {
        base = 8;
    }
    std::uint64_t value = 0;
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (text.empty() || fault != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return is_negative && value != 0 ? Seconds{} : Seconds{value};
}

std::string format_seconds(const Seconds& value) { return value ? fmt::format("{}", *value) : "off"; }

std::optional<std::vector<TimerWrite>> order_of_writes(const Timers& now, const Timers& wanted) {
    if (!is_allowed(now) || !is_allowed(wanted)) return std::nullopt;
    // Breadth first over the few values that can help: the way by "reconnect on, loss off" always exists.
    struct Way {
        Timers at;
        std::vector<TimerWrite> writes;
    };
    std::deque<Way> ways = {{now, {}}};
    std::vector<Timers> seen = {now};
    while (!ways.empty()) {
        const Way way = std::move(ways.front());
        ways.pop_front();
        if (way.at == wanted) return way.writes;
        for (const Member& member : members) {
            const Seconds helper = member.value == &Timers::reconnect_delay ? Seconds{reconnect_usual} : Seconds{};
            for (const Seconds& value : {wanted.*member.value, now.*member.value, helper}) {
                Way next = way;
                next.at.*member.value = value;
                if (!is_allowed(next.at) || std::find(seen.begin(), seen.end(), next.at) != seen.end()) continue;
                seen.push_back(next.at);
                next.writes.push_back({member.file, value});
                ways.push_back(std::move(next));
            }
        }
    }
    return std::nullopt;
}

}  // namespace srpfs::ctl
