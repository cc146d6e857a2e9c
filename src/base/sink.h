// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Who takes the lines of the log. Whoever writes does not wait for them: a logger that hangs, or one that has to write
// to one of our own units before it takes more, would hold a reactor, and with it the unit. Lines that there is no room
// for are lost, and the logger is told how many as soon as it takes something again.

#pragma once

#include <srpfs/base/log.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

namespace srpfs::log {

class Sink {
public:
    Sink(const Sink&) = delete;
    Sink& operator=(const Sink&) = delete;
    virtual ~Sink() = default;

    // On any thread. `message` is one line, without its end.
    void write(Level level, std::string_view subject, std::string_view message);

protected:
    // `name`: "the journal", for people.
    explicit Sink(std::string_view name) : name_(name) {}

    // On any thread. False: there is no room, or nobody there who might have some later.
    virtual bool send(Level level, std::string_view subject, std::string_view message) = 0;

private:
    const std::string_view name_;
    std::atomic<std::uint64_t> lost_{0};  // not yet told
};

// The system log as syslog(3) speaks to it, facility daemon. That function waits for as long as the logger does not
// read.
class SystemLog final : public Sink {
public:
    // `path`: the logger's socket. It may appear later, go away, and be another one's.
    explicit SystemLog(std::string path);
    ~SystemLog() override;

private:
    bool send(Level level, std::string_view subject, std::string_view message) override;

    const std::string path_;
    int socket_;  // -1: the kernel gives none
};

// Standard error, or whatever the number is: a file, a terminal, a pipe.
class Stream final : public Sink {
public:
    enum class When { always, if_there_is_room };
    // `always`: whoever writes waits. For programs that serve nobody, and to debug, when no line may be missing.
    Stream(int fd, When when) : Sink("whoever reads this"), fd_(fd), when_(when) {}

private:
    bool send(Level level, std::string_view subject, std::string_view message) override;

    const int fd_;
    const When when_;
    std::mutex mutex_;  // from the look whether there is room until that is used
};

}  // namespace srpfs::log
