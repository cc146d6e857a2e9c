// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// SEEK_DATA and SEEK_HOLE: what is asked of the unit, what is made of its answer, and that nothing is called a hole
// that is not known to be one.
#include "lun_fixture.h"

#include <srpfs/lun/extent_search.h>

#include <gtest/gtest.h>

#include <cstring>
#include <memory>

namespace srpfs::lun {
namespace {

constexpr std::uint64_t mib = 1 << 20;

class Extents : public LunTest {
protected:
    struct Extent {
        std::uint64_t lba, blocks;
        unsigned status;  // 0 mapped, 1 deallocated, 2 anchored
    };
    Extents() {
        info.blocks = 4 * mib / 512;
        info.tells_holes = true;
    }
    ~Extents() override { EXPECT_TRUE(search == nullptr || ends == 1); }

    void seek(std::uint64_t offset, Sought sought) {
        ends = 0;
        search = std::make_unique<ExtentSearch>(unit(), offset, sought, [this](OutcomeKind kind, std::uint64_t at) {
            ++ends;
            end = kind;
            found = at;
        });
        search->start();
        settle();
    }
    static Bytes status(const std::vector<Extent>& extents) {
        Bytes data(8 + 16 * extents.size());
        scripted::put(data, 0, 4, data.size() - 4);
        for (std::size_t i = 0; i < extents.size(); ++i) {
            scripted::put(data, 8 + 16 * i, 8, extents[i].lba);
            scripted::put(data, 16 + 16 * i, 4, extents[i].blocks);
            scripted::put(data, 20 + 16 * i, 1, extents[i].status);
        }
        return data;
    }
    // The unit's answer to the last command.
    void tell(const std::vector<Extent>& extents) {
        ASSERT_FALSE(open().empty());
        Seen& seen = *open().back();
        EXPECT_EQ(seen.opcode(), 0x9eu);
        EXPECT_EQ(static_cast<unsigned>(seen.cdb[1]), 0x12u);
        const Bytes data = status(extents);
        ASSERT_LE(data.size(), seen.memory().size());
        std::memcpy(seen.memory().data(), data.data(), data.size());
        answer(seen, {.in_under = static_cast<std::uint32_t>(seen.memory().size() - data.size())});
    }
    void expect_found(std::uint64_t at) {
        EXPECT_EQ(ends, 1u);
        EXPECT_EQ(end, OutcomeKind::ok);
        EXPECT_EQ(found, at);
    }

    std::unique_ptr<ExtentSearch> search;
    unsigned ends = 0;
    OutcomeKind end = OutcomeKind::ok;
    std::uint64_t found = 0;
};

TEST_F(Extents, DataAndHolesBeginWhereTheUnitSays) {
    begin();
    const std::vector<Extent> map{{0, 8, 1}, {8, 100, 0}, {108, 20, 2}, {128, 8064, 0}};
    // From within the first hole, from within data, and from a hole that the offset is in.
    seek(0, Sought::data);
    EXPECT_EQ(open().back()->lba(), 0u);
    tell(map);
    expect_found(8 * 512);
    seek(0, Sought::hole);
    tell(map);
    expect_found(0);
    seek(1000, Sought::data);  // inside block 1: the unit begins with what was asked for
    EXPECT_EQ(open().back()->lba(), 1u);
    tell({{1, 7, 1}, {8, 100, 0}});
    expect_found(8 * 512);
    seek(8 * 512 + 77, Sought::data);
    tell({{8, 100, 0}});
    expect_found(8 * 512 + 77);
    seek(8 * 512 + 77, Sought::hole);
    tell({{8, 100, 0}, {108, 20, 2}, {128, 8064, 0}});
    expect_found(108 * 512);
    seek(109 * 512 + 5, Sought::hole);
    tell({{109, 19, 2}, {128, 8064, 0}});
    expect_found(109 * 512 + 5);
    seek(200 * 512, Sought::hole);
    tell({{200, 7992, 0}});
    expect_found(4 * mib);
}

TEST_F(Extents, AnswersThatEndEarlyAreFollowedByTheNextQuestion) {
    begin();
    seek(0, Sought::data);
    tell({{0, 8, 1}});
    ASSERT_EQ(open().size(), 1u);
    EXPECT_EQ(open().back()->lba(), 8u);
    tell({{0, 16, 1}, {16, 16, 1}});  // begins where the extent does, and says the same twice
    ASSERT_EQ(open().size(), 1u);
    EXPECT_EQ(open().back()->lba(), 32u);
    tell({{32, 8160, 1}});
    expect_found(4 * mib);  // no data at all
}

TEST_F(Extents, ASearchIsNotLongerThanSoManyCommandsAndWhatIsNotKnownIsData) {
    for (const Sought sought : {Sought::data, Sought::hole}) {
        if (!link) begin();
        const std::size_t before = sent().size();
        seek(0, sought);
        for (std::uint64_t lba = 0; ends == 0 && lba < 1000; ++lba) tell({{lba, 1, sought == Sought::data ? 1u : 0u}});
        EXPECT_EQ(sent().size() - before, ExtentSearch::commands_max);
        expect_found(sought == Sought::data ? ExtentSearch::commands_max * 512 : 4 * mib);
    }
}

TEST_F(Extents, AUnitThatRefusesIsAllDataAndNotAskedAgain) {
    begin();
    seek(5000, Sought::data);
    answer(*open().back(), scripted::check_condition(5, 0x24, 0));
    expect_found(5000);
    seek(5000, Sought::hole);
    EXPECT_EQ(sent().size(), 1u);
    expect_found(4 * mib);
}

TEST_F(Extents, AUnitWhoseUnmappedBlocksMayHoldAnythingIsNotAsked) {
    info.tells_holes = false;
    begin();
    seek(5000, Sought::data);
    expect_found(5000);
    seek(5000, Sought::hole);
    expect_found(4 * mib);
    EXPECT_TRUE(sent().empty());
}

TEST_F(Extents, UnusableAnswersMakeNoHoles) {
    begin();
    for (const std::vector<Extent>& nonsense :
         {std::vector<Extent>{}, {{9, 100, 1}}, {{0, 0, 1}}, {{UINT64_MAX, 4, 1}}}) {
        seek(0, Sought::data);
        tell(nonsense);
        expect_found(0);
    }
    seek(0, Sought::hole);
    answer(*open().back(), scripted::check_condition(3, 0x11, 0));
    expect_found(4 * mib);
    // A gap: what follows it says nothing about what lies before.
    seek(0, Sought::hole);
    tell({{0, 8, 0}, {9, 8, 1}});
    ASSERT_EQ(open().size(), 1u);
    EXPECT_EQ(open().back()->lba(), 8u);
    tell({{8, 9, 0}, {17, 8175, 1}});
    expect_found(17 * 512);
}

TEST_F(Extents, WhatWasToldWhileAnotherUnitMayHaveAnsweredIsNotUsed) {
    begin();
    seek(4096, Sought::hole);
    unit().hold();
    tell({{8, 8184, 1}});
    expect_found(4 * mib);
    resume();
    seek(4096, Sought::hole);
    unit().hold();
    resume();
    tell({{8, 8184, 1}});
    expect_found(4 * mib);
    unit().hold();
    seek(4096, Sought::data);
    expect_found(4096);
    EXPECT_TRUE(open().empty());
}

TEST_F(Extents, AnInterruptAndARemovedUnitEndIt) {
    begin();
    seek(0, Sought::data);
    search->interrupt();
    advance(600ms);
    EXPECT_EQ(ends, 1u);
    EXPECT_EQ(end, OutcomeKind::interrupted);
    tell({{0, 8192, 1}});
    seek(0, Sought::data);
    unit().remove();
    settle();
    EXPECT_EQ(ends, 1u);
    EXPECT_EQ(end, OutcomeKind::gone);
}

}  // namespace
}  // namespace srpfs::lun
