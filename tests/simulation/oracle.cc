// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "oracle.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

namespace srpfs::simulation {
namespace {

std::uint64_t mixed(std::uint64_t value) {
    value ^= value >> 33;
    value *= 0xff51afd7ed558ccdULL;
    value ^= value >> 33;
    value *= 0xc4ceb9fe1a85ec53ULL;
    return value ^ value >> 33;
}

// Write 0 is what a new unit holds: zeros.
std::uint64_t word_of(Oracle::WriteId id, std::uint64_t word) {
    return id == 0 ? 0 : mixed(static_cast<std::uint64_t>(id) << 32 ^ word);
}

}  // namespace

void Oracle::fill(WriteId id, std::uint64_t offset, std::span<std::byte> bytes) {
    for (std::size_t i = 0; i < bytes.size();) {
        const std::uint64_t at = offset + i;
        std::uint64_t word = word_of(id, at / 8) >> (8 * (at % 8));
        for (std::uint64_t k = at % 8; k < 8 && i < bytes.size(); ++k, ++i, word >>= 8)
            bytes[i] = static_cast<std::byte>(word & 0xff);
    }
}

bool Oracle::matches(const Write& write, std::uint64_t offset, std::span<const std::byte> bytes) {
    std::array<std::byte, 4096> expected;
    const auto wanted = std::span(expected).first(bytes.size());
    fill(write.content == Content::zeros ? 0 : write.id, offset, wanted);
    return std::equal(wanted.begin(), wanted.end(), bytes.begin());
}

Oracle::WriteId Oracle::begin_write(std::uint64_t offset, std::uint32_t bytes, Content content) {
    Write write;
    write.id = next_write();
    write.begin = offset;
    write.end = offset + bytes;
    write.began = ++now_;
    write.content = content;
    writes_.push_back(write);
    return write.id;
}

void Oracle::end_write(WriteId id, End end, bool promised) {
    Write& write = writes_.at(id - 1);
    write.ended = ++now_;
    write.failed = end == End::failed;
    if (end != End::acknowledged) return;
    write.firm = write.ended;
    if (promised) write.promised = write.ended;
}

Oracle::Gap Oracle::begin_gap(std::uint64_t begin, std::uint64_t end, Moment cut_began, Moment cut_ended) {
    std::vector<std::uint64_t> cuts{begin, end};
    for (const Write& write : writes_)
        for (const std::uint64_t at : {write.begin, write.end})
            if (at > begin && at < end) cuts.push_back(at);
    std::sort(cuts.begin(), cuts.end());
    cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
    enum class Part { zeros, unsure, kept };
    Gap gap;
    const auto add = [&](Part part, std::uint64_t from, std::uint64_t to) {
        if (part == Part::kept || from == to) return;
        const WriteId id = begin_write(from, static_cast<std::uint32_t>(to - from), Content::zeros);
        writes_.back().is_gap = true;
        (part == Part::zeros ? gap.firm : gap.unsure).push_back(id);
    };
    const std::size_t before = writes_.size();
    Part last = Part::kept;
    std::uint64_t last_begin = begin;
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
        Part part = Part::zeros;
        for (std::size_t k = 0; k < before; ++k) {
            const Write& write = writes_[k];
            if (write.is_gap || write.begin >= cuts[i + 1] || write.end <= cuts[i] || write.ended < cut_began) continue;
            if (write.began > cut_ended && write.firm != never) {
                part = Part::kept;
                break;
            }
            part = Part::unsure;
        }
        if (part == last) continue;
        add(last, last_begin, cuts[i]);
        last = part;
        last_begin = cuts[i];
    }
    add(last, last_begin, end);
    return gap;
}

void Oracle::end_gap(const Gap& gap, End end, bool promised) {
    // A write that came first after all, and has failed or may fail yet, counts as one that has been there.
    const auto is_unsure = [this](const Write& zeros) {
        return std::any_of(
            writes_.begin() + static_cast<std::ptrdiff_t>(zeros.id), writes_.end(), [&](const Write& other) {
                return !other.is_gap && other.firm == never && other.begin < zeros.end && zeros.begin < other.end;
            });
    };
    for (const WriteId id : gap.firm) end_write(id, is_unsure(writes_[id - 1]) ? End::unknown : end, promised);
    for (const WriteId id : gap.unsure) end_write(id, End::unknown, promised);
}

Oracle::Opener Oracle::open() {
    excused_until_.push_back(told_);
    return excused_until_.size() - 1;
}

void Oracle::end_flush_ok(Moment began, Opener opener) {
    ++now_;
    flushed_ = std::max(flushed_, began);
    for (Write& write : writes_)
        if (write.firm < began && write.began > excused_until_.at(opener) && write.promised == never && !write.excused)
            write.promised = now_;
}

bool Oracle::may_have_unflushed() const {
    return std::any_of(writes_.begin(), writes_.end(), [this](const Write& write) {
        return write.promised == never && !write.failed && write.ended > flushed_;
    });
}

void Oracle::end_flush_lost(Opener opener) {
    ++now_;
    told_ = excused_until_.at(opener) = cache_losses_.empty() ? 0 : cache_losses_.back();
}

void Oracle::on_loss_unseen() {
    ++now_;
    for (Write& write : writes_)
        // Parts of what is under way may have been acknowledged.
        if ((write.firm != never || write.ended == never) && write.promised == never) write.excused = true;
}

void Oracle::on_forgotten() {
    const Moment lost = cache_losses_.empty() ? 0 : cache_losses_.back();
    for (Write& write : writes_)
        if (write.promised == never && (write.firm == never || write.began < lost)) write.excused = true;
}

bool Oracle::is_overwritten(const Write& older, const Write& newer, Moment read_began) const {
    if (newer.began < older.ended || newer.firm >= read_began) return false;
    if (newer.promised < read_began) return true;
    return std::none_of(cache_losses_.begin(), cache_losses_.end(), [&](Moment loss) { return loss > newer.began; });
}

std::string Oracle::describe(const Write& write) const {
    const auto moment = [](Moment value) { return value == never ? std::string("-") : fmt::format("{}", value); };
    return fmt::format("{} {} [{}, {}) began {} ended {} firm {} promised {}",
                       write.content == Content::zeros ? "zeroing" : "write", write.id, write.begin, write.end,
                       write.began, moment(write.ended), moment(write.firm), moment(write.promised));
}

std::optional<std::string> Oracle::end_read(Moment began, std::uint64_t offset, std::span<const std::byte> bytes,
                                            Through through) {
    const Moment ended = ++now_;
    const std::uint64_t end = offset + bytes.size();
    std::vector<const Write*> concerned, overwriting;
    std::vector<std::uint64_t> cuts{offset, end};
    const auto cut = [&](std::uint64_t at) {
        if (at > offset && at < end) cuts.push_back(at);
    };
    for (const Write& write : writes_) {
        if (write.end <= offset || write.begin >= end) continue;
        concerned.push_back(&write);
        cut(write.begin);
        cut(write.end);
    }
    for (const Write& write : seen_) {
        if (through == Through::page_cache || write.end <= offset || write.begin >= end) continue;
        overwriting.push_back(&write);
        cut(write.begin);
        cut(write.end);
    }
    overwriting.insert(overwriting.end(), concerned.begin(), concerned.end());
    for (const Range& range : tainted_) {
        cut(range.begin);
        cut(range.end);
    }
    for (std::uint64_t block = offset / block_bytes_ + 1; block * block_bytes_ < end; ++block)
        cut(block * block_bytes_);
    std::sort(cuts.begin(), cuts.end());
    cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());

    static const Write nothing{.id = 0,
                               .begin = 0,
                               .end = UINT64_MAX,
                               .began = 0,
                               .ended = 0,
                               .firm = 0,
                               .promised = 0,
                               .excused = false,
                               .failed = false,
                               .content = Content::zeros,
                               .is_gap = false};
    std::vector<Write> now_seen;
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
        const std::uint64_t from = cuts[i], to = cuts[i + 1];
        const auto part = bytes.subspan(from - offset, to - from);
        const auto covers = [&](const Write* write) { return write->begin <= from && write->end >= to; };
        const Write* found = nullptr;
        const Write* forbidden = nullptr;
        const bool is_tainted = std::any_of(tainted_.begin(), tainted_.end(),
                                            [&](const Range& range) { return range.begin <= from && range.end >= to; });
        bool is_ambiguous = false;  // zeros are zeros
        const auto consider = [&](const Write* write) {
            if (!covers(write) || !matches(*write, from, part)) return;
            const auto overwriter = std::find_if(overwriting.begin(), overwriting.end(), [&](const Write* newer) {
                return covers(newer) && newer->id != write->id && is_overwritten(*write, *newer, began);
            });
            if (overwriter == overwriting.end() || is_tainted) {
                if (found)
                    is_ambiguous = true;
                else
                    found = write;
            } else if (!forbidden) {
                forbidden = *overwriter;
            }
        };
        const Write* stale = nullptr;
        for (auto write = concerned.rbegin(); write != concerned.rend(); ++write) {
            if (found && found->content == Content::pattern) break;
            const Write* before = forbidden;
            consider(*write);
            if (forbidden != before) stale = *write;
        }
        if (!found || found->content == Content::zeros) {
            const Write* before = forbidden;
            consider(&nothing);
            if (forbidden != before) stale = &nothing;
        }
        if (found) {
            // Fewer bytes may match by chance.
            if (found->firm == never && to - from >= 8 && !is_tainted && !is_ambiguous)
                now_seen.push_back({.id = found->id,
                                    .begin = from,
                                    .end = to,
                                    .began = found->began,
                                    .ended = ended,
                                    .firm = ended,
                                    .promised = never,
                                    .excused = false,
                                    .failed = false,
                                    .content = found->content,
                                    .is_gap = false});
            continue;
        }
        std::string text =
            fmt::format("a read that began at {} and ended at {} got at [{}, {}) ", began, ended, from, to);
        if (stale)
            text += fmt::format("{}, which was overwritten by {}", describe(*stale), describe(*forbidden));
        else {
            std::vector<unsigned> first;
            for (const std::byte one : part.first(std::min<std::size_t>(8, part.size())))
                first.push_back(static_cast<unsigned>(one));
            text += fmt::format("bytes that no write put there (or a torn block): {:02x} ...", fmt::join(first, " "));
        }
        text += "; history of these bytes:";
        for (const Write* write : concerned)
            if (covers(write)) text += "\n    " + describe(*write);
        if (!cache_losses_.empty()) text += fmt::format("\n    last cache loss at {}", cache_losses_.back());
        return text;
    }
    seen_.insert(seen_.end(), now_seen.begin(), now_seen.end());
    return std::nullopt;
}

}  // namespace srpfs::simulation
