// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Pieces of a file written or read, each in one system call, beside a shadow that holds what the file should:
//
//     srpfs-ranges write [--direct] FILE SHADOW OFFSET:SIZE...      random bytes, to both
//     srpfs-ranges read [--direct] FILE SHADOW OFFSET:SIZE...       compared
//
// One program for all of them, because starting one takes an emulated guest longer than writing a megabyte.

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

namespace {

struct Free {
    void operator()(void* memory) const { std::free(memory); }
};
using Buffer = std::unique_ptr<unsigned char[], Free>;

Buffer aligned(std::size_t bytes) {
    return Buffer(static_cast<unsigned char*>(std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096)));
}

[[noreturn]] void fail(const std::string& what) {
    std::fprintf(stderr, "srpfs-ranges: %s\n", what.c_str());
    std::exit(1);
}

void expect_all(ssize_t done, std::size_t bytes, const std::string& what) {
    if (done < 0) fail(what + ": " + std::strerror(errno));
    if (static_cast<std::size_t>(done) != bytes) fail(what + ": only " + std::to_string(done) + " bytes");
}

void fill(unsigned char* memory, std::size_t bytes, std::mt19937_64& random) {
    for (std::size_t at = 0; at < bytes; at += 8) {
        const std::uint64_t word = random();
        std::memcpy(memory + at, &word, std::min<std::size_t>(8, bytes - at));
    }
}

}  // namespace

int main(int argc, char** argv) {
    std::vector<std::string> words(argv + 1, argv + argc);
    const bool direct = words.size() > 1 && words[1] == "--direct";
    if (direct) words.erase(words.begin() + 1);
    if (words.size() < 4 || (words[0] != "write" && words[0] != "read")) {
        std::fprintf(stderr, "usage: srpfs-ranges write|read [--direct] FILE SHADOW OFFSET:SIZE...\n");
        return 2;
    }
    const bool writes = words[0] == "write";
    const int file = open(words[1].c_str(), (writes ? O_WRONLY : O_RDONLY) | O_CLOEXEC | (direct ? O_DIRECT : 0));
    if (file < 0) fail(words[1] + ": " + std::strerror(errno));
    const int shadow = open(words[2].c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (shadow < 0) fail(words[2] + ": " + std::strerror(errno));

    std::random_device seed;
    std::mt19937_64 random(seed());
    for (std::size_t at = 3; at < words.size(); ++at) {
        char* end = nullptr;
        const auto offset = static_cast<off_t>(std::strtoull(words[at].c_str(), &end, 10));
        const std::size_t bytes = *end == ':' ? std::strtoull(end + 1, &end, 10) : 0;
        if (bytes == 0 || *end != '\0') fail("'" + words[at] + "' is not OFFSET:SIZE");
        const std::string what = words[0] + " of " + std::to_string(bytes) + " bytes at " + std::to_string(offset);
        const Buffer buffer = aligned(bytes), other = aligned(bytes);
        if (writes) {
            fill(buffer.get(), bytes, random);
            expect_all(pwrite(file, buffer.get(), bytes, offset), bytes, what);
            expect_all(pwrite(shadow, buffer.get(), bytes, offset), bytes, what + " to the shadow");
            continue;
        }
        std::memset(buffer.get(), 0xa5, bytes);
        expect_all(pread(file, buffer.get(), bytes, offset), bytes, what);
        expect_all(pread(shadow, other.get(), bytes, offset), bytes, what + " from the shadow");
        for (std::size_t byte = 0; byte < bytes; ++byte)
            if (buffer[byte] != other[byte])
                fail(what + ": byte " + std::to_string(static_cast<std::size_t>(offset) + byte) + " differs");
    }
    if (close(file) != 0) fail("closing " + words[1] + ": " + std::strerror(errno));
    return 0;
}
