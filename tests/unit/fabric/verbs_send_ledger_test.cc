// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "send_ledger.h"

#include <srpfs/base/random.h>

#include <gtest/gtest.h>

#include <deque>
#include <set>

namespace srpfs::fabric::verbs {
namespace {

using Kind = SendLedger::Kind;

TEST(SendLedger, TakesAtLeastAsManyMessagesAsAskedFor) {
    for (const unsigned messages_max : {1u, 2u, 3u, 4u, 5u, 63u, 64u, 65u, 1000u}) {
        SendLedger ledger(messages_max, 0);
        unsigned taken = 0;
        while (ledger.take_message()) ++taken;
        EXPECT_GE(taken, messages_max);
        EXPECT_EQ(taken, ledger.slots());
        EXPECT_LE(taken, ledger.entries());
    }
}

TEST(SendLedger, AsksForACompletionOfEveryNthMessage) {
    SendLedger ledger(64, 0);
    const unsigned interval = ledger.signal_interval();
    ASSERT_GT(interval, 1u);
    for (unsigned i = 1; i <= 3 * interval; ++i) {
        const auto entry = ledger.take_message();
        ASSERT_TRUE(entry.has_value());
        EXPECT_EQ(entry->signalled, i % interval == 0) << i;
    }
}

TEST(SendLedger, FreesEverythingBeforeACompletedEntry) {
    SendLedger ledger(8, 0);
    std::uint64_t last_signalled = 0;
    unsigned after = 0;
    while (const auto entry = ledger.take_message()) {
        ++after;
        if (entry->signalled) last_signalled = entry->ordinal, after = 0;
    }

    EXPECT_FALSE(ledger.completed(last_signalled).has_value());

    unsigned free = 0;
    while (ledger.take_message()) ++free;
    EXPECT_EQ(free, ledger.slots() - after);
}

TEST(SendLedger, GivesBackTheContextOfAnOperation) {
    SendLedger ledger(4, 2);
    const auto read = ledger.take_rdma(Kind::rdma_read, 4711);
    const auto write = ledger.take_rdma(Kind::rdma_write, 0);
    ASSERT_TRUE(read && write);
    EXPECT_TRUE(read->signalled && write->signalled);
    EXPECT_FALSE(ledger.take_rdma(Kind::rdma_write, 1).has_value());

    EXPECT_EQ(ledger.completed(read->ordinal), 4711u);
    EXPECT_EQ(ledger.completed(write->ordinal), 0u);
    EXPECT_TRUE(ledger.take_rdma(Kind::rdma_write, 1).has_value());
}

TEST(SendLedger, WithoutRoomForOperationsTakesNone) {
    SendLedger ledger(4, 0);
    EXPECT_FALSE(ledger.take_rdma(Kind::rdma_write, 1).has_value());
}

TEST(SendLedger, FencesMessagesBehindReadsOnly) {
    SendLedger ledger(16, 4);
    EXPECT_FALSE(ledger.take_message()->fenced);
    const auto write = ledger.take_rdma(Kind::rdma_write, 1);
    EXPECT_FALSE(ledger.take_message()->fenced);
    const auto read = ledger.take_rdma(Kind::rdma_read, 2);
    EXPECT_TRUE(ledger.take_message()->fenced);
    EXPECT_TRUE(ledger.take_message()->fenced);
    ledger.completed(write->ordinal);
    EXPECT_TRUE(ledger.take_message()->fenced);
    ledger.completed(read->ordinal);
    EXPECT_FALSE(ledger.take_message()->fenced);
}

TEST(SendLedger, KnowsWhatIsTaken) {
    SendLedger ledger(4, 1);
    const auto message = ledger.take_message();
    const auto write = ledger.take_rdma(Kind::rdma_write, 1);
    EXPECT_EQ(ledger.kind(message->ordinal), Kind::message);
    EXPECT_EQ(ledger.kind(write->ordinal), Kind::rdma_write);
    EXPECT_FALSE(ledger.is_taken(write->ordinal + 1));
    ledger.completed(write->ordinal);
    EXPECT_FALSE(ledger.is_taken(message->ordinal));
    EXPECT_FALSE(ledger.is_taken(write->ordinal));
}

// A model of the device: entries complete in order, at any time, and only signalled ones tell.
TEST(SendLedger, NeverOverflowsNorStallsNorReusesASlotInFlight) {
    for (std::uint64_t seed = 1; seed <= 200; ++seed) {
        Random random(seed);
        const auto messages_max = static_cast<unsigned>(random.between(1, 100));
        const auto rdma_max = static_cast<unsigned>(random.below(20));
        SendLedger ledger(messages_max, rdma_max);
        struct Posted {
            SendLedger::Entry entry;
            Kind kind;
            std::uint64_t context;
        };
        std::deque<Posted> device;
        std::set<unsigned> slots;
        unsigned entries = 0;  // not known to be completed
        std::deque<unsigned> unreported;

        for (int step = 0; step < 2000; ++step) {
            if (random.chance(1, 2)) {
                const bool is_message = rdma_max == 0 || random.chance(2, 3);
                const Kind kind = is_message ? Kind::message : random.chance(1, 2) ? Kind::rdma_read : Kind::rdma_write;
                const std::uint64_t context = random.next();
                const auto entry = is_message ? ledger.take_message() : ledger.take_rdma(kind, context);
                if (!entry) {
                    // Full, but then the device holds something that will tell.
                    bool has_signalled = false;
                    for (const auto& posted : device) has_signalled = has_signalled || posted.entry.signalled;
                    ASSERT_TRUE(has_signalled) << "seed " << seed;
                    continue;
                }
                device.push_back({*entry, kind, context});
                ASSERT_LE(++entries, ledger.entries()) << "seed " << seed;
                if (is_message) {
                    ASSERT_LT(entry->slot, ledger.slots()) << "seed " << seed;
                    ASSERT_TRUE(slots.insert(entry->slot).second)
                        << "seed " << seed << ": slot in flight given out again";
                    unreported.push_back(entry->slot);
                } else {
                    unreported.push_back(UINT32_MAX);
                }
            } else if (!device.empty()) {
                const Posted done = device.front();
                device.pop_front();
                if (!done.entry.signalled) continue;
                const auto context = ledger.completed(done.entry.ordinal);
                ASSERT_EQ(context.has_value(), done.kind != Kind::message) << "seed " << seed;
                ASSERT_EQ(context.value_or(done.context), done.context) << "seed " << seed;
                while (unreported.size() > device.size()) {
                    slots.erase(unreported.front());
                    unreported.pop_front();
                    --entries;
                }
            }
        }
    }
}

TEST(SendLedger, WindowsAreBoundAndInvalidatedWithoutEndOfOthers) {
    constexpr unsigned messages = 4, windows = 3;
    SendLedger ledger(messages, 0, windows);
    EXPECT_EQ(ledger.entries(), ledger.slots() + 2 * windows);
    for (int round = 0; round < 100; ++round) {
        std::uint64_t last = 0;
        for (unsigned i = 0; i < windows; ++i) {
            const auto bind = ledger.take_bind();
            EXPECT_FALSE(bind.signalled);
            EXPECT_EQ(ledger.kind(bind.ordinal), SendLedger::Kind::bind);
            ASSERT_TRUE(ledger.take_message()) << round;
        }
        for (unsigned i = 0; i < windows; ++i) {
            const auto invalidate = ledger.take_invalidate(40 + i);
            EXPECT_TRUE(invalidate.signalled);
            last = invalidate.ordinal;
        }
        // The last completion frees all before it.
        EXPECT_EQ(ledger.completed(last), 40 + windows - 1);
        EXPECT_FALSE(ledger.is_taken(last));
    }
}

}  // namespace
}  // namespace srpfs::fabric::verbs
