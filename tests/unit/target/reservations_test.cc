// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Persistent reservations of the embedded target (SPC-4 5.12), by hand, between two and three initiators.
#include "test_initiator.h"

#include <srpfs/scsi/reservation.h>

namespace srpfs::target {
namespace {

using scsi::ReservationType;
using scsi::ReserveIn;
using scsi::ReserveOut;

constexpr int good = 0x00, conflict = 0x18;

class ReservationsTest : public TargetTest {
protected:
    void begin() {
        build("ram:1M");
        a = &login({.initiator_ext = 0xa});
        b = &login({.initiator_ext = 0xb});
    }
    static Bytes bytes_of_cdb(const scsi::Cdb& cdb) {
        Bytes bytes(cdb.span().begin(), cdb.span().end());
        bytes.resize(16);
        return bytes;
    }
    Rsp out(TestInitiator& who, ReserveOut action, std::uint64_t key, std::uint64_t action_key = 0,
            std::optional<ReservationType> type = {}) {
        const auto data = scsi::encode_reserve_out(key, action_key);
        std::copy(data.begin(), data.end(), who.out().begin());
        return execute(who, 0, bytes_of_cdb(scsi::persistent_reserve_out(action, type)), Data::out, {{0, data.size()}});
    }
    scsi::RegisteredKeys keys() {
        const Bytes data = ask(*a, 0, bytes_of_cdb(scsi::persistent_reserve_in(ReserveIn::read_keys, 4096)), 4096);
        return scsi::parse_read_keys(data).value_or(scsi::RegisteredKeys{});
    }
    std::optional<scsi::Reservation> reservation() {
        const Bytes data =
            ask(*a, 0, bytes_of_cdb(scsi::persistent_reserve_in(ReserveIn::read_reservation, 4096)), 4096);
        const auto told = scsi::parse_read_reservation(data);
        EXPECT_TRUE(told);
        return told ? told->reservation : std::nullopt;
    }
    int read(TestInitiator& who) { return execute(who, 0, cdb_10(0x28, 0, 1), Data::in, {{0, 512}}).status; }
    int write(TestInitiator& who) { return execute(who, 0, cdb_10(0x2a, 0, 1), Data::out, {{0, 512}}).status; }
    void both_register() {
        ASSERT_EQ(out(*a, ReserveOut::register_key, 0, 0xaa).status, good);
        ASSERT_EQ(out(*b, ReserveOut::register_key, 0, 0xbb).status, good);
    }
    void expect_attention(TestInitiator& who, int ascq) { expect_sense(execute(who, 0, cdb16({0x00})), 6, 0x2a, ascq); }

    TestInitiator *a = nullptr, *b = nullptr;
};

TEST_F(ReservationsTest, AKeyIsRegisteredChangedAndGivenUp) {
    begin();
    EXPECT_EQ(keys().generation, 0u);
    EXPECT_EQ(out(*a, ReserveOut::register_key, 0, 0xaa).status, good);
    EXPECT_EQ(out(*a, ReserveOut::register_key, 0, 0xab).status, conflict) << "it has a key";
    EXPECT_EQ(out(*a, ReserveOut::register_key, 0xaa, 0xab).status, good);
    EXPECT_EQ(out(*b, ReserveOut::register_and_ignore_existing_key, 0x77, 0xbb).status, good);
    EXPECT_EQ(keys().keys, (std::vector<std::uint64_t>{0xab, 0xbb}));
    EXPECT_EQ(out(*a, ReserveOut::register_key, 0xab, 0).status, good);
    EXPECT_EQ(keys().keys, (std::vector<std::uint64_t>{0xbb}));
    EXPECT_EQ(keys().generation, 4u);
}

TEST_F(ReservationsTest, OnlyThoseThatAreRegisteredMayReserve) {
    begin();
    EXPECT_EQ(out(*a, ReserveOut::reserve, 0, 0, ReservationType::write_exclusive).status, conflict);
    EXPECT_FALSE(reservation());
    both_register();
    EXPECT_EQ(out(*a, ReserveOut::reserve, 0xbb, 0, ReservationType::write_exclusive).status, conflict);
    EXPECT_EQ(out(*a, ReserveOut::reserve, 0xaa, 0, ReservationType::write_exclusive).status, good);
    EXPECT_EQ(out(*a, ReserveOut::reserve, 0xaa, 0, ReservationType::write_exclusive).status, good) << "again";
    EXPECT_EQ(out(*a, ReserveOut::reserve, 0xaa, 0, ReservationType::exclusive_access).status, conflict);
    EXPECT_EQ(out(*b, ReserveOut::reserve, 0xbb, 0, ReservationType::write_exclusive).status, conflict);
    ASSERT_TRUE(reservation());
    EXPECT_EQ(reservation()->key, 0xaau);
    EXPECT_EQ(reservation()->type, ReservationType::write_exclusive);
}

// Who may read and write, besides the holder.
struct Rights {
    ReservationType type;
    bool registered_reads, registered_writes, others_read, others_write;
};
class ReservationTypes : public ReservationsTest, public testing::WithParamInterface<Rights> {};
TEST_P(ReservationTypes, RefuseWhatTheirTableSays) {
    begin();
    both_register();
    TestInitiator& c = login({.initiator_ext = 0xc});
    const Rights& rights = GetParam();
    ASSERT_EQ(out(*a, ReserveOut::reserve, 0xaa, 0, rights.type).status, good);
    const auto status = [](bool allowed) { return allowed ? good : conflict; };
    EXPECT_EQ(read(*a), good);
    EXPECT_EQ(write(*a), good);
    EXPECT_EQ(read(*b), status(rights.registered_reads));
    EXPECT_EQ(write(*b), status(rights.registered_writes));
    EXPECT_EQ(read(c), status(rights.others_read));
    EXPECT_EQ(write(c), status(rights.others_write));
    EXPECT_EQ(execute(c, 0, cdb16({0x00})).status, good) << "TEST UNIT READY";
    EXPECT_EQ(ask(c, 0, inquiry_cdb()).size(), 36u);
}
INSTANTIATE_TEST_SUITE_P(
    All, ReservationTypes,
    testing::Values(Rights{ReservationType::write_exclusive, true, false, true, false},
                    Rights{ReservationType::exclusive_access, false, false, false, false},
                    Rights{ReservationType::write_exclusive_registrants_only, true, true, true, false},
                    Rights{ReservationType::exclusive_access_registrants_only, true, true, false, false},
                    Rights{ReservationType::write_exclusive_all_registrants, true, true, true, false},
                    Rights{ReservationType::exclusive_access_all_registrants, true, true, false, false}));

TEST_F(ReservationsTest, AReleaseIsToldToTheOtherRegistrants) {
    begin();
    both_register();
    const auto type = ReservationType::write_exclusive_registrants_only;
    ASSERT_EQ(out(*a, ReserveOut::reserve, 0xaa, 0, type).status, good);
    EXPECT_EQ(out(*b, ReserveOut::release, 0xbb, 0, type).status, good) << "nothing of its own to release";
    ASSERT_TRUE(reservation());
    expect_sense(out(*a, ReserveOut::release, 0xaa, 0, ReservationType::write_exclusive), 5, 0x26, 0x04);
    EXPECT_EQ(out(*a, ReserveOut::release, 0xaa, 0, type).status, good);
    EXPECT_FALSE(reservation());
    expect_attention(*b, 0x04);
    EXPECT_EQ(write(*b), good);
}

TEST_F(ReservationsTest, ThePreemptedLosesItsKeyAndIsTold) {
    begin();
    both_register();
    ASSERT_EQ(out(*a, ReserveOut::reserve, 0xaa, 0, ReservationType::exclusive_access).status, good);
    EXPECT_EQ(out(*b, ReserveOut::preempt, 0xbb, 0xcc, ReservationType::write_exclusive).status, conflict);
    EXPECT_EQ(out(*b, ReserveOut::preempt, 0xbb, 0xaa, ReservationType::write_exclusive).status, good);
    expect_attention(*a, 0x05);
    EXPECT_EQ(write(*a), conflict);
    EXPECT_EQ(read(*a), good);
    EXPECT_EQ(keys().keys, (std::vector<std::uint64_t>{0xbb}));
    ASSERT_TRUE(reservation());
    EXPECT_EQ(reservation()->key, 0xbbu);
    EXPECT_EQ(reservation()->type, ReservationType::write_exclusive);
}

TEST_F(ReservationsTest, GivingUpTheKeyEndsItsReservation) {
    begin();
    both_register();
    ASSERT_EQ(out(*a, ReserveOut::reserve, 0xaa, 0, ReservationType::exclusive_access).status, good);
    EXPECT_EQ(out(*a, ReserveOut::register_key, 0xaa, 0).status, good);
    EXPECT_FALSE(reservation());
    EXPECT_EQ(read(*b), good);
}

TEST_F(ReservationsTest, AllRegistrantsHoldUntilTheLastOneGoes) {
    begin();
    both_register();
    const auto type = ReservationType::exclusive_access_all_registrants;
    ASSERT_EQ(out(*a, ReserveOut::reserve, 0xaa, 0, type).status, good);
    EXPECT_EQ(reservation()->key, 0u);
    EXPECT_EQ(out(*a, ReserveOut::register_key, 0xaa, 0).status, good);
    EXPECT_EQ(read(*a), conflict);
    EXPECT_EQ(read(*b), good);
    EXPECT_EQ(out(*b, ReserveOut::register_key, 0xbb, 0).status, good);
    EXPECT_EQ(read(*a), good);
}

TEST_F(ReservationsTest, ClearForgetsEverything) {
    begin();
    both_register();
    ASSERT_EQ(out(*a, ReserveOut::reserve, 0xaa, 0, ReservationType::exclusive_access).status, good);
    EXPECT_EQ(out(*b, ReserveOut::clear, 0xbb).status, good);
    expect_attention(*a, 0x03);
    EXPECT_TRUE(keys().keys.empty());
    EXPECT_FALSE(reservation());
}

TEST_F(ReservationsTest, TheyBelongToTheNexusAndOutliveItsChannels) {
    begin();
    both_register();
    ASSERT_EQ(out(*a, ReserveOut::reserve, 0xaa, 0, ReservationType::exclusive_access).status, good);
    a->disconnect();
    settle();
    a = &login({.initiator_ext = 0xa});
    EXPECT_EQ(write(*a), good);
    EXPECT_EQ(write(*b), conflict);
}

TEST_F(ReservationsTest, APowerLossForgetsThem) {
    begin();
    both_register();
    ASSERT_EQ(out(*a, ReserveOut::reserve, 0xaa, 0, ReservationType::exclusive_access).status, good);
    device->crash([](unsigned, std::uint64_t) { return false; });
    device->restart();
    settle();
    a = &login({.initiator_ext = 0xa});
    EXPECT_TRUE(keys().keys.empty());
    EXPECT_EQ(keys().generation, 0u);
}

TEST_F(ReservationsTest, AParameterListOfTheWrongLengthIsRefused) {
    begin();
    expect_sense(
        execute(*a, 0, bytes_of_cdb(scsi::persistent_reserve_out(ReserveOut::register_key, {})), Data::out, {{0, 23}}),
        5, 0x1a, 0);
    expect_sense(execute(*a, 0, bytes_of_cdb(scsi::persistent_reserve_out(ReserveOut::register_key, {}))), 5, 0x1a, 0);
}

}  // namespace
}  // namespace srpfs::target
