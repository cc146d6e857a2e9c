// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "text_file.h"

#include "bare_tree.h"
#include "caller.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace srpfs::daemon {
namespace {

// Keeps the file that is added.
class OneFile final : public BareTree {
public:
    fs::NodeId add_control_file(fs::NodeId, std::string_view, Access, std::unique_ptr<fs::ControlFile> added) override {
        file = std::move(added);
        return {};
    }
    std::unique_ptr<fs::ControlFile> file;
};

class TextFileTest : public ::testing::Test {
protected:
    std::optional<int> refuse(int errno_value, const char* why) {
        const auto caller = std::make_shared<Caller>();
        tree_.file->refuse(Error(errno_value, why), caller);
        return caller->error;
    }
    const WriteText write_ = [](std::string_view, const std::shared_ptr<fs::PendingCall>&) { FAIL(); };
    const FailCall fail_ = [this](const std::shared_ptr<fs::PendingCall>& call, const Error& error) {
        said_ = error.context;
        call->fail(error.errno_value());
    };
    OneFile tree_;
    std::string said_;
};

TEST_F(TextFileTest, WhatIsNoCommandIsRefusedWithTheNameOfTheFile) {
    add_text(tree_, fs::NodeId::root, "rescan", fs::Tree::Access::write_only, nullptr, write_, fail_);
    EXPECT_EQ(refuse(E2BIG, "far too long"), E2BIG);
    EXPECT_EQ(said_, "rescan: far too long");
    add_slow(
        tree_, fs::NodeId::root, "reservations", [](const std::shared_ptr<fs::PendingCall>&) {}, write_, fail_);
    EXPECT_EQ(refuse(EINVAL, "a NUL"), EINVAL);
    EXPECT_EQ(said_, "reservations: a NUL");
    add_dialogue(
        tree_, fs::NodeId::root, "cdb", []() -> Result<std::string> { return std::string(); }, write_, fail_);
    EXPECT_EQ(refuse(EINVAL, "a NUL"), EINVAL);
    EXPECT_EQ(said_, "cdb: a NUL");
}

TEST_F(TextFileTest, WithoutAnybodyToTellItIsRefusedAllTheSame) {
    add_text(tree_, fs::NodeId::root, "rescan", fs::Tree::Access::write_only, nullptr, write_);
    EXPECT_EQ(refuse(E2BIG, "far too long"), E2BIG);
    EXPECT_EQ(said_, "");
}

}  // namespace
}  // namespace srpfs::daemon
