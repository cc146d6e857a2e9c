// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Control files made of two functions.

#pragma once

#include <srpfs/fs/tree.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace srpfs::daemon {

using ReadText = std::function<Result<std::string>()>;
using ReadLater = std::function<void(std::shared_ptr<fs::PendingCall>)>;
using WriteText = std::function<void(std::string_view, std::shared_ptr<fs::PendingCall>)>;
// Fails the call, and keeps the reason in words for whoever looks.
using FailCall = std::function<void(const std::shared_ptr<fs::PendingCall>&, const Error&)>;

// One value and a newline are what `read` gives without the newline.
void add_value(fs::Tree& tree, fs::NodeId parent, std::string_view name, std::function<std::string()> read);
// Of those that are written, `fail` is for what is no command and does not reach `write`.
// `read` answers with the whole content when it has it. Without `write` it is read only.
void add_slow(fs::Tree& tree, fs::NodeId parent, std::string_view name, ReadLater read, WriteText write = nullptr,
              FailCall fail = nullptr);
// See ControlFile::is_dialogue(); mode 0600. `write` answers with what its handle is to read, or fails.
fs::NodeId add_dialogue(fs::Tree& tree, fs::NodeId parent, std::string_view name, ReadText read, WriteText write,
                        FailCall fail);
void add_text(fs::Tree& tree, fs::NodeId parent, std::string_view name, fs::Tree::Access access, ReadText read,
              WriteText write, FailCall fail = nullptr);

}  // namespace srpfs::daemon
