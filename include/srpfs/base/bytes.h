// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Cursors over big-endian bytes that cannot overrun. Every multi-byte integer of SRP and SCSI is big-endian.

#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace srpfs {

// Reads fields in order. After an overrun every further read gives zeros; ask overran() once at the end.
class ByteReader {
public:
    explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

    std::uint8_t u8() { return static_cast<std::uint8_t>(unsigned_of(1)); }
    std::uint16_t u16() { return static_cast<std::uint16_t>(unsigned_of(2)); }
    std::uint32_t u24() { return static_cast<std::uint32_t>(unsigned_of(3)); }
    std::uint32_t u32() { return static_cast<std::uint32_t>(unsigned_of(4)); }
    std::uint64_t u64() { return unsigned_of(8); }
    std::int32_t i32() { return static_cast<std::int32_t>(u32()); }
    void skip(std::size_t count) { (void)take(count); }
    // The next `count` bytes, or an empty span (and overran()) when fewer are left.
    std::span<const std::byte> take(std::size_t count) {
        if (count > bytes_.size() - position_) {
            overran_ = true;
            position_ = bytes_.size();
            return {};
        }
        const auto taken = bytes_.subspan(position_, count);
        position_ += count;
        return taken;
    }
    template <std::size_t N>
    std::array<std::byte, N> array() {
        std::array<std::byte, N> copy{};
        const auto taken = take(N);
        std::copy(taken.begin(), taken.end(), copy.begin());
        return copy;
    }
    void seek(std::size_t position) {
        overran_ = overran_ || position > bytes_.size();
        position_ = std::min(position, bytes_.size());
    }
    [[nodiscard]] std::size_t position() const { return position_; }
    [[nodiscard]] std::size_t left() const { return bytes_.size() - position_; }
    [[nodiscard]] bool overran() const { return overran_; }

private:
    std::uint64_t unsigned_of(std::size_t width) {
        std::uint64_t value = 0;
        for (const std::byte one : take(width)) value = value << 8 | static_cast<std::uint64_t>(one);
        return value;
    }

    std::span<const std::byte> bytes_;
    std::size_t position_ = 0;
    bool overran_ = false;
};

// Writes fields in order into a buffer of fixed size. Writing past the end writes nothing and sets overran().
class ByteWriter {
public:
    explicit ByteWriter(std::span<std::byte> bytes) : bytes_(bytes) {}

    ByteWriter& u8(std::uint8_t value) { return put(value, 1); }
    ByteWriter& u16(std::uint16_t value) { return put(value, 2); }
    ByteWriter& u24(std::uint32_t value) { return put(value, 3); }
    ByteWriter& u32(std::uint32_t value) { return put(value, 4); }
    ByteWriter& u64(std::uint64_t value) { return put(value, 8); }
    ByteWriter& i32(std::int32_t value) { return u32(static_cast<std::uint32_t>(value)); }
    ByteWriter& zeros(std::size_t count) {
        if (!room(count)) return *this;
        std::fill_n(bytes_.begin() + static_cast<std::ptrdiff_t>(position_), count, std::byte{0});
        position_ += count;
        return *this;
    }
    ByteWriter& bytes(std::span<const std::byte> source) {
        if (!room(source.size())) return *this;
        if (!source.empty()) std::memcpy(bytes_.data() + position_, source.data(), source.size());
        position_ += source.size();
        return *this;
    }
    [[nodiscard]] std::size_t position() const { return position_; }
    [[nodiscard]] std::span<std::byte> written() const { return bytes_.first(position_); }
    [[nodiscard]] bool overran() const { return overran_; }

private:
    bool room(std::size_t count) {
        if (count <= bytes_.size() - position_) return true;
        overran_ = true;
        return false;
    }
    ByteWriter& put(std::uint64_t value, std::size_t width) {
        if (!room(width)) return *this;
        for (std::size_t i = 0; i < width; ++i)
            bytes_[position_ + i] = static_cast<std::byte>(value >> (8 * (width - 1 - i)));
        position_ += width;
        return *this;
    }

    std::span<std::byte> bytes_;
    std::size_t position_ = 0;
    bool overran_ = false;
};

}  // namespace srpfs
