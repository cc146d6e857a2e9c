// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "control_calls.h"

#include "client.h"
#include "files.h"
#include "world.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace srpfs::fs::test {
namespace {

using ::srpfs::fs::parse_command;

std::string command(std::string_view written) {
    const auto parsed = parse_command(written);
    return parsed ? std::string(*parsed) : "ERROR";
}
int command_error(std::string_view written) {
    const auto parsed = parse_command(written);
    return parsed ? 0 : parsed.error().errno_value();
}

TEST(ParseCommand, TrimsBlanksAndLineEnds) {
    EXPECT_EQ(command("off\n"), "off");
    EXPECT_EQ(command("off"), "off");
    EXPECT_EQ(command("  \t10 \r\n"), "10");
    EXPECT_EQ(command("a b\nc\n"), "a b\nc");
    EXPECT_EQ(command(""), "");
    EXPECT_EQ(command(" \r\n\t"), "");
}

TEST(ParseCommand, RefusesNulAndExcess) {
    EXPECT_EQ(command_error(std::string_view("a\0b", 3)), EINVAL);
    EXPECT_EQ(command_error(std::string_view("\0", 1)), EINVAL);
    EXPECT_EQ(command_error(std::string(65536, 'x')), 0);
    EXPECT_EQ(command_error(std::string(65537, 'x')), E2BIG);
    EXPECT_EQ(command_error(std::string(65537, '\0')), E2BIG);
}

class ControlCallsTest : public ::testing::Test, protected ReplySink {
protected:
    ControlCallsTest() {
        OpenFileDetails details;
        details.node = NodeId{5};
        details.control = std::make_shared<RecordingControlFile>(record_);
        handle_ = files_.open(std::move(details));
        OpenFileDetails stream;
        stream.node = NodeId{6};
        stream.stream = std::make_shared<RecordingStreamFile>(stream_record_);
        stream.cursor = std::make_shared<std::uint64_t>(0);
        stream_ = files_.open(std::move(stream));
    }
    void answer(const Origin& origin, std::vector<std::byte> reply) override {
        fuse_out_header header{};
        ASSERT_TRUE(read_struct(reply, 0, header));
        EXPECT_EQ(header.len, reply.size());
        EXPECT_EQ(header.unique, origin.unique);
        EXPECT_TRUE(replies_
                        .emplace(origin.unique,
                                 Reply{header.unique, -header.error, {reply.begin() + sizeof header, reply.end()}})
                        .second)
            << "answered twice";
    }
    void after_notifications(std::function<void()> work) override {
        if (holding_notifications_)
            held_ = std::move(work);
        else
            work();
    }
    std::uint64_t read(std::uint64_t handle, std::uint64_t offset, std::uint32_t size, std::uint32_t flags = 0) {
        fuse_read_in in{};
        in.fh = handle;
        in.offset = offset;
        in.size = size;
        in.flags = flags;
        ++unique_;
        calls_->on_request({.unique = unique_}, Client::make(FUSE_READ, unique_, 5, bytes_of(in)));
        return unique_;
    }
    std::uint64_t write(std::string_view text, std::uint64_t offset = 0, std::uint32_t flags = 0) {
        fuse_write_in in{};
        in.fh = handle_;
        in.offset = offset;
        in.size = static_cast<std::uint32_t>(text.size());
        in.flags = flags;
        ++unique_;
        calls_->on_request({.unique = unique_},
                           Client::make(FUSE_WRITE, unique_, 5, bytes_of(in), bytes_of_text(text)));
        return unique_;
    }

    std::shared_ptr<ControlFileRecord> record_ = std::make_shared<ControlFileRecord>();
    std::shared_ptr<StreamRecord> stream_record_ = std::make_shared<StreamRecord>();
    srpfs::test::ManualExecutor control_;
    OpenFiles files_;
    std::map<std::uint64_t, Reply> replies_;
    bool holding_notifications_ = false;
    std::function<void()> held_;
    std::uint64_t handle_ = 0, stream_ = 0, unique_ = 0;
    std::unique_ptr<ControlCalls> calls_ =
        std::make_unique<ControlCalls>(files_, static_cast<ReplySink&>(*this), control_);
};

TEST_F(ControlCallsTest, LaterOffsetsAreServedFromTheSnapshot) {
    record_->content = "hello\n";
    EXPECT_EQ(replies_[read(handle_, 0, 2)].text(), "he");
    record_->content = "WORLD\n";
    EXPECT_EQ(replies_[read(handle_, 2, 2)].text(), "ll");
    EXPECT_EQ(replies_[read(handle_, 4, 100)].text(), "o\n");
    EXPECT_EQ(replies_[read(handle_, 6, 100)].text(), "");
    EXPECT_EQ(replies_[read(handle_, 1000, 100)].text(), "");
    EXPECT_EQ(record_->reads, 1u);
    EXPECT_EQ(replies_[read(handle_, 0, 100)].text(), "WORLD\n");
    EXPECT_EQ(record_->reads, 2u);
}

TEST_F(ControlCallsTest, AReadThatBeginsInTheMiddleTakesASnapshotToo) {
    EXPECT_EQ(replies_[read(handle_, 2, 100)].text(), "lue\n");
}

TEST_F(ControlCallsTest, ASlowContentIsAskedForOnceAndCanFailOrBeGivenUp) {
    std::vector<std::shared_ptr<PendingCall>> asked;
    OpenFileDetails details;
    details.node = NodeId{7};
    details.control = std::make_shared<SlowControlFile>(asked);
    const auto slow = files_.open(std::move(details));
    const auto first = read(slow, 0, 3);
    EXPECT_FALSE(replies_.contains(first));
    ASSERT_EQ(asked.size(), 1u);

    asked[0]->succeed_with("content");

    EXPECT_EQ(replies_[first].text(), "con");
    EXPECT_EQ(replies_[read(slow, 3, 100)].text(), "tent");
    EXPECT_EQ(replies_[read(slow, 7, 100)].text(), "");
    EXPECT_EQ(asked.size(), 1u);

    const auto second = read(slow, 0, 100);
    ASSERT_EQ(asked.size(), 2u);
    asked[1]->fail(ETIMEDOUT);
    EXPECT_EQ(replies_[second].error, ETIMEDOUT);

    const auto third = read(slow, 0, 100);
    ASSERT_EQ(asked.size(), 3u);
    asked[2]->on_interrupt([&] { asked[2]->fail(EINTR); });
    calls_->on_interrupt({.unique = third});
    control_.run();
    EXPECT_EQ(replies_[third].error, EINTR);

    // Closed, and closed altogether, before the content came.
    const auto fourth = read(slow, 0, 100);
    (void)files_.close(slow);
    asked[3]->succeed_with("late");
    EXPECT_EQ(replies_[fourth].text(), "");
    asked.clear();
}

class DialogueTest : public ControlCallsTest {
protected:
    DialogueTest() {
        record_->content = "what others asked";
        record_->on_write = [](std::string_view question, const std::shared_ptr<PendingCall>& call) {
            if (question == "no") return call->fail(EPERM);
            call->succeed_with("answer to " + std::string(question));
        };
        one_ = open();
        other_ = open();
    }
    std::uint64_t open() {
        OpenFileDetails details;
        details.node = NodeId{8};
        details.control = std::make_shared<DialogueControlFile>(record_);
        return files_.open(std::move(details));
    }
    Reply ask(std::uint64_t handle, std::string_view question) {
        handle_ = handle;
        return replies_[write(question)];
    }
    // Wherever the caller's offset is.
    std::string next(std::uint64_t handle, std::uint32_t size = 100) { return replies_[read(handle, 7, size)].text(); }
    std::uint64_t one_ = 0, other_ = 0;
};

TEST_F(DialogueTest, EachHandleReadsItsOwnAnswer) {
    EXPECT_EQ(ask(one_, "a\n").as<fuse_write_out>().size, 2u);
    EXPECT_EQ(ask(other_, "b").error, 0);
    EXPECT_EQ(next(one_), "answer to a");
    EXPECT_EQ(next(other_), "answer to b");
}

TEST_F(DialogueTest, AnAnswerIsReadInPiecesAndThenAgain) {
    (void)ask(one_, "a");
    EXPECT_EQ(next(one_, 6), "answer");
    EXPECT_EQ(next(one_), " to a");
    EXPECT_EQ(next(one_), "");
    EXPECT_EQ(next(one_), "answer to a");
    (void)ask(one_, "b");
    EXPECT_EQ(next(one_), "answer to b");
    EXPECT_EQ(record_->reads, 0u);
}

TEST_F(DialogueTest, AFailedQuestionLeavesTheAnswerBefore) {
    (void)ask(one_, "a");
    EXPECT_EQ(ask(one_, "no").error, EPERM);
    EXPECT_EQ(next(one_), "answer to a");
}

TEST_F(DialogueTest, WhatIsNoQuestionLeavesTheAnswerBefore) {
    (void)ask(one_, "a");
    EXPECT_EQ(ask(one_, std::string_view("b\0", 2)).error, EINVAL);
    EXPECT_EQ(record_->refused.size(), 1u);
    EXPECT_EQ(next(one_), "answer to a");
}

TEST_F(DialogueTest, WhoHasNotAskedReadsTheContentAnewEachTime) {
    EXPECT_EQ(next(one_), "what others asked");
    record_->content = "and then";
    EXPECT_EQ(next(one_), "");
    EXPECT_EQ(next(one_), "and then");
}

TEST_F(DialogueTest, AnAnswerForAClosedHandleIsDropped) {
    std::shared_ptr<PendingCall> kept;
    record_->on_write = [&](std::string_view, std::shared_ptr<PendingCall> call) { kept = std::move(call); };
    handle_ = one_;
    const auto unique = write("a");
    (void)files_.close(one_);
    kept->succeed_with("late");
    EXPECT_EQ(replies_[unique].error, 0);
}

class IoctlTest : public ControlCallsTest {
protected:
    std::uint64_t ioctl(std::uint64_t handle, std::string_view bytes, std::uint32_t in_bytes, std::uint32_t out_bytes) {
        fuse_ioctl_in in{};
        in.fh = handle;
        in.in_size = in_bytes;
        in.out_size = out_bytes;
        ++unique_;
        const auto request = Client::make(FUSE_IOCTL, unique_, 5, bytes_of(in), bytes_of_text(bytes));
        calls_->on_ioctl(
            {.unique = unique_}, request,
            [this](std::string_view got, const Tree::IoctlCaller& caller, std::shared_ptr<PendingCall> call) {
                got_ = got;
                may_write_ = caller.may_write;
                call_ = std::move(call);
            });
        return unique_;
    }
    std::string got_;
    bool may_write_ = true;
    std::shared_ptr<PendingCall> call_;
};

TEST_F(IoctlTest, GivesBackAsMuchAsCame) {
    const auto unique = ioctl(handle_, "four", 4, 4);
    EXPECT_EQ(got_, "four");
    EXPECT_FALSE(may_write_);
    EXPECT_FALSE(replies_.contains(unique));
    call_->succeed_with("4444");
    EXPECT_EQ(replies_[unique].error, 0);
    EXPECT_EQ(replies_[unique].text(), std::string(sizeof(fuse_ioctl_out), '\0') + "4444");
}

TEST_F(IoctlTest, CanFailAndBeInterrupted) {
    const auto first = ioctl(handle_, "four", 4, 4);
    call_->fail(EPERM);
    EXPECT_EQ(replies_[first].error, EPERM);
    const auto second = ioctl(handle_, "four", 4, 4);
    call_->on_interrupt([this] { call_->fail(EINTR); });
    calls_->on_interrupt({.unique = second});
    control_.run();
    EXPECT_EQ(replies_[second].error, EINTR);
}

TEST_F(IoctlTest, OfAHandleThatMayNotReadIsRefused) {
    files_.details(handle_)->readable = false;
    EXPECT_EQ(replies_[ioctl(handle_, "four", 4, 4)].error, EBADF);
    EXPECT_EQ(call_, nullptr);
}

TEST_F(IoctlTest, OfOddSizeOrFileIsRefused) {
    EXPECT_EQ(replies_[ioctl(handle_, "four", 5, 5)].error, EINVAL);
    EXPECT_EQ(replies_[ioctl(handle_, "four", 4, 8)].error, EINVAL);
    EXPECT_EQ(replies_[ioctl(handle_ + 1000, "four", 4, 4)].error, ENODEV);
    EXPECT_EQ(replies_[ioctl(stream_, "four", 4, 4)].error, ENODEV);  // another node's
    EXPECT_EQ(call_, nullptr);
}

TEST_F(ControlCallsTest, AFailedReadHasItsErrno) {
    record_->read_error = ENXIO;
    EXPECT_EQ(replies_[read(handle_, 0, 100)].error, ENXIO);
}

TEST_F(ControlCallsTest, AWriteTakesAllOrNothing) {
    EXPECT_EQ(replies_[write(" 15\n", 4096)].as<fuse_write_out>().size, 4u);
    EXPECT_EQ(replies_[write("\n")].as<fuse_write_out>().size, 1u);
    EXPECT_EQ(replies_[write(std::string_view("1\0", 2))].error, EINVAL);
    EXPECT_EQ(record_->commands, std::vector<std::string>{"15"});
}

TEST_F(ControlCallsTest, WhatIsNoCommandIsRefusedInWords) {
    EXPECT_EQ(replies_[write(std::string_view("off\0", 4))].error, EINVAL);
    EXPECT_EQ(record_->refused.back(), "a NUL byte in the command, as its byte 4; commands are text");
    EXPECT_EQ(replies_[write(std::string(65537, 'x'))].error, E2BIG);
    EXPECT_EQ(record_->refused.back(), "a command longer than 64 KiB");
    EXPECT_EQ(record_->refused.size(), 2u);
    EXPECT_TRUE(record_->commands.empty());
}

TEST_F(ControlCallsTest, AWriteCanFailLater) {
    std::shared_ptr<PendingCall> kept;
    record_->on_write = [&](std::string_view, std::shared_ptr<PendingCall> call) { kept = std::move(call); };
    const auto unique = write("login");
    EXPECT_FALSE(replies_.contains(unique));
    EXPECT_EQ(calls_->pending(), 1u);

    kept->fail(ECONNREFUSED);
    kept.reset();

    EXPECT_EQ(replies_[unique].error, ECONNREFUSED);
    EXPECT_EQ(calls_->pending(), 0u);
}

TEST_F(ControlCallsTest, ACallThatIsDroppedIsEio) {
    record_->on_write = [](std::string_view, const std::shared_ptr<PendingCall>&) {};
    EXPECT_EQ(replies_[write("x")].error, EIO);
}

TEST_F(ControlCallsTest, SuccessIsToldAfterTheKernelKnowsWhatChanged) {
    holding_notifications_ = true;
    const auto unique = write("rescan");
    EXPECT_FALSE(replies_.contains(unique));

    held_();

    EXPECT_EQ(replies_[unique].error, 0);
}

TEST_F(ControlCallsTest, TheHandlerOfAnInterruptRunsOnce) {
    unsigned handled = 0;
    std::shared_ptr<PendingCall> kept;
    record_->on_write = [&](std::string_view, std::shared_ptr<PendingCall> call) {
        kept = std::move(call);
        kept->on_interrupt([&] {
            ++handled;
            kept->fail(EINTR);
        });
    };
    const auto unique = write("login");

    calls_->on_interrupt({.unique = unique});
    calls_->on_interrupt({.unique = unique});
    control_.run();

    EXPECT_EQ(handled, 1u);
    EXPECT_EQ(replies_[unique].error, EINTR);
    calls_->on_interrupt({.unique = unique});
    control_.run();
    EXPECT_EQ(handled, 1u);
}

TEST_F(ControlCallsTest, AnInterruptBeforeAnybodyAskedIsRemembered) {
    unsigned handled = 0;
    std::shared_ptr<PendingCall> kept;
    record_->on_write = [&](std::string_view, std::shared_ptr<PendingCall> call) { kept = std::move(call); };
    const auto unique = write("login");
    calls_->on_interrupt({.unique = unique});
    control_.run();

    kept->on_interrupt([&] { ++handled; });
    EXPECT_EQ(handled, 0u);
    control_.run();

    EXPECT_EQ(handled, 1u);
    kept->succeed();
}

TEST_F(ControlCallsTest, AHandlerRegisteredTooLateIsNotKept) {
    std::shared_ptr<PendingCall> kept;
    record_->on_write = [&](std::string_view, std::shared_ptr<PendingCall> call) { kept = std::move(call); };
    const auto unique = write("login");
    kept->succeed();
    kept->on_interrupt([] { FAIL(); });
    calls_->on_interrupt({.unique = unique});
    control_.run();
}

TEST_F(ControlCallsTest, NonblockingIsWhatTheFileIsNow) {
    bool nonblocking = false;
    record_->on_write = [&](std::string_view, const std::shared_ptr<PendingCall>& call) {
        nonblocking = call->nonblocking();
        call->succeed();
    };
    (void)write("a", 0, O_WRONLY | O_NONBLOCK);
    EXPECT_TRUE(nonblocking);
    (void)write("a", 0, O_WRONLY);
    EXPECT_FALSE(nonblocking);
}

TEST_F(ControlCallsTest, StreamsWaitAndAnswerOneReaderEach) {
    stream_record_->lines = {"one\n"};
    EXPECT_EQ(replies_[read(stream_, 0, 100)].text(), "one\n");
    EXPECT_EQ(replies_[read(stream_, 4, 100, O_NONBLOCK)].error, EAGAIN);
    const auto waiting = read(stream_, 4, 100);
    EXPECT_FALSE(replies_.contains(waiting));

    stream_record_->waiters.at(0).call->succeed_with("two\n");

    EXPECT_EQ(replies_[waiting].text(), "two\n");
}

TEST_F(ControlCallsTest, ARemovedFileIsEnodev) {
    files_.unpublish(handle_);
    EXPECT_EQ(replies_[read(handle_, 0, 10)].error, ENODEV);
    EXPECT_EQ(replies_[write("x")].error, ENODEV);
    EXPECT_TRUE(record_->commands.empty());
}

TEST_F(ControlCallsTest, ACommandMayRemoveItsOwnFile) {
    record_->on_write = [&](std::string_view, const std::shared_ptr<PendingCall>& call) {
        files_.unpublish(handle_);
        (void)files_.close(handle_);  // the last owner of the file but the call itself
        call->succeed();
    };
    EXPECT_EQ(replies_[write("1")].error, 0);
}

TEST_F(ControlCallsTest, CallsOutliveTheMount) {
    std::shared_ptr<PendingCall> kept;
    record_->on_write = [&](std::string_view, std::shared_ptr<PendingCall> call) { kept = std::move(call); };
    const auto unique = write("login");
    calls_.reset();

    kept->succeed();
    kept.reset();

    EXPECT_FALSE(replies_.contains(unique));
}

}  // namespace
}  // namespace srpfs::fs::test
