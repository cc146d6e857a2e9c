// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "views.h"

#include "bare_tree.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

namespace srpfs::daemon {
namespace {

lun::UnitInfo unit_named(std::string wwid) {
    lun::UnitInfo info;
    info.wwid = std::move(wwid);
    info.vendor = "ACME";
    info.model = "Big  Disk/2";
    info.serial = "00 17";
    return info;
}

TEST(ByIdNames, AreThoseOfUdev) {
    using Names = std::vector<std::string>;
    EXPECT_EQ(by_id_names(unit_named("naa.6001405aabbccddeeff0011223344556")),
              (Names{"wwn-0x6001405aabbccddeeff0011223344556", "scsi-36001405aabbccddeeff0011223344556"}));
    EXPECT_EQ(by_id_names(unit_named("naa.5001405a11223344")),
              (Names{"wwn-0x5001405a11223344", "scsi-35001405a11223344"}));
    EXPECT_EQ(by_id_names(unit_named("eui.002590fffe123456")), (Names{"scsi-2002590fffe123456"}));
    EXPECT_EQ(by_id_names(unit_named("t10.LIO-ORG  ramdisk0:1a\\x01/b ")), (Names{"scsi-1LIO-ORG_ramdisk0:1a_x01_b"}));
    auto by_serial = unit_named("t10.ACME.Big  Disk/2.00 17");
    by_serial.wwid_is_serial = true;
    EXPECT_EQ(by_id_names(by_serial), (Names{"scsi-SACME_Big_Disk_2_00_17"}));
    EXPECT_EQ(by_id_names(unit_named("")), Names{});
    EXPECT_EQ(by_id_names(unit_named("t10.")), Names{});
}

// Names and where they lead.
class Links final : public BareTree {
public:
    fs::NodeId add_directory(fs::NodeId, std::string_view name) override { return add(std::string(name)); }
    fs::NodeId add_symlink(fs::NodeId parent, std::string_view name,
                           std::function<std::string()> destination) override {
        const auto id = add(names_.at(parent) + '/' + std::string(name));
        links_.emplace(id, std::move(destination));
        return id;
    }
    void remove(fs::NodeId node, std::function<void()>) override {
        links_.erase(node);
        names_.erase(node);
    }
    [[nodiscard]] std::map<std::string, std::string> all() const {
        std::map<std::string, std::string> found;
        for (const auto& [id, destination] : links_) found.emplace(names_.at(id), destination());
        return found;
    }

private:
    fs::NodeId add(std::string name) {
        const fs::NodeId id{next_++};
        names_.emplace(id, std::move(name));
        return id;
    }

    std::uint64_t next_ = 2;
    std::map<fs::NodeId, std::string> names_;
    std::map<fs::NodeId, std::function<std::string()>> links_;
};

class ViewsTest : public ::testing::Test {
protected:
    using All = std::map<std::string, std::string>;
    Links links_;
    Views views_{links_};
    const lun::UnitInfo one_ = unit_named("eui.0000000000000001"), two_ = unit_named("eui.0000000000000002");
};

TEST_F(ViewsTest, NamesComeAndGoWithTheirUnits) {
    const auto key =
        views_.add_unit({"mlx5_0-1", "t1", "lun3"}, unit_named("naa.5001405a11223344"), [] { return true; });
    const auto other =
        views_.add_unit({"mlx5_0-1", "t1", "lun0x0102030405060708"}, unit_named(""), [] { return true; });
    const auto target = views_.add_target({"mlx5_0-1", "t1", ""}, [] { return true; });
    EXPECT_EQ(links_.all(),
              (All{{"by-id/wwn-0x5001405a11223344", "../srp-mlx5_0-1/t1/lun3"},
                   {"by-id/scsi-35001405a11223344", "../srp-mlx5_0-1/t1/lun3"},
                   {"by-path/mlx5_0-1-srp-t1-lun-3", "../srp-mlx5_0-1/t1/lun3"},
                   {"by-path/mlx5_0-1-srp-t1-lun-0x0102030405060708", "../srp-mlx5_0-1/t1/lun0x0102030405060708"},
                   {"by-target/t1", "../srp-mlx5_0-1/t1"}}));
    views_.remove(key);
    views_.remove(target);
    EXPECT_EQ(links_.all(),
              (All{{"by-path/mlx5_0-1-srp-t1-lun-0x0102030405060708", "../srp-mlx5_0-1/t1/lun0x0102030405060708"}}));
    views_.remove(other);
    views_.remove(other);
    EXPECT_EQ(links_.all(), All{});
}

TEST_F(ViewsTest, ANameLeadsToTheOldestPathThatWorks) {
    std::map<std::string, bool> works{{"a", true}, {"b", true}, {"c", true}};
    std::map<std::string, Views::Key> keys;
    for (const auto& [port, working] : works)
        keys[port] = views_.add_unit({port, "t", "lun0"}, one_, [&works, name = port] { return works[name]; });
    const auto shown = [&] { return links_.all()["by-id/scsi-20000000000000001"]; };
    EXPECT_EQ(shown(), "../srp-a/t/lun0");
    works["a"] = false;
    EXPECT_EQ(shown(), "../srp-b/t/lun0");
    works["b"] = works["c"] = false;
    EXPECT_EQ(shown(), "../srp-a/t/lun0");
    works["c"] = true;
    views_.remove(keys["a"]);
    EXPECT_EQ(shown(), "../srp-c/t/lun0");
    views_.remove(keys["b"]);
    views_.remove(keys["c"]);
    EXPECT_EQ(links_.all(), All{});
}

TEST_F(ViewsTest, ANameNeverLeadsToAnotherUnitBecauseItsOwnDoesNotWork) {
    // What udev makes of these identities is the same text.
    const auto first = views_.add_unit({"a", "t", "lun0"}, unit_named("t10.V A B"), [] { return false; });
    const auto second = views_.add_unit({"a", "t", "lun1"}, unit_named("t10.V A_B"), [] { return true; });
    EXPECT_EQ(links_.all()["by-id/scsi-1V_A_B"], "../srp-a/t/lun0");
    views_.remove(first);
    EXPECT_EQ(links_.all()["by-id/scsi-1V_A_B"], "../srp-a/t/lun1");
    views_.remove(second);
}

TEST_F(ViewsTest, ATargetIsFoundByWhicheverPortWorks) {
    bool first_works = true;
    const auto first = views_.add_target({"a-1", "t", ""}, [&] { return first_works; });
    const auto second = views_.add_target({"a-2", "t", ""}, [] { return true; });
    EXPECT_EQ(links_.all(), (All{{"by-target/t", "../srp-a-1/t"}}));
    first_works = false;
    EXPECT_EQ(links_.all(), (All{{"by-target/t", "../srp-a-2/t"}}));
    views_.remove(second);
    EXPECT_EQ(links_.all(), (All{{"by-target/t", "../srp-a-1/t"}}));
    views_.remove(first);
}

}  // namespace
}  // namespace srpfs::daemon
