// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "text_file.h"

#include <fmt/format.h>

#include <cerrno>

namespace srpfs::daemon {
namespace {

// The half that is written.
class WrittenFile : public fs::ControlFile {
public:
    WrittenFile(std::string_view name, WriteText write, FailCall fail)
        : name_(name), write_(std::move(write)), fail_(std::move(fail)) {}

    void write(std::string_view command, std::shared_ptr<fs::PendingCall> call) final {
        if (!write_) return call->fail(EACCES);
        write_(command, std::move(call));
    }
    void refuse(const Error& why, std::shared_ptr<fs::PendingCall> call) final {
        if (!fail_) return call->fail(why.errno_value());
        fail_(call, Error(why.errno_value(), fmt::format("{}: {}", name_, why.context)));
    }

private:
    const std::string name_;
    WriteText write_;
    FailCall fail_;
};

class TextFile : public WrittenFile {
public:
    TextFile(std::string_view name, ReadText read, WriteText write, FailCall fail)
        : WrittenFile(name, std::move(write), std::move(fail)), read_(std::move(read)) {}

    Result<std::string> read() override {
        if (!read_) return Error(EACCES, "write-only");
        return read_();
    }

private:
    ReadText read_;
};

class DialogueFile final : public TextFile {
public:
    using TextFile::TextFile;
    bool is_dialogue() const override { return true; }
};

class SlowFile final : public WrittenFile {
public:
    SlowFile(std::string_view name, ReadLater read, WriteText write, FailCall fail)
        : WrittenFile(name, std::move(write), std::move(fail)), read_(std::move(read)) {}

    Result<std::string> read() override { return Error(EIO, "not at once"); }
    bool is_slow() const override { return true; }
    void read_later(std::shared_ptr<fs::PendingCall> call) override { read_(std::move(call)); }

private:
    ReadLater read_;
};

}  // namespace

void add_slow(fs::Tree& tree, fs::NodeId parent, std::string_view name, ReadLater read, WriteText write,
              FailCall fail) {
    const auto access = write ? fs::Tree::Access::read_write : fs::Tree::Access::read_only;
    tree.add_control_file(parent, name, access,
                          std::make_unique<SlowFile>(name, std::move(read), std::move(write), std::move(fail)));
}

fs::NodeId add_dialogue(fs::Tree& tree, fs::NodeId parent, std::string_view name, ReadText read, WriteText write,
                        FailCall fail) {
    return tree.add_control_file(
        parent, name, fs::Tree::Access::owner_only,
        std::make_unique<DialogueFile>(name, std::move(read), std::move(write), std::move(fail)));
}

void add_value(fs::Tree& tree, fs::NodeId parent, std::string_view name, std::function<std::string()> read) {
    add_text(
        tree, parent, name, fs::Tree::Access::read_only,
        [read = std::move(read)]() -> Result<std::string> { return read() + "\n"; }, nullptr);
}

void add_text(fs::Tree& tree, fs::NodeId parent, std::string_view name, fs::Tree::Access access, ReadText read,
              WriteText write, FailCall fail) {
    tree.add_control_file(parent, name, access,
                          std::make_unique<TextFile>(name, std::move(read), std::move(write), std::move(fail)));
}

}  // namespace srpfs::daemon
