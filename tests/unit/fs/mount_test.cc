// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The file system as programs meet it: a real mount of control files. Needs root and /dev/fuse, and says so.

#include "files.h"
#include "threads.h"

#include "mount_errors.h"

#include <srpfs/base/log.h>
#include <srpfs/fs/file_system.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

namespace srpfs::fs::test {
namespace {

using namespace std::chrono_literals;

// For what comes by itself, soon or, on a busy machine, late.
constexpr auto patience = 60s;

class Waiter final : public FileSystemListener {
public:
    void on_unmounted() override { set(unmounted_); }
    void on_serving() override { set(serving_); }
    bool wait_unmounted() { return wait(unmounted_); }
    bool wait_serving() { return wait(serving_); }

private:
    void set(int& what) {
        const std::lock_guard lock(mutex_);
        ++what;
        changed_.notify_all();
    }
    bool wait(int& what) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, patience, [&] { return what == 1; });
    }
    std::mutex mutex_;
    std::condition_variable changed_;
    int unmounted_ = 0, serving_ = 0;
};

// A directory that is unmounted and removed whatever happens.
class Directory {
public:
    Directory() {
        char name[] = "/tmp/srpfs-fs-test-XXXXXX";
        path_ = mkdtemp(name);
    }
    ~Directory() {
        while (umount2(path_.c_str(), MNT_DETACH) == 0) {
        }
        rmdir(path_.c_str());
    }
    const std::string& path() const { return path_; }

private:
    std::string path_;
};

struct Descriptor {
    explicit Descriptor(int value) : fd(value) {}
    ~Descriptor() {
        if (fd >= 0) close(fd);
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    int fd;
};

std::string read_file(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

int write_errno(const std::string& path, std::string_view text, int flags = O_WRONLY | O_TRUNC) {
    const Descriptor file(open(path.c_str(), flags));
    if (file.fd < 0) return errno;
    const ssize_t count = write(file.fd, text.data(), text.size());
    if (count < 0) return errno;
    return count == static_cast<ssize_t>(text.size()) ? 0 : -1;
}

class Mount : public ::testing::Test {
protected:
    void SetUp() override {
        if (geteuid() != 0) GTEST_SKIP() << "needs root to mount";
        if (access("/dev/fuse", R_OK | W_OK) != 0) GTEST_SKIP() << "needs /dev/fuse";
        options_.mountpoint = directory_.path();
        options_.fsname = "test";
        EngineUp();
    }

    void EngineUp() {
        lun::EngineLimits limits;
        limits.intake_buffers = 4;
        limits.read_buffers_4k = limits.read_buffers_64k = limits.read_buffers_1m = limits.edge_buffers = 2;
        engine_ = std::move(*lun::Engine::create(limits, {}, io_.reactor(), random_));
    }

    void mount() {
        auto mounted = control_.run([&] {
            return FileSystem::mount(options_, control_.reactor(), {{&io_.reactor(), engine_.get()}}, waiter_);
        });
        ASSERT_TRUE(mounted) << mounted.error().context;
        file_system_ = std::move(*mounted);
        ASSERT_TRUE(waiter_.wait_serving());
    }

    void TearDown() override {
        if (file_system_)
            control_.run([&] {
                file_system_->close();
                file_system_.reset();
            });
    }

    NodeId add_control(std::string_view name, Tree::Access access, NodeId parent = NodeId::root) {
        return control_.run([&] {
            return file_system_->tree().add_control_file(parent, name, access,
                                                         std::make_unique<RecordingControlFile>(record_));
        });
    }
    std::string path(const std::string& name) const { return directory_.path() + "/" + name; }

    Directory directory_;
    MountOptions options_;
    Waiter waiter_;
    Random random_{1};
    ReactorThread control_{"control"};
    ReactorThread io_{"io"};
    std::unique_ptr<lun::Engine> engine_;
    std::unique_ptr<FileSystem> file_system_;
    std::shared_ptr<ControlFileRecord> record_ = std::make_shared<ControlFileRecord>();
};

TEST_F(Mount, ShowsSourceAndTypeInTheMountTable) {
    options_.fsname = "a,b\\c d";
    mount();

    std::ifstream mounts("/proc/self/mounts");
    std::string found;
    for (std::string line; std::getline(mounts, line);)
        if (line.find(directory_.path()) != std::string::npos) found = line;

    EXPECT_TRUE(found.starts_with("a,b\\134c\\040d " + directory_.path() + " fuse.srpfs ")) << found;
    EXPECT_NE(found.find("default_permissions"), std::string::npos) << found;
}

TEST_F(Mount, ReadsAControlFileWhole) {
    mount();
    add_control("state", Tree::Access::read_only);

    EXPECT_EQ(read_file(path("state")), "value\n");
    struct stat st {};
    ASSERT_EQ(stat(path("state").c_str(), &st), 0);
    EXPECT_EQ(st.st_mode, S_IFREG | 0444u);
    EXPECT_EQ(st.st_size, 0);
}

TEST_F(Mount, ReadingByteByByteSeesOneSnapshot) {
    mount();
    record_->content = "first\n";
    add_control("state", Tree::Access::read_only);
    const Descriptor file(open(path("state").c_str(), O_RDONLY));
    std::string text;
    char c = 0;
    ASSERT_EQ(read(file.fd, &c, 1), 1);
    text += c;

    control_.run([&] { record_->content = "SECOND\n"; });
    while (read(file.fd, &c, 1) == 1) text += c;

    EXPECT_EQ(text, "first\n");
    ASSERT_EQ(pread(file.fd, &c, 1, 0), 1);
    EXPECT_EQ(c, 'S');
}

TEST_F(Mount, OneWriteIsOneTrimmedCommand) {
    mount();
    add_control("add_target", Tree::Access::read_write);

    EXPECT_EQ(std::system(("echo '  id_ext=1,ioc_guid=2 ' > " + path("add_target")).c_str()), 0);
    EXPECT_EQ(std::system(("printf %s plain >> " + path("add_target")).c_str()), 0);
    EXPECT_EQ(write_errno(path("add_target"), "\r\n"), 0);

    EXPECT_EQ(control_.run([&] { return record_->commands; }),
              (std::vector<std::string>{"id_ext=1,ioc_guid=2", "plain"}));
}

TEST_F(Mount, AWriteReportsItsErrno) {
    mount();
    record_->on_write = [](std::string_view, const std::shared_ptr<PendingCall>& call) { call->fail(EEXIST); };
    add_control("add_target", Tree::Access::read_write);

    EXPECT_EQ(write_errno(path("add_target"), "again"), EEXIST);
    EXPECT_EQ(write_errno(path("add_target"), std::string("a\0b", 3)), EINVAL);
    EXPECT_EQ(write_errno(path("add_target"), std::string(64 * 1024 + 1, 'x')), E2BIG);
    EXPECT_EQ(write_errno(path("add_target"), std::string(3 << 20, 'x')), E2BIG);
    EXPECT_EQ(control_.run([&] { return record_->commands.size(); }), 1u);
    EXPECT_EQ(control_.run([&] { return record_->refused.size(); }), 3u);
}

TEST_F(Mount, ACommandOfExactly64KiBArrivesWhole) {
    mount();
    add_control("add_target", Tree::Access::read_write);

    EXPECT_EQ(write_errno(path("add_target"), std::string(64 * 1024, 'x')), 0);

    EXPECT_EQ(control_.run([&] { return record_->commands.at(0).size(); }), 64u * 1024);
}

TEST_F(Mount, AccessModesHoldForRootToo) {
    mount();
    add_control("delete", Tree::Access::write_only);
    add_control("roles", Tree::Access::read_only);

    EXPECT_EQ(open(path("delete").c_str(), O_RDONLY), -1);
    EXPECT_EQ(errno, EACCES);
    EXPECT_EQ(open(path("roles").c_str(), O_WRONLY), -1);
    EXPECT_EQ(errno, EACCES);
}

TEST_F(Mount, RefusesToCreateRenameAndRemoveWithEperm) {
    mount();
    add_control("state", Tree::Access::read_only);

    const auto fails_with_eperm = [](int result) { return result == -1 && errno == EPERM; };
    EXPECT_TRUE(fails_with_eperm(open(path("new").c_str(), O_CREAT | O_WRONLY, 0600)));
    EXPECT_TRUE(fails_with_eperm(mkdir(path("new").c_str(), 0700)));
    EXPECT_TRUE(fails_with_eperm(unlink(path("state").c_str())));
    EXPECT_TRUE(fails_with_eperm(rename(path("state").c_str(), path("other").c_str())));
    EXPECT_TRUE(fails_with_eperm(symlink("a", path("link").c_str())));
    EXPECT_TRUE(fails_with_eperm(link(path("state").c_str(), path("link").c_str())));
}

TEST_F(Mount, AnswersWhatLsAndDfAsk) {
    mount();
    add_control("state", Tree::Access::read_only);

    char value[16];
    EXPECT_EQ(getxattr(path("state").c_str(), "security.selinux", value, sizeof value), -1);
    EXPECT_EQ(errno, ENODATA);
    EXPECT_EQ(listxattr(path("state").c_str(), value, sizeof value), 0);
    struct statvfs st {};
    ASSERT_EQ(statvfs(path("").c_str(), &st), 0);
    EXPECT_EQ(st.f_namemax, 255u);
    EXPECT_EQ(std::system(("ls -la " + path("") + " > /dev/null").c_str()), 0);
}

TEST_F(Mount, ChmodChownAndTimesAreKept) {
    mount();
    add_control("state", Tree::Access::read_write);
    const timespec times[2] = {{1000, 5}, {2000, 7}};

    ASSERT_EQ(chmod(path("state").c_str(), 0640), 0);
    ASSERT_EQ(chown(path("state").c_str(), 7, 8), 0);
    ASSERT_EQ(utimensat(AT_FDCWD, path("state").c_str(), times, 0), 0);

    struct stat st {};
    ASSERT_EQ(stat(path("state").c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 07777, 0640u);
    EXPECT_EQ(st.st_uid, 7u);
    EXPECT_EQ(st.st_gid, 8u);
    EXPECT_EQ(st.st_mtim.tv_sec, 2000);
    EXPECT_EQ(st.st_mtim.tv_nsec, 7);
}

TEST_F(Mount, AMissedNameIsFoundAsSoonAsItIsThere) {
    mount();
    // The command makes a file appear whose name the kernel remembers as missing.
    record_->on_write = [this](std::string_view, const std::shared_ptr<PendingCall>& call) {
        file_system_->tree().add_directory(NodeId::root, "late");
        call->succeed();
    };
    add_control("rescan", Tree::Access::write_only);
    ASSERT_NE(access(path("late").c_str(), F_OK), 0);
    ASSERT_EQ(errno, ENOENT);

    ASSERT_EQ(write_errno(path("rescan"), "1"), 0);

    EXPECT_EQ(access(path("late").c_str(), F_OK), 0);
}

TEST_F(Mount, ARemovedDirectoryIsGoneWhenTheCommandReturns) {
    mount();
    const NodeId target = control_.run([&] { return file_system_->tree().add_directory(NodeId::root, "target"); });
    bool released = false;
    record_->on_write = [&, target](std::string_view, const std::shared_ptr<PendingCall>& call) {
        file_system_->tree().remove(target, [&released] { released = true; });
        call->succeed();
    };
    add_control("delete", Tree::Access::write_only, target);
    add_control("state", Tree::Access::read_only, target);
    const Descriptor state(open(path("target/state").c_str(), O_RDONLY));
    char c = 0;
    ASSERT_EQ(read(state.fd, &c, 1), 1);

    ASSERT_EQ(write_errno(path("target/delete"), "1"), 0);

    EXPECT_EQ(access(path("target/state").c_str(), F_OK), -1);
    EXPECT_EQ(errno, ENOENT);
    EXPECT_EQ(access(path("target").c_str(), F_OK), -1);
    EXPECT_EQ(pread(state.fd, &c, 1, 0), -1);
    EXPECT_EQ(errno, ENODEV);
    EXPECT_TRUE(control_.run([&] { return released; }));
}

TEST_F(Mount, ReaddirListsEachNameOnceWhileNamesComeAndGo) {
    mount();
    for (int i = 0; i < 300; ++i)
        control_.run([&] {
            return file_system_->tree().add_directory(NodeId::root, "directory-with-a-long-name-" + std::to_string(i));
        });
    DIR* stream = opendir(path("").c_str());
    ASSERT_NE(stream, nullptr);
    std::vector<std::string> names;
    for (int i = 0; i < 10; ++i) names.emplace_back(readdir(stream)->d_name);

    control_.run([&] {
        auto& tree = file_system_->tree();
        tree.remove(tree.find(NodeId::root, "directory-with-a-long-name-0"), nullptr);
        tree.add_directory(NodeId::root, "a-new-one");
    });
    while (const dirent* entry = readdir(stream)) names.emplace_back(entry->d_name);

    EXPECT_EQ(names.size(), 302u);
    std::sort(names.begin(), names.end());
    EXPECT_EQ(std::unique(names.begin(), names.end()), names.end());
    rewinddir(stream);
    bool seen = false;
    while (const dirent* entry = readdir(stream)) seen = seen || std::string(entry->d_name) == "a-new-one";
    EXPECT_TRUE(seen);
    closedir(stream);
}

TEST_F(Mount, ABlockedWriterIsInterruptedByASignal) {
    mount();
    std::promise<void> started;
    record_->on_write = [&](std::string_view, std::shared_ptr<PendingCall> call) {
        auto* raw = call.get();
        // Kept alive by its own handler until the signal comes.
        raw->on_interrupt([call = std::move(call)] { call->fail(EINTR); });
        started.set_value();
    };
    add_control("add_target", Tree::Access::read_write);

    const pid_t child = fork();
    if (child == 0) {
        struct sigaction action {};
        action.sa_handler = [](int) {};  // without SA_RESTART, so that write() returns
        sigaction(SIGTERM, &action, nullptr);
        _exit(write_errno(path("add_target"), "slow") == EINTR ? 0 : 1);
    }
    started.get_future().wait();
    kill(child, SIGTERM);

    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(Mount, AStreamReaderWaitsForTheNextLine) {
    mount();
    auto record = std::make_shared<StreamRecord>();
    record->lines = {"{\"event\":1}\n"};
    control_.run([&] {
        return file_system_->tree().add_stream_file(NodeId::root, "events",
                                                    std::make_unique<RecordingStreamFile>(record));
    });
    const Descriptor events(open(path("events").c_str(), O_RDONLY));
    char line[64] = {};
    ASSERT_EQ(read(events.fd, line, sizeof line), 12);

    std::thread speaker([&] {
        while (true) {
            const bool told = control_.run([&] {
                if (record->waiters.empty()) return false;
                record->waiters[0].call->succeed_with("{\"event\":2}\n");
                record->waiters.clear();
                return true;
            });
            if (told) return;
            std::this_thread::yield();
        }
    });
    const ssize_t count = read(events.fd, line, sizeof line);
    speaker.join();

    EXPECT_EQ(std::string_view(line, static_cast<std::size_t>(std::max<ssize_t>(count, 0))), "{\"event\":2}\n");
    ASSERT_EQ(fcntl(events.fd, F_SETFL, O_NONBLOCK), 0);
    EXPECT_EQ(read(events.fd, line, sizeof line), -1);
    EXPECT_EQ(errno, EAGAIN);
}

// The second reactor reads from a clone of the descriptor, and answers there what it has read there.
TEST_F(Mount, SeveralReactorsServeOneMount) {
    ReactorThread second("io-2");
    lun::EngineLimits limits;
    limits.intake_buffers = 4;
    limits.read_buffers_4k = limits.read_buffers_64k = limits.read_buffers_1m = limits.edge_buffers = 2;
    const auto second_engine = std::move(*lun::Engine::create(limits, {}, second.reactor(), random_));
    auto mounted = control_.run([&] {
        return FileSystem::mount(options_, control_.reactor(),
                                 {{&io_.reactor(), engine_.get()}, {&second.reactor(), second_engine.get()}}, waiter_);
    });
    ASSERT_TRUE(mounted) << mounted.error().context;
    file_system_ = std::move(*mounted);
    add_control("state", Tree::Access::read_write);
    std::atomic<unsigned> good = 0;

    std::vector<std::thread> readers;
    for (unsigned i = 0; i < 4; ++i)
        readers.emplace_back([&] {
            for (unsigned turn = 0; turn < 200; ++turn) good += read_file(path("state")) == "value\n" ? 1 : 0;
        });
    for (auto& reader : readers) reader.join();

    EXPECT_EQ(good, 800u);
    // The kernel sends RELEASE after close() has returned: the last ones may still come, but none is left unanswered.
    const auto end = std::chrono::steady_clock::now() + patience;
    bool idle = false;
    while (!idle && std::chrono::steady_clock::now() < end)
        idle = control_.run([&] { return file_system_->requests_pending(); }) == 0;
    EXPECT_TRUE(idle);
    control_.run([&] {
        file_system_->close();
        file_system_.reset();
    });
}

TEST_F(Mount, AReadOnlyMountRefusesWriters) {
    options_.read_only = true;
    mount();
    add_control("add_target", Tree::Access::read_write);

    EXPECT_EQ(open(path("add_target").c_str(), O_WRONLY), -1);
    EXPECT_EQ(errno, EROFS);
    EXPECT_EQ(read_file(path("add_target")), "value\n");
}

TEST_F(Mount, RefusesOpensWhenShuttingDown) {
    mount();
    add_control("state", Tree::Access::read_only);
    control_.run([&] { file_system_->refuse_opens(); });

    EXPECT_EQ(open(path("state").c_str(), O_RDONLY), -1);
    EXPECT_EQ(errno, ESHUTDOWN);
}

TEST_F(Mount, UmountIsReported) {
    mount();

    ASSERT_EQ(umount2(directory_.path().c_str(), 0), 0);

    EXPECT_TRUE(waiter_.wait_unmounted());
}

TEST_F(Mount, DetachLetsTheLastUserFinish) {
    mount();
    add_control("state", Tree::Access::read_only);
    {
        const Descriptor state(open(path("state").c_str(), O_RDONLY));
        control_.run([&] { file_system_->detach(); });
        char text[16] = {};
        EXPECT_EQ(read(state.fd, text, sizeof text), 6);
        EXPECT_FALSE(find_mount(directory_.path()).has_value());
    }
    EXPECT_TRUE(waiter_.wait_unmounted());
}

TEST_F(Mount, AbortEndsWhatIsWaiting) {
    mount();
    std::promise<void> started;
    std::shared_ptr<PendingCall> kept;
    record_->on_write = [&](std::string_view, std::shared_ptr<PendingCall> call) {
        kept = std::move(call);
        started.set_value();
    };
    add_control("add_target", Tree::Access::read_write);
    std::thread aborter([&] {
        started.get_future().wait();
        control_.run([&] { file_system_->abort(); });
    });

    const int error = write_errno(path("add_target"), "for ever");
    aborter.join();

    EXPECT_EQ(error, ECONNABORTED);
    EXPECT_TRUE(waiter_.wait_unmounted());
    control_.run([&] { kept.reset(); });
}

TEST_F(Mount, CloseWithoutUmountTakesTheMountAway) {
    mount();

    control_.run([&] {
        file_system_->close();
        file_system_.reset();
    });

    EXPECT_FALSE(find_mount(directory_.path()).has_value());
}

TEST_F(Mount, ANewMountInAStackIsRefusedAndTheOldOneServesOn) {
    mount();
    add_control("state", Tree::Access::read_only);

    auto second = control_.run([&] {
        return FileSystem::mount(options_, control_.reactor(), {{&io_.reactor(), engine_.get()}}, waiter_);
    });

    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().errno_value(), EBUSY);
    EXPECT_EQ(read_file(path("state")), "value\n");
}

TEST_F(Mount, SaysWhatIsWrongWithTheMountPoint) {
    const auto mount_at = [&](const std::string& where) {
        options_.mountpoint = where;
        return control_.run([&] {
            return FileSystem::mount(options_, control_.reactor(), {{&io_.reactor(), engine_.get()}}, waiter_);
        });
    };
    const auto missing = mount_at(directory_.path() + "/nowhere");
    ASSERT_FALSE(missing);
    EXPECT_EQ(missing.error().errno_value(), ENOENT);
    EXPECT_NE(missing.error().context.find("does not exist"), std::string::npos);

    const auto file = mount_at("/dev/null");
    ASSERT_FALSE(file);
    EXPECT_EQ(file.error().errno_value(), ENOTDIR);

    options_.kernel_options = {"nonsense"};
    const auto option = mount_at(directory_.path());
    ASSERT_FALSE(option);
    EXPECT_EQ(option.error().errno_value(), EINVAL);
    EXPECT_NE(option.error().context.find("nonsense"), std::string::npos) << option.error().context;
}

// Without privileges: fusermount3 mounts and unmounts, and the socket pair has to live with the system's limits.
TEST_F(Mount, AUserMountsWithTheHelpOfFusermount) {
    constexpr uid_t nobody = 65534;
    if (access("/usr/bin/fusermount3", X_OK) != 0) GTEST_SKIP() << "needs fusermount3";
    ASSERT_EQ(chown(directory_.path().c_str(), nobody, nobody), 0);
    const pid_t child = fork();
    if (child == 0) {
        if (setgid(nobody) != 0 || setuid(nobody) != 0) _exit(2);
        Waiter waiter;
        ReactorThread control("control"), io("io");
        Random random(1);
        lun::EngineLimits limits;
        limits.intake_buffers = 4;
        limits.read_buffers_4k = limits.read_buffers_64k = limits.read_buffers_1m = limits.edge_buffers = 2;
        auto engine = lun::Engine::create(limits, {}, io.reactor(), random);
        auto mounted = control.run([&] {
            return FileSystem::mount(options_, control.reactor(), {{&io.reactor(), engine->get()}}, waiter);
        });
        if (!mounted) {
            std::fprintf(stderr, "%s\n", mounted.error().context.c_str());
            _exit(3);
        }
        const auto file_system = std::move(*mounted);
        control.run([&] {
            auto& tree = file_system->tree();
            tree.add_control_file(NodeId::root, "state", Tree::Access::read_write,
                                  std::make_unique<RecordingControlFile>(record_));
            for (int i = 0; i < 5000; ++i)
                tree.add_directory(NodeId::root, "a-directory-with-a-name-of-some-length-" + std::to_string(i));
        });
        if (read_file(path("state")) != "value\n") _exit(4);
        if (write_errno(path("state"), "go") != 0) _exit(5);
        DIR* stream = opendir(path("").c_str());
        unsigned names = 0;
        while (stream && readdir(stream)) ++names;
        if (stream) closedir(stream);
        if (names != 5003) _exit(6);
        control.run([&] { file_system->detach(); });
        if (!waiter.wait_unmounted()) _exit(7);
        control.run([&] { file_system->close(); });
        _exit(0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0);
    EXPECT_FALSE(find_mount(directory_.path()).has_value());
}

TEST_F(Mount, AUserWhoMayNotAllowOthersIsToldWhatItNeeds) {
    std::ifstream conf("/etc/fuse.conf");
    const std::string text{std::istreambuf_iterator<char>(conf), {}};
    if (allows_other_users(text)) GTEST_SKIP() << "this system's fuse.conf has user_allow_other";
    constexpr uid_t nobody = 65534;
    ASSERT_EQ(chown(directory_.path().c_str(), nobody, nobody), 0);
    const pid_t child = fork();
    if (child == 0) {
        if (setgid(nobody) != 0 || setuid(nobody) != 0) _exit(2);
        options_.allow_other = true;
        const auto obstacle = find_mount_obstacle(options_);
        const bool told = obstacle && obstacle->errno_value() == EPERM &&
                          obstacle->context.find("user_allow_other") != std::string::npos;
        _exit(told ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
}

// The process that serves is killed: its mount stays, answers ENOTCONN, and umount cleans it up.
TEST_F(Mount, UmountCleansUpAfterKill) {
    int ready[2];
    ASSERT_EQ(pipe(ready), 0);
    const pid_t child = fork();
    if (child == 0) {
        reactor::Reactor control("control"), io("io");
        Random random(1);
        lun::EngineLimits limits;
        limits.intake_buffers = 4;
        limits.read_buffers_4k = limits.read_buffers_64k = limits.read_buffers_1m = limits.edge_buffers = 2;
        auto engine = lun::Engine::create(limits, {}, io, random);
        Waiter waiter;
        auto mounted = FileSystem::mount(options_, control, {{&io, engine->get()}}, waiter);
        if (!mounted) _exit(1);
        std::thread serving([&] { io.run(); });
        if (write(ready[1], "x", 1) != 1) _exit(1);
        control.run();
        _exit(0);
    }
    char c = 0;
    ASSERT_EQ(read(ready[0], &c, 1), 1);
    struct stat st {};
    ASSERT_EQ(stat(directory_.path().c_str(), &st), 0);

    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);

    DIR* stream = opendir(directory_.path().c_str());
    EXPECT_EQ(stream, nullptr);
    EXPECT_EQ(errno, ENOTCONN);
    EXPECT_EQ(umount2(directory_.path().c_str(), 0), 0);
    EXPECT_FALSE(find_mount(directory_.path()).has_value());
    close(ready[0]);
    close(ready[1]);
}

}  // namespace
}  // namespace srpfs::fs::test
