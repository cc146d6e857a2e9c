// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "text_file.h"

#include <cerrno>

namespace srpfs::daemon {
namespace {

class TextFile : public fs::ControlFile {
public:
    TextFile(ReadText read, WriteText write) : read_(std::move(read)), write_(std::move(write)) {}

    Result<std::string> read() override {
        if (!read_) return Error(EACCES, "write-only");
        return read_();
    }
    void write(std::string_view command, std::shared_ptr<fs::PendingCall> call) override {
        if (!write_) return call->fail(EACCES);
        write_(command, std::move(call));
    }

private:
    ReadText read_;
    WriteText write_;
};

class DialogueFile final : public TextFile {
public:
    using TextFile::TextFile;
    bool is_dialogue() const override { return true; }
};

class SlowFile final : public fs::ControlFile {
public:
    SlowFile(ReadLater read, WriteText write) : read_(std::move(read)), write_(std::move(write)) {}

    Result<std::string> read() override { return Error(EIO, "not at once"); }
    bool is_slow() const override { return true; }
    void read_later(std::shared_ptr<fs::PendingCall> call) override { read_(std::move(call)); }
    void write(std::string_view command, std::shared_ptr<fs::PendingCall> call) override {
        if (!write_) return call->fail(EACCES);
        write_(command, std::move(call));
    }

private:
    ReadLater read_;
    WriteText write_;
};

}  // namespace

void add_slow(fs::Tree& tree, fs::NodeId parent, std::string_view name, ReadLater read, WriteText write) {
    const auto access = write ? fs::Tree::Access::read_write : fs::Tree::Access::read_only;
    tree.add_control_file(parent, name, access, std::make_unique<SlowFile>(std::move(read), std::move(write)));
}

fs::NodeId add_dialogue(fs::Tree& tree, fs::NodeId parent, std::string_view name, ReadText read, WriteText write) {
    return tree.add_control_file(parent, name, fs::Tree::Access::owner_only,
                                 std::make_unique<DialogueFile>(std::move(read), std::move(write)));
}

void add_value(fs::Tree& tree, fs::NodeId parent, std::string_view name, std::function<std::string()> read) {
    tree.add_control_file(parent, name, fs::Tree::Access::read_only,
                          std::make_unique<TextFile>(
                              [read = std::move(read)]() -> Result<std::string> { return read() + "\n"; }, nullptr));
}

void add_text(fs::Tree& tree, fs::NodeId parent, std::string_view name, fs::Tree::Access access, ReadText read,
              WriteText write) {
    tree.add_control_file(parent, name, access, std::make_unique<TextFile>(std::move(read), std::move(write)));
}

}  // namespace srpfs::daemon
