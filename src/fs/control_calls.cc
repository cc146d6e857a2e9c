// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "control_calls.h"

#include <srpfs/base/assert.h>

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <unordered_map>
#include <utility>

#include <fcntl.h>

namespace srpfs::fs {
namespace {

constexpr std::string_view blanks = " \t\r\n\v\f";

std::span<const std::byte> bytes_of_text(std::string_view text) {
    return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace

class ControlCall;

// Shared with the calls, which may outlive everything else.
struct ControlCalls::Registry {
    ReplySink* sink = nullptr;  // nullptr: closed
    reactor::Executor* control = nullptr;
    std::unordered_map<std::uint64_t, ControlCall*> calls;
};

class ControlCall final : public PendingCall, public std::enable_shared_from_this<ControlCall> {
public:
    enum class Direction : std::uint8_t { read, write, ioctl };

    ControlCall(std::shared_ptr<ControlCalls::Registry> registry, const Origin& origin, Direction direction,
                std::uint32_t bytes, std::uint32_t open_flags, unsigned uid)
        : registry_(std::move(registry)), origin_(origin), direction_(direction), bytes_(bytes),
          nonblocking_((open_flags & O_NONBLOCK) != 0), uid_(uid) {
        registry_->calls.emplace(origin_.unique, this);
    }

    ~ControlCall() override {
        if (!answered_) fail(EIO);
    }

    void succeed() override {
        SRPFS_ASSERT(direction_ != Direction::ioctl);
        end();
        if (direction_ == Direction::read) return send(make_reply(origin_.unique, 0));
        const fuse_write_out out{.size = bytes_, .padding = 0};
        auto reply = make_reply(origin_.unique, 0, bytes_of(out));
        if (!registry_->sink) return;
        registry_->sink->after_notifications(
            [registry = registry_, origin = origin_, reply = std::move(reply)]() mutable {
                if (registry->sink) registry->sink->answer(origin, std::move(reply));
            });
    }

    void succeed_with(std::string text) override {
        if (direction_ == Direction::write) {
            SRPFS_ASSERT(on_content_ != nullptr);
            if (registry_->sink) on_content_(std::move(text));
            return succeed();
        }
        end();
        if (direction_ == Direction::ioctl) {
            SRPFS_ASSERT(text.size() == bytes_);
            const fuse_ioctl_out out{};
            std::vector<std::byte> body(sizeof out + text.size());
            std::memcpy(body.data(), &out, sizeof out);
            std::memcpy(body.data() + sizeof out, text.data(), text.size());
            return send(make_reply(origin_.unique, 0, body));
        }
        if (on_content_ && registry_->sink) text = on_content_(std::move(text));
        text.resize(std::min<std::size_t>(text.size(), bytes_));
        send(make_reply(origin_.unique, 0, bytes_of_text(text)));
    }

    void fail(int errno_value) override {
        SRPFS_ASSERT(errno_value > 0);
        end();
        send(make_reply(origin_.unique, errno_value));
    }

    void on_interrupt(std::function<void()> handler) override {
        if (answered_) return;
        handler_ = std::move(handler);
        if (interrupted_) run_handler_later();
    }

    [[nodiscard]] bool nonblocking() const override { return nonblocking_; }
    [[nodiscard]] unsigned caller_uid() const override { return uid_; }

    // What of the whole content is the answer; asked only while there is somebody to answer.
    void set_on_content(std::function<std::string(std::string)> on_content) { on_content_ = std::move(on_content); }

    // The signal has come: before or after somebody wants to know.
    void interrupt() {
        if (std::exchange(interrupted_, true)) return;
        if (handler_) run_handler_later();
    }

private:
    // In a turn of its own: the handler may drop the last reference, and whoever registers it is not called back at
    // once.
    void run_handler_later() {
        registry_->control->post([call = shared_from_this()] {
            if (call->answered_ || !call->handler_) return;
            const auto handler = std::exchange(call->handler_, nullptr);
            handler();
        });
    }

    void end() {
        SRPFS_ASSERT(!answered_);
        answered_ = true;
        handler_ = nullptr;
        registry_->calls.erase(origin_.unique);
    }

    void send(std::vector<std::byte> reply) {
        if (registry_->sink) registry_->sink->answer(origin_, std::move(reply));
    }

    const std::shared_ptr<ControlCalls::Registry> registry_;
    const Origin origin_;
    const Direction direction_;
    const std::uint32_t bytes_;
    const bool nonblocking_;
    const unsigned uid_;
    bool answered_ = false;
    bool interrupted_ = false;
    std::function<void()> handler_;
    std::function<std::string(std::string)> on_content_;
};

Result<std::string_view> parse_command(std::string_view written) {
    // Only its beginning is here, so nothing is said of its length.
    if (written.size() > command_bytes_max)
        return Error(E2BIG, fmt::format("a command longer than {} KiB", command_bytes_max >> 10));
    if (const auto nul = written.find('\0'); nul != std::string_view::npos)
        return Error(EINVAL, fmt::format("a NUL byte in the command, as its byte {}; commands are text", nul + 1));
    const auto first = written.find_first_not_of(blanks);
    if (first == std::string_view::npos) return std::string_view{};
    const auto last = written.find_last_not_of(blanks);
    return written.substr(first, last - first + 1);
}

ControlCalls::ControlCalls(OpenFiles& files, ReplySink& sink, reactor::Executor& control)
    : files_(files), sink_(sink), registry_(std::make_shared<Registry>()) {
    registry_->sink = &sink;
    registry_->control = &control;
}

ControlCalls::~ControlCalls() { registry_->sink = nullptr; }

std::size_t ControlCalls::pending() const { return registry_->calls.size(); }

void ControlCalls::answer_error(const Origin& origin, int errno_value) {
    sink_.answer(origin, make_reply(origin.unique, errno_value));
}

void ControlCalls::on_request(const Origin& origin, std::span<const std::byte> request) {
    fuse_in_header header{};
    if (!read_struct(request, 0, header)) return answer_error(origin, EINVAL);
    if (header.opcode == FUSE_READ) {
        fuse_read_in in{};
        if (!read_struct(request, sizeof header, in)) return answer_error(origin, EINVAL);
        return on_read(origin, header, in);
    }
    SRPFS_ASSERT(header.opcode == FUSE_WRITE);
    fuse_write_in in{};
    if (!read_struct(request, sizeof header, in)) return answer_error(origin, EINVAL);
    const auto data = request.subspan(sizeof header + sizeof in);
    on_write(origin, header, in, {reinterpret_cast<const char*>(data.data()), data.size()});
}

void ControlCalls::on_read(const Origin& origin, const fuse_in_header& header, const fuse_read_in& in) {
    OpenFileDetails* details = files_.details(in.fh);
    if (!details || !files_.find(in.fh)) return answer_error(origin, ENODEV);
    if (details->stream) {
        const auto stream = details->stream;  // its node may be removed meanwhile
        auto call = std::make_shared<ControlCall>(registry_, origin, ControlCall::Direction::read, in.size, in.flags,
                                                  header.uid);
        return stream->read_next(details->cursor, in.size, std::move(call));
    }
    if (details->control->is_dialogue()) return on_read_dialogue(origin, in, *details);
    if (in.offset == 0 || !details->snapshot) {
        const auto control = details->control;
        if (control->is_slow()) {
            auto call = std::make_shared<ControlCall>(registry_, origin, ControlCall::Direction::read, in.size,
                                                      in.flags, header.uid);
            call->set_on_content([this, handle = in.fh, offset = in.offset](std::string text) {
                OpenFileDetails* const file = files_.details(handle);
                if (!file) return std::string{};
                file->snapshot = std::move(text);
                return offset < file->snapshot->size() ? file->snapshot->substr(offset) : std::string{};
            });
            return control->read_later(std::move(call));
        }
        auto content = control->read();
        if (!content) return answer_error(origin, content.error().errno_value());
        // Looked up again: reading may have changed the tree.
        details = files_.details(in.fh);
        if (!details) return answer_error(origin, ENODEV);
        details->snapshot = std::move(*content);
    }
    const std::string_view snapshot = *details->snapshot;
    const auto left = in.offset < snapshot.size() ? snapshot.substr(in.offset, in.size) : std::string_view{};
    sink_.answer(origin, make_reply(origin.unique, 0, bytes_of_text(left)));
}

void ControlCalls::on_read_dialogue(const Origin& origin, const fuse_read_in& in, OpenFileDetails& details) {
    if (!details.snapshot) {
        auto content = details.control->read();
        if (!content) return answer_error(origin, content.error().errno_value());
        details.snapshot = std::move(*content);
        details.cursor = std::make_shared<std::uint64_t>(0);
    }
    std::uint64_t& position = *details.cursor;
    const auto left = std::string_view(*details.snapshot).substr(position, in.size);
    sink_.answer(origin, make_reply(origin.unique, 0, bytes_of_text(left)));
    position += left.size();
    if (!left.empty() || in.size == 0) return;
    // To its end: from the beginning again. What nobody has asked for here may be another by then.
    position = 0;
    if (!details.has_asked) details.snapshot.reset();
}

void ControlCalls::on_ioctl(const Origin& origin, std::span<const std::byte> request, const Tree::Ioctl& carry_out) {
    fuse_in_header header{};
    fuse_ioctl_in in{};
    if (!read_struct(request, 0, header) || !read_struct(request, sizeof header, in))
        return answer_error(origin, EINVAL);
    const auto data = request.subspan(sizeof header + sizeof in);
    const OpenFileDetails* details = files_.details(in.fh);
    if (!details || details->removed || static_cast<std::uint64_t>(details->node) != header.nodeid)
        return answer_error(origin, ENODEV);
    if (!details->readable) return answer_error(origin, EBADF);  // what comes back may be what the file has
    if (data.size() != in.in_size || in.out_size != in.in_size) return answer_error(origin, EINVAL);
    auto call =
        std::make_shared<ControlCall>(registry_, origin, ControlCall::Direction::ioctl, in.out_size, 0, header.uid);
    const Tree::Ioctl carry_on = carry_out;  // its node may be removed meanwhile
    carry_on({reinterpret_cast<const char*>(data.data()), data.size()},
             {.may_write = details->writable, .uid = header.uid}, std::move(call));
}

void ControlCalls::on_write(const Origin& origin, const fuse_in_header& header, const fuse_write_in& in,
                            std::string_view written) {
    const OpenFileDetails* details = files_.details(in.fh);
    if (!details || !files_.find(in.fh)) return answer_error(origin, ENODEV);
    if (!details->control) return answer_error(origin, EBADF);
    auto call =
        std::make_shared<ControlCall>(registry_, origin, ControlCall::Direction::write, in.size, in.flags, header.uid);
    const auto control = details->control;  // `delete` removes its own node
    const auto command = parse_command(written);
    if (!command) return control->refuse(command.error(), std::move(call));
    if (command->empty()) return call->succeed();
    if (control->is_dialogue())
        call->set_on_content([this, handle = in.fh](std::string answer) {
            if (OpenFileDetails* const file = files_.details(handle)) {
                file->snapshot = std::move(answer);
                file->cursor = std::make_shared<std::uint64_t>(0);
                file->has_asked = true;
            }
            return std::string{};
        });
    control->write(*command, std::move(call));
}

void ControlCalls::on_interrupt(const Origin& origin) {
    const auto found = registry_->calls.find(origin.unique);
    if (found != registry_->calls.end()) found->second->interrupt();
}

}  // namespace srpfs::fs
