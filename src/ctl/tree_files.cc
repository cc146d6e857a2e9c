// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/tree_files.h>

#include <srpfs/ctl/text.h>

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include <fcntl.h>
#include <unistd.h>

namespace srpfs::ctl {
namespace {

constexpr std::size_t file_bytes_max = std::size_t{256} << 20;

Error error_at(const std::string& path, int errno_value) {
    return Error(errno_value, fmt::format("{}: {}", path, std::strerror(errno_value)));
}

// With what srpfs says about it.
Error explained_at(const std::string& path, int errno_value) {
    if (errno_value == EINTR) return error_at(path, errno_value);  // of this it says nothing
    // After ENODEV the directory may be gone, with the file that says why.
    const auto reason = read_value(std::filesystem::path(path).parent_path() / "last_error");
    return reason && !reason->empty() ? Error(errno_value, *reason) : error_at(path, errno_value);
}

bool is_digit(char one) { return one >= '0' && one <= '9'; }

// The digits at the beginning, without leading zeros.
std::string_view number_at(std::string_view text, std::size_t& length) {
    length = 0;
    while (length < text.size() && is_digit(text[length])) ++length;
    std::string_view digits = text.substr(0, length);
    while (digits.size() > 1 && digits[0] == '0') digits.remove_prefix(1);
    return digits;
}

}  // namespace

Result<std::string> read_file(const std::string& path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return error_at(path, errno);
    std::string text;
    while (true) {
        char buffer[131072];
        const ssize_t got = ::read(descriptor, buffer, sizeof buffer);
        const int fault = got < 0 ? errno : got > 0 && text.size() > file_bytes_max ? EFBIG : 0;
        if (got > 0 && fault == 0) {
            text.append(buffer, static_cast<std::size_t>(got));
            continue;
        }
        ::close(descriptor);
        if (fault != 0) return error_at(path, fault);
        return text;
    }
}

Result<std::string> read_answer(const std::string& path) {
    auto text = read_file(path);
    if (!text) return explained_at(path, text.error().errno_value());
    return text;
}

std::optional<std::string> read_value(const std::string& path) {
    auto text = read_file(path);
    if (!text) return std::nullopt;
    if (text->ends_with('\n')) text->pop_back();
    return *text;
}

Result<void> write_command(const std::string& path, std::string_view text) {
    const int descriptor = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (descriptor < 0) return error_at(path, errno);
    const ssize_t written = ::write(descriptor, text.data(), text.size());
    const int fault = written < 0 ? errno : 0;
    ::close(descriptor);
    if (fault == 0) return {};
    return explained_at(path, fault);
}

bool is_before(std::string_view a, std::string_view b) {
    while (!a.empty() && !b.empty()) {
        if (is_digit(a[0]) && is_digit(b[0])) {
            std::size_t a_length = 0, b_length = 0;
            const std::string_view x = number_at(a, a_length), y = number_at(b, b_length);
            if (x.size() != y.size()) return x.size() < y.size();
            if (x != y) return x < y;
            if (a_length != b_length) return a_length < b_length;
            a.remove_prefix(a_length);
            b.remove_prefix(b_length);
        } else {
            if (a[0] != b[0]) return a[0] < b[0];
            a.remove_prefix(1);
            b.remove_prefix(1);
        }
    }
    return a.size() < b.size();
}

Result<std::vector<std::string>> list_directory(const std::string& path) {
    std::error_code fault;
    std::vector<std::string> names;
    for (std::filesystem::directory_iterator entry(path, fault), end; !fault && entry != end; entry.increment(fault))
        names.push_back(entry->path().filename());
    if (fault) return error_at(path, fault.value());
    std::sort(names.begin(), names.end(), [](const auto& a, const auto& b) { return is_before(a, b); });
    return names;
}

}  // namespace srpfs::ctl
