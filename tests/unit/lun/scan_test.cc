// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What a target says about its units, in all the ways targets differ, and what a scan makes of it (srp-targets; SPC-4,
// SBC-3).
#include "lun_fixture.h"

#include <srpfs/lun/probe.h>

#include <map>

namespace srpfs::lun {
namespace {

using scripted::check_condition;
using scripted::put;

// What a unit answers; no data and no answer set: ILLEGAL REQUEST, invalid operation code.
struct Said {
    Bytes data;
    std::optional<Answer> answer;
};

Bytes inquiry(unsigned peripheral) {
    Bytes bytes(36, std::byte{' '});
    put(bytes, 0, 8, 0);
    put(bytes, 0, 1, peripheral);
    put(bytes, 2, 1, 6);
    put(bytes, 4, 1, 31);
    std::memcpy(bytes.data() + 8, "LIO-ORG ram-disk        6.1 ", 28);
    return bytes;
}
Bytes vpd(unsigned page, const Bytes& content) {
    Bytes bytes(4);
    put(bytes, 1, 1, page);
    put(bytes, 2, 2, content.size());
    for (const std::byte one : content) bytes.push_back(one);
    return bytes;
}
Bytes naa() {
    Bytes bytes = scripted::bytes_of({1, 3, 0, 16});
    for (unsigned i = 0; i < 16; ++i) bytes.push_back(static_cast<std::byte>(i == 0 ? 0x60 : i));
    return bytes;
}
Bytes capacity_10(std::uint32_t last, std::uint32_t block) {
    Bytes bytes(8);
    put(bytes, 0, 4, last);
    put(bytes, 4, 4, block);
    return bytes;
}
Bytes capacity_16(std::uint64_t last, std::uint32_t block, unsigned exponent = 0) {
    Bytes bytes(32);
    put(bytes, 0, 8, last);
    put(bytes, 8, 4, block);
    put(bytes, 13, 1, exponent);
    return bytes;
}
// Device-specific parameter; page 08h with or without WCE.
Bytes mode_6(unsigned parameter, unsigned caching) {
    Bytes bytes(24);
    put(bytes, 0, 1, 23);
    put(bytes, 2, 1, parameter);
    put(bytes, 4, 2, 0x0812);
    put(bytes, 6, 1, caching);
    return bytes;
}
Bytes mode_10(unsigned parameter, unsigned caching) {
    Bytes bytes(28);
    put(bytes, 0, 2, 26);
    put(bytes, 3, 1, parameter);
    put(bytes, 8, 2, 0x0812);
    put(bytes, 10, 1, caching);
    return bytes;
}

class ScanOf : public LunTest, private ProbeListener {
protected:
    struct FakeUnit {
        std::map<unsigned, Said> said;  // by operation code; VPD pages by 0x100 + page
    };
    FakeUnit disk_unit() {
        FakeUnit unit;
        unit.said[0x12].data = inquiry(0x00);
        unit.said[0x100].data = vpd(0x00, scripted::bytes_of({0x00, 0x80, 0x83, 0xb0}));
        unit.said[0x180].data = vpd(0x80, scripted::bytes_of({'s', '1'}));
        unit.said[0x183].data = vpd(0x83, naa());
        Bytes limits_page(60);
        put(limits_page, 4, 4, 2048);
        unit.said[0x1b0].data = vpd(0xb0, limits_page);
        unit.said[0x9e].data = capacity_16(2047, 512);
        unit.said[0x25].data = capacity_10(2047, 512);
        unit.said[0x1a].data = mode_6(0x00, 0x00);
        return unit;
    }
    // The target has the units in `fakes`, and reports those in `reported`.
    void begin_target() {
        begin_link();
        fabric.on_command = [this](Seen& seen) {
            reply(seen);
            return true;
        };
    }
    void report(std::initializer_list<std::uint64_t> luns) {
        Bytes list(8 + luns.size() * 8);
        put(list, 0, 4, luns.size() * 8);
        std::size_t at = 8;
        for (const std::uint64_t lun : luns) put(list, std::exchange(at, at + 8), 8, lun);
        report_luns.data = list;
    }
    void reply(Seen& seen) {
        if (silent) return;
        const unsigned opcode = seen.opcode();
        Said said;
        if (opcode == 0xa0) {
            said = report_luns;
        } else if (const auto fake = fakes.find(seen.lun); fake == fakes.end()) {
            said.answer = check_condition(0x5, 0x25, 0x00);
        } else {
            const unsigned page = opcode == 0x12 && (static_cast<unsigned>(seen.cdb[1]) & 1)
                                      ? 0x100 + static_cast<unsigned>(seen.cdb[2])
                                      : opcode;
            if (const auto what = fake->second.said.find(page); what != fake->second.said.end()) said = what->second;
        }
        if (said.answer) return seen.peer->answer(seen, *said.answer);
        if (said.data.empty()) return seen.peer->answer(seen, check_condition(0x5, 0x20, 0x00));
        const std::size_t bytes = std::min<std::size_t>(said.data.size(), seen.length);
        std::memcpy(seen.memory().data(), said.data.data(), bytes);
        Answer answer;
        if (bytes < seen.length) answer.in_under = static_cast<std::uint32_t>(seen.length - bytes);
        seen.peer->answer(seen, answer);
    }
    void scan(Duration limit = 30s) {
        limit_ = limit;
        begun = ask_for_list(*engine, *link, limit, *this);
        settle();
        advance(1s);
    }
    void on_list(std::vector<scsi::Lun> luns, std::uint64_t) override {
        listed = std::move(luns);
        luns_left.assign(listed.begin(), listed.end());
    }
    void on_unit(UnitReport report) override {
        const auto place =
            std::find_if(found.begin(), found.end(), [&](const auto& one) { return report.lun < one.lun; });
        found.insert(place, std::move(report));
    }
    void on_probe_end(Result<void> result) override {
        if (!result) problem = result.error();
        // After the list each unit, one after the other.
        if (result && !luns_left.empty()) {
            const scsi::Lun next = luns_left.front();
            luns_left.pop_front();
            begun = look_at(*engine, *link, next, limit_, *this);
        } else {
            ++scans;
        }
    }
    void on_probe_gone() override { ++gone; }
    ProbeListener& listener() { return *this; }
    // The only unit found, which can be used.
    const UnitInfo& only() {
        EXPECT_EQ(scans, 1u);
        EXPECT_EQ(found.size(), 1u);
        if (found.empty() || !found[0].info) {
            ADD_FAILURE() << (found.empty() ? problem.context : found[0].problem);
            found.assign(1, {.lun = {}, .info = std::make_shared<const UnitInfo>(), .problem = {}});
        }
        return *found[0].info;
    }
    const UnitInfo& scan_one(FakeUnit unit) {
        fakes[0] = std::move(unit);
        report({0});
        begin_target();
        scan();
        return only();
    }
    // Why the only unit cannot be used.
    std::string scan_useless(FakeUnit unit) {
        fakes[0] = std::move(unit);
        report({0});
        begin_target();
        scan();
        EXPECT_EQ(found.size(), 1u);
        if (found.empty()) return problem.context;
        EXPECT_EQ(found[0].info, nullptr);
        return found[0].problem;
    }

    std::map<std::uint64_t, FakeUnit> fakes;
    Said report_luns;
    bool silent = false;
    std::shared_ptr<Probe> begun;
    Duration limit_{};
    unsigned scans = 0;
    unsigned gone = 0;
    std::vector<scsi::Lun> listed;
    std::deque<scsi::Lun> luns_left;
    std::vector<UnitReport> found;
    Error problem{0, ""};
};

TEST_F(ScanOf, AnOrdinaryDiskTellsEverything) {
    const UnitInfo& one = scan_one(disk_unit());
    EXPECT_EQ(one.wwid, "naa.600102030405060708090a0b0c0d0e0f");
    EXPECT_EQ(one.vendor, "LIO-ORG");
    EXPECT_EQ(one.model, "ram-disk");
    EXPECT_EQ(one.serial, "s1");
    EXPECT_EQ(one.blocks, 2048u);
    EXPECT_EQ(one.block_bytes, 512u);
    EXPECT_EQ(one.transfer_blocks_max, 2048u);
    EXPECT_FALSE(one.read_only);
    EXPECT_FALSE(one.write_cache);
    EXPECT_FALSE(one.fua);
}

TEST_F(ScanOf, A4096ByteDiskIsTakenAsItIs) {
    FakeUnit unit = disk_unit();
    unit.said[0x9e].data = capacity_16(1000, 4096);
    const UnitInfo& one = scan_one(unit);
    EXPECT_EQ(one.blocks, 1001u);
    EXPECT_EQ(one.block_bytes, 4096u);
}

TEST_F(ScanOf, A512eDiskTellsItsPhysicalBlock) {
    FakeUnit unit = disk_unit();
    unit.said[0x9e].data = capacity_16(1000, 512, 3);
    EXPECT_EQ(scan_one(unit).physical_block_bytes, 4096u);
}

TEST_F(ScanOf, CapacityBeyond32BitsComesFromTheLongForm) {
    FakeUnit unit = disk_unit();
    unit.said[0x9e].data = capacity_16(std::uint64_t{1} << 40, 512);
    EXPECT_EQ(scan_one(unit).blocks, (std::uint64_t{1} << 40) + 1);
}

TEST_F(ScanOf, AnOldDiskHasOnlyTheShortCapacity) {
    FakeUnit unit = disk_unit();
    unit.said.erase(0x9e);
    unit.said[0x25].data = capacity_10(99, 512);
    EXPECT_EQ(scan_one(unit).blocks, 100u);
}

TEST_F(ScanOf, AShortCapacityThatIsFullIsNone) {
    FakeUnit unit = disk_unit();
    unit.said.erase(0x9e);
    unit.said[0x25].data = capacity_10(0xffffffff, 512);
    EXPECT_NE(scan_useless(unit).find("READ CAPACITY"), std::string::npos);
}

TEST_F(ScanOf, AnEmptyDiskIsUseless) {
    FakeUnit unit = disk_unit();
    unit.said[0x9e].data = capacity_16(UINT64_MAX, 512);
    unit.said[0x25].data = capacity_10(0xffffffff, 512);
    EXPECT_FALSE(scan_useless(unit).empty());
}

TEST_F(ScanOf, BlocksBeyond4096BytesAreUseless) {
    FakeUnit unit = disk_unit();
    unit.said[0x9e].data = capacity_16(99, 8192);
    EXPECT_NE(scan_useless(unit).find("8192"), std::string::npos);
}

TEST_F(ScanOf, BlocksOf520BytesAreUseless) {
    FakeUnit unit = disk_unit();
    unit.said[0x9e].data = capacity_16(99, 520);
    unit.said[0x25].data = capacity_10(99, 520);
    EXPECT_FALSE(scan_useless(unit).empty());
}

TEST_F(ScanOf, WithoutPage83TheSerialNumberIsTheName) {
    FakeUnit unit = disk_unit();
    unit.said[0x100].data = vpd(0x00, scripted::bytes_of({0x00, 0x80}));
    unit.said.erase(0x183);
    EXPECT_EQ(scan_one(unit).wwid, "t10.LIO-ORG.ram-disk.s1");
}

TEST_F(ScanOf, WithoutAnyPageThereIsNoName) {
    FakeUnit unit = disk_unit();
    for (const unsigned page : {0x100U, 0x180U, 0x183U, 0x1b0U}) unit.said.erase(page);
    const UnitInfo& one = scan_one(unit);
    EXPECT_EQ(one.wwid, "");
    EXPECT_EQ(one.transfer_blocks_max, 0u);
}

// Without its name a unit would look like another one.
TEST_F(ScanOf, APassingErrorOfPage83IsNotAMissingName) {
    FakeUnit unit = disk_unit();
    unit.said[0x183].answer = check_condition(0x4, 0x44, 0x00);
    EXPECT_NE(scan_useless(unit).find("83h"), std::string::npos);
}

TEST_F(ScanOf, ACutPage83IsNotAMissingName) {
    FakeUnit unit = disk_unit();
    unit.said[0x183].data.resize(10);
    EXPECT_NE(scan_useless(unit).find("83h"), std::string::npos);
}

TEST_F(ScanOf, AWriteCacheAndFuaAreSeen) {
    FakeUnit unit = disk_unit();
    unit.said[0x1a].data = mode_6(0x10, 0x04);
    const UnitInfo& one = scan_one(unit);
    EXPECT_TRUE(one.write_cache);
    EXPECT_TRUE(one.fua);
}

TEST_F(ScanOf, AWriteProtectedDiskIsReadOnly) {
    FakeUnit unit = disk_unit();
    unit.said[0x1a].data = mode_6(0x80, 0x00);
    EXPECT_TRUE(scan_one(unit).read_only);
}

TEST_F(ScanOf, TheLongModeSenseIsAskedWhenTheShortOneFails) {
    FakeUnit unit = disk_unit();
    unit.said.erase(0x1a);
    unit.said[0x5a].data = mode_10(0x90, 0x04);
    const UnitInfo& one = scan_one(unit);
    EXPECT_TRUE(one.read_only);
    EXPECT_TRUE(one.write_cache);
}

TEST_F(ScanOf, ADiskWithoutModeDataIsTakenToHaveACache) {
    FakeUnit unit = disk_unit();
    unit.said.erase(0x1a);
    const UnitInfo& one = scan_one(unit);
    EXPECT_TRUE(one.write_cache);
    EXPECT_FALSE(one.fua);
    EXPECT_FALSE(one.read_only);
}

// ---- which units there are ----

TEST_F(ScanOf, ATargetWithoutReportLunsHasUnitZero) {
    fakes[0] = disk_unit();
    begin_target();
    scan();
    EXPECT_EQ(only().blocks, 2048u);
}

TEST_F(ScanOf, UnitsComeInAscendingOrderAndOnce) {
    for (const std::uint64_t lun : {std::uint64_t{0}, std::uint64_t{2} << 48, std::uint64_t{1} << 48})
        fakes[lun] = disk_unit();
    report({0x0002000000000000, 0, 0x0001000000000000, 0x0002000000000000});
    begin_target();
    scan();
    ASSERT_EQ(found.size(), 3u);
    EXPECT_EQ(found[0].lun, scsi::Lun::from_number(0));
    EXPECT_EQ(found[1].lun, scsi::Lun::from_number(1));
    EXPECT_EQ(found[2].lun, scsi::Lun::from_number(2));
}

TEST_F(ScanOf, UnitZeroMayBeAbsent) {
    fakes[0x0001000000000000] = disk_unit();
    report({0x0001000000000000});
    begin_target();
    scan();
    only();
}

TEST_F(ScanOf, NoUnitsAreNoUnits) {
    report({});
    begin_target();
    scan();
    EXPECT_EQ(scans, 1u);
    EXPECT_TRUE(found.empty());
    EXPECT_EQ(problem.context, "");
}

TEST_F(ScanOf, AListThatIsCutMakesNoUnitVanish) {
    fakes[0] = disk_unit();
    report({0, 0x0001000000000000});
    report_luns.data.resize(16);
    begin_target();
    scan();
    EXPECT_EQ(problem.errno_value(), EPROTO);
    EXPECT_EQ(scans, 1u);
}

TEST_F(ScanOf, AListShorterThanItsHeaderIsAnError) {
    report_luns.data = Bytes(7);
    begin_target();
    scan();
    EXPECT_EQ(problem.errno_value(), EPROTO);
}

TEST_F(ScanOf, ALongListIsAskedForAgainWhole) {
    Bytes list(8 + 3000 * 8);
    put(list, 0, 4, 3000 * 8);
    for (unsigned i = 0; i < 3000; ++i) put(list, 8 + i * std::size_t{8}, 8, std::uint64_t{i} << 48);
    report_luns.data = list;
    begin_target();
    scan(600s);
    advance(600s);
    EXPECT_EQ(found.size(), 3000u);  // none is there, but all were asked
    ASSERT_GE(sent().size(), 2u);
    EXPECT_EQ(sent()[1].opcode(), 0xa0u);
    EXPECT_GE(sent()[1].length, list.size());
}

TEST_F(ScanOf, AReportedUnitThatIsNotThereIsNotPresent) {
    report({0});
    begin_target();
    scan();
    ASSERT_EQ(found.size(), 1u);
    EXPECT_FALSE(found[0].present);
    EXPECT_EQ(found[0].info, nullptr);
}

// Another unit takes the number between two questions: what was said before is not about it.
TEST_F(ScanOf, AUnitThatChangesMeanwhileIsAskedAllOverAgain) {
    begin_target();
    report({0});
    FakeUnit before = disk_unit();
    before.said.erase(0x100);  // no identity
    before.said[0x9e].answer = check_condition(0x6, 0x3f, 0x0e);
    fakes[0] = before;
    bool is_changed = false;
    fabric.on_command = [&](Seen& seen) {
        reply(seen);
        if (seen.opcode() == 0x9e && !std::exchange(is_changed, true)) fakes[0] = disk_unit();
        return true;
    };
    scan();
    ASSERT_EQ(scans, 1u);
    ASSERT_EQ(found.size(), 1u);
    ASSERT_TRUE(found[0].info);
    EXPECT_FALSE(found[0].info->wwid.empty());
    EXPECT_EQ(found[0].info->blocks, 2048u);
}

// Half of it might be about one unit and half about another.
TEST_F(ScanOf, WhatChangesAgainAndAgainIsNotTakenForAnAnswer) {
    begin_target();
    fakes[0] = disk_unit();
    report({0});
    bool told = false;
    fabric.on_command = [&](Seen& seen) {
        if (seen.opcode() == 0x9e && !std::exchange(told, !told))
            seen.peer->answer(seen, check_condition(0x6, 0x3f, 0x0e));
        else
            reply(seen);
        return true;
    };
    scan();
    ASSERT_EQ(found.size(), 1u);
    EXPECT_EQ(found[0].info, nullptr);
    EXPECT_FALSE(found[0].answered);
    EXPECT_TRUE(found[0].present);
    EXPECT_NE(found[0].problem.find("again and again"), std::string::npos) << found[0].problem;
}

TEST_F(ScanOf, AListThatChangesAgainAndAgainIsNone) {
    begin_target();
    report({0});
    bool told = false;
    fabric.on_command = [&](Seen& seen) {
        if (!std::exchange(told, !told))
            seen.peer->answer(seen, check_condition(0x6, 0x3f, 0x0e));
        else
            reply(seen);
        return true;
    };
    scan();
    EXPECT_TRUE(listed.empty());
    EXPECT_EQ(problem.errno_value(), EAGAIN);
}

// However often the connection is lost: each time it may be another unit.
TEST_F(ScanOf, WhatIsToldIsWhatTheLastConnectionSaid) {
    begin_target();
    fakes[0] = disk_unit();
    std::map<const Peer*, unsigned> capacities;
    bool stops = true;
    // It is interrupted between identity and capacity each time.
    fabric.on_command = [&](Seen& seen) {
        const bool is_held =
            stops && seen.opcode() == 0x9e && (fabric.peers.size() == 1 || ++capacities[seen.peer] == 2);
        if (!is_held) reply(seen);
        return true;
    };
    begun = look_at(*engine, *link, scsi::Lun::from_number(0), 60s, listener());
    settle();
    advance(100ms);
    for (unsigned i = 1; i <= 12; ++i) {
        ASSERT_EQ(scans, 0u) << "told after connection " << i << ", half of which was lost";
        lose_connection();
        Bytes name = naa();
        name.back() = static_cast<std::byte>(0xa0 + i);
        fakes[0].said[0x183].data = vpd(0x83, name);
        stops = i < 12;
        reconnect();
        advance(100ms);
    }
    const std::string wwid = only().wwid;
    EXPECT_EQ(wwid.substr(wwid.size() - 2), "ac");
}

TEST_F(ScanOf, ALookThatBeginsWithoutAConnectionEndsWithTheLink) {
    begin_target();
    lose_connection();
    begun = look_at(*engine, *link, scsi::Lun::from_number(0), 60s, listener());
    settle();
    advance(1s);
    EXPECT_EQ(scans, 0u);
    link->set_state(initiator::PortState::lost);
    advance(1s);
    EXPECT_EQ(scans, 1u);
    EXPECT_EQ(gone, 1u);
    EXPECT_EQ(problem.errno_value(), ENOTCONN);
}

class Peripheral : public ScanOf, public testing::WithParamInterface<std::pair<unsigned, bool>> {};
TEST_P(Peripheral, IsNoDisk) {
    FakeUnit unit = disk_unit();
    unit.said[0x12].data = inquiry(GetParam().first);
    scan_useless(unit);
    ASSERT_EQ(found.size(), 1u);
    EXPECT_EQ(found[0].present, GetParam().second);
}
// Tape, CD, array controller, enclosure; and nothing: qualifiers 001b and 011b, type 1Fh.
INSTANTIATE_TEST_SUITE_P(All, Peripheral,
                         testing::Values(std::pair{0x01U, true}, std::pair{0x05U, true}, std::pair{0x0cU, true},
                                         std::pair{0x0dU, true}, std::pair{0x20U, false}, std::pair{0x7fU, false},
                                         std::pair{0x1fU, false}));

TEST_F(ScanOf, ACutInquiryIsUseless) {
    FakeUnit unit = disk_unit();
    unit.said[0x12].data.resize(4);
    EXPECT_NE(scan_useless(unit).find("INQUIRY"), std::string::npos);
}

// ---- when it does not go well ----

TEST_F(ScanOf, AttentionsOnTheWayAreRepeatedAndPassedOn) {
    begin_target();
    add_unit(0);
    fakes[0] = disk_unit();
    report({0});
    report_luns.answer = check_condition(0x6, 0x29, 0x00);
    fabric.on_command = [this](Seen& seen) {
        reply(seen);
        report_luns.answer.reset();
        return true;
    };
    scan();
    only();
    ASSERT_EQ(attentions.size(), 1u);  // the unit that has been known until now hears of it
    EXPECT_TRUE(attentions[0].hold);
}

TEST_F(ScanOf, ATargetThatDoesNotAnswerIsATimeOutAndGoneOnceNothingIsLeft) {
    begin_target();
    silent = true;
    scan(5s);
    advance(5s);
    EXPECT_EQ(scans, 1u);
    EXPECT_EQ(problem.errno_value(), ETIMEDOUT);
    EXPECT_EQ(gone, 0u);  // its command is still in flight
    ASSERT_FALSE(open().empty());
    answer(*open()[0]);
    advance(1s);
    EXPECT_EQ(gone, 1u);
    EXPECT_EQ(scans, 1u);
}

TEST_F(ScanOf, AUnitThatDoesNotAnswerIsReportedAsSuch) {
    begin_target();
    fakes[0] = disk_unit();
    report({0});
    fabric.on_command = [this](Seen& seen) {
        if (seen.opcode() == 0xa0) reply(seen);
        return true;
    };
    scan(5s);
    EXPECT_EQ(scans, 0u);
    advance(5s);
    EXPECT_EQ(scans, 1u);
    EXPECT_EQ(problem.errno_value(), 0);
    ASSERT_EQ(found.size(), 1u);
    EXPECT_FALSE(found[0].answered);
    EXPECT_TRUE(found[0].present);
    EXPECT_EQ(found[0].info, nullptr);
    EXPECT_EQ(gone, 1u);  // that was the list
    answer(*open().at(0));
    advance(1s);
    EXPECT_EQ(gone, 2u);
}

TEST_F(ScanOf, ALookAsksNobodyElse) {
    begin_target();
    for (const std::uint64_t lun : {0ULL, 1ULL}) fakes[lun << 48] = disk_unit();
    begun = look_at(*engine, *link, scsi::Lun::from_number(1), 5s, listener());
    settle();
    advance(1s);
    EXPECT_EQ(scans, 1u);
    EXPECT_EQ(gone, 1u);
    ASSERT_EQ(found.size(), 1u);
    EXPECT_TRUE(found[0].info);
    EXPECT_TRUE(listed.empty());
    for (const Seen& seen : target().commands) EXPECT_EQ(seen.lun, std::uint64_t{1} << 48);
}

// The attention is told to TEST UNIT READY, so what is asked after it is what is there now: once is enough.
TEST_F(ScanOf, AnAttentionOfBeforeIsTakenInAtOnce) {
    begin_target();
    fakes[0] = disk_unit();
    report({0});
    target().keeps_test_unit_ready = true;
    bool told = false;
    fabric.on_command = [&](Seen& seen) {
        if (seen.opcode() == 0x00 && !std::exchange(told, true))
            seen.peer->answer(seen, check_condition(0x6, 0x29, 0x03));
        else
            reply(seen);
        return true;
    };
    scan();
    EXPECT_TRUE(told);
    only();
    unsigned inquiries = 0;
    for (const Seen& seen : target().commands)
        inquiries += seen.opcode() == 0x12 && (static_cast<unsigned>(seen.cdb[1]) & 1) == 0;
    EXPECT_EQ(inquiries, 1u);
}

TEST_F(ScanOf, ALinkThatFailsEndsIt) {
    begin_target();
    silent = true;
    scan();
    lose_connection();
    link->set_state(initiator::PortState::fail_fast);
    advance(1s);
    EXPECT_EQ(scans, 1u);
    EXPECT_EQ(problem.errno_value(), ENOTCONN);
}

// What it has in flight may take longer to end than it had time.
TEST_F(ScanOf, ALookThatIsOverDoesNotTellThatItsTimeIsUp) {
    begin_target();
    fakes[0] = disk_unit();
    silent = true;
    target().keeps_test_unit_ready = true;
    begun = look_at(*engine, *link, scsi::Lun::from_number(0), 5s, listener());
    settle();
    advance(100ms);
    cancel_probe(begun);
    advance(10s);
    ASSERT_FALSE(open().empty());
    EXPECT_TRUE(found.empty());
    EXPECT_EQ(scans, 0u);
    answer(*open().at(0));
    advance(1s);
    EXPECT_EQ(gone, 1u);
}

TEST_F(ScanOf, ACancelledOneTellsNobody) {
    begin_target();
    silent = true;
    scan();
    cancel_probe(begun);
    answer(*open().at(0));
    advance(1s);
    EXPECT_EQ(scans, 0u);
    EXPECT_EQ(gone, 1u);
}

}  // namespace
}  // namespace srpfs::lun
