// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "views.h"

#include <srpfs/base/assert.h>

#include <fmt/format.h>

#include <algorithm>

namespace srpfs::daemon {
namespace {

// As scsi_id and udev write it: a run of blanks is one '_', none at the ends, and what could mean something to a shell
// or a path is '_' as well.
std::string link_text(std::string_view text) {
    constexpr std::string_view blanks = " \t\r\n\v\f", kept = "#+-.:=@_";
    const auto first = text.find_first_not_of(blanks);
    if (first == std::string_view::npos) return {};
    text = text.substr(first, text.find_last_not_of(blanks) - first + 1);
    std::string result;
    bool after_blank = false;
    for (const char one : text) {
        const bool is_blank = blanks.find(one) != std::string_view::npos;
        const bool is_alphanumeric =
            (one >= '0' && one <= '9') || (one >= 'a' && one <= 'z') || (one >= 'A' && one <= 'Z');
        if (!is_blank || !after_blank)
            result += is_alphanumeric || kept.find(one) != std::string_view::npos ? one : '_';
        after_blank = is_blank;
    }
    return result;
}

std::string directory_of(const Views::Place& place) { return fmt::format("../srp-{}/{}", place.port, place.target); }

}  // namespace

std::vector<std::string> by_id_names(const lun::UnitInfo& info) {
    const std::string_view wwid = info.wwid;
    const auto after = [&](std::string_view prefix) {
        return wwid.starts_with(prefix) ? wwid.substr(prefix.size()) : std::string_view{};
    };
    if (const auto naa = after("naa."); !naa.empty())
        return {fmt::format("wwn-0x{}", naa), fmt::format("scsi-3{}", naa)};
    if (const auto eui = after("eui."); !eui.empty()) return {fmt::format("scsi-2{}", eui)};
    if (info.wwid_is_serial)
        return {fmt::format("scsi-S{}_{}_{}", link_text(info.vendor), link_text(info.model), link_text(info.serial))};
    if (const auto t10 = link_text(after("t10.")); !t10.empty()) return {fmt::format("scsi-1{}", t10)};
    return {};
}

const std::string& Views::Name::destination() const {
    const Claim& first = claims.front();
    const auto works = std::find_if(claims.begin(), claims.end(), [&](const Claim& claim) {
        const bool is_same = &claim == &first || (!first.identity.empty() && claim.identity == first.identity);
        return is_same && claim.works();
    });
    return works == claims.end() ? first.destination : works->destination;
}

Views::Views(fs::Tree& tree) : tree_(tree) {
    by_id_.node = tree.add_directory(fs::NodeId::root, "by-id");
    by_path_.node = tree.add_directory(fs::NodeId::root, "by-path");
    by_target_.node = tree.add_directory(fs::NodeId::root, "by-target");
}

void Views::claim(Directory& directory, const std::string& name, Claim claim) {
    claimed_[claim.key].emplace_back(&directory, name);
    Name& entry = directory.names[name];  // stays where it is in memory
    entry.claims.push_back(std::move(claim));
    if (entry.node != fs::NodeId{0}) return;
    entry.node = tree_.add_symlink(directory.node, name, [&entry] { return entry.destination(); });
}

Views::Key Views::add_unit(const Place& place, const lun::UnitInfo& info, std::function<bool()> works) {
    SRPFS_ASSERT(place.file.starts_with("lun"));
    const Key key = next_key_++;
    const Claim one{key, info.wwid, fmt::format("{}/{}", directory_of(place), place.file), std::move(works)};
    for (const std::string& name : by_id_names(info)) claim(by_id_, name, one);
    claim(by_path_, fmt::format("{}-srp-{}-lun-{}", place.port, place.target, place.file.substr(3)), one);
    return key;
}

Views::Key Views::add_target(const Place& place, std::function<bool()> works) {
    const Key key = next_key_++;
    // The same target by another port.
    claim(by_target_, place.target, {key, place.target, directory_of(place), std::move(works)});
    return key;
}

void Views::remove(Key key) {
    const auto found = claimed_.find(key);
    if (found == claimed_.end()) return;
    for (const auto& [directory, name] : found->second) {
        const auto entry = directory->names.find(name);
        entry->second.claims.remove_if([key](const Claim& claim) { return claim.key == key; });
        if (!entry->second.claims.empty()) continue;
        tree_.remove(entry->second.node, nullptr);
        directory->names.erase(entry);
    }
    claimed_.erase(found);
}

}  // namespace srpfs::daemon
