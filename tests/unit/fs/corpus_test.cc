// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Each file of the fuzzer's corpus, once.

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace srpfs::fs::test {
namespace {

TEST(FuseChannelCorpus, IsSurvived) {
    unsigned files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(SRPFS_CORPUS_DIRECTORY)) {
        std::ifstream file(entry.path(), std::ios::binary);
        const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
        SCOPED_TRACE(entry.path().filename());
        EXPECT_EQ(LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()), 0);
        ++files;
    }
    EXPECT_GT(files, 8u);
}

}  // namespace
}  // namespace srpfs::fs::test
