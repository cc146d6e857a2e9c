// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "fake_tree.h"

#include <srpfs/ctl/actions.h>
#include <srpfs/ctl/tree_files.h>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace srpfs::ctl {
namespace {

TEST(Login, DirectoryIsThatOfTheLoginString) {
    EXPECT_EQ(directory_of_login("id_ext=1,ioc_guid=0x2,dest=demo"), "0000000000000001-0000000000000002");
    EXPECT_EQ(directory_of_login(",ioc_guid=0002C90300A1B2C3, id_ext=f ,\ninitiator_ext=10"),
              "000000000000000f-0002c90300a1b2c3-0000000000000010");
    EXPECT_EQ(directory_of_login("id_ext=1,ioc_guid=2,id_ext=3,initiator_ext=0"), "0000000000000003-0000000000000002");
    for (const char* text : {"", "id_ext=1", "ioc_guid=1", "id_ext=x,ioc_guid=1", "id_ext,ioc_guid"})
        EXPECT_FALSE(directory_of_login(text)) << text;
}

// A target with timers; writing "refused" to a file that is a directory fails, as srpfs would refuse it.
class Set : public testing::Test {
protected:
    Set() {
        write("reconnect_delay", "10");
        write("fast_io_fail_tmo", "15");
        write("dev_loss_tmo", "600");
    }
    void write(const std::string& file, const std::string& value) { tree.write("srp-a-1/t/" + file, value + "\n"); }
    std::string value(const std::string& file) {
        return read_value(tree.path() + "/srp-a-1/t/" + file).value_or("none");
    }

    FakeTree tree;
    Found target{Found::Kind::target, tree.path(), "srp-a-1", "t", ""};
    Found lun{Found::Kind::lun, tree.path(), "srp-a-1", "t", "lun0"};
};

TEST_F(Set, WritesEachSetting) {
    // One write does not truncate, which srpfs does not need: so the new text is as long as the old.
    ASSERT_TRUE(apply_settings(target, {{"dev_loss_tmo", "700"}, {"fast_io_fail_tmo", "20"}}));
    EXPECT_EQ(value("dev_loss_tmo"), "700");
    EXPECT_EQ(value("fast_io_fail_tmo"), "20");
    EXPECT_EQ(value("reconnect_delay"), "10");
}

TEST_F(Set, PutsBackWhatWasWrittenWhenOneIsRefused) {
    std::filesystem::remove(tree.path() + "/srp-a-1/t/dev_loss_tmo");
    std::filesystem::create_directory(tree.path() + "/srp-a-1/t/dev_loss_tmo");
    const auto done = apply_settings(target, {{"fast_io_fail_tmo", "20"}, {"dev_loss_tmo", "700"}});
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().errno_value(), EISDIR);
    EXPECT_EQ(value("fast_io_fail_tmo"), "15");
}

TEST_F(Set, WritesWhatMakesRoomFirst) {
    write("fast_io_fail_tmo", "005");
    write("dev_loss_tmo", "010");
    std::filesystem::remove(tree.path() + "/srp-a-1/t/fast_io_fail_tmo");
    std::filesystem::create_directory(tree.path() + "/srp-a-1/t/fast_io_fail_tmo");
    // What cannot be read cannot be ordered either.
    EXPECT_FALSE(apply_settings(target, {{"dev_loss_tmo", "bad"}, {"fast_io_fail_tmo", "50"}}));
    EXPECT_EQ(value("dev_loss_tmo"), "010");
}

TEST_F(Set, RefusesWhatSuchAThingDoesNotHave) {
    const auto reason = [](const Result<void>& done) { return done ? std::string("none") : done.error().context; };
    EXPECT_EQ(reason(apply_settings(target, {{"fast_io_fail_tmo", "20"}, {"tur_interval", "1"}})),
              "tur_interval: targets have reconnect_delay, fast_io_fail_tmo and dev_loss_tmo");
    EXPECT_EQ(value("fast_io_fail_tmo"), "15") << "all or none";
    EXPECT_EQ(reason(apply_settings(target, {{"mode", "0600"}})), "mode is a setting of LUNs, not of targets");
    EXPECT_EQ(reason(apply_settings(lun, {{"dev_loss_tmo", "1"}})),
              "dev_loss_tmo is a setting of targets, not of LUNs");
    EXPECT_EQ(reason(apply_settings(lun, {{"../delete", "1"}})),
              "../delete: LUNs have read_only, uid, gid, mode and cache");
}

TEST_F(Set, TheSentenceOfSrpfsIsTheReason) {
    write("last_error", "dev_loss_tmo: too bad");
    std::filesystem::create_directory(tree.path() + "/srp-a-1/t/rescan");
    EXPECT_EQ(act_on(target, Act::rescan).error().context, tree.path() + "/srp-a-1/t/rescan: Is a directory")
        << "opening it failed: srpfs has said nothing";
    EXPECT_EQ(act_on(target, Act::reset).error().errno_value(), ENOENT);
    EXPECT_EQ(act_on(lun, Act::log_out).error().errno_value(), EINVAL);
}

TEST(Targets, APortStandsForItsTargets) {
    const Json mount =
        Json::parse(R"({"path":"/srp","targets":[{"name":"t","port":"srp-a-1"},{"name":"u","port":"srp-a-2"}]})");
    const Found t{Found::Kind::target, "/srp", "srp-a-1", "t", ""}, u{Found::Kind::target, "/srp", "srp-a-2", "u", ""};
    EXPECT_EQ(all_targets(mount), (std::vector<Found>{t, u}));
    EXPECT_EQ(targets_of(mount, {Found::Kind::port, "/srp", "srp-a-2", "", ""}), std::vector<Found>{u});
    EXPECT_EQ(targets_of(mount, t), std::vector<Found>{t});
}

TEST(TreeFiles, NumbersInNamesAreSortedByTheirValue) {
    EXPECT_TRUE(is_before("lun2", "lun10"));
    EXPECT_FALSE(is_before("lun10", "lun2"));
    EXPECT_TRUE(is_before("lun2", "lun2.attr"));
    EXPECT_TRUE(is_before("srp-mlx5_2-1", "srp-mlx5_10-1"));
    EXPECT_FALSE(is_before("a", "a"));
    EXPECT_NE(is_before("a01", "a1"), is_before("a1", "a01"));
}

}  // namespace
}  // namespace srpfs::ctl
