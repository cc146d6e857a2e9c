// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "journal.h"

#include <gtest/gtest.h>

#include <string>

#include <sys/socket.h>
#include <unistd.h>

namespace srpfs::log {
namespace {

// Ours blocks, as connect_journal()'s and standard error do; theirs does not.
class Pair {
public:
    explicit Pair(int type) {
        EXPECT_EQ(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds_), 0);
        const int small = 1;
        EXPECT_EQ(setsockopt(ours(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    }
    ~Pair() {
        for (const int fd : fds_) close(fd);
    }
    Pair(const Pair&) = delete;
    Pair& operator=(const Pair&) = delete;
    [[nodiscard]] int ours() const { return fds_[0]; }
    // Nothing: "".
    [[nodiscard]] std::string next() const {
        std::string text(65536, '\0');
        const ssize_t got = recv(fds_[1], text.data(), text.size(), MSG_DONTWAIT);
        text.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
        return text;
    }
    [[nodiscard]] std::string everything() const {
        std::string all;
        for (std::string one = next(); !one.empty(); one = next()) all += one;
        return all;
    }

private:
    int fds_[2] = {-1, -1};
};

unsigned count(const std::string& text, std::string_view what) {
    unsigned found = 0;
    for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
    return found;
}

constexpr unsigned too_many = 2000;
// Whoever waits for room is ended by it.
constexpr unsigned patience_seconds = 20;

class JournalThatTakesNone : public ::testing::TestWithParam<bool> {
protected:
    void SetUp() override { alarm(patience_seconds); }
    void TearDown() override { alarm(0); }
    void flood() {
        for (unsigned i = 0; i < too_many; ++i) journal.write(Level::warning, "demo", "flooding");
    }

    const bool with_socket = GetParam();
    Pair datagrams{SOCK_DGRAM}, stream{SOCK_STREAM};
    Journal journal{with_socket ? datagrams.ours() : -1, stream.ours()};
    Pair& end = with_socket ? datagrams : stream;
    Pair& other = with_socket ? stream : datagrams;
};
INSTANTIATE_TEST_SUITE_P(ByItsSocketOrByItsStream, JournalThatTakesNone, ::testing::Bool());

TEST_P(JournalThatTakesNone, IsNotWaitedForAndToldHowManyAreLost) {
    flood();
    const unsigned taken = count(end.everything(), "flooding");
    ASSERT_LT(taken, too_many);
    ASSERT_GT(taken, 0U);
    journal.write(Level::info, {}, "room again");
    const std::string told = end.everything();
    EXPECT_NE(told.find(fmt::format("{} messages before this one are lost", too_many - taken)), std::string::npos)
        << told;
    EXPECT_NE(told.find("room again"), std::string::npos) << told;
    journal.write(Level::info, {}, "and again");
    EXPECT_EQ(count(end.everything(), "lost"), 0U) << "it is told once";
    EXPECT_EQ(other.everything(), "") << "standard error is the journal's as well";
}

TEST_P(JournalThatTakesNone, EveryLostMessageIsToldOfWhenThereIsRoomForAFew) {
    unsigned written = 0, taken = 0, lost = 0;
    const auto look = [&](const std::string& text) {
        taken += count(text, "flooding");
        constexpr std::string_view mark = " messages before this one";
        for (auto at = text.find(mark); at != std::string::npos; at = text.find(mark, at + 1)) {
            const auto begin = text.find_last_not_of("0123456789", at - 1) + 1;
            lost += static_cast<unsigned>(std::stoul(text.substr(begin, at - begin)));
        }
    };
    for (int round = 0; round < 5; ++round) {
        flood();
        written += too_many;
        look(end.next());
    }
    look(end.everything());
    journal.write(Level::warning, "demo", "flooding");
    look(end.everything());
    EXPECT_EQ(taken + lost, written + 1);
}

TEST(JournalWithoutASocket, HasPrioritiesInFrontOfLines) {
    const Pair stream{SOCK_STREAM};
    int pipe_ends[2];
    ASSERT_EQ(pipe(pipe_ends), 0);
    Journal(-1, stream.ours()).write(Level::warning, "demo", "no room");
    EXPECT_EQ(stream.next(), "<4>demo: no room\n");
    Journal(-1, pipe_ends[1]).write(Level::error, {}, "alone");
    char text[64];
    EXPECT_EQ(std::string(text, static_cast<std::size_t>(read(pipe_ends[0], text, sizeof text))), "<3>alone\n");
    for (const int fd : pipe_ends) close(fd);
}

}  // namespace
}  // namespace srpfs::log
