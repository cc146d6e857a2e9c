// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The same units and targets under names that last: by-id/, by-path/ and by-target/ at the top of the tree, links as
// udev makes them below /dev/disk. Control thread.
//
// Where several units or targets claim a name it leads to the one that has had it longest and works now: of those that
// are the same unit as the first of them. The others take over while that one does not work, and when it is gone.

#pragma once

#include <srpfs/fs/tree.h>
#include <srpfs/lun/unit.h>

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace srpfs::daemon {

// What udev calls such a disk in /dev/disk/by-id (60-persistent-storage.rules, scsi_id): "wwn-0x..." and "scsi-3..." of
// an NAA name, "scsi-2..." of EUI-64, "scsi-1..." of a T10 vendor's, "scsi-S..." of vendor, model and serial number.
// None without an identity.
[[nodiscard]] std::vector<std::string> by_id_names(const lun::UnitInfo& info);

class Views {
public:
    using Key = std::uint64_t;

    // Makes the three directories; `tree` outlives the last call.
    explicit Views(fs::Tree& tree);
    Views(const Views&) = delete;
    Views& operator=(const Views&) = delete;

    // Where something is: "demo0-1", the target's directory in "srp-demo0-1", and the file's name.
    struct Place {
        std::string port, target;
        std::string file;  // of a unit; empty: the target itself
    };
    // `works` is asked when somebody follows a name, until remove().
    [[nodiscard]] Key add_unit(const Place& place, const lun::UnitInfo& info, std::function<bool()> works);
    [[nodiscard]] Key add_target(const Place& place, std::function<bool()> works);
    void remove(Key key);

private:
    struct Claim {
        Key key = 0;
        std::string identity;     // of the unit; empty: it is the same as nobody else
        std::string destination;  // from within the directory
        std::function<bool()> works;
    };
    struct Name {
        fs::NodeId node{0};
        std::list<Claim> claims;  // in the order they were made
        [[nodiscard]] const std::string& destination() const;
    };
    struct Directory {
        fs::NodeId node{0};
        std::map<std::string, Name, std::less<>> names;
    };
    void claim(Directory& directory, const std::string& name, Claim claim);

    fs::Tree& tree_;
    Directory by_id_, by_path_, by_target_;
    Key next_key_ = 1;
    std::map<Key, std::vector<std::pair<Directory*, std::string>>> claimed_;
};

}  // namespace srpfs::daemon
