// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Every corpus file through every target, without a fuzzer.
#include "fuzz.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>

namespace srpfs::fuzz {
namespace {

struct Seed {
    std::filesystem::path path;
    std::string content;
};

std::vector<Seed> seeds() {
    std::vector<Seed> all;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(SRPFS_CORPUS_DIRECTORY)) {
        if (!entry.is_regular_file()) continue;
        std::ifstream file(entry.path(), std::ios::binary);
        all.push_back({entry.path(), {std::istreambuf_iterator<char>(file), {}}});
    }
    return all;
}

// A copy of exactly this size, so that a sanitizer or valgrind sees a read beyond it.
void run(const Target& target, const std::string& content) {
    const auto exact = std::make_unique<std::byte[]>(content.size());
    std::transform(content.begin(), content.end(), exact.get(), [](char c) { return static_cast<std::byte>(c); });
    target.run(Input(exact.get(), content.size()));
}

TEST(Corpora, HoldSeedsForEachTarget) {
    for (const Target& target : targets()) {
        std::size_t count = 0;
        for (const Seed& seed : seeds()) count += seed.path.parent_path().filename() == target.name;
        std::cout << target.name << ": " << count << " corpus files\n";
        EXPECT_GT(count, 0u) << target.name;
    }
    for (const Seed& seed : seeds()) {
        const auto folder = seed.path.parent_path().filename();
        EXPECT_TRUE(std::any_of(targets().begin(), targets().end(), [&](const Target& one) {
            return folder == one.name;
        })) << seed.path;
    }
}

TEST(Corpora, KeepThePropertiesOfEveryTarget) {
    for (const Seed& seed : seeds())
        for (const Target& target : targets()) {
            SCOPED_TRACE(std::string(target.name) + " over " + seed.path.string());
            run(target, seed.content);
        }
}

// Truncation is the cheapest attack of all, so every prefix of every seed is tried on its own target.
TEST(Corpora, KeepThePropertiesWhenCutAnywhere) {
    for (const Seed& seed : seeds())
        for (const Target& target : targets()) {
            if (seed.path.parent_path().filename() != target.name) continue;
            for (std::size_t length = 0; length < seed.content.size(); ++length)
                run(target, seed.content.substr(0, length));
        }
}

}  // namespace
}  // namespace srpfs::fuzz
