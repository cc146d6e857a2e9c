// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "hot_path.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <sys/uio.h>

extern "C" {
ssize_t __real_read(int fd, void* buffer, size_t bytes);
ssize_t __real_writev(int fd, const iovec* parts, int count);
ssize_t __wrap_read(int fd, void* buffer, size_t bytes);
ssize_t __wrap_writev(int fd, const iovec* parts, int count);
}

namespace srpfs::cost {

Kernel kernel;

RequestHead next_request() {
    --kernel.waiting;
    RequestHead head;
    head.header.opcode = kernel.now.opcode;
    head.header.unique = kernel.unique += 2;
    head.header.nodeid = 2;
    const std::uint64_t handle = kernel.handles[kernel.waiting % kernel.handles.size()];
    const std::uint64_t offset = kernel.next_offset;
    kernel.next_offset = (offset + kernel.now.bytes) % unit_bytes;
    if (head.is_read()) {
        head.read.read_flags = FUSE_READ_LOCKOWNER;
        head.read.fh = handle;
        head.read.offset = offset;
        head.read.size = kernel.now.bytes;
        head.header.len = sizeof head.header + sizeof head.read;
    } else {
        head.write.fh = handle;
        head.write.offset = offset;
        head.write.size = kernel.now.bytes;
        head.header.len = static_cast<std::uint32_t>(sizeof head.header + sizeof head.write + head.write.size);
    }
    return head;
}

void take_answer(const fuse_out_header& header, std::size_t bytes) {
    const std::size_t body = kernel.now.opcode == FUSE_READ ? kernel.now.bytes : sizeof(fuse_write_out);
    if (header.error != 0 || header.len != bytes || bytes != sizeof header + body) {
        std::fprintf(stderr, "%s: a wrong answer: error %d, %zu bytes\n", kernel.now.name.data(), header.error, bytes);
        std::exit(1);
    }
    --kernel.unanswered;
}

namespace {

template <typename T>
void put(void* buffer, std::size_t offset, const T& value) {
    std::memcpy(static_cast<std::byte*>(buffer) + offset, &value, sizeof value);
}

ssize_t give_request(void* buffer) {
    if (kernel.waiting == 0 || kernel.now.way == Way::ring) {
        errno = EAGAIN;
        return -1;
    }
    const RequestHead head = next_request();
    if (head.is_read())
        put(buffer, sizeof head.header, head.read);
    else
        put(buffer, sizeof head.header, head.write);
    put(buffer, 0, head.header);
    return head.header.len;
}

ssize_t take_answer_of(const iovec* parts, int count) {
    fuse_out_header header{};
    std::memcpy(&header, parts[0].iov_base, sizeof header);
    std::size_t bytes = 0;
    for (int i = 0; i < count; ++i) bytes += parts[i].iov_len;
    take_answer(header, bytes);
    return static_cast<ssize_t>(bytes);
}

}  // namespace
}  // namespace srpfs::cost

extern "C" {

ssize_t __wrap_read(int fd, void* buffer, size_t bytes) {
    return fd == srpfs::cost::kernel.fd ? srpfs::cost::give_request(buffer) : __real_read(fd, buffer, bytes);
}

ssize_t __wrap_writev(int fd, const iovec* parts, int count) {
    return fd == srpfs::cost::kernel.fd ? srpfs::cost::take_answer_of(parts, count) : __real_writev(fd, parts, count);
}

}  // extern "C"
