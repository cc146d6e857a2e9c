// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The whole layer over a message socket in place of /dev/fuse: INIT, libfuse's answers, and the way of each request.

#include "client.h"
#include "files.h"
#include "session.h"
#include "threads.h"

#include <srpfs/fs/file_system.h>

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>

#include <linux/fs.h>

namespace srpfs::fs::test {
namespace {

// For what comes by itself, soon or, on a busy machine, late.
constexpr int patience_ms = 60'000;

constexpr std::uint32_t all_flags = 0xffffffff & ~static_cast<std::uint32_t>(FUSE_INIT_EXT);

fuse_init_in offer(std::uint32_t flags = all_flags) {
    fuse_init_in init{};
    init.major = 7;
    init.minor = 38;
    init.max_readahead = 131072;
    init.flags = flags;
    return init;
}

TEST(InitReply, SetsOurLimitsAndFlagsAndNoOthers) {
    fuse_init_out library{};
    library.major = 7;
    library.flags = all_flags;
    library.flags2 = 0xff;
    MountOptions options;
    options.max_background = 1024;

    const auto edited = edit_init_reply(library, offer(), options, 0);

    EXPECT_EQ(edited.max_write, 1u << 20);
    EXPECT_EQ(edited.max_pages, 256);
    EXPECT_EQ(edited.max_background, 1024);
    EXPECT_EQ(edited.congestion_threshold, 1024);
    EXPECT_NE(edited.flags & FUSE_ASYNC_DIO, 0u);
    EXPECT_NE(edited.flags & FUSE_MAX_PAGES, 0u);
    EXPECT_NE(edited.flags & FUSE_PARALLEL_DIROPS, 0u);
    EXPECT_NE(edited.flags & FUSE_DO_READDIRPLUS, 0u);
    for (const int unwanted : {FUSE_ATOMIC_O_TRUNC, FUSE_WRITEBACK_CACHE, FUSE_SPLICE_READ, FUSE_SPLICE_WRITE,
                               FUSE_SPLICE_MOVE, FUSE_POSIX_LOCKS, FUSE_FLOCK_LOCKS, FUSE_NO_OPEN_SUPPORT})
        EXPECT_EQ(edited.flags & static_cast<std::uint32_t>(unwanted), 0u);
    EXPECT_EQ(edited.flags2, 0u);
}

TEST(InitReply, ClaimsNothingTheKernelHasNotOffered) {
    MountOptions options;
    options.max_background = 1'000'000;
    const auto edited = edit_init_reply({}, offer(FUSE_ASYNC_READ), options, 0);
    EXPECT_EQ(edited.flags, static_cast<std::uint32_t>(FUSE_ASYNC_READ));
    EXPECT_EQ(edited.max_write, 128u * 1024);
    EXPECT_EQ(edited.max_background, 65535);
}

struct Listener final : FileSystemListener {
    void on_unmounted() override { ++unmounted; }
    void on_serving() override { ++serving; }
    std::atomic<int> unmounted = 0, serving = 0;
};

class MountedFileSystemTest : public ::testing::Test {
protected:
    MountedFileSystemTest() {
        lun::EngineLimits limits;
        limits.intake_buffers = 4;
        limits.read_buffers_4k = limits.read_buffers_64k = limits.read_buffers_1m = limits.edge_buffers = 2;
        for (auto* thread : {&io_, &io_2_})
            engines_.push_back(std::move(*lun::Engine::create(limits, {}, thread->reactor(), random_)));
    }
    ~MountedFileSystemTest() override {
        if (file_system_)
            control_.run([&] {
                file_system_->close();
                file_system_.reset();
            });
    }
    void attach(unsigned reactors = 1) {
        const auto unique = client_.request(FUSE_INIT, 0, offer());
        MountOptions options = options_;
        options.mountpoint = "/dev/fd/" + std::to_string(client_.take_server_end());
        auto mounted = control_.run([&] {
            std::vector<ReactorResources> resources{{&io_.reactor(), engines_[0].get()}};
            if (reactors == 2) resources.push_back({&io_2_.reactor(), engines_[1].get()});
            return FileSystem::mount(options, control_.reactor(), resources, listener_);
        });
        ASSERT_TRUE(mounted) << mounted.error().context;
        file_system_ = std::move(*mounted);
        const Reply init = await(unique);
        ASSERT_EQ(init.error, 0);
        init_ = init.as<fuse_init_out>();
        state_ = control_.run([&] {
            return file_system_->tree().add_control_file(NodeId::root, "state", Tree::Access::read_write,
                                                         std::make_unique<RecordingControlFile>(record_));
        });
    }
    Reply await(std::uint64_t unique) { return client_.await_for(unique, patience_ms); }
    std::uint64_t open(NodeId node, std::uint32_t flags, int expected_error = 0) {
        const fuse_open_in in{.flags = flags, .open_flags = 0};
        const Reply reply = await(client_.request(FUSE_OPEN, static_cast<std::uint64_t>(node), in));
        EXPECT_EQ(reply.error, expected_error);
        open_flags_ = reply.as<fuse_open_out>().open_flags;
        return reply.error == 0 ? reply.as<fuse_open_out>().fh : 0;
    }
    void release(std::uint64_t handle) {
        fuse_release_in in{};
        in.fh = handle;
        EXPECT_EQ(await(client_.request(FUSE_RELEASE, static_cast<std::uint64_t>(state_), in)).error, 0);
    }

    Client client_;
    MountOptions options_;
    Listener listener_;
    Random random_{1};
    ReactorThread control_{"control"}, io_{"io"}, io_2_{"io-2"};
    std::vector<std::unique_ptr<lun::Engine>> engines_;
    std::unique_ptr<FileSystem> file_system_;
    std::shared_ptr<ControlFileRecord> record_ = std::make_shared<ControlFileRecord>();
    fuse_init_out init_{};
    NodeId state_{};
    std::uint32_t open_flags_ = 0;
};

TEST_F(MountedFileSystemTest, AnswersInitWithTheEditedReply) {
    attach();
    EXPECT_EQ(init_.max_write, 1u << 20);
    EXPECT_EQ(init_.max_background, 1024);
    EXPECT_EQ(init_.flags & FUSE_ATOMIC_O_TRUNC, 0u);
    EXPECT_EQ(control_.run([&] { return listener_.serving.load(); }), 1);
}

TEST_F(MountedFileSystemTest, LooksUpAndDescribesANode) {
    attach();
    const Reply found = await(client_.named(FUSE_LOOKUP, 1, "state"));
    ASSERT_EQ(found.error, 0);
    const auto entry = found.as<fuse_entry_out>();
    EXPECT_EQ(entry.nodeid, static_cast<std::uint64_t>(state_));
    EXPECT_EQ(entry.attr.mode, S_IFREG | 0644u);
    EXPECT_GT(entry.entry_valid, 0u);  // it cannot vanish before its directory does
    EXPECT_EQ(await(client_.named(FUSE_LOOKUP, 1, "nothing")).error, ENOENT);
    EXPECT_EQ(await(client_.named(FUSE_LOOKUP, entry.nodeid, "x")).error, ENOTDIR);
    EXPECT_EQ(await(client_.named(FUSE_LOOKUP, 4711, "x")).error, ESTALE);
}

TEST_F(MountedFileSystemTest, NamesOfLunFilesAreAskedForEachTimeAndThoseOfDirectoriesEachSecond) {
    attach();
    control_.run([&] {
        Tree& tree = file_system_->tree();
        tree.add_directory(NodeId::root, "directory");
        tree.add_lun_file(NodeId::root, "lun0", {.capacity_bytes = 4096});
    });
    for (const auto& [name, seconds] : {std::pair{"directory", 1u}, {"lun0", 0u}}) {
        const auto entry = await(client_.named(FUSE_LOOKUP, 1, name)).as<fuse_entry_out>();
        EXPECT_NE(entry.nodeid, 0u) << name;
        EXPECT_EQ(entry.entry_valid, seconds) << name;
        EXPECT_EQ(entry.entry_valid_nsec, 0u) << name;
    }
}

TEST_F(MountedFileSystemTest, ControlFilesAreOpenedForDirectIo) {
    attach();
    const auto handle = open(state_, O_RDWR);
    EXPECT_EQ(open_flags_, static_cast<std::uint32_t>(FOPEN_DIRECT_IO | FOPEN_NOFLUSH));
    EXPECT_EQ(await(client_.read(handle, 0, 4096)).text(), "value\n");
    EXPECT_EQ(await(client_.write(handle, 0, bytes_of_text("go\n"))).as<fuse_write_out>().size, 3u);
    release(handle);
    EXPECT_EQ(await(client_.read(handle, 0, 4096)).error, ENODEV);
    EXPECT_EQ(control_.run([&] { return record_->commands; }), std::vector<std::string>{"go"});
}

TEST_F(MountedFileSystemTest, LunFilesAllowParallelDirectWritesAndAnswerBlkgetsize64) {
    attach();
    const NodeId lun = control_.run(
        [&] { return file_system_->tree().add_lun_file(NodeId::root, "lun0", {.capacity_bytes = 12345}); });
    const auto handle = open(lun, O_RDWR);
    EXPECT_EQ(open_flags_, static_cast<std::uint32_t>(FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES | FOPEN_NOFLUSH));

    fuse_ioctl_in ioctl{};
    ioctl.fh = handle;
    ioctl.cmd = static_cast<std::uint32_t>(BLKGETSIZE64);
    ioctl.out_size = 8;
    const Reply size = await(client_.request(FUSE_IOCTL, static_cast<std::uint64_t>(lun), ioctl));
    ASSERT_EQ(size.error, 0);
    std::uint64_t capacity = 0;
    ASSERT_EQ(size.body.size(), sizeof(fuse_ioctl_out) + sizeof capacity);
    std::memcpy(&capacity, size.body.data() + sizeof(fuse_ioctl_out), sizeof capacity);
    EXPECT_EQ(capacity, 12345u);
    ioctl.cmd = static_cast<std::uint32_t>(BLKSSZGET);
    EXPECT_EQ(await(client_.request(FUSE_IOCTL, static_cast<std::uint64_t>(lun), ioctl)).error, ENOTTY);

    fuse_poll_in poll{};
    poll.fh = handle;
    poll.flags = FUSE_POLL_SCHEDULE_NOTIFY;
    // What the kernel remembers: it would ask before every I/O of io_uring otherwise.
    EXPECT_EQ(await(client_.request(FUSE_POLL, static_cast<std::uint64_t>(lun), poll)).error, ENOSYS);
}

TEST_F(MountedFileSystemTest, SizesOfALunAreAcceptedUpToItsCapacityAndChangeNothing) {
    attach();
    const NodeId lun =
        control_.run([&] { return file_system_->tree().add_lun_file(NodeId::root, "lun0", {.capacity_bytes = 4096}); });
    const auto truncate = [&](NodeId node, std::uint64_t size) {
        fuse_setattr_in in{};
        in.valid = FATTR_SIZE;
        in.size = size;
        return await(client_.request(FUSE_SETATTR, static_cast<std::uint64_t>(node), in));
    };
    const Reply shrunk = truncate(lun, 0);
    EXPECT_EQ(shrunk.error, 0);
    EXPECT_EQ(shrunk.as<fuse_attr_out>().attr.size, 4096u);
    EXPECT_EQ(truncate(lun, 4096).error, 0);
    EXPECT_EQ(truncate(lun, 4097).error, EFBIG);
    EXPECT_EQ(truncate(lun, UINT64_MAX).error, EFBIG);
    EXPECT_EQ(truncate(state_, 10).error, 0);
}

// Requests of this test have no process.
TEST_F(MountedFileSystemTest, WhoIsNotKnownTruncatesNobodyElsesFile) {
    attach();
    const NodeId lun =
        control_.run([&] { return file_system_->tree().add_lun_file(NodeId::root, "lun0", {.capacity_bytes = 4096}); });
    const auto truncate = [&](std::uint64_t handle) {
        fuse_setattr_in in{};
        in.valid = FATTR_SIZE | (handle != 0 ? FATTR_FH : 0);
        in.fh = handle;
        return await(client_.request(FUSE_SETATTR, static_cast<std::uint64_t>(lun), in)).error;
    };
    const auto truncating = open(lun, O_WRONLY);
    const auto innocent = open(lun, O_RDWR);
    EXPECT_EQ(truncate(0), EBUSY);
    EXPECT_EQ(truncate(truncating), 0);
    // Now it can only be the other one.
    EXPECT_EQ(truncate(0), 0);
    EXPECT_EQ(truncate(0), EBUSY);
    EXPECT_EQ(truncate(innocent), 0);
}

TEST_F(MountedFileSystemTest, AReadOnlyLunRefusesWriters) {
    attach();
    const NodeId lun =
        control_.run([&] { return file_system_->tree().add_lun_file(NodeId::root, "lun0", {.read_only = true}); });
    (void)open(lun, O_RDWR, EROFS);
    (void)open(lun, O_WRONLY, EROFS);
    EXPECT_NE(open(lun, O_RDONLY), 0u);
}

TEST_F(MountedFileSystemTest, HandlesOfARemovedLunAreEnodevAndItsReleaseIsToldOnce) {
    attach();
    const NodeId lun =
        control_.run([&] { return file_system_->tree().add_lun_file(NodeId::root, "lun0", {.capacity_bytes = 4096}); });
    const auto handle = open(lun, O_RDWR);
    EXPECT_EQ(control_.run([&] { return file_system_->tree().open_handles(NodeId::root); }), 1u);
    std::promise<void> released;

    control_.run([&] { file_system_->tree().remove(lun, [&] { released.set_value(); }); });

    released.get_future().wait();
    EXPECT_EQ(await(client_.read(handle, 0, 512)).error, ENODEV);
    EXPECT_EQ(await(client_.request(FUSE_GETATTR, static_cast<std::uint64_t>(lun), fuse_getattr_in{})).error, ESTALE);
    release(handle);
}

TEST_F(MountedFileSystemTest, AResizeIsToldToTheKernel) {
    attach();
    const NodeId lun =
        control_.run([&] { return file_system_->tree().add_lun_file(NodeId::root, "lun0", {.capacity_bytes = 4096}); });

    control_.run([&] { file_system_->tree().change_lun_file(lun, {.capacity_bytes = 8192}); });

    const auto told = client_.receive(patience_ms);
    ASSERT_TRUE(told);
    EXPECT_EQ(told->unique, 0u);
    EXPECT_EQ(-told->error, FUSE_NOTIFY_INVAL_INODE);
    const auto body = told->as<fuse_notify_inval_inode_out>();
    EXPECT_EQ(body.ino, static_cast<std::uint64_t>(lun));
    EXPECT_EQ(body.off, -1);
}

// A notification that overtakes the first GETATTR would leave the kernel with a top directory nobody may enter.
TEST_F(MountedFileSystemTest, TheTopDirectoryIsNotToldOfAndCachedForASecondOnly) {
    attach();
    const auto looked_at = await(client_.request(FUSE_GETATTR, FUSE_ROOT_ID, fuse_getattr_in{})).as<fuse_attr_out>();
    EXPECT_EQ(looked_at.attr_valid, 1u);
    EXPECT_EQ(looked_at.attr_valid_nsec, 0u);
    fuse_setattr_in in{};
    in.valid = FATTR_MODE;
    in.mode = S_IFDIR | 0700;
    EXPECT_EQ(await(client_.request(FUSE_SETATTR, FUSE_ROOT_ID, in)).as<fuse_attr_out>().attr_valid, 1u);

    const auto inside = control_.run([&] {
        auto& tree = file_system_->tree();
        const NodeId directory = tree.add_directory(NodeId::root, "directory");
        tree.add_directory(directory, "inside");
        return directory;
    });

    // Notifications come in order: the first that comes is about the directory below.
    const auto told = client_.receive(patience_ms);
    ASSERT_TRUE(told);
    EXPECT_EQ(told->as<fuse_notify_inval_inode_out>().ino, static_cast<std::uint64_t>(inside));
}

TEST_F(MountedFileSystemTest, LargeDirectoriesComeInPieces) {
    attach();
    control_.run([&] {
        for (int i = 0; i < 3000; ++i)
            file_system_->tree().add_directory(NodeId::root, "directory-" + std::to_string(i));
    });
    const Reply opened = await(client_.request(FUSE_OPENDIR, 1, fuse_open_in{}));
    fuse_read_in in{};
    in.fh = opened.as<fuse_open_out>().fh;
    in.size = 4096;
    unsigned names = 0;
    while (true) {
        const Reply part = await(client_.request(FUSE_READDIR, 1, in));
        ASSERT_EQ(part.error, 0);
        if (part.body.empty()) break;
        EXPECT_LE(part.body.size(), 4096u);
        for (std::size_t at = 0; at < part.body.size();) {
            fuse_dirent entry{};
            std::memcpy(&entry, part.body.data() + at, FUSE_NAME_OFFSET);
            in.offset = entry.off;
            at += FUSE_DIRENT_SIZE(&entry);
            ++names;
        }
    }
    EXPECT_EQ(names, 3003u);
    // As much as anybody may ask for fits through the socket pair.
    in.offset = 0;
    in.size = 1 << 20;
    EXPECT_GT(await(client_.request(FUSE_READDIR, 1, in)).body.size(), 100'000u);
    in.fh = 99;
    EXPECT_EQ(await(client_.request(FUSE_READDIR, 1, in)).error, EBADF);
}

TEST_F(MountedFileSystemTest, ADirectoryIsReadWithWhatLookupSaysOfEachName) {
    attach();
    constexpr int directories = 300;
    control_.run([&] {
        for (int i = 0; i < directories; ++i)
            file_system_->tree().add_directory(NodeId::root, "directory-" + std::to_string(i));
        file_system_->tree().add_lun_file(NodeId::root, "lun0", {.capacity_bytes = 4096, .io_bytes = 4096});
    });
    const Reply opened = await(client_.request(FUSE_OPENDIR, 1, fuse_open_in{}));
    fuse_read_in in{};
    in.fh = opened.as<fuse_open_out>().fh;
    in.size = 4096;
    int names = 0;
    while (true) {
        const Reply part = await(client_.request(FUSE_READDIRPLUS, 1, in));
        ASSERT_EQ(part.error, 0);
        if (part.body.empty()) break;
        EXPECT_LE(part.body.size(), 4096u);
        for (std::size_t at = 0; at < part.body.size();) {
            fuse_direntplus entry{};
            std::memcpy(&entry, part.body.data() + at, FUSE_NAME_OFFSET_DIRENTPLUS);
            const std::string name(reinterpret_cast<const char*>(part.body.data()) + at + FUSE_NAME_OFFSET_DIRENTPLUS,
                                   entry.dirent.namelen);
            in.offset = entry.dirent.off;
            at += FUSE_DIRENTPLUS_SIZE(&entry);
            ++names;
            if (name == "." || name == "..") {
                EXPECT_EQ(entry.entry_out.nodeid, 0u);
                continue;
            }
            const auto looked_up = await(client_.named(FUSE_LOOKUP, 1, name)).as<fuse_entry_out>();
            EXPECT_EQ(std::memcmp(&looked_up, &entry.entry_out, sizeof looked_up), 0) << name;
            EXPECT_EQ(entry.dirent.ino, looked_up.nodeid);
        }
    }
    EXPECT_EQ(names, directories + 2 + 2);  // and "state", "lun0"; "." and ".."
}

TEST_F(MountedFileSystemTest, TheEndOfTheConnectionIsReportedOnce) {
    attach(2);
    client_.hang_up();
    for (int i = 0; i < patience_ms && listener_.unmounted == 0; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    control_.run([&] {
        file_system_->close();
        file_system_.reset();
    });
    EXPECT_EQ(listener_.unmounted, 1);
}

TEST_F(MountedFileSystemTest, TwoReactorsShareTheWork) {
    attach(2);
    const auto handle = open(state_, O_RDWR);
    std::vector<std::uint64_t> uniques;
    for (int i = 0; i < 200; ++i) uniques.push_back(client_.read(handle, 0, 4096));
    for (const auto unique : uniques) EXPECT_EQ(await(unique).text(), "value\n");
    release(handle);
    EXPECT_EQ(control_.run([&] { return file_system_->requests_pending(); }), 0u);
}

TEST_F(MountedFileSystemTest, CloseDropsCallsThatAreStillPending) {
    std::shared_ptr<PendingCall> kept;
    std::promise<void> started;
    record_->on_write = [&](std::string_view, std::shared_ptr<PendingCall> call) {
        kept = std::move(call);
        started.set_value();
    };
    attach();
    const auto handle = open(state_, O_RDWR);
    (void)client_.write(handle, 0, bytes_of_text("for ever"));
    started.get_future().wait();
    EXPECT_EQ(control_.run([&] { return file_system_->requests_pending(); }), 1u);

    control_.run([&] {
        file_system_->close();
        file_system_.reset();
        kept->succeed();
        kept.reset();
    });
}

TEST_F(MountedFileSystemTest, AFirstRequestThatIsNotInitIsRefused) {
    (void)client_.named(FUSE_LOOKUP, 1, "x");
    MountOptions options;
    options.mountpoint = "/dev/fd/" + std::to_string(client_.take_server_end());
    auto mounted = control_.run([&] {
        return FileSystem::mount(options, control_.reactor(), {{&io_.reactor(), engines_[0].get()}}, listener_);
    });
    ASSERT_FALSE(mounted);
    EXPECT_EQ(mounted.error().errno_value(), EPROTO);
}

}  // namespace
}  // namespace srpfs::fs::test
