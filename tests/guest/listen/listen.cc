// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The embedded target on an RDMA network, with what initiators send to it:
//
//     srpfs-listen ADDRESS:PORT [LUN[+LUN...]]      the list as in "demo:"; default ram:16M+ram:16M,bs=4096
//
// Its target port has id_ext = ioc_guid = 0000000000000001. Prints "listening", "login HEX" (the private data of a
// connect request) and "iu HEX" (each message), one a line; ends on SIGTERM.

#include "program.h"

#include <srpfs/target/portal.h>

#include <list>

#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

namespace srpfs::guest {
namespace {

using namespace fabric;

// Another fabric, with a line for everything that arrives on accepted connections.
class PrintingFabric final : public Fabric {
public:
    explicit PrintingFabric(Fabric& fabric) : fabric_(fabric) {}

    std::vector<LocalPort> local_ports() override { return fabric_.local_ports(); }
    Result<RegionId> register_memory(std::span<std::byte> memory, RemoteAccess access) override {
        return fabric_.register_memory(memory, access);
    }
    void unregister_memory(RegionId region) override { fabric_.unregister_memory(region); }
    Result<Connection*> connect(const Address& address, const ConnectionLimits& limits,
                                ConnectionHandler& handler) override {
        return fabric_.connect(address, limits, handler);
    }
    Result<std::unique_ptr<Listener>> listen(const Address& address, ListenHandler& handler) override {
        return fabric_.listen(address, listens_.emplace_back(*this, handler));
    }
    void watch_ports(PortListener& listener) override { fabric_.watch_ports(listener); }
    void unwatch_ports(PortListener& listener) override { fabric_.unwatch_ports(listener); }
    unsigned poll(unsigned completions_max) override { return fabric_.poll(completions_max); }
    void flush() override { fabric_.flush(); }
    bool arm() override { return fabric_.arm(); }
    void sleep_on(std::vector<int>& fds) override { fabric_.sleep_on(fds); }

private:
    class Messages final : public ConnectionHandler {
    public:
        Messages(PrintingFabric& owner, ConnectionHandler& handler) : owner_(owner), handler_(handler) {}
        std::span<const std::byte> on_route(const LocalPort& port) override { return handler_.on_route(port); }
        std::optional<ReceiveRing> on_reply(std::span<const std::byte> private_data) override {
            return handler_.on_reply(private_data);
        }
        void on_established() override { handler_.on_established(); }
        void on_received(std::span<const std::byte> message) override {
            print_bytes("iu", message);
            handler_.on_received(message);
        }
        void on_rdma_done(std::uint64_t context) override { handler_.on_rdma_done(context); }
        void on_ended(const End& end) override { handler_.on_ended(end); }
        void on_gone() override {
            handler_.on_gone();
            // The last call, after which nobody knows this object.
            owner_.connections_.remove_if([this](const Messages& one) { return &one == this; });
        }

    private:
        PrintingFabric& owner_;
        ConnectionHandler& handler_;
    };

    class Request final : public ConnectRequest {
    public:
        Request(PrintingFabric& owner, std::unique_ptr<ConnectRequest> request)
            : owner_(owner), request_(std::move(request)) {}
        std::span<const std::byte> private_data() const override { return request_->private_data(); }
        const LocalPort& local_port() const override { return request_->local_port(); }
        std::string peer() const override { return request_->peer(); }
        Connection& accept(const ConnectionLimits& limits, const ReceiveRing& ring, std::span<const std::byte> reply,
                           ConnectionHandler& handler) override {
            return request_->accept(limits, ring, reply, owner_.connections_.emplace_back(owner_, handler));
        }
        void reject(std::span<const std::byte> reason) override { request_->reject(reason); }

    private:
        PrintingFabric& owner_;
        std::unique_ptr<ConnectRequest> request_;
    };

    class Listens final : public ListenHandler {
    public:
        Listens(PrintingFabric& owner, ListenHandler& handler) : owner_(owner), handler_(handler) {}
        void on_request(std::unique_ptr<ConnectRequest> request) override {
            print_bytes("login", request->private_data());
            handler_.on_request(std::make_unique<Request>(owner_, std::move(request)));
        }

    private:
        PrintingFabric& owner_;
        ListenHandler& handler_;
    };

    Fabric& fabric_;
    std::list<Messages> connections_;
    std::list<Listens> listens_;
};

int fail(std::string_view what, const Error& error) {
    fmt::print(stderr, "srpfs-listen: {}: {}\n", what, error.context);
    return 1;
}

int run(const std::string& address_text, const std::string& lun_list) {
    const auto address = parse_address(address_text);
    if (!address) {
        fmt::print(stderr, "srpfs-listen: '{}' is not ADDRESS:PORT\n", address_text);
        return 2;
    }
    const auto luns = target::parse_lun_list(lun_list);
    if (!luns) return fail(lun_list, luns.error());
    auto device = target::Device::create({}, *luns);
    if (!device) return fail("the target", device.error());

    // Before the fabric starts threads, so that they do not take the signal.
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    const int signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);

    reactor::Reactor reactor("listen");
    auto verbs = make_verbs_fabric(reactor);
    if (!verbs) return fail("RDMA", verbs.error());
    PrintingFabric fabric(**verbs);
    auto portal = target::make_portal(**device, reactor, fabric, *address);
    if (!portal) return fail(address_text, portal.error());

    FabricSource fabric_source(fabric);
    reactor::Timer closing(reactor.timers(), [&] {
        if ((*portal)->is_closed()) return reactor.stop();
        closing.arm_after(std::chrono::milliseconds(5));
    });
    DescriptorSource signal_source(signal_fd, [&] {
        signalfd_siginfo info{};
        if (read(signal_fd, &info, sizeof info) != sizeof info) return false;
        (*portal)->close();
        closing.arm_after(Duration::zero());
        return true;
    });
    reactor.add_source(fabric_source);
    reactor.add_source(signal_source);
    print_line("listening");
    reactor.run();
    close(signal_fd);
    return 0;
}

}  // namespace
}  // namespace srpfs::guest

int main(int argc, char** argv) {
    if (argc < 2 || argc > 3) {
        fmt::print(stderr, "usage: srpfs-listen ADDRESS:PORT [LUN[+LUN...]]\n");
        return 2;
    }
    srpfs::log::configure(srpfs::log::Destination::standard_error, srpfs::log::Level::info);
    return srpfs::guest::run(argv[1], argc == 3 ? argv[2] : "ram:16M+ram:16M,bs=4096");
}
