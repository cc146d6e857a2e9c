// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Control and stream files for tests: they remember what was done to them.

#pragma once

#include <srpfs/fs/control_file.h>

#include <cerrno>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace srpfs::fs::test {

struct ControlFileRecord {
    std::string content = "value\n";
    int read_error = 0;
    unsigned reads = 0;
    std::vector<std::string> commands;
    std::vector<std::string> refused;  // why it was no command
    // What a write does; by default it succeeds at once.
    std::function<void(std::string_view, std::shared_ptr<PendingCall>)> on_write;
};

// A file whose content comes when the test says so.
class SlowControlFile final : public ControlFile {
public:
    explicit SlowControlFile(std::vector<std::shared_ptr<PendingCall>>& calls) : calls_(calls) {}
    Result<std::string> read() override { return Error(EIO, "not at once"); }
    bool is_slow() const override { return true; }
    void read_later(std::shared_ptr<PendingCall> call) override { calls_.push_back(std::move(call)); }
    void write(std::string_view, std::shared_ptr<PendingCall> call) override { call->fail(EACCES); }

private:
    std::vector<std::shared_ptr<PendingCall>>& calls_;
};

class RecordingControlFile : public ControlFile {
public:
    explicit RecordingControlFile(std::shared_ptr<ControlFileRecord> record) : record_(std::move(record)) {}
    Result<std::string> read() override {
        ++record_->reads;
        if (record_->read_error != 0) return Error{record_->read_error, "as the test wanted"};
        return record_->content;
    }
    void write(std::string_view command, std::shared_ptr<PendingCall> call) override {
        record_->commands.emplace_back(command);
        if (record_->on_write) return record_->on_write(command, std::move(call));
        call->succeed();
    }
    void refuse(const Error& why, std::shared_ptr<PendingCall> call) override {
        record_->refused.push_back(why.context);
        ControlFile::refuse(why, std::move(call));
    }

private:
    std::shared_ptr<ControlFileRecord> record_;
};

class DialogueControlFile final : public RecordingControlFile {
public:
    using RecordingControlFile::RecordingControlFile;
    bool is_dialogue() const override { return true; }
};

// Lines that are there at once, and readers that wait for the next.
struct StreamRecord {
    std::vector<std::string> lines;
    struct Waiter {
        std::shared_ptr<std::uint64_t> cursor;
        std::shared_ptr<PendingCall> call;
    };
    std::vector<Waiter> waiters;
};

class RecordingStreamFile final : public StreamFile {
public:
    explicit RecordingStreamFile(std::shared_ptr<StreamRecord> record) : record_(std::move(record)) {}
    std::uint64_t open_cursor() override { return 0; }
    void read_next(std::shared_ptr<std::uint64_t> cursor, std::size_t, std::shared_ptr<PendingCall> call) override {
        if (*cursor < record_->lines.size()) return call->succeed_with(record_->lines[(*cursor)++]);
        if (call->nonblocking()) return call->fail(EAGAIN);
        auto* raw = call.get();
        raw->on_interrupt([raw] { raw->fail(EINTR); });
        record_->waiters.push_back({std::move(cursor), std::move(call)});
    }

private:
    std::shared_ptr<StreamRecord> record_;
};

}  // namespace srpfs::fs::test
