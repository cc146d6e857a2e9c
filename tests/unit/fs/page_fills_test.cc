// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "open_files.h"
#include "page_fills.h"

#include <gtest/gtest.h>

#include <set>
#include <utility>
#include <vector>

namespace srpfs::fs::test {
namespace {

constexpr std::uint64_t page = 65536;  // a multiple of what any machine has

struct Drop {
    NodeId node;
    std::vector<lun::ByteRange> ranges;
    std::uint64_t ticket;
};

class PageFillsTest : public ::testing::Test, private PageFillsHost {
protected:
    ~PageFillsTest() override { fills_.leave(); }

    static lun::ByteRange pages(std::uint64_t first, std::uint64_t count = 1) {
        return {first * page, (first + count) * page};
    }
    std::uint64_t fill(std::uint64_t first, std::uint64_t count = 1) {
        return fills_.begin(lun_, NodeId{7}, pages(first, count), PageFills::Stay::is_short);
    }
    std::uint64_t kept_fill(std::uint64_t first, std::uint64_t count = 1) {
        return fills_.begin(lun_, NodeId{7}, pages(first, count), PageFills::Stay::until_changed);
    }
    std::uint64_t write(std::uint64_t first, std::uint64_t count = 1) {
        return fills_.wait(lun_, pages(first, count), [this] { ++done_; });
    }
    // The kernel does what it was asked to do.
    void obey() {
        for (const Drop& drop : std::exchange(drops_, {})) fills_.dropped(drop.ticket);
        fills_.send();
    }
    void pass(Duration time) {
        timers_.advance_to(timers_.now() + time);
        fills_.send();
    }

    LunData lun_, other_;
    reactor::TimerQueue timers_{Instant{}};
    std::vector<Drop> drops_;
    unsigned done_ = 0;  // waits that have ended
    std::set<std::uint64_t> unread_;
    PageFills fills_{*this, timers_};

private:
    void drop_pages(NodeId node, std::vector<lun::ByteRange> ranges, std::uint64_t ticket) override {
        drops_.push_back({node, std::move(ranges), ticket});
    }
    bool has_read_nothing(std::uint64_t fill) const override { return unread_.contains(fill); }
};

TEST_F(PageFillsTest, NothingIsKnownAtFirstAndNothingInTheEnd) {
    EXPECT_FALSE(fills_.any());
    EXPECT_EQ(write(0), 0u);

    fills_.answered(fill(0));
    EXPECT_TRUE(fills_.any());
    pass(2 * PageFills::tick);
    pass(2 * PageFills::tick);
    obey();

    EXPECT_FALSE(fills_.any());
}

TEST_F(PageFillsTest, PagesGoByThemselvesAfterOneOrTwoTicks) {
    const auto one = fill(3);
    fills_.answered(one);
    pass(PageFills::tick);
    EXPECT_TRUE(drops_.empty());
    const auto other = fill(9, 2);
    fills_.answered(other);
    pass(PageFills::tick);

    ASSERT_EQ(drops_.size(), 1u);
    EXPECT_EQ(drops_[0].node, NodeId{7});
    EXPECT_EQ(drops_[0].ranges, std::vector{pages(3)});
    obey();
    pass(PageFills::tick);
    ASSERT_EQ(drops_.size(), 1u);
    EXPECT_EQ(drops_[0].ranges, std::vector{pages(9, 2)});
}

TEST_F(PageFillsTest, AWriteWaitsForAFillThatBeganBeforeItsEnd) {
    const auto early = fill(1);
    EXPECT_NE(write(1), 0u);
    fills_.send();
    EXPECT_TRUE(drops_.empty());  // the kernel holds the lock

    fills_.answered(early);
    EXPECT_TRUE(drops_.empty());  // not before the answer has been given
    fills_.send();

    ASSERT_EQ(drops_.size(), 1u);
    EXPECT_EQ(done_, 0u);
    obey();
    EXPECT_EQ(done_, 1u);
    EXPECT_FALSE(fills_.any());
}

TEST_F(PageFillsTest, ADropThatTheKernelDoesNotEndIsNotWaitedForForEver) {
    fills_.answered(fill(1));
    EXPECT_NE(write(1), 0u);
    EXPECT_NE(write(1), 0u);
    fills_.send();
    ASSERT_EQ(drops_.size(), 1u);
    pass(PageFills::patience - PageFills::tick);
    EXPECT_EQ(done_, 0u);
    pass(PageFills::tick);
    EXPECT_EQ(done_, 2u);
    EXPECT_TRUE(fills_.any());

    // It counts from the drop on, and who comes later has to wait as well.
    EXPECT_NE(write(1), 0u);
    pass(PageFills::patience);
    EXPECT_EQ(done_, 3u);
    obey();
    EXPECT_FALSE(fills_.any());
    pass(2 * PageFills::patience);
}

TEST_F(PageFillsTest, WhatHappensIsCounted) {
    const PageCounters& counters = fills_.counters();
    lun_.capacity_bytes = 4 * page + 512;
    fills_.answered(kept_fill(0, 2));
    fills_.answered(fill(3, 4));
    EXPECT_EQ(counters.fills, 2u);
    EXPECT_EQ(counters.fills_cached, 1u);
    EXPECT_EQ(counters.drops, 0u);

    EXPECT_NE(write(0), 0u);
    EXPECT_NE(write(3), 0u);
    fills_.change(lun_, pages(3));  // nobody waits for this one
    fills_.send();
    EXPECT_EQ(counters.waits, 2u);
    EXPECT_EQ(counters.drops, 1u);
    EXPECT_EQ(counters.drop_ranges, 2u);
    EXPECT_EQ(counters.drop_bytes, 2 * page + 512);  // up to the end of the unit
    EXPECT_EQ(counters.drop_latency.read().count, 0u);

    timers_.advance_to(timers_.now() + std::chrono::milliseconds(30));
    obey();
    EXPECT_EQ(done_, 2u);
    EXPECT_EQ(counters.drop_latency.read().sum_us, 30000u);
    EXPECT_EQ(counters.wait_latency.read().count, 2u);
    EXPECT_EQ(counters.wait_latency.read().sum_us, 60000u);
    EXPECT_EQ(counters.waits_given_up, 0u);

    // One that the kernel does not end.
    fills_.answered(fill(2));
    EXPECT_NE(write(2), 0u);
    fills_.change(lun_, pages(2));
    fills_.send();
    pass(2 * PageFills::patience);
    EXPECT_EQ(counters.waits, 3u);
    EXPECT_EQ(counters.waits_given_up, 1u);
}

TEST_F(PageFillsTest, AFillThatIsNotAnsweredIsWaitedForAllTheSame) {
    const auto early = fill(1);
    EXPECT_NE(write(1), 0u);
    fills_.send();
    pass(3 * PageFills::patience);
    EXPECT_EQ(done_, 0u);
    fills_.answered(early);
    fills_.send();
    obey();
    EXPECT_EQ(done_, 1u);
}

TEST_F(PageFillsTest, AFillThatHasReadNothingIsNotWaitedFor) {
    const auto late = kept_fill(1);
    unread_ = {late};
    EXPECT_EQ(write(1), 0u);

    // It brings what has been written, but not what is written once it reads.
    unread_.clear();
    EXPECT_NE(write(1), 0u);
    fills_.answered(late);
    fills_.send();
    ASSERT_EQ(drops_.size(), 1u);
    EXPECT_EQ(drops_[0].ranges, std::vector{pages(1)});
    EXPECT_EQ(done_, 0u);
    obey();
    EXPECT_EQ(done_, 1u);
    EXPECT_FALSE(fills_.any());
}

TEST_F(PageFillsTest, AFillThatLosesWhatItHasReadIsNotWaitedForAnyLonger) {
    const auto one = kept_fill(1), other = fill(2);
    EXPECT_NE(write(1, 2), 0u);
    EXPECT_NE(write(1), 0u);
    pass(PageFills::patience);
    EXPECT_EQ(done_, 0u);
    unread_ = {one};
    pass(PageFills::patience);
    EXPECT_EQ(done_, 1u);  // the first one waits for both
    unread_ = {one, other};
    pass(PageFills::patience);
    EXPECT_EQ(done_, 2u);

    fills_.answered(one);
    fills_.failed(other);
    pass(PageFills::tick);
    pass(PageFills::tick);
    obey();
    EXPECT_FALSE(fills_.any());
}

// What the kernel has of an earlier fill goes only when the later one is over.
TEST_F(PageFillsTest, OldPagesBelowAFillThatHasReadNothingAreWaitedFor) {
    fills_.answered(kept_fill(1));
    const auto late = kept_fill(1);
    unread_ = {late};
    EXPECT_NE(write(1), 0u);
    fills_.send();
    EXPECT_TRUE(drops_.empty());
    fills_.answered(late);
    fills_.send();
    ASSERT_EQ(drops_.size(), 1u);
    obey();
    EXPECT_EQ(done_, 1u);
}

TEST_F(PageFillsTest, ThatHasBeenAnsweredIsDroppedAtOnceForAWrite) {
    fills_.answered(fill(1));
    fills_.send();
    EXPECT_TRUE(drops_.empty());

    EXPECT_NE(write(1), 0u);
    fills_.send();

    ASSERT_EQ(drops_.size(), 1u);
    obey();
    EXPECT_EQ(done_, 1u);
}

TEST_F(PageFillsTest, FillsThatBeginLaterDoNotMatter) {
    const auto early = fill(1);
    EXPECT_NE(write(1), 0u);
    const auto late = fill(1, 2);

    fills_.failed(early);

    EXPECT_EQ(done_, 1u);
    EXPECT_NE(write(2), 0u);
    fills_.failed(late);
    EXPECT_EQ(done_, 2u);
}

TEST_F(PageFillsTest, OtherBytesAndOtherUnitsDoNotWait) {
    const auto one = fill(1);
    EXPECT_EQ(write(0), 0u);
    EXPECT_EQ(write(2, 5), 0u);
    EXPECT_EQ(fills_.wait(other_, pages(0, 10), [] {}), 0u);
    // Part of a page is a page.
    EXPECT_NE(fills_.wait(lun_, {2 * page - 1, 2 * page}, [this] { ++done_; }), 0u);
    fills_.failed(one);
}

TEST_F(PageFillsTest, WhatIsBeingFilledAgainIsDroppedWhenThatIsOver) {
    fills_.answered(fill(0, 8));
    const auto again = fill(2);
    EXPECT_NE(write(0, 8), 0u);
    fills_.send();

    ASSERT_EQ(drops_.size(), 1u);
    EXPECT_EQ(drops_[0].ranges, (std::vector{pages(0, 2), pages(3, 5)}));
    obey();
    EXPECT_EQ(done_, 0u);
    EXPECT_TRUE(drops_.empty());

    fills_.answered(again);
    fills_.send();
    ASSERT_EQ(drops_.size(), 1u);
    EXPECT_EQ(drops_[0].ranges, std::vector{pages(2)});
    obey();
    EXPECT_EQ(done_, 1u);
}

TEST_F(PageFillsTest, AFillAnsweredDuringADropGoesWithTheNextOne) {
    fills_.answered(fill(0));
    const auto late = fill(0);
    fills_.answered(late);
    const auto during = fill(5);
    EXPECT_NE(write(0), 0u);
    EXPECT_NE(write(5), 0u);
    fills_.send();
    ASSERT_EQ(drops_.size(), 1u);

    fills_.answered(during);
    fills_.send();
    EXPECT_EQ(drops_.size(), 1u);  // one at a time
    obey();

    EXPECT_EQ(done_, 1u);
    ASSERT_EQ(drops_.size(), 1u);
    EXPECT_EQ(drops_[0].ranges, std::vector{pages(5)});
    obey();
    EXPECT_EQ(done_, 2u);
}

TEST_F(PageFillsTest, WhoGivesUpIsToldAtOnceAndOnce) {
    const auto fill_number = fill(1);
    const auto wait = write(1);

    fills_.give_up(wait);
    EXPECT_EQ(done_, 1u);
    fills_.give_up(wait);
    fills_.answered(fill_number);
    pass(PageFills::tick);
    pass(PageFills::tick);
    obey();

    EXPECT_EQ(done_, 1u);
    EXPECT_FALSE(fills_.any());
}

TEST_F(PageFillsTest, AFailedFillLeavesNoPages) {
    fills_.failed(fill(1));
    EXPECT_FALSE(fills_.any());
}

TEST_F(PageFillsTest, NeighboursAreOneRangeAndTooManyRangesAreTheFile) {
    for (std::uint64_t place = 0; place < 100; ++place) fills_.answered(fill(place));
    EXPECT_NE(write(0), 0u);
    fills_.send();
    ASSERT_EQ(drops_.size(), 1u);
    EXPECT_EQ(drops_[0].ranges, std::vector{pages(0, 100)});
    obey();

    for (std::uint64_t place = 0; place <= PageFills::ranges_max; ++place) fills_.answered(fill(2 * place));
    EXPECT_NE(write(0), 0u);
    fills_.send();
    ASSERT_EQ(drops_.size(), 1u);
    EXPECT_EQ(drops_[0].ranges, (std::vector{lun::ByteRange{0, UINT64_MAX}}));
    obey();
    EXPECT_FALSE(fills_.any());
}

TEST_F(PageFillsTest, ManyRangesThatBecomeOneAreAsOldAsTheOldestOfThem) {
    fills_.answered(fill(0));
    pass(PageFills::tick);
    pass(PageFills::tick);
    ASSERT_EQ(drops_.size(), 1u);  // and the kernel has not done it yet
    const auto old = fill(5);
    EXPECT_NE(write(5), 0u);
    fills_.answered(fill(8));
    pass(PageFills::tick);
    fills_.answered(old);
    pass(PageFills::tick);
    for (std::uint64_t place = 10; place < 9 + PageFills::ranges_max; ++place) fills_.answered(fill(2 * place));
    pass(PageFills::tick);
    pass(PageFills::tick);
    EXPECT_EQ(done_, 0u);

    obey();  // which does not concern page 5
    EXPECT_EQ(done_, 0u);
    obey();
    EXPECT_EQ(done_, 1u);
}

TEST_F(PageFillsTest, WritesDoNotMakeEndlesslyManyRangesOfWhatIsKept) {
    fills_.answered(kept_fill(0, 3 * PageFills::kept_max));
    const auto change = [this](std::uint64_t place) {
        if (write(place) == 0) return false;
        fills_.send();
        obey();
        return true;
    };
    for (std::uint64_t place = 1; place < PageFills::kept_max; ++place) ASSERT_TRUE(change(2 * place));
    EXPECT_FALSE(change(2));  // gone long since
    ASSERT_TRUE(change(2 * PageFills::kept_max));
    ASSERT_TRUE(change(2 * PageFills::kept_max + 2));
    EXPECT_TRUE(change(2)) << "all is kept again, as one range";
}

TEST_F(PageFillsTest, WhatIsKeptStaysUntilSomebodyChangesIt) {
    fills_.answered(kept_fill(0, 8));
    pass(10 * PageFills::tick);
    EXPECT_TRUE(drops_.empty());
    EXPECT_EQ(write(8), 0u);

    EXPECT_NE(write(2, 3), 0u);
    fills_.send();
    ASSERT_EQ(drops_.size(), 1u);
    EXPECT_EQ(drops_[0].ranges, std::vector{pages(2, 3)});
    EXPECT_EQ(done_, 0u);
    obey();
    EXPECT_EQ(done_, 1u);

    // The others are still there.
    EXPECT_EQ(write(2, 3), 0u);
    EXPECT_NE(write(1, 5), 0u);
    fills_.send();
    ASSERT_EQ(drops_.size(), 1u);
    EXPECT_EQ(drops_[0].ranges, (std::vector{pages(1), pages(5)}));
    obey();
    EXPECT_TRUE(fills_.any());
}

TEST_F(PageFillsTest, AFillThatAWriteHasOvertakenIsNotKept) {
    const auto early = kept_fill(1);
    const auto wait = write(1);
    EXPECT_NE(wait, 0u);
    fills_.give_up(wait);  // whoever waited has been killed
    const auto late = kept_fill(2);
    fills_.answered(early);
    fills_.answered(late);

    pass(PageFills::tick);
    pass(PageFills::tick);
    ASSERT_EQ(drops_.size(), 1u);
    EXPECT_EQ(drops_[0].ranges, std::vector{pages(1)});
    obey();
    EXPECT_NE(write(2), 0u);
}

TEST_F(PageFillsTest, AFillThatBeganAfterTheWriteIsKept) {
    fills_.answered(kept_fill(1));
    EXPECT_NE(write(1), 0u);
    fills_.send();
    const auto again = kept_fill(1);
    obey();
    EXPECT_EQ(done_, 1u);
    fills_.answered(again);
    pass(10 * PageFills::tick);
    EXPECT_TRUE(drops_.empty());
    EXPECT_NE(write(1), 0u);
}

TEST_F(PageFillsTest, AChangeThatNobodyWaitsForDropsAsWell) {
    fills_.answered(kept_fill(0, 2));
    const auto during = kept_fill(2);
    fills_.change(lun_, pages(1, 2));
    fills_.send();
    ASSERT_EQ(drops_.size(), 1u);
    EXPECT_EQ(drops_[0].ranges, std::vector{pages(1)});
    fills_.answered(during);
    obey();
    fills_.send();
    ASSERT_EQ(drops_.size(), 1u);
    EXPECT_EQ(drops_[0].ranges, std::vector{pages(2)});
    obey();
    EXPECT_NE(write(0), 0u);
    EXPECT_EQ(write(1, 5), 0u);
}

TEST_F(PageFillsTest, PagesOfAFileThatNobodyReadsAreDropped) {
    fills_.answered(kept_fill(0, 2));
    fills_.answered(kept_fill(5));
    fills_.answered(fills_.begin(other_, NodeId{8}, pages(0), PageFills::Stay::until_changed));
    const auto during = kept_fill(9);
    fills_.drop_file(&lun_);
    pass(PageFills::tick);
    ASSERT_EQ(drops_.size(), 1u);
    EXPECT_EQ(drops_[0].node, NodeId{7});
    EXPECT_EQ(drops_[0].ranges, (std::vector{pages(0, 2), pages(5)}));
    obey();
    fills_.answered(during);
    pass(PageFills::tick);
    pass(PageFills::tick);
    ASSERT_EQ(drops_.size(), 1u);
    EXPECT_EQ(drops_[0].ranges, std::vector{pages(9)});
    obey();
    EXPECT_EQ(write(0, 20), 0u);
    EXPECT_NE(fills_.wait(other_, pages(0), [] {}), 0u);
}

TEST_F(PageFillsTest, TooManyKeptRangesAreOneFromTheFirstToTheLast) {
    for (std::uint64_t place = 1; place <= PageFills::kept_max + 1; ++place) fills_.answered(kept_fill(2 * place));
    EXPECT_EQ(write(1), 0u);
    EXPECT_NE(write(3), 0u);
    EXPECT_EQ(write(2 * PageFills::kept_max + 3), 0u);
    fills_.send();
    ASSERT_EQ(drops_.size(), 1u);
    EXPECT_EQ(drops_[0].ranges, std::vector{pages(3)});
    obey();
    EXPECT_EQ(done_, 1u);
}

TEST_F(PageFillsTest, PagesOfAFileThatIsGoneAreWaitedForByAll) {
    fills_.answered(fill(1));
    fills_.forget_file(&lun_);

    EXPECT_NE(fills_.wait(other_, pages(1), [this] { ++done_; }), 0u);
    fills_.send();
    obey();

    EXPECT_EQ(done_, 1u);
}

TEST_F(PageFillsTest, TheEndEndsAllWaiting) {
    const auto one = fill(1);
    EXPECT_NE(write(1), 0u);

    fills_.leave();

    EXPECT_EQ(done_, 1u);
    EXPECT_EQ(write(1), 0u);
    fills_.answered(one);
    EXPECT_FALSE(fills_.any());
}

}  // namespace
}  // namespace srpfs::fs::test
