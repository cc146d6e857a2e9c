// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "intake.h"

#include "request.h"

#include <srpfs/base/log.h>

#include <cerrno>
#include <cstring>

#include <sys/uio.h>
#include <unistd.h>

namespace srpfs::fs {
namespace {

constexpr std::size_t cache_line = 64;

}  // namespace

std::size_t data_bytes(const Incoming& request) {
    fuse_in_header header{};
    fuse_read_in in{};
    const bool reads = read_struct(request.head, 0, header) && header.opcode == FUSE_READ &&
                       read_struct(request.head, sizeof header, in);
    return reads ? in.size : request.data.size();
}

Incoming split_request(std::span<const std::byte> whole) {
    fuse_in_header header{};
    if (!read_struct(whole, 0, header) || header.opcode != FUSE_WRITE || whole.size() < lun::intake_header_bytes)
        return {.head = whole, .data = {}};
    return {.head = whole.first(lun::intake_header_bytes), .data = whole.subspan(lun::intake_header_bytes)};
}

unsigned DescriptorIntake::poll(IntakeListener& listener, const Batch& most) {
    unsigned taken = 0;
    std::size_t bytes = 0;
    is_drained_ = false;
    for (; taken < most.requests && bytes < most.bytes && fd_ >= 0; ++taken) {
        if (taken == 1 && !second_reads_.is_due()) {
            is_drained_ = true;
            break;
        }
        const auto buffer = engine_.intake();
        const ssize_t count = ::read(fd_, buffer.data(), buffer.size());
        if (taken == 1) second_reads_.tried(count > 0);
        if (count > 0) [[likely]] {
            const Incoming request = split_request(buffer.first(static_cast<std::size_t>(count)));
            bytes += data_bytes(request);
            listener.on_incoming(request);
            continue;
        }
        if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            is_drained_ = true;
            break;
        }
        // ENOENT: the caller was killed while its request was being copied to us.
        if (count < 0 && (errno == EINTR || errno == ENOENT)) continue;
        listener.on_intake_ended(count == 0 ? ENODEV : errno);
        break;
    }
    return taken;
}

bool DescriptorIntake::answer(const ReplyTo& to, int error, std::span<const std::byte> body) {
    if (fd_ < 0) return true;
    if (error != 0) body = {};
    // The kernel looks up each piece's pages by themselves: a short body is cheaper copied. In one cache line, and so
    // in one page.
    struct alignas(cache_line) Answer {
        fuse_out_header header{};
        std::byte body[cache_line - sizeof(fuse_out_header)];
    } answer;
    answer.header.len = static_cast<std::uint32_t>(sizeof answer.header + body.size());
    answer.header.error = -error;
    answer.header.unique = to.unique;
    iovec parts[2] = {{&answer, sizeof answer.header}, {const_cast<std::byte*>(body.data()), body.size()}};
    int count = 2;
    if (body.size() <= sizeof answer.body) {
        if (!body.empty()) std::memcpy(answer.body, body.data(), body.size());
        parts[0].iov_len += body.size();
        count = 1;
    }
    ssize_t written = 0;
    do {
        written = ::writev(fd_, parts, count);
    } while (written < 0 && errno == EINTR);
    return written >= 0 || on_refused(to, errno, !body.empty());
}

bool DescriptorIntake::on_refused(const ReplyTo& to, int errno_value, bool retry_as_error) {
    // ENOENT: nobody waits for it any more. ENODEV and ECONNABORTED: the mount is gone; the next read tells.
    const bool expected = errno_value == ENOENT || errno_value == ENODEV || errno_value == ECONNABORTED ||
                          errno_value == EPIPE || errno_value == ECONNRESET;
    if (expected) return false;
    log::warning("fuse", "answer to request {} was refused ({}){}", to.unique, std::strerror(errno_value),
                 retry_as_error ? "; answering EIO instead" : "");
    if (retry_as_error) (void)answer(to, EIO, {});
    return false;
}

void DescriptorIntake::close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
}

void DescriptorIntake::sleep_on(std::vector<int>& fds) {
    if (fd_ >= 0) fds.push_back(fd_);
}

}  // namespace srpfs::fs
