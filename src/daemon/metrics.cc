// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "metrics.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace srpfs::daemon {
namespace {

using Json = nlohmann::ordered_json;
using Labels = std::vector<std::pair<std::string_view, std::string>>;

// Where buckets end: all of these are ends of buckets of LatencyHistogram as well, so that nothing is guessed.
struct End {
    std::uint64_t us;
    std::string text;  // in seconds
};
// The powers of two from 8 us to 67 s, with as many steps of one length between them.
std::vector<End> ends_with(std::uint64_t steps) {
    std::vector<End> ends;
    const auto add = [&](std::uint64_t us) { ends.push_back({us, fmt::format("{}", static_cast<double>(us) / 1e6)}); };
    for (std::uint64_t from = 8; from < 1U << 26; from *= 2)
        for (std::uint64_t step = 0; step < steps; ++step) add(from + from * step / steps);
    add(1U << 26);
    return ends;
}

std::string escaped(std::string_view text) {
    std::string out;
    for (const char one : text) {
        if (one == '\\' || one == '"') out += '\\';
        if (one == '\n')
            out += "\\n";
        else
            out += one;
    }
    return out;
}

std::string text_of(const Labels& labels) {
    if (labels.empty()) return {};
    std::string out = "{";
    for (const auto& [name, value] : labels)
        out += fmt::format("{}{}=\"{}\"", out.size() > 1 ? "," : "", name, escaped(value));
    return out + "}";
}

Labels with(Labels labels, std::initializer_list<std::pair<std::string_view, std::string>> more) {
    labels.insert(labels.end(), more.begin(), more.end());
    return labels;
}

class Exposition {
public:
    void family(std::string_view name, std::string_view type, std::string_view help) {
        name_ = name;
        text_ += fmt::format("# HELP {0} {1}\n# TYPE {0} {2}\n", name, help, type);
    }
    void sample(const Labels& labels, std::uint64_t value) { line("", labels, fmt::format("{}", value)); }
    void signed_sample(const Labels& labels, std::int64_t value) { line("", labels, fmt::format("{}", value)); }
    void histogram(const Labels& labels, const Json& latency, std::span<const End> ends) {
        const std::string open = opened(labels);
        auto bucket = latency.at("buckets_us").begin();
        const auto last = latency.at("buckets_us").end();
        const auto add = [&](std::string_view limit, std::uint64_t sum) {
            fmt::format_to(std::back_inserter(text_), "{}_bucket{}le=\"{}\"}} {}\n", name_, open, limit, sum);
        };
        std::uint64_t sum = 0;
        for (const End& end : ends) {
            for (; bucket != last && bucket->at(0).get<std::uint64_t>() <= end.us; ++bucket)
                sum += bucket->at(1).get<std::uint64_t>();
            add(end.text, sum);
        }
        const auto count = latency.at("count").get<std::uint64_t>();
        add("+Inf", count);
        line("_sum", labels, fmt::format("{}", latency.at("sum_us").get<double>() / 1e6));
        line("_count", labels, fmt::format("{}", count));
    }
    void quantiles(const Labels& labels, const Json& latency) {
        const std::string open = opened(labels);
        const bool is_empty = latency.at("count") == 0;
        for (const auto& [field, quantile] : {std::pair{"p50_us", "0.5"}, {"p99_us", "0.99"}, {"p999_us", "0.999"}})
            fmt::format_to(std::back_inserter(text_), "{}{}quantile=\"{}\"}} {}\n", name_, open, quantile,
                           is_empty ? "NaN" : fmt::format("{}", latency.at(field).get<double>() / 1e6));
    }
    [[nodiscard]] std::string take() { return std::move(text_); }

private:
    // For one label more.
    static std::string opened(const Labels& labels) {
        if (labels.empty()) return "{";
        std::string text = text_of(labels);
        text.back() = ',';
        return text;
    }
    void line(std::string_view suffix, const Labels& labels, std::string_view value) {
        text_ += fmt::format("{}{}{} {}\n", name_, suffix, text_of(labels), value);
    }
    std::string text_;
    std::string name_;
};

// What becomes a family as it is: a field, the family's name after its prefix, and its help.
struct Simple {
    const char* field;
    const char* name;
    const char* help;
};
constexpr Simple reactor_counters[] = {
    {"busy_turns", "busy_turns_total", "Turns of the reactor in which there was something to do."},
    {"slow_turns", "slow_turns_total", "Turns that took longer than 10 ms."},
    {"sleeps", "sleeps_total", "How often the reactor has slept."},
    {"requests_read", "requests_read_total", "Requests of any kind that the reactor has read from the kernel."},
    {"requests_handed_over", "requests_handed_over_total", "Those of them that another reactor serves."},
    {"answers_for_others", "answers_for_others_total", "Answers given to the kernel for other reactors."},
};
constexpr Simple reactor_gauges[] = {
    {"slots", "slots", "Places for commands on the live channels of the reactor's targets."},
    {"slots_in_use", "slots_in_use", "How many of them have a command that has not been answered."},
};
constexpr Simple target_counters[] = {
    {"commands", "commands_total", "SCSI commands sent to the target."},
    {"zero_req_lim", "zero_req_lim_total", "Commands that had to wait because no channel had credit or a free tag."},
    {"logins", "logins_total", "Successful logins, the first one included."},
    {"losses", "losses_total", "How often the last connection to the target was lost."},
};
constexpr Simple channel_counters[] = {
    {"commands", "commands_total", "SCSI commands sent."},
    {"responses", "responses_total", "Responses received."},
    {"task_management", "task_management_total", "Task management functions sent (ABORT TASK, LUN RESET)."},
    {"path_checks", "path_checks_total", "Questions to a target of which nothing was heard (TEST UNIT READY)."},
    {"timeouts", "timeouts_total", "Commands that were not answered in time."},
    {"out_of_credits", "out_of_credits_total", "Commands refused for want of credit."},
    {"credit_requests", "credit_requests_total", "SRP_CRED_REQ received."},
    {"async_events", "async_events_total", "SRP_AER_REQ received."},
    {"unknown_tags", "unknown_tags_total", "Responses to no command that is under way."},
    {"malformed", "malformed_total", "Messages that could not be understood."},
    {"bytes_read", "read_bytes_total", "Bytes that commands have brought."},
    {"bytes_written", "written_bytes_total", "Bytes that commands have taken along."},
};
constexpr Simple channel_gauges[] = {
    {"credits", "credits", "Commands that the target would take now."},
    {"credits_initial", "credits_initial", "Credits that the login brought."},
    {"in_flight", "in_flight", "Commands that have not been answered."},
};
constexpr Simple page_counters[] = {
    {"fills", "fills_total", "Reads by way of the kernel's page cache."},
    {"fills_cached", "fills_cached_total", "Those of cached files."},
    {"drops", "drops_total", "How often the kernel was asked to drop pages."},
    {"drop_ranges", "drop_ranges_total", "Ranges of pages that it was asked to drop."},
    {"drop_bytes", "drop_bytes_total", "Bytes of these ranges."},
    {"waits", "waits_total", "Changes that were answered after pages had been dropped."},
    {"waits_given_up", "waits_given_up_total", "Those answered without it, because it took too long."},
};
constexpr Simple lun_gauges[] = {
    {"requests_pending", "requests_pending", "Requests that have not been answered."},
    {"in_flight", "in_flight", "Commands that have not been answered."},
};
// Of units, and of what has units.
constexpr Simple unit_counters[] = {
    {"bytes_read", "read_bytes_total", "Bytes read by users."},
    {"bytes_written", "written_bytes_total", "Bytes written by users."},
    {"retries", "retries_total", "Commands sent again."},
};
constexpr Simple lun_counters[] = {
    {"interrupts", "interrupts_total", "Requests given up by their users."},
    {"unit_attentions", "unit_attentions_total", "Unit attentions."},
    {"read_modify_writes", "read_modify_writes_total", "Writes that began or ended inside a block."},
    {"ghosts", "ghosts_total", "Writes that were answered before their end was known."},
};

}  // namespace

std::string metrics_of(const Json& stats) {
    // Of units there may be a thousand.
    const std::vector<End> coarse_ends = ends_with(1), fine_ends = ends_with(2);
    Exposition out;
    const auto family = [&](std::string_view prefix, const Simple& one, std::string_view type) {
        out.family(fmt::format("srpfs_{}_{}", prefix, one.name), type, one.help);
    };
    const auto number = [](const Json& object, const char* field) { return object.at(field).get<std::uint64_t>(); };
    const auto word = [](const Json& object, const char* field) { return object.at(field).get<std::string>(); };

    out.family("srpfs_build_info", "gauge", "The version, always 1.");
    out.sample({{"version", word(stats, "version")}}, 1);
    out.family("srpfs_uptime_seconds", "gauge", "Since srpfs was started.");
    out.sample({}, number(stats, "uptime_seconds"));
    out.family("srpfs_requests_pending", "gauge", "Requests to the file system that have not been answered.");
    out.sample({}, number(stats, "requests_pending"));
    out.family("srpfs_registered_bytes", "gauge", "Memory registered with RDMA devices.");
    out.sample({}, number(stats.at("memory"), "registered_bytes"));

    const Json& pages = stats.at("pages");
    for (const Simple& one : page_counters) {
        family("page", one, "counter");
        out.sample({}, number(pages, one.field));
    }
    out.family("srpfs_page_duration_seconds", "histogram",
               "How long drops took, and how long changes waited for them.");
    for (const auto& [operation, latency] : pages.at("latency").items())
        out.histogram({{"operation", operation}}, latency, fine_ends);

    out.family("srpfs_events_total", "counter", "Events, by kind, of those kinds that have occurred.");
    for (const auto& [event, count] : stats.at("events").items())
        out.sample({{"event", event}}, count.get<std::uint64_t>());

    const auto for_reactors = [&](std::span<const Simple> all, std::string_view type) {
        for (const Simple& one : all) {
            family("reactor", one, type);
            for (const Json& reactor : stats.at("reactors"))
                out.sample({{"reactor", word(reactor, "name")}}, number(reactor, one.field));
        }
    };
    for_reactors(reactor_counters, "counter");
    for_reactors(reactor_gauges, "gauge");
    // Of each thing `for_all` tells of: errors by kind, and latencies.
    const auto errors = [&](std::string_view prefix, std::string_view help, const auto& for_all) {
        out.family(fmt::format("srpfs_{}_errors_total", prefix), "counter", help);
        for_all([&](const Json& counted, const Labels& labels) {
            for (const auto& [kind, number_of] : counted.at("errors_by_kind").items())
                out.sample(with(labels, {{"kind", kind}}), number_of.template get<std::uint64_t>());
        });
    };
    // `what`: "lun_request". Without `shows_idle` operations that never were are left out: there are many units.
    const auto latencies = [&](std::string_view what, std::string_view subject, std::span<const End> ends,
                               bool shows_idle, const auto& for_all) {
        const auto each = [&](const auto& work) {
            for_all([&](const Json& counted, const Labels& labels) {
                for (const auto& [operation, latency] : counted.at("latency").items())
                    if (shows_idle || latency.at("count") != 0) work(latency, with(labels, {{"operation", operation}}));
            });
        };
        out.family(fmt::format("srpfs_{}_duration_seconds", what), "histogram",
                   fmt::format("How long {} took that succeeded.", subject));
        each([&](const Json& latency, const Labels& labels) { out.histogram(labels, latency, ends); });
        out.family(fmt::format("srpfs_{}_latency_seconds", what), "summary",
                   fmt::format("What so large a part of the {} since the start took at most, up to an eighth too much.",
                               subject));
        each([&](const Json& latency, const Labels& labels) { out.quantiles(labels, latency); });
    };
    // What units, and the totals of targets and reactors, have counted.
    const auto totals = [&](std::string_view prefix, std::span<const End> ends, bool shows_idle, const auto& for_all) {
        for (const Simple& one : unit_counters) {
            family(prefix, one, "counter");
            for_all([&](const Json& counted, const Labels& labels) { out.sample(labels, number(counted, one.field)); });
        }
        errors(prefix, "Requests that have failed, by kind.", for_all);
        latencies(fmt::format("{}_request", prefix), "requests", ends, shows_idle, for_all);
    };
    totals("reactor", fine_ends, true, [&](const auto& work) {
        for (const Json& reactor : stats.at("reactors"))
            work(reactor.at("total"), Labels{{"reactor", word(reactor, "name")}});
    });

    const auto of_target = [&](const Json& target) -> Labels {
        return {{"port", word(target, "port")}, {"target", word(target, "name")}};
    };
    const auto for_targets = [&](const auto& work) {
        for (const Json& target : stats.at("targets")) work(target, of_target(target));
    };
    const auto for_parts = [&](const char* list, const auto& work) {
        for_targets([&](const Json& target, const Labels& labels) {
            for (const Json& part : target.at(list)) work(part, labels);
        });
    };
    out.family("srpfs_target_info", "gauge", "Where the target is, and the reactor that is its home, always 1.");
    for_targets([&](const Json& target, const Labels& labels) {
        out.sample(with(labels, {{"address", word(target, "address")}, {"reactor", word(target, "reactor")}}), 1);
    });
    out.family("srpfs_target_up", "gauge", "Whether the state of the target is running.");
    for_targets(
        [&](const Json& target, const Labels& labels) { out.sample(labels, word(target, "state") == "running"); });
    out.family("srpfs_target_channels", "gauge", "Channels that the login brought.");
    for_targets([&](const Json& target, const Labels& labels) { out.sample(labels, number(target, "channels")); });
    out.family("srpfs_target_failed_reconnects", "gauge", "Attempts to reconnect in vain since the last success.");
    for_targets(
        [&](const Json& target, const Labels& labels) { out.sample(labels, number(target, "failed_reconnects")); });
    for (const Simple& one : target_counters) {
        family("target", one, "counter");
        for_targets([&](const Json& target, const Labels& labels) { out.sample(labels, number(target, one.field)); });
    }

    totals("target", fine_ends, true, [&](const auto& work) {
        for_targets([&](const Json& target, const Labels& labels) { work(target.at("total"), labels); });
    });

    const auto of_channel = [&](const Json& channel, const Labels& labels) {
        return with(labels, {{"channel", fmt::format("{}", number(channel, "index"))}});
    };
    const auto for_channels = [&](const auto& work) {
        for_parts("channel_list", [&](const Json& channel, const Labels& labels) {
            // One that has ended may still be there beside the one that takes its place.
            const std::string state = word(channel, "state");
            if (state != "dead" && state != "draining") work(channel, of_channel(channel, labels));
        });
    };
    out.family("srpfs_channel_up", "gauge", "Whether the channel is live.");
    for_channels(
        [&](const Json& channel, const Labels& labels) { out.sample(labels, word(channel, "state") == "live"); });
    for (const Simple& one : channel_gauges) {
        family("channel", one, "gauge");
        for_channels([&](const Json& channel, const Labels& labels) {
            out.signed_sample(labels, channel.at(one.field).get<std::int64_t>());
        });
    }
    for (const Simple& one : channel_counters) {
        family("channel", one, "counter");
        for_channels(
            [&](const Json& channel, const Labels& labels) { out.sample(labels, number(channel, one.field)); });
    }

    errors("channel", "Commands that were not answered GOOD, by kind.", for_channels);
    latencies("channel_command", "commands", fine_ends, true, for_channels);

    const auto for_luns = [&](const auto& work) {
        for_parts("luns", [&](const Json& lun, const Labels& labels) {
            if (lun.contains("reads")) work(lun, with(labels, {{"lun", word(lun, "name")}}));
        });
    };
    out.family("srpfs_lun_info", "gauge", "Which unit it is, always 1.");
    for_luns([&](const Json& lun, const Labels& labels) {
        out.sample(with(labels, {{"wwid", word(lun, "wwid")}}), 1);
    });
    out.family("srpfs_lun_up", "gauge", "Whether the state of the unit is running.");
    for_luns([&](const Json& lun, const Labels& labels) { out.sample(labels, word(lun, "state") == "running"); });
    out.family("srpfs_lun_size_bytes", "gauge", "Capacity.");
    for_luns([&](const Json& lun, const Labels& labels) { out.sample(labels, number(lun, "bytes")); });
    totals("lun", coarse_ends, false, for_luns);
    for (const Simple& one : lun_gauges) {
        family("lun", one, "gauge");
        for_luns([&](const Json& lun, const Labels& labels) { out.sample(labels, number(lun, one.field)); });
    }
    for (const Simple& one : lun_counters) {
        family("lun", one, "counter");
        for_luns([&](const Json& lun, const Labels& labels) { out.sample(labels, number(lun, one.field)); });
    }
    return out.take();
}

}  // namespace srpfs::daemon
