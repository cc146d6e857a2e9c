// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Cursors over big-endian bytes that cannot overrun. Every multi-byte integer of SRP and SCSI is big-endian.

#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace srpfs {

// The integer whose big-endian bytes begin at `from`, and back.
template <typename T>
T load_big_endian(const std::byte* from) {
    static_assert(std::endian::native == std::endian::little || std::endian::native == std::endian::big);
    T value;
    std::memcpy(&value, from, sizeof value);
    if constexpr (std::endian::native == std::endian::big || sizeof(T) == 1)
        return value;
    else if constexpr (sizeof(T) == 2)
        return __builtin_bswap16(value);
    else if constexpr (sizeof(T) == 4)
        return __builtin_bswap32(value);
    else
        return __builtin_bswap64(value);
}
template <typename T>
void store_big_endian(std::byte* to, T value) {
    value = load_big_endian<T>(reinterpret_cast<const std::byte*>(&value));
    std::memcpy(to, &value, sizeof value);
}

// Reads fields in order. After an overrun every further read gives zeros; ask overran() once at the end.
class ByteReader {
public:
    explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

    std::uint8_t u8() { return integer<std::uint8_t>(); }
    std::uint16_t u16() { return integer<std::uint16_t>(); }
    std::uint32_t u24() {
        const auto bytes = array<3>();
        return static_cast<std::uint32_t>(bytes[0]) << 16 | static_cast<std::uint32_t>(bytes[1]) << 8 |
               static_cast<std::uint32_t>(bytes[2]);
    }
    std::uint32_t u32() { return integer<std::uint32_t>(); }
    std::uint64_t u64() { return integer<std::uint64_t>(); }
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
        if (taken.size() == N) std::memcpy(copy.data(), taken.data(), N);
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
    template <typename T>
    T integer() {
        const auto taken = take(sizeof(T));
        return taken.size() == sizeof(T) ? load_big_endian<T>(taken.data()) : T{0};
    }

    std::span<const std::byte> bytes_;
    std::size_t position_ = 0;
    bool overran_ = false;
};

// Writes fields in order into a buffer of fixed size. Writing past the end writes nothing and sets overran().
class ByteWriter {
public:
    explicit ByteWriter(std::span<std::byte> bytes) : bytes_(bytes) {}

    ByteWriter& u8(std::uint8_t value) { return put(value); }
    ByteWriter& u16(std::uint16_t value) { return put(value); }
    ByteWriter& u24(std::uint32_t value) {
        const std::array bytes{static_cast<std::byte>(value >> 16), static_cast<std::byte>(value >> 8),
                               static_cast<std::byte>(value)};
        return this->bytes(bytes);
    }
    ByteWriter& u32(std::uint32_t value) { return put(value); }
    ByteWriter& u64(std::uint64_t value) { return put(value); }
    ByteWriter& i32(std::int32_t value) { return u32(static_cast<std::uint32_t>(value)); }
    ByteWriter& zeros(std::size_t count) {
        if (!room(count)) return *this;
        if (count > 0) std::memset(bytes_.data() + position_, 0, count);
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
    template <typename T>
    ByteWriter& put(T value) {
        if (!room(sizeof value)) return *this;
        store_big_endian(bytes_.data() + position_, value);
        position_ += sizeof value;
        return *this;
    }

    std::span<std::byte> bytes_;
    std::size_t position_ = 0;
    bool overran_ = false;
};

}  // namespace srpfs
