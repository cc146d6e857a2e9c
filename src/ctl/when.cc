// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/when.h>

#include <srpfs/ctl/text.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <optional>
#include <string>

#include <time.h>

namespace srpfs::ctl {
namespace {

constexpr std::int64_t second_ms = 1000, minute_ms = 60 * second_ms, hour_ms = 60 * minute_ms, day_ms = 24 * hour_ms;

struct TimeUnit {
    std::int64_t milliseconds;
    std::array<std::string_view, 5> names;
};
constexpr TimeUnit time_units[] = {
    {1, {"ms", "msec", "msecs", "millisecond", "milliseconds"}},
    {second_ms, {"s", "sec", "secs", "second", "seconds"}},
    {minute_ms, {"m", "min", "mins", "minute", "minutes"}},
    {hour_ms, {"h", "hr", "hrs", "hour", "hours"}},
    {day_ms, {"d", "day", "days"}},
    {7 * day_ms, {"w", "week", "weeks"}},
};

bool is_decimal_digit(char one) { return one >= '0' && one <= '9'; }

void skip_blanks(std::string_view& text) { text.remove_prefix(std::min(text.find_first_not_of(' '), text.size())); }

// "1h 30m", "2 days": nothing if it is no such thing.
std::optional<std::int64_t> span_of(std::string_view text) {
    constexpr std::uint64_t count_max = 1000000000;
    std::int64_t sum = 0;
    do {
        std::uint64_t count = 0;
        const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), count);
        if (fault != std::errc{} || count > count_max) return std::nullopt;
        text.remove_prefix(static_cast<std::size_t>(end - text.data()));
        skip_blanks(text);
        const std::string_view name = text.substr(
            0, static_cast<std::size_t>(std::find_if(text.begin(), text.end(),
                                                     [](char one) { return one == ' ' || is_decimal_digit(one); }) -
                                        text.begin()));
        const auto unit = std::find_if(std::begin(time_units), std::end(time_units), [&](const TimeUnit& one) {
            return !name.empty() && std::find(one.names.begin(), one.names.end(), name) != one.names.end();
        });
        if (unit == std::end(time_units)) return std::nullopt;
        if (__builtin_add_overflow(sum, static_cast<std::int64_t>(count) * unit->milliseconds, &sum))
            return std::nullopt;
        text.remove_prefix(name.size());
        skip_blanks(text);
    } while (!text.empty());
    return sum;
}

// Of a time that is `offset` seconds before UTC, or local if there is none. Nothing of one that no calendar has.
std::optional<std::int64_t> since_1970(tm parts, std::optional<long> offset) {
    const tm wanted = parts;
    parts.tm_isdst = -1;
    const time_t seconds = offset ? timegm(&parts) : mktime(&parts);
    // 30 February would be 2 March.
    if (parts.tm_year != wanted.tm_year || parts.tm_mon != wanted.tm_mon || parts.tm_mday != wanted.tm_mday)
        return std::nullopt;
    return (std::int64_t{seconds} - offset.value_or(0)) * second_ms;
}

// ".250" at the beginning, which is taken away: milliseconds.
std::optional<std::int64_t> fraction_of(const char*& text) {
    if (*text != '.') return 0;
    std::int64_t fraction = 0, place = 100;
    const char* const first = ++text;
    for (; is_decimal_digit(*text); ++text, place /= 10) fraction += place * (*text - '0');
    return text == first ? std::nullopt : std::optional(fraction);
}

std::optional<std::int64_t> absolute_time(const std::string& text, const tm& today) {
    tm parts{};
    const char* rest = ::strptime(text.c_str(), "%Y-%m-%d", &parts);
    const bool has_date = rest;
    if (has_date && *rest == '\0') return since_1970(parts, std::nullopt);
    if (has_date && *rest != ' ' && *rest != 'T' && *rest != 't') return std::nullopt;
    const char* const time = has_date ? rest + 1 : text.c_str();
    if (!has_date) parts = today;
    parts.tm_sec = 0;
    rest = ::strptime(time, "%H:%M", &parts);
    if (!rest) return std::nullopt;
    if (*rest == ':' && !(rest = ::strptime(rest, ":%S", &parts))) return std::nullopt;
    const auto fraction = fraction_of(rest);
    if (!fraction) return std::nullopt;
    while (*rest == ' ') ++rest;
    const std::string_view zone = rest;
    std::optional<long> offset;
    if (zone == "Z" || zone == "z" || zone == "UTC") {
        offset = 0;
    } else if (!zone.empty()) {
        tm with_zone{};
        const char* const end = ::strptime(rest, "%z", &with_zone);
        if (!end || *end != '\0') return std::nullopt;
        offset = with_zone.tm_gmtoff;
    }
    const auto whole = since_1970(parts, offset);
    return whole ? std::optional(*whole + *fraction) : std::nullopt;
}

}  // namespace

Result<std::int64_t> parse_time(std::string_view text, std::int64_t now_ms) {
    std::string_view word = trimmed(text);
    const time_t now = static_cast<time_t>(now_ms / second_ms);
    tm today{};
    ::localtime_r(&now, &today);
    today.tm_hour = today.tm_min = today.tm_sec = 0;
    std::optional<std::int64_t> found;
    if (word == "now") return now_ms;
    if (word == "today" || word == "yesterday") {
        // The day before may have had 23 or 25 hours.
        today.tm_mday -= word == "today" ? 0 : 1;
        today.tm_isdst = -1;
        return std::int64_t{mktime(&today)} * second_ms;
    }
    if (word.starts_with('@')) {
        std::int64_t seconds = 0;
        const char* const last = word.data() + word.size();
        const auto [end, fault] = std::from_chars(word.data() + 1, last, seconds);
        if (fault == std::errc{} && end == last && seconds >= 0 && seconds < INT64_MAX / second_ms)
            found = seconds * second_ms;
    } else if (found = absolute_time(std::string(word), today); !found) {
        if (word.starts_with('-')) word.remove_prefix(1);
        if (word.ends_with(" ago")) word.remove_suffix(4);
        if (const auto span = span_of(word)) found = now_ms - *span;
    }
    if (found) return *found;
    return Error(EINVAL,
                 "a time is expected, such as \"2026-11-24 10:00\", 2026-11-24T09:00:00Z, 10:00, 30s, 10m, 2h, 1d, "
                 "today or yesterday");
}

std::int64_t wall_clock_ms() {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    return std::int64_t{now.tv_sec} * second_ms + now.tv_nsec / 1000000;
}

}  // namespace srpfs::ctl
