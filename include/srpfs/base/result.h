// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The outcome of a control action: a value, or an Error that says what was attempted and why it failed.
// Shaped like std::expected, which g++ 12 has in C++23 mode only. I/O does not use it (see lun::Outcome).

#pragma once

#include <srpfs/base/assert.h>

#include <cerrno>
#include <string>
#include <system_error>
#include <utility>
#include <variant>

namespace srpfs {

// `code` is what a program gets (an errno value), `context` the sentence a person reads: what was attempted,
// where, the cause, and what to do about it.
struct Error {
    std::error_code code;
    std::string context;

    Error(std::error_code code_, std::string context_) : code(code_), context(std::move(context_)) {}
    Error(int errno_value, std::string context_)
        : code(errno_value, std::generic_category()), context(std::move(context_)) {}

    // The positive errno value to answer a system call with.
    [[nodiscard]] int errno_value() const { return code.value(); }
};

template <typename T>
class [[nodiscard]] Result {
public:
    Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
    Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

    [[nodiscard]] bool has_value() const { return state_.index() == 0; }
    explicit operator bool() const { return has_value(); }

    T& value() & {
        SRPFS_ASSERT(has_value());
        return *std::get_if<0>(&state_);
    }
    const T& value() const& {
        SRPFS_ASSERT(has_value());
        return *std::get_if<0>(&state_);
    }
    T&& value() && {
        SRPFS_ASSERT(has_value());
        return std::move(*std::get_if<0>(&state_));
    }
    T& operator*() & { return value(); }
    const T& operator*() const& { return value(); }
    T&& operator*() && { return std::move(*this).value(); }
    T* operator->() { return &value(); }
    const T* operator->() const { return &value(); }

    [[nodiscard]] const Error& error() const {
        SRPFS_ASSERT(!has_value());
        return *std::get_if<1>(&state_);
    }

private:
    std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
public:
    Result() = default;
    Result(Error error) : error_(std::in_place_index<1>, std::move(error)) {}

    [[nodiscard]] bool has_value() const { return error_.index() == 0; }
    explicit operator bool() const { return has_value(); }

    [[nodiscard]] const Error& error() const {
        SRPFS_ASSERT(!has_value());
        return *std::get_if<1>(&error_);
    }

private:
    std::variant<std::monostate, Error> error_;
};

}  // namespace srpfs
