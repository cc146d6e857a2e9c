// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "tree_nodes.h"

#include "files.h"

#include <gtest/gtest.h>

#include <set>

namespace srpfs::fs::test {
namespace {

struct Watcher final : TreeWatcher {
    void on_attributes_changed(NodeId node) override { changed.push_back(node); }
    void on_unreachable(std::vector<NodeId> nodes, std::vector<std::shared_ptr<LunData>> luns,
                        std::function<void()> done) override {
        gone = std::move(nodes);
        gone_luns = std::move(luns);
        if (done) done();
    }
    void on_cached() override {}
    void on_changed_elsewhere(const std::shared_ptr<LunData>&, std::function<void()> done) override { done(); }
    std::vector<NodeId> changed, gone;
    std::vector<std::shared_ptr<LunData>> gone_luns;
};

class TreeNodesTest : public ::testing::Test {
protected:
    static TreeDefaults defaults() {
        TreeDefaults values;
        values.wall_time = {1'700'000'000, 900'000'000};
        values.instant = Instant(std::chrono::seconds(50));
        return values;
    }
    NodeId add_control(NodeId parent, std::string_view name, Tree::Access access) {
        return tree_.add_control_file(parent, name, access,
                                      std::make_unique<RecordingControlFile>(std::make_shared<ControlFileRecord>()));
    }
    struct stat attributes(NodeId id) {
        return tree_.attributes(*tree_.node(id));
    }

    Watcher watcher_;
    OpenFiles files_;
    TreeNodes tree_{defaults(), watcher_, files_};
};

TEST_F(TreeNodesTest, FindsNamesInTheirDirectoryOnly) {
    const auto port = tree_.add_directory(NodeId::root, "srp-demo0-1");
    const auto file = add_control(port, "port", Tree::Access::read_only);

    EXPECT_EQ(tree_.find(NodeId::root, "srp-demo0-1"), port);
    EXPECT_EQ(tree_.find(port, "port"), file);
    EXPECT_EQ(tree_.find(NodeId::root, "port"), NodeId{0});
    EXPECT_EQ(tree_.find(file, "x"), NodeId{0});
    EXPECT_EQ(tree_.find(NodeId{99}, "x"), NodeId{0});
}

TEST_F(TreeNodesTest, CountsDirectoriesAsLinksWhileTheyAreThere) {
    const auto port = tree_.add_directory(NodeId::root, "port");
    add_control(NodeId::root, "file", Tree::Access::read_only);
    const auto target = tree_.add_directory(port, "target");
    tree_.add_directory(target, "lun0.attr");
    EXPECT_EQ(attributes(NodeId::root).st_nlink, 3u);
    EXPECT_EQ(attributes(target).st_nlink, 3u);

    tree_.remove(target, nullptr);

    EXPECT_EQ(attributes(port).st_nlink, 2u);
    EXPECT_EQ(attributes(NodeId::root).st_nlink, 3u);
}

TEST_F(TreeNodesTest, TheKernelIsToldOfPermissionsThatWereNotSetByIt) {
    const auto lun = tree_.add_lun_file(NodeId::root, "lun0", {});
    watcher_.changed.clear();
    tree_.set_mode(lun, 0640);
    tree_.set_owner(lun, 7, std::nullopt);
    EXPECT_EQ(watcher_.changed, (std::vector<NodeId>{lun, lun}));
    const auto shown = tree_.permissions(lun);
    EXPECT_EQ(shown.mode, 0640u);
    EXPECT_EQ(shown.uid, 7u);
    EXPECT_EQ(shown.gid, attributes(lun).st_gid);
}

TEST_F(TreeNodesTest, AUnitThatMayHaveHolesSeemsToTakeLessThanItsSize) {
    const auto full = tree_.add_lun_file(NodeId::root, "lun0", {.capacity_bytes = 1 << 20});
    const auto thin = tree_.add_lun_file(NodeId::root, "lun1", {.capacity_bytes = 1 << 20, .may_have_holes = true});
    const auto tiny = tree_.add_lun_file(NodeId::root, "lun2", {.capacity_bytes = 512, .may_have_holes = true});
    EXPECT_EQ(attributes(full).st_blocks, 2048);
    EXPECT_EQ(attributes(thin).st_blocks, 2040);
    EXPECT_EQ(attributes(tiny).st_blocks, 0);
}

TEST_F(TreeNodesTest, ALinkLeadsWhereItSaysWhenItIsAsked) {
    std::string destination = "../a";
    const auto link = tree_.add_symlink(NodeId::root, "link", [&] { return destination; });
    EXPECT_EQ(attributes(link).st_mode, static_cast<mode_t>(S_IFLNK | 0777));
    EXPECT_EQ(attributes(link).st_size, 4);
    EXPECT_EQ(tree_.list(*tree_.node(NodeId::root)).back().type, static_cast<mode_t>(S_IFLNK));

    destination = "../longer";

    EXPECT_EQ(attributes(link).st_size, 9);
    EXPECT_EQ(attributes(NodeId::root).st_nlink, 2u);
    tree_.remove(link, nullptr);
    EXPECT_EQ(tree_.find(NodeId::root, "link"), NodeId{0});
}

TEST_F(TreeNodesTest, TellsOfEachDirectoryThatVanishes) {
    const auto port = tree_.add_directory(NodeId::root, "port");
    const auto target = tree_.add_directory(port, "target");
    const auto unit = tree_.add_directory(target, "lun0.attr");
    const auto file = add_control(unit, "state", Tree::Access::read_only);
    watcher_.changed.clear();

    tree_.remove(target, nullptr);

    const std::set<NodeId> told(watcher_.changed.begin(), watcher_.changed.end());
    EXPECT_EQ(told, (std::set{port, target, unit}));
    EXPECT_FALSE(told.contains(file));
}

TEST_F(TreeNodesTest, AsksForExtendedAttributesWhenTheyAreWanted) {
    const auto file = add_control(NodeId::root, "file", Tree::Access::read_only);
    EXPECT_TRUE(TreeNodes::extended_attributes(*tree_.node(file)).empty());
    std::string value = "one";
    tree_.describe(file, [&] { return ExtendedAttributes{{"user.srpfs.x", value}}; });

    value = "two";

    EXPECT_EQ(TreeNodes::extended_attributes(*tree_.node(file)), (ExtendedAttributes{{"user.srpfs.x", "two"}}));
}

TEST_F(TreeNodesTest, NumbersDependOnThePathAlone) {
    Watcher watcher;
    TreeNodes other(defaults(), watcher, files_);
    const auto unrelated = other.add_directory(NodeId::root, "zzz");
    const auto directory = other.add_directory(NodeId::root, "a");
    const auto expected = other.add_directory(directory, "b");

    const auto here = tree_.add_directory(tree_.add_directory(NodeId::root, "a"), "b");

    EXPECT_EQ(here, expected);
    EXPECT_NE(here, unrelated);
    tree_.remove(tree_.find(NodeId::root, "a"), nullptr);
    EXPECT_EQ(tree_.add_directory(tree_.add_directory(NodeId::root, "a"), "b"), expected);
}

TEST_F(TreeNodesTest, NumbersArePositiveUniqueAndNotTheRoots) {
    std::set<NodeId> seen{NodeId::root};
    for (int i = 0; i < 2000; ++i) {
        const auto id = tree_.add_directory(NodeId::root, std::to_string(i));
        EXPECT_TRUE(seen.insert(id).second);
        EXPECT_GT(static_cast<std::int64_t>(id), 1);
    }
}

TEST_F(TreeNodesTest, PathsWithEqualHashesGetDifferentNumbers) {
    TreeNodes colliding(defaults(), watcher_, files_, [](std::string_view) { return std::uint64_t{0}; });
    const auto first = colliding.add_directory(NodeId::root, "a");
    const auto second = colliding.add_directory(NodeId::root, "b");

    EXPECT_NE(first, second);
    EXPECT_NE(first, NodeId::root);
    EXPECT_EQ(colliding.find(NodeId::root, "a"), first);
    EXPECT_EQ(colliding.find(NodeId::root, "b"), second);
}

TEST_F(TreeNodesTest, AFileThatSomebodyHasOpenKeepsItsNumberWhenItIsGone) {
    const auto add = [this] { return tree_.add_lun_file(NodeId::root, "lun0", {.capacity_bytes = 1 << 20}); };
    const auto first = add();
    OpenFileDetails details;
    details.node = first;
    details.lun = tree_.node(first)->lun;
    const auto handle = files_.open(std::move(details));
    tree_.remove(first, {});
    files_.unpublish(handle);  // as MountedFileSystem does
    ASSERT_TRUE(files_.has_removed(first));
    const auto second = add();
    EXPECT_NE(second, first);

    tree_.remove(second, {});
    EXPECT_TRUE(files_.close(handle));
    EXPECT_EQ(add(), first);
}

TEST_F(TreeNodesTest, ModesFollowWhatAFileCanDo) {
    EXPECT_EQ(attributes(NodeId::root).st_mode, S_IFDIR | 0755u);
    EXPECT_EQ(attributes(add_control(NodeId::root, "a", Tree::Access::read_only)).st_mode, S_IFREG | 0444u);
    EXPECT_EQ(attributes(add_control(NodeId::root, "b", Tree::Access::write_only)).st_mode, S_IFREG | 0200u);
    EXPECT_EQ(attributes(add_control(NodeId::root, "c", Tree::Access::read_write)).st_mode, S_IFREG | 0644u);
    EXPECT_EQ(attributes(tree_.add_lun_file(NodeId::root, "d", {.capacity_bytes = 1 << 20})).st_mode, S_IFREG | 0600u);
    EXPECT_EQ(attributes(tree_.add_lun_file(NodeId::root, "e", {.read_only = true})).st_mode, S_IFREG | 0400u);
}

TEST_F(TreeNodesTest, OptionsSetOwnerAndModeOfLunFilesOnly) {
    TreeDefaults values = defaults();
    values.uid = 7;
    values.gid = 8;
    values.umask = 027;
    TreeNodes tree(values, watcher_, files_);
    const auto lun = tree.attributes(*tree.node(tree.add_lun_file(NodeId::root, "lun0", {})));
    const auto root = tree.attributes(*tree.node(NodeId::root));

    EXPECT_EQ(lun.st_uid, 7u);
    EXPECT_EQ(lun.st_gid, 8u);
    EXPECT_EQ(lun.st_mode, S_IFREG | 0640u);
    EXPECT_EQ(root.st_uid, 0u);
    EXPECT_EQ(root.st_mode, S_IFDIR | 0755u);
}

TEST_F(TreeNodesTest, ALunShowsItsCapacity) {
    const auto id = tree_.add_lun_file(NodeId::root, "lun0", {.capacity_bytes = 10'000'384, .io_bytes = 65536});
    EXPECT_EQ(attributes(id).st_size, 10'000'384);
    EXPECT_EQ(attributes(id).st_blocks, 10'000'384 / 512);
    EXPECT_EQ(attributes(id).st_blksize, 65536);
    watcher_.changed.clear();

    tree_.change_lun_file(id, {.capacity_bytes = 512, .read_only = true});

    EXPECT_EQ(attributes(id).st_size, 512);
    EXPECT_EQ(attributes(id).st_mode & 07777, 0400u);
    EXPECT_EQ(watcher_.changed, std::vector<NodeId>{id});
}

TEST_F(TreeNodesTest, ChmodSurvivesTheFilesAbsence) {
    const auto id = tree_.add_lun_file(NodeId::root, "lun0", {});
    tree_.set_mode(id, 0660);
    tree_.set_owner(id, 3, std::nullopt);
    tree_.remove(id, nullptr);

    const auto again = tree_.add_lun_file(NodeId::root, "lun0", {});

    EXPECT_EQ(attributes(again).st_mode & 07777, 0660u);
    EXPECT_EQ(attributes(again).st_uid, 3u);
    EXPECT_EQ(attributes(again).st_gid, 0u);
}

TEST_F(TreeNodesTest, TheLaterOfWriteAndUtimesCounts) {
    const auto id = tree_.add_lun_file(NodeId::root, "lun0", {});
    EXPECT_EQ(attributes(id).st_mtim.tv_sec, 1'700'000'000);
    LunData& lun = *tree_.node(id)->lun;

    lun.last_write = Instant(std::chrono::milliseconds(60'200)).time_since_epoch().count();
    EXPECT_EQ(attributes(id).st_mtim.tv_sec, 1'700'000'011);  // 10.2 s after 1700000000.9
    EXPECT_EQ(attributes(id).st_mtim.tv_nsec, 100'000'000);
    tree_.set_times(id, std::nullopt, timespec{5, 6}, Instant(std::chrono::seconds(70)));
    EXPECT_EQ(attributes(id).st_mtim.tv_sec, 5);
    lun.last_write = Instant(std::chrono::seconds(71)).time_since_epoch().count();
    EXPECT_EQ(attributes(id).st_mtim.tv_sec, 1'700'000'021);
}

TEST_F(TreeNodesTest, RemovalTakesEverythingBelow) {
    const auto target = tree_.add_directory(NodeId::root, "target");
    const auto lun = tree_.add_lun_file(target, "lun0", {});
    const auto attr = tree_.add_directory(target, "lun0.attr");
    const auto wwid = add_control(attr, "wwid", Tree::Access::read_only);
    bool released = false;

    tree_.remove(target, [&] { released = true; });

    EXPECT_TRUE(released);
    for (const auto id : {target, lun, attr, wwid}) EXPECT_EQ(tree_.node(id), nullptr);
    EXPECT_EQ(std::set<NodeId>(watcher_.gone.begin(), watcher_.gone.end()),
              (std::set<NodeId>{target, lun, attr, wwid}));
    EXPECT_EQ(watcher_.gone_luns.size(), 1u);
    EXPECT_EQ(tree_.size(), 1u);
    EXPECT_EQ(tree_.find(NodeId::root, "target"), NodeId{0});
}

TEST_F(TreeNodesTest, CountsOpenLunHandlesBelow) {
    const auto target = tree_.add_directory(NodeId::root, "target");
    const auto lun = tree_.add_lun_file(target, "lun0", {});
    const auto state = add_control(target, "state", Tree::Access::read_only);
    for (const auto id : {lun, lun, state}) {
        OpenFileDetails details;
        details.node = id;
        (void)files_.open(std::move(details));
    }
    EXPECT_EQ(tree_.open_handles(lun), 2u);
    EXPECT_EQ(tree_.open_handles(target), 2u);
    EXPECT_EQ(tree_.open_handles(NodeId::root), 2u);
    EXPECT_EQ(tree_.open_handles(NodeId{77}), 0u);
}

TEST_F(TreeNodesTest, LinkCountsAreThoseOfADirectory) {
    const auto target = tree_.add_directory(NodeId::root, "target");
    (void)tree_.add_directory(target, "lun0.attr");
    (void)add_control(target, "state", Tree::Access::read_only);
    EXPECT_EQ(attributes(target).st_nlink, 3u);
    EXPECT_EQ(attributes(NodeId::root).st_nlink, 3u);
}

TEST_F(TreeNodesTest, ListsDotsFirst) {
    const auto target = tree_.add_directory(NodeId::root, "target");
    (void)add_control(target, "state", Tree::Access::read_only);
    const auto entries = tree_.list(*tree_.node(target));
    ASSERT_EQ(entries.size(), 3u);
    EXPECT_EQ(entries[0].name, ".");
    EXPECT_EQ(entries[0].id, target);
    EXPECT_EQ(entries[1].name, "..");
    EXPECT_EQ(entries[1].id, NodeId::root);
    EXPECT_EQ(entries[2].name, "state");
    EXPECT_EQ(entries[2].type, mode_t{S_IFREG});
}

}  // namespace
}  // namespace srpfs::fs::test
