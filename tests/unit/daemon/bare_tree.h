// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A tree that takes everything and has nothing: tests say of what they want to see.

#pragma once

#include <srpfs/fs/tree.h>

namespace srpfs::daemon {

class BareTree : public fs::Tree {
public:
    fs::NodeId add_directory(fs::NodeId, std::string_view) override { return {}; }
    fs::NodeId add_symlink(fs::NodeId, std::string_view, std::function<std::string()>) override { return {}; }
    void remove(fs::NodeId, std::function<void()>) override {}
    fs::NodeId add_control_file(fs::NodeId, std::string_view, Access, std::unique_ptr<fs::ControlFile>) override {
        return {};
    }
    fs::NodeId add_stream_file(fs::NodeId, std::string_view, std::unique_ptr<fs::StreamFile>) override { return {}; }
    fs::NodeId add_lun_file(fs::NodeId, std::string_view, const fs::LunFile&) override { return {}; }
    void change_lun_file(fs::NodeId, const fs::LunFile&) override {}
    void describe(fs::NodeId, std::function<fs::ExtendedAttributes()>) override {}
    void serve_ioctl(fs::NodeId, unsigned, Ioctl) override {}
    void drop_pages(fs::NodeId, std::function<void()> done) override { done(); }
    void set_mode(fs::NodeId, unsigned) override {}
    void set_owner(fs::NodeId, std::optional<unsigned>, std::optional<unsigned>) override {}
    Permissions permissions(fs::NodeId) const override { return {}; }
    unsigned writers(fs::NodeId) const override { return 0; }
    fs::NodeId find(fs::NodeId, std::string_view) const override { return {}; }
    unsigned open_handles(fs::NodeId) const override { return 0; }
};

}  // namespace srpfs::daemon
