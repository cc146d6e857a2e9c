// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Whoever has written to a control file, for tests.

#pragma once

#include <srpfs/fs/control_file.h>

#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <string>
#include <utility>

namespace srpfs::daemon {

// Somebody who waits, and what he is told.
class Caller final : public fs::PendingCall {
public:
    void succeed() override { end(0); }
    void succeed_with(std::string text) override {
        told = std::move(text);
        end(0);
    }
    void fail(int errno_value) override { end(errno_value); }
    void on_interrupt(std::function<void()> handler) override { interrupt = std::move(handler); }
    [[nodiscard]] bool nonblocking() const override { return false; }
    [[nodiscard]] unsigned caller_uid() const override { return uid; }

    unsigned uid = 7;
    std::optional<int> error;
    std::string told;
    std::function<void()> interrupt;

private:
    void end(int value) {
        EXPECT_FALSE(error) << "answered twice";
        error = value;
    }
};

}  // namespace srpfs::daemon
