// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A directory that looks like a mounted srpfs, for what only reads and writes files. It goes away with its object.

#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace srpfs::ctl {

class FakeTree {
public:
    FakeTree() {
        std::string name = std::filesystem::temp_directory_path() / "srpctl-tree.XXXXXX";
        path_ = ::mkdtemp(name.data());
    }
    ~FakeTree() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    FakeTree(const FakeTree&) = delete;
    FakeTree& operator=(const FakeTree&) = delete;

    [[nodiscard]] const std::string& path() const { return path_; }
    void write(const std::string& name, const std::string& text) const {
        const std::filesystem::path file = path_ + "/" + name;
        std::filesystem::create_directories(file.parent_path());
        std::ofstream(file, std::ios::binary) << text;
    }
    [[nodiscard]] std::string read(const std::string& name) const {
        std::ifstream file(path_ + "/" + name, std::ios::binary);
        return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    }
    void link(const std::string& name, const std::string& target) const {
        const std::filesystem::path file = path_ + "/" + name;
        std::filesystem::create_directories(file.parent_path());
        std::filesystem::create_symlink(target, file);
    }

private:
    std::string path_;
};

}  // namespace srpfs::ctl
