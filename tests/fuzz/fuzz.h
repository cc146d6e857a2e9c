// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A fuzz target is the body that follows SRPFS_FUZZ_TARGET(name); it gets `input`, any bytes. Compiled with
// -DSRPFS_FUZZER it is libFuzzer's entry; otherwise it registers itself for the test that runs the corpora.

#pragma once

#include <srpfs/base/assert.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace srpfs::fuzz {

using Bytes = std::vector<std::byte>;
using Input = std::span<const std::byte>;

struct Target {
    const char* name;
    void (*run)(Input input);
};
inline std::vector<Target>& targets() {
    static std::vector<Target> all;
    return all;
}
struct Registration {
    explicit Registration(Target target) { targets().push_back(target); }
};

// What has to hold whatever the input; ends the program otherwise.
#define PROPERTY(expression) SRPFS_ASSERT(expression)

inline bool is_inside(Input part, Input whole) {
    return part.empty() || (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

inline bool is_printable_line(std::string_view text) {
    for (const char c : text)
        if (c < 0x20 || c > 0x7e) return false;
    return true;
}

inline bool same_bytes(Input left, Input right) {
    return Bytes(left.begin(), left.end()) == Bytes(right.begin(), right.end());
}

// The bytes that encode_into(span) writes.
template <typename Encode>
Bytes written(std::size_t bytes_max, Encode&& encode_into) {
    Bytes buffer(bytes_max, std::byte{0xee});
    buffer.resize(encode_into(std::span(buffer)));
    return buffer;
}

}  // namespace srpfs::fuzz

#ifdef SRPFS_FUZZER
#define SRPFS_FUZZ_TARGET(name)                                                         \
    namespace srpfs::fuzz {                                                             \
    static void run_##name(Input input);                                                \
    }                                                                                   \
    extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) { \
        srpfs::fuzz::run_##name(std::as_bytes(std::span(data, size)));                  \
        return 0;                                                                       \
    }                                                                                   \
    void srpfs::fuzz::run_##name(Input input)
#else
#define SRPFS_FUZZ_TARGET(name)                                         \
    namespace srpfs::fuzz {                                             \
    static void run_##name(Input input);                                \
    static const Registration registration_##name{{#name, run_##name}}; \
    }                                                                   \
    void srpfs::fuzz::run_##name(Input input)
#endif
