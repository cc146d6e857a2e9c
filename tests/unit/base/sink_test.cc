// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "sink.h"

#include <gtest/gtest.h>

#include <climits>
#include <cstdlib>
#include <filesystem>
#include <regex>
#include <string>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace srpfs::log {
namespace {

constexpr unsigned too_many = 2000;
// Whoever waits for room is ended by it.
constexpr unsigned patience_seconds = 20;

unsigned count(const std::string& text, std::string_view what) {
    unsigned found = 0;
    for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
    return found;
}

void flood(Sink& sink) {
    for (unsigned i = 0; i < too_many; ++i) sink.write(Level::warning, "demo", "flooding");
}

class Bounded : public ::testing::Test {
protected:
    void SetUp() override { alarm(patience_seconds); }
    void TearDown() override { alarm(0); }
};

// A logger's socket, as it has it at /dev/log.
class Logger {
public:
    explicit Logger(const std::string& path) : socket_(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        path.copy(address.sun_path, sizeof address.sun_path - 1);
        EXPECT_EQ(bind(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    }
    ~Logger() { close(socket_); }
    Logger(const Logger&) = delete;
    Logger& operator=(const Logger&) = delete;
    // What has come and has not been read, a line each.
    [[nodiscard]] std::string everything() const {
        std::string all, text(65536, '\0');
        for (ssize_t got; (got = recv(socket_, text.data(), text.size(), MSG_DONTWAIT)) >= 0;)
            all += text.substr(0, static_cast<std::size_t>(got)) + "\n";
        return all;
    }

private:
    const int socket_;
};

class SystemLogTest : public Bounded {
protected:
    SystemLogTest() {
        std::string name = std::filesystem::temp_directory_path() / "srpfs-log-XXXXXX";
        directory = mkdtemp(name.data());
        path = directory + "/log";
    }
    ~SystemLogTest() override { std::filesystem::remove_all(directory); }

    std::string directory, path;
};

TEST_F(SystemLogTest, HasPriorityTimeAndProcessInFrontOfALine) {
    const Logger logger(path);
    SystemLog(path).write(Level::warning, "demo", "lun1: no room");
    SystemLog(path).write(Level::error, {}, "alone");
    const std::string number = std::to_string(getpid());
    const std::regex wanted("<28>[A-Z][a-z]{2} [ 1-3]\\d \\d{2}:\\d{2}:\\d{2} srpfs\\[" + number +
                            "\\]: demo: lun1: no room\n<27>.{15} srpfs\\[" + number + "\\]: alone\n");
    const std::string told = logger.everything();
    EXPECT_TRUE(std::regex_match(told, wanted)) << told;
}

TEST_F(SystemLogTest, ALoggerThatHangsIsNotWaitedForAndToldHowManyAreLost) {
    const Logger logger(path);
    SystemLog log(path);
    flood(log);
    const unsigned taken = count(logger.everything(), "flooding");
    ASSERT_LT(taken, too_many);
    ASSERT_GT(taken, 0U);
    log.write(Level::info, {}, "room again");
    const std::string told = logger.everything();
    EXPECT_NE(told.find(fmt::format("{} messages before this one are lost: the system log", too_many - taken)),
              std::string::npos)
        << told;
    EXPECT_EQ(count(told, "room again"), 1U) << told;
}

TEST_F(SystemLogTest, ALoggerThatIsStartedAgainGetsWhatComesThen) {
    SystemLog log(path);
    log.write(Level::info, {}, "before anybody is there");
    {
        const Logger first(path);
        log.write(Level::info, {}, "to the first");
        const std::string told = first.everything();
        EXPECT_EQ(count(told, "1 messages before this one are lost"), 1U) << told;
        EXPECT_EQ(count(told, "to the first"), 1U) << told;
    }
    log.write(Level::info, {}, "while it is away");
    std::filesystem::remove(path);
    const Logger second(path);
    log.write(Level::info, {}, "to the second");
    const std::string told = second.everything();
    EXPECT_EQ(count(told, "1 messages before this one are lost"), 1U) << told;
    EXPECT_EQ(count(told, "to the second"), 1U) << told;
}

class StreamTest : public Bounded {
protected:
    StreamTest() {
        EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
        EXPECT_EQ(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
    }
    ~StreamTest() override {
        for (const int fd : ends) close(fd);
    }
    [[nodiscard]] std::string everything() const {
        std::string all, text(65536, '\0');
        for (ssize_t got; (got = read(ends[0], text.data(), text.size())) > 0;)
            all += text.substr(0, static_cast<std::size_t>(got));
        return all;
    }

    int ends[2] = {-1, -1};
};

TEST_F(StreamTest, APipeThatNobodyReadsIsNotWaitedForAndToldHowManyAreLost) {
    Stream stream(ends[1], Stream::When::if_there_is_room);
    for (int i = 0; i < 3; ++i) flood(stream);
    stream.write(Level::info, {}, std::string(100000, 'x'));
    const std::string first = everything();
    const unsigned taken = count(first, "srpfs: demo: flooding\n");
    ASSERT_LT(taken, 3 * too_many);
    ASSERT_GT(taken, 0U);
    EXPECT_EQ(first.size(), taken * std::string_view("srpfs: demo: flooding\n").size()) << "a line is whole or lost";
    stream.write(Level::info, {}, "room again");
    EXPECT_EQ(everything(), fmt::format("srpfs: {} messages before this one are lost: whoever reads this took none\n"
                                        "srpfs: room again\n",
                                        3 * too_many + 1 - taken));
}

TEST_F(StreamTest, LongLinesAreCutToWhatAPipeHasRoomFor) {
    Stream stream(ends[1], Stream::When::if_there_is_room);
    stream.write(Level::info, {}, std::string(100000, 'x'));
    const std::string line = everything();
    EXPECT_EQ(line.size(), static_cast<std::size_t>(PIPE_BUF));
    EXPECT_EQ(line.back(), '\n');
}

}  // namespace
}  // namespace srpfs::log
