// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A file or block device. Worker threads make the system calls, because a reactor must not wait for a disk.

#include "stores.h"

#include <srpfs/base/assert.h>
#include <srpfs/base/log.h>
#include <srpfs/reactor/thread.h>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

namespace srpfs::target {
namespace {

constexpr unsigned workers = 4;

class FileStore final : public BlockStore {
public:
    // Takes the descriptor. `write_cache` false: every write is durable when done.
    FileStore(int fd, std::string path, std::uint64_t bytes, bool write_cache)
        : fd_(fd), path_(std::move(path)), bytes_(bytes), write_cache_(write_cache) {
        for (unsigned i = 0; i < workers; ++i) threads_.emplace_back([this] { work(); });
    }
    ~FileStore() override {
        {
            const std::lock_guard lock(mutex_);
            stopping_ = true;
        }
        wake_.notify_all();
        for (auto& thread : threads_) thread.join();
        close(fd_);
    }

    StoreResult submit(StoreIo& io, reactor::Executor& executor) override {
        {
            const std::lock_guard lock(mutex_);
            queue_.push_back({&io, &executor});
        }
        wake_.notify_one();
        return StoreResult::pending;
    }
    std::uint64_t bytes() const override { return bytes_.load(std::memory_order_relaxed); }
    void look_at_size() override {
        if (const off_t end = lseek(fd_, 0, SEEK_END); end >= 0) bytes_ = static_cast<std::uint64_t>(end);
    }
    Result<void> resize(std::uint64_t bytes) override {
        if (ftruncate(fd_, static_cast<off_t>(bytes)) != 0)
            return Error(errno, fmt::format("resize {} to {} bytes: {}", path_, bytes, std::strerror(errno)));
        bytes_ = bytes;
        return {};
    }
    // A file system that knows nothing of holes says that all is data; a device that it cannot tell.
    Extent extent_at(std::uint64_t offset) const override {
        const std::uint64_t size = bytes();
        const off_t data = lseek(fd_, static_cast<off_t>(offset), SEEK_DATA);
        if (data < 0) return {errno != ENXIO, size};
        if (static_cast<std::uint64_t>(data) > offset)
            return {false, std::min<std::uint64_t>(static_cast<std::uint64_t>(data), size)};
        const off_t hole = lseek(fd_, data, SEEK_HOLE);
        if (hole <= data) return {true, size};
        return {true, std::min<std::uint64_t>(static_cast<std::uint64_t>(hole), size)};
    }
    bool is_inline() const override { return false; }
    void drain() override {
        std::unique_lock lock(mutex_);
        idle_.wait(lock, [this] { return queue_.empty() && running_ == 0; });
    }

private:
    struct Job {
        StoreIo* io;
        reactor::Executor* executor;
    };

    void work();
    StoreResult carry_out(const StoreIo& io) const;
    StoreResult read(const StoreIo& io) const;
    StoreResult write(const StoreIo& io, int flags) const;
    StoreResult unmap(const StoreIo& io) const;
    StoreResult failed(const char* what, const StoreIo& io, int error) const;

    const int fd_;
    const std::string path_;
    std::atomic<std::uint64_t> bytes_;
    const bool write_cache_;
    std::mutex mutex_;
    std::condition_variable wake_, idle_;
    std::deque<Job> queue_;  // guarded by mutex_, as are the next two
    unsigned running_ = 0;
    bool stopping_ = false;
    std::vector<std::thread> threads_;
};

void FileStore::work() {
    reactor::begin_thread("srpfs-file");
    std::unique_lock lock(mutex_);
    while (true) {
        wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
        if (queue_.empty()) return;
        const Job job = queue_.front();
        queue_.pop_front();
        ++running_;
        lock.unlock();
        const StoreResult result = carry_out(*job.io);
        // Posted before running_ goes down: who has drained the store finds the work in the executor or nowhere.
        job.executor->post([io = job.io, owner = job.io->owner, result] {
            if (!owner.expired()) io->on_store_done(result);
        });
        lock.lock();
        if (--running_ == 0 && queue_.empty()) idle_.notify_all();
    }
}

StoreResult FileStore::carry_out(const StoreIo& io) const {
    switch (io.kind) {
        case StoreIo::Kind::read: return read(io);
        case StoreIo::Kind::write: return write(io, write_cache_ ? 0 : RWF_DSYNC);
        case StoreIo::Kind::write_through: return write(io, RWF_DSYNC);
        case StoreIo::Kind::unmap: return unmap(io);
        case StoreIo::Kind::flush: return fdatasync(fd_) == 0 ? StoreResult::done : failed("flush", io, errno);
    }
    return StoreResult::medium_error;
}

StoreResult FileStore::failed(const char* what, const StoreIo& io, int error) const {
    log::warning(path_, "{} of {} bytes at {} failed: {}; the initiator gets an error", what, io.bytes, io.offset,
                 error ? std::strerror(error) : "the file has become shorter");
    return error == ENOSPC || error == EDQUOT ? StoreResult::no_space : StoreResult::medium_error;
}

StoreResult FileStore::read(const StoreIo& io) const {
    for (std::uint64_t moved = 0; moved < io.bytes;) {
        const ssize_t part = pread(fd_, io.memory + moved, io.bytes - moved, static_cast<off_t>(io.offset + moved));
        if (part < 0 && errno == EINTR) continue;
        if (part <= 0) return failed("read", io, part < 0 ? errno : 0);
        moved += static_cast<std::uint64_t>(part);
    }
    return StoreResult::done;
}

StoreResult FileStore::write(const StoreIo& io, int flags) const {
    for (std::uint64_t moved = 0; moved < io.bytes;) {
        const iovec part{io.memory + moved, io.bytes - moved};
        const ssize_t written = pwritev2(fd_, &part, 1, static_cast<off_t>(io.offset + moved), flags);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return failed("write", io, written < 0 ? errno : EIO);
        moved += static_cast<std::uint64_t>(written);
    }
    return StoreResult::done;
}

StoreResult FileStore::unmap(const StoreIo& io) const {
    const auto offset = static_cast<off_t>(io.offset), bytes = static_cast<off_t>(io.bytes);
    if (fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes) == 0) return StoreResult::done;
    if (errno != EOPNOTSUPP) return failed("unmap", io, errno);
    std::vector<std::byte> zeros(io.bytes);
    struct Zeros final : StoreIo {
        void on_store_done(StoreResult) override {}
    } zeroing;
    zeroing.offset = io.offset;
    zeroing.bytes = io.bytes;
    zeroing.memory = zeros.data();
    return write(zeroing, write_cache_ ? 0 : RWF_DSYNC);
}

Result<std::uint64_t> size_of(int fd, const LunConfig& config) {
    struct stat status {};
    if (fstat(fd, &status) != 0) return Error(errno, fmt::format("{}: {}", config.path, std::strerror(errno)));
    if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
        return Error(EINVAL, fmt::format("{} is neither a regular file nor a block device", config.path));
    const off_t end = lseek(fd, 0, SEEK_END);
    if (end < 0) return Error(errno, fmt::format("{}: {}", config.path, std::strerror(errno)));
    if (end == 0)
        return Error(EINVAL, fmt::format("{} is empty: give it its size first (truncate -s SIZE)", config.path));
    if (static_cast<std::uint64_t>(end) % config.block_bytes != 0)
        return Error(EINVAL, fmt::format("{} has {} bytes, no multiple of the block length {}", config.path, end,
                                         config.block_bytes));
    return static_cast<std::uint64_t>(end);
}

}  // namespace

Result<std::unique_ptr<BlockStore>> make_file_store(const LunConfig& config) {
    const int fd = open(config.path.c_str(), (config.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (fd < 0) return Error(errno, fmt::format("cannot open {}: {}", config.path, std::strerror(errno)));
    const auto bytes = size_of(fd, config);
    if (!bytes) {
        close(fd);
        return bytes.error();
    }
    return std::unique_ptr<BlockStore>(std::make_unique<FileStore>(fd, config.path, *bytes, config.write_cache));
}

}  // namespace srpfs::target
