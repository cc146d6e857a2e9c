// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What the two programs share: a reactor with one verbs fabric in the calling thread, and hexadecimal lines.

#pragma once

#include <srpfs/base/log.h>
#include <srpfs/fabric/verbs.h>
#include <srpfs/reactor/reactor.h>

#include <fmt/format.h>

#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>

namespace srpfs::guest {

// The descriptor becomes readable: `call`, in a turn of the reactor.
class DescriptorSource final : public reactor::Source {
public:
    DescriptorSource(int fd, std::function<bool()> call) : fd_(fd), call_(std::move(call)) {}
    bool poll() override { return call_(); }
    void sleep_on(std::vector<int>& fds) override { fds.push_back(fd_); }

private:
    int fd_;
    std::function<bool()> call_;
};

class FabricSource final : public reactor::Source {
public:
    explicit FabricSource(fabric::Fabric& fabric) : fabric_(fabric) {}
    bool poll() override { return fabric_.poll(64) > 0; }
    void flush() override { fabric_.flush(); }
    bool prepare_to_sleep() override { return fabric_.arm(); }
    void sleep_on(std::vector<int>& fds) override { fabric_.sleep_on(fds); }

private:
    fabric::Fabric& fabric_;
};

// "10.9.9.1:5600"
inline std::optional<fabric::IpAddress> parse_address(const std::string& text) {
    const std::size_t colon = text.rfind(':');
    if (colon == std::string::npos) return std::nullopt;
    const int port = std::atoi(text.c_str() + colon + 1);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    if (port < 1 || port > 65535 || inet_pton(AF_INET, text.substr(0, colon).c_str(), &address.sin_addr) != 1)
        return std::nullopt;
    fabric::IpAddress result;
    static_assert(sizeof address <= sizeof result.destination);
    std::copy_n(reinterpret_cast<const std::byte*>(&address), sizeof address,
                reinterpret_cast<std::byte*>(&result.destination));
    return result;
}

// Another process reads the output while this one runs.
inline void print_line(std::string_view word, std::string_view rest = {}) {
    fmt::print("{}{}{}\n", word, rest.empty() ? "" : " ", rest);
    std::fflush(stdout);
}

inline void print_bytes(std::string_view word, std::span<const std::byte> bytes) {
    std::string digits;
    digits.reserve(bytes.size() * 2);
    for (const std::byte one : bytes) digits += fmt::format("{:02x}", std::to_integer<unsigned>(one));
    print_line(word, digits);
}

}  // namespace srpfs::guest
