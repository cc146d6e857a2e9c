// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

namespace srpfs::fabric::verbs {
namespace {

using testing::HasSubstr;

// A driver's answers; nothing of it is a device.
struct Driver {
    static inline ibv_context* context = nullptr;
    static inline unsigned windows = 0;

    static ibv_mw* allocate(ibv_pd*, ibv_mw_type type) {
        EXPECT_EQ(type, IBV_MW_TYPE_2);
        ++windows;
        return new ibv_mw{.context = context};
    }
    static int free(ibv_mw* window) {
        --windows;
        delete window;
        return 0;
    }
    static ibv_mw* refuse(ibv_pd*, ibv_mw_type) {
        errno = ENOMEM;
        return nullptr;
    }
};

class MemoryWindows : public testing::Test {
protected:
    MemoryWindows() {
        domain_.context = &context_;
        Driver::context = &context_;
        context_.ops.dealloc_mw = Driver::free;
    }
    bool ask() {
        testing::internal::CaptureStderr();
        const bool has = has_windows("rxe0", domain_);
        said_ = testing::internal::GetCapturedStderr();
        return has;
    }
    ibv_context context_{};
    ibv_pd domain_{};
    std::string said_;
};

TEST_F(MemoryWindows, OfADeviceThatHasThemAreUsed) {
    context_.ops.alloc_mw = Driver::allocate;
    EXPECT_TRUE(ask());
    EXPECT_EQ(Driver::windows, 0U) << "the one for trying was kept";
}

TEST_F(MemoryWindows, ADeviceWithoutThemGetsAPoolAndTheLogSaysWhatThatMeans) {
    EXPECT_FALSE(ask());
    EXPECT_THAT(said_, HasSubstr("rxe0: register=window is not possible"));
    EXPECT_THAT(said_, HasSubstr("using register=pool: targets reach all memory for I/O"));
}

TEST_F(MemoryWindows, ADeviceThatRefusesOneGetsAPool) {
    context_.ops.alloc_mw = Driver::refuse;
    EXPECT_FALSE(ask());
    EXPECT_THAT(said_, HasSubstr("Cannot allocate memory"));
}

}  // namespace
}  // namespace srpfs::fabric::verbs
