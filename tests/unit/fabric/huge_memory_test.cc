// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/fabric/huge_memory.h>

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>

#include <linux/mman.h>  // MADV_COLLAPSE, which glibc 2.36 has not
#include <sys/mman.h>
#include <unistd.h>

namespace srpfs::fabric {
namespace {

constexpr std::size_t mib = std::size_t{1} << 20;

class HugeMemoryTest : public testing::Test {
protected:
    void SetUp() override {
        file = memfd_create("huge-memory-test", MFD_CLOEXEC);
        ASSERT_GE(file, 0);
        ASSERT_EQ(ftruncate(file, 9 * mib), 0);
    }
    void TearDown() override { close(file); }

    // Of the mapping that begins there, in KiB.
    static std::size_t mapped_by_huge_pages(const void* begin) {
        std::ifstream maps("/proc/self/smaps");
        bool is_it = false;
        for (std::string line; std::getline(maps, line);) {
            if (line.find("-") != std::string::npos && std::isxdigit(static_cast<unsigned char>(line[0])) != 0)
                is_it = std::stoull(line, nullptr, 16) == reinterpret_cast<std::uintptr_t>(begin);
            else if (is_it && line.starts_with("ShmemPmdMapped:"))
                return std::stoull(line.substr(std::strlen("ShmemPmdMapped:")));
        }
        return 0;
    }

    int file = -1;
};

TEST_F(HugeMemoryTest, IsZeroAndLiesAtAMultipleOfAHugePage) {
    const HugeMemory memory(3 * mib);
    ASSERT_EQ(memory.bytes().size(), 3 * mib);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory.bytes().data()) % (2 * mib), 0U);
    for (const std::byte one : memory.bytes()) ASSERT_EQ(one, std::byte{0});
}

TEST_F(HugeMemoryTest, ShowsAFileTwice) {
    const HugeMemory whole(9 * mib, file, HugeMemory::Filled::now);
    const HugeMemory beginning(5 * mib, file, HugeMemory::Filled::as_used);
    ASSERT_EQ(whole.bytes().size(), 9 * mib);
    ASSERT_EQ(beginning.bytes().size(), 5 * mib);
    for (const auto& memory : {whole.bytes(), beginning.bytes()})
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory.data()) % (2 * mib), 0U);
    whole.bytes()[4 * mib + 7] = std::byte{42};
    EXPECT_EQ(beginning.bytes()[4 * mib + 7], std::byte{42});
    beginning.bytes()[0] = std::byte{43};
    EXPECT_EQ(whole.bytes()[0], std::byte{43});
}

TEST_F(HugeMemoryTest, BothViewsOfAFileHaveHugePagesAtOnce) {
    {
        const HugeMemory probe(2 * mib, file, HugeMemory::Filled::as_used);
        probe.bytes()[0] = std::byte{1};
        if (madvise(probe.bytes().data(), 2 * mib, MADV_COLLAPSE) != 0)
            GTEST_SKIP() << "no huge pages for files in memory here: " << std::strerror(errno);
    }
    const HugeMemory whole(9 * mib, file, HugeMemory::Filled::now);
    EXPECT_EQ(mapped_by_huge_pages(whole.bytes().data()), 8 * 1024U);  // what is left over has small ones
    const HugeMemory beginning(4 * mib, file, HugeMemory::Filled::as_used);
    beginning.bytes()[1] = beginning.bytes()[3 * mib] = std::byte{1};
    EXPECT_EQ(mapped_by_huge_pages(beginning.bytes().data()), 4 * 1024U);
}

TEST_F(HugeMemoryTest, SaysWhyThereIsNone) {
    errno = 0;
    const HugeMemory memory(mib, -1, HugeMemory::Filled::now);
    EXPECT_TRUE(memory.bytes().empty());
    EXPECT_EQ(errno, EBADF);
}

}  // namespace
}  // namespace srpfs::fabric
