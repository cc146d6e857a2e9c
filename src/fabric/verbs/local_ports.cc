// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "local_ports.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <fstream>

namespace srpfs::fabric::verbs {
namespace {

namespace stdfs = std::filesystem;

// The first line of a file; empty when it cannot be read.
std::string first_line(const stdfs::path& file) {
    std::ifstream in(file);
    std::string line;
    std::getline(in, line);
    return line;
}

// "0200:00ff:fe00:0001"
std::uint64_t parse_guid(std::string text) {
    std::erase(text, ':');
    std::uint64_t guid = 0;
    std::from_chars(text.data(), text.data() + text.size(), guid, 16);
    return guid;
}

std::optional<unsigned> parse_number(const std::string& text) {
    unsigned number = 0;
    const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (failure != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return number;
}

}  // namespace

std::optional<LocalPort> read_local_port(const std::string& device, unsigned port, const stdfs::path& root) {
    const stdfs::path directory = root / device / "ports" / std::to_string(port);
    const std::string state = first_line(directory / "state");  // "4: ACTIVE"
    if (state.empty()) return std::nullopt;

    LocalPort result;
    result.device = device;
    result.port = port;
    result.link_layer =
        first_line(directory / "link_layer") == "InfiniBand" ? LinkLayer::infiniband : LinkLayer::ethernet;
    result.active = state.starts_with("4:");
    const std::string gid = first_line(directory / "gids" / "0");
    if (inet_pton(AF_INET6, gid.c_str(), result.gid.data()) != 1) result.gid = {};
    for (std::size_t i = 8; i < 16; ++i) result.guid = result.guid << 8 | std::to_integer<std::uint64_t>(result.gid[i]);
    result.node_guid = parse_guid(first_line(root / device / "node_guid"));
    return result;
}

std::vector<LocalPort> read_local_ports(const stdfs::path& root) {
    std::vector<LocalPort> ports;
    std::error_code ignored;  // a directory that is absent or vanishes holds no ports
    for (const auto& device : stdfs::directory_iterator(root, ignored)) {
        for (const auto& entry : stdfs::directory_iterator(device.path() / "ports", ignored)) {
            const auto number = parse_number(entry.path().filename());
            if (!number) continue;
            if (auto port = read_local_port(device.path().filename(), *number, root)) ports.push_back(*std::move(port));
        }
    }
    std::sort(ports.begin(), ports.end(), [](const LocalPort& left, const LocalPort& right) {
        return std::tie(left.device, left.port) < std::tie(right.device, right.port);
    });
    return ports;
}

}  // namespace srpfs::fabric::verbs
