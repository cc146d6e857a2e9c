// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The parts of a mounted file system, put together: session, tree, open files, control calls, notifier, and a channel
// per reactor. Control thread, except where ChannelHost says otherwise.

#pragma once

#include "control_calls.h"
#include "fuse_channel.h"
#include "notifier.h"
#include "open_files.h"
#include "page_dropper.h"
#include "session.h"
#include "tree_nodes.h"

#include <srpfs/fs/file_system.h>

#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <map>
#include <vector>

namespace srpfs::fs {

class MountedFileSystem final : public FileSystem,
                                private TreeWatcher,
                                private SessionHost,
                                private ReplySink,
                                private ChannelHost {
public:
    static Result<std::unique_ptr<FileSystem>> create(const MountOptions& options, reactor::Executor& control,
                                                      std::vector<ReactorResources> reactors,
                                                      FileSystemListener& listener);
    ~MountedFileSystem() override;

    Tree& tree() override { return *tree_; }
    void set_readers(const std::vector<bool>& reads) override;
    void refuse_opens() override { refusing_ = true; }
    void detach() override { session_->detach(); }
    void abort() override;
    void close() override;
    [[nodiscard]] unsigned requests_pending() const override;
    [[nodiscard]] PageStatistics page_statistics() const override;
    [[nodiscard]] std::vector<RequestStatistics> request_statistics() const override;

private:
    MountedFileSystem(reactor::Executor& control, std::vector<ReactorResources> reactors, FileSystemListener& listener);
    Result<void> start(const MountOptions& options);

    // TreeWatcher
    void on_attributes_changed(NodeId node) override;
    void on_unreachable(std::vector<NodeId> nodes, std::vector<std::shared_ptr<LunData>> luns,
                        std::function<void()> done) override;
    void on_cached() override;
    void on_changed_elsewhere(const std::shared_ptr<LunData>& lun, std::function<void()> done) override;
    // SessionHost
    void on_released(std::uint64_t handle, OpenFileDetails details) override;
    [[nodiscard]] bool refuses_opens() const override { return refusing_; }
    // ReplySink
    void answer(const Origin& origin, std::vector<std::byte> reply) override;
    void after_notifications(std::function<void()> work) override;
    // ChannelHost, on the reactors
    void on_control_request(const Origin& origin, std::vector<std::byte> request) override;
    void on_control_interrupt(const Origin& origin) override;
    void on_disconnected(unsigned channel, int errno_value) override;
    void on_drop_pages(unsigned channel, NodeId node, std::vector<lun::ByteRange> ranges,
                       std::uint64_t ticket) override;

    void serve(const Origin& origin, const std::vector<std::byte>& request);
    // True: a SETATTR of a LUN's size, which is answered when its home has done what it means.
    bool takes_truncation(const Origin& origin, const fuse_in_header& header, const std::vector<std::byte>& request);
    void unmounted(int errno_value);
    // Runs `work` on each reactor and `done` here after all of them.
    Result<std::vector<std::unique_ptr<Ring>>> make_rings(const MountOptions& options);
    void on_ring_started(const Result<void>& started);
    void on_each_reactor(std::function<void(FuseChannel&, std::function<void()>)> work, std::function<void()> done);
    void post_to_control(std::function<void(MountedFileSystem&)> work);

    reactor::Executor& control_;
    std::vector<ReactorResources> reactors_;
    FileSystemListener& listener_;
    std::unique_ptr<Session> session_;
    OpenFiles files_;
    std::unique_ptr<TreeNodes> tree_;
    std::unique_ptr<ControlCalls> calls_;
    std::unique_ptr<Notifier> notifier_;
    std::unique_ptr<PageDropper> dropper_;  // constant while there are channels
    std::vector<std::shared_ptr<FuseChannel>> channels_;
    // What mail to the control thread refers to: nullptr inside once this object is gone.
    struct Address {
        MountedFileSystem* file_system;
    };
    std::shared_ptr<Address> address_ = std::make_shared<Address>(Address{this});
    Truncation truncation_ = Truncation::emulate;
    std::map<std::uint64_t, unsigned> truncations_;  // under way: the reactor, by the request's number
    bool rings_required_ = false;
    std::size_t rings_starting_ = 0;
    std::optional<Error> ring_failure_;  // the first
    bool reads_ahead_ = false;           // what the kernel reads ahead has been set
    bool refusing_ = false;
    bool unmounted_ = false;
    bool closed_ = false;
};

}  // namespace srpfs::fs
