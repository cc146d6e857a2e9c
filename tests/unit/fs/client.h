// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The kernel's side of a FUSE connection, over a message socket.

#pragma once

#include "request.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace srpfs::fs::test {

struct Reply {
    std::uint64_t unique = 0;
    int error = 0;  // positive errno value
    std::vector<std::byte> body;
    template <typename T>
    T as() const {
        T value{};
        if (!body.empty()) std::memcpy(&value, body.data(), std::min(body.size(), sizeof value));
        return value;
    }
    std::string text() const { return {reinterpret_cast<const char*>(body.data()), body.size()}; }
};

inline std::vector<std::byte> bytes_of_text(std::string_view text) {
    const auto bytes = std::as_bytes(std::span(text.data(), text.size()));
    return {bytes.begin(), bytes.end()};
}

class Client {
public:
    Client() {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) throw std::runtime_error("socketpair");
        ours_ = pair[0];
        theirs_ = pair[1];
        const int bytes = 4 << 20;
        for (const int fd : pair)
            for (const int option : {SO_SNDBUF, SO_SNDBUFFORCE, SO_RCVBUF, SO_RCVBUFFORCE})
                (void)setsockopt(fd, SOL_SOCKET, option, &bytes, sizeof bytes);
        fcntl(theirs_, F_SETFL, O_NONBLOCK);
    }
    ~Client() {
        hang_up();
        if (theirs_ >= 0) close(theirs_);
    }
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;

    // The server's end; whoever asks owns it.
    int take_server_end() { return std::exchange(theirs_, -1); }
    void hang_up() {
        if (ours_ >= 0) close(ours_);
        ours_ = -1;
    }

    void send_raw(std::span<const std::byte> bytes) {
        if (send(ours_, bytes.data(), bytes.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(bytes.size()))
            throw std::runtime_error("the request does not fit through the socket");
    }
    static std::vector<std::byte> make(std::uint32_t opcode, std::uint64_t unique, std::uint64_t node,
                                       std::span<const std::byte> in, std::span<const std::byte> data = {}) {
        fuse_in_header header{};
        header.len = static_cast<std::uint32_t>(sizeof header + in.size() + data.size());
        header.opcode = opcode;
        header.unique = unique;
        header.nodeid = node;
        std::vector<std::byte> request(sizeof header);
        std::memcpy(request.data(), &header, sizeof header);
        request.insert(request.end(), in.begin(), in.end());
        request.insert(request.end(), data.begin(), data.end());
        return request;
    }
    std::uint64_t send_bytes(std::uint32_t opcode, std::uint64_t node, std::span<const std::byte> in,
                             std::span<const std::byte> data = {}) {
        const std::uint64_t unique = next_unique();
        send_raw(make(opcode, unique, node, in, data));
        return unique;
    }
    template <typename In>
    std::uint64_t request(std::uint32_t opcode, std::uint64_t node, const In& in,
                          std::span<const std::byte> data = {}) {
        return send_bytes(opcode, node, bytes_of(in), data);
    }
    std::uint64_t named(std::uint32_t opcode, std::uint64_t node, std::string_view name) {
        auto bytes = bytes_of_text(name);
        bytes.push_back(std::byte{0});
        return send_bytes(opcode, node, {}, bytes);
    }
    std::uint64_t read(std::uint64_t handle, std::uint64_t offset, std::uint32_t size, std::uint32_t flags = 0) {
        fuse_read_in in{};
        in.fh = handle;
        in.offset = offset;
        in.size = size;
        in.flags = flags;
        in.read_flags = FUSE_READ_LOCKOWNER;
        return request(FUSE_READ, 2, in);
    }
    // Into the page cache.
    std::uint64_t fill(std::uint64_t handle, std::uint64_t offset, std::uint32_t size, std::uint64_t node = 2) {
        fuse_read_in in{};
        in.fh = handle;
        in.offset = offset;
        in.size = size;
        return request(FUSE_READ, node, in);
    }
    std::uint64_t write(std::uint64_t handle, std::uint64_t offset, std::span<const std::byte> data,
                        std::uint32_t flags = 0) {
        fuse_write_in in{};
        in.fh = handle;
        in.offset = offset;
        in.size = static_cast<std::uint32_t>(data.size());
        in.flags = flags;
        return request(FUSE_WRITE, 2, in, data);
    }
    std::uint64_t fsync(std::uint64_t handle) {
        fuse_fsync_in in{};
        in.fh = handle;
        return request(FUSE_FSYNC, 2, in);
    }
    // As Linux numbers them: the request's own number with the lowest bit set.
    std::uint64_t interrupt(std::uint64_t unique) {
        const fuse_interrupt_in in{.unique = unique};
        send_raw(make(FUSE_INTERRUPT, unique | 1, 0, bytes_of(in)));
        return unique | 1;
    }

    // The next answer, in whatever order they come; nullopt when there is none within `wait_ms`.
    std::optional<Reply> receive(int wait_ms = 0) {
        pollfd ready{.fd = ours_, .events = POLLIN, .revents = 0};
        if (::poll(&ready, 1, wait_ms) <= 0) return std::nullopt;
        if (buffer_.empty()) buffer_.resize(2 << 20);
        const ssize_t count = recv(ours_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
        fuse_out_header header{};
        if (count < 0 ||
            !read_struct(std::span<const std::byte>(buffer_).first(static_cast<std::size_t>(count)), 0, header))
            return std::nullopt;
        if (header.len != count) throw std::runtime_error("an answer has the wrong length");
        Reply reply{header.unique, -header.error, {buffer_.begin() + sizeof header, buffer_.begin() + count}};
        return reply;
    }
    // The answer to that request, with `work` between looks; answers to others are kept.
    template <typename Work>
    Reply await(std::uint64_t unique, Work work) {
        for (int attempts = 0; attempts < 100'000; ++attempts) {
            while (auto reply = receive()) keep(*reply);
            if (auto reply = take(unique)) return *reply;
            work();
        }
        throw std::runtime_error("no answer");
    }
    // The same from a server on another thread; `wait_ms` without any answer are too long.
    Reply await_for(std::uint64_t unique, int wait_ms) {
        while (true) {
            if (auto reply = take(unique)) return *reply;
            auto next = receive(wait_ms);
            if (!next) throw std::runtime_error("no answer");
            keep(*next);
        }
    }
    // Answers that came and nobody awaited; notifications do not count.
    std::size_t unexpected() {
        while (auto reply = receive()) keep(*reply);
        return kept_.size();
    }
    // It has come, and is still to be awaited.
    [[nodiscard]] bool has_answer(std::uint64_t unique) {
        while (auto reply = receive()) keep(*reply);
        return kept_.contains(unique);
    }
    std::uint64_t next_unique() { return unique_ += 2; }

private:
    std::optional<Reply> take(std::uint64_t unique) {
        const auto found = kept_.find(unique);
        if (found == kept_.end()) return std::nullopt;
        Reply reply = found->second;
        answered_.push_back(unique);
        kept_.erase(found);
        return reply;
    }
    void keep(const Reply& reply) {
        if (reply.unique == 0) return;  // a notification
        const bool again = std::find(answered_.begin(), answered_.end(), reply.unique) != answered_.end();
        if (again || !kept_.emplace(reply.unique, reply).second) throw std::runtime_error("answered twice");
    }
    int ours_ = -1, theirs_ = -1;
    std::uint64_t unique_ = 100;
    std::map<std::uint64_t, Reply> kept_;
    std::vector<std::uint64_t> answered_;
    std::vector<std::byte> buffer_;
};

}  // namespace srpfs::fs::test
