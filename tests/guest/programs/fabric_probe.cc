// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Proves fabric/verbs on a software RDMA device: listens and connects in one process. Wants root and the kernel modules
// of rdma_rxe; makes a device of its own (rxe7 on a veth pair, 10.7.7.1, fd07::1), which it takes away, brings back and
// cuts off as it goes. Meant for a throw-away guest:
//
//     srpfs-fabric-probe [TEST...]      all, or those whose name contains one of the words
//
// Prints "ok NAME" or "not ok NAME: why" for each test and a summary; exit status 1 if one failed.

#include <srpfs/base/log.h>
#include <srpfs/fabric/verbs.h>

#include <fmt/format.h>

#include <arpa/inet.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <deque>
#include <filesystem>
#include <functional>
#include <mutex>
#include <stdexcept>

namespace {

using namespace srpfs;
using namespace srpfs::fabric;
using namespace std::chrono_literals;

constexpr const char* device_name = "rxe7";
constexpr const char* address_v4 = "10.7.7.1";
constexpr const char* address_v6 = "fd07::1";

// --- Checking ---------------------------------------------------------------------------------------------------

struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

void expect(bool holds, const std::string& what, int line = __builtin_LINE()) {
    if (!holds) throw Failure(fmt::format("{} (line {})", what, line));
}

template <typename Left, typename Right>
void expect_equal(const Left& got, const Right& wanted, const std::string& what, int line = __builtin_LINE()) {
    if (!(got == wanted)) throw Failure(fmt::format("{}: {} instead of {} (line {})", what, got, wanted, line));
}

void expect_reason(const std::optional<EndReason>& got, EndReason wanted, const std::string& text,
                   int line = __builtin_LINE()) {
    expect(got.has_value(), "no end at all", line);
    if (*got != wanted)
        throw Failure(fmt::format("ended with '{}' ({}) instead of '{}' (line {})", to_string(*got), text,
                                  to_string(wanted), line));
}

void expect_contains(const std::string& text, const std::string& part, int line = __builtin_LINE()) {
    if (text.find(part) == std::string::npos)
        throw Failure(fmt::format("'{}' does not contain '{}' (line {})", text, part, line));
}

Instant now() {
    timespec time{};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return Instant(std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec));
}

void shell(const std::string& command, int line = __builtin_LINE()) {
    // bash, because busybox's shell would take its own ip for iproute2's.
    const int status = std::system(fmt::format("bash -c '{}'", command).c_str());
    expect(status == 0, fmt::format("'{}' failed with status {}", command, status), line);
}

unsigned lines_of(const std::string& command) {
    FILE* pipe = popen(command.c_str(), "r");
    expect(pipe != nullptr, command);
    unsigned lines = 0;
    for (int c = fgetc(pipe); c != EOF; c = fgetc(pipe)) lines += c == '\n';
    pclose(pipe);
    return lines;
}

// --- The loop: the turns of a reactor, until something has come true --------------------------------------------

class Loop final : public reactor::Executor {
public:
    Loop() : timers_(now()), wake_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
    ~Loop() override { close(wake_fd_); }
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;

    void post(std::function<void()> work) override {
        const std::lock_guard lock(mutex_);
        mailbox_.push_back(std::move(work));
        const std::uint64_t one = 1;
        [[maybe_unused]] const auto written = write(wake_fd_, &one, sizeof one);
    }
    reactor::TimerQueue& timers() override { return timers_; }

    // False: not within the time.
    bool until(Fabric& fabric, const std::function<bool()>& is_true, Duration time_max = 10s) {
        const Instant end = now() + time_max;
        while (!is_true()) {
            if (now() >= end) return false;
            timers_.advance_to(now());
            const bool had_mail = run_mailbox();
            const bool did_work = fabric.poll(32) > 0;
            fabric.flush();
            if (had_mail || did_work || !fabric.arm()) continue;
            sleep(fabric, end);
        }
        return true;
    }
    void for_a_while(Fabric& fabric, Duration time) {
        until(
            fabric, [] { return false; }, time);
    }
    [[nodiscard]] std::uint64_t sleeps() const { return sleeps_; }

private:
    bool run_mailbox() {
        std::vector<std::function<void()>> mail;
        {
            const std::lock_guard lock(mutex_);
            mail.swap(mailbox_);
            std::uint64_t count = 0;
            [[maybe_unused]] const auto drained = read(wake_fd_, &count, sizeof count);
        }
        for (auto& work : mail) work();
        return !mail.empty();
    }
    void sleep(Fabric& fabric, Instant end) {
        ++sleeps_;
        std::vector<int> fds{wake_fd_};
        fabric.sleep_on(fds);
        std::vector<pollfd> polled;
        for (const int fd : fds) polled.push_back({fd, POLLIN, 0});
        const Duration left = std::max(Duration::zero(), std::min(end, timers_.next_deadline()) - now());
        const timespec timeout{std::chrono::duration_cast<std::chrono::seconds>(left).count(),
                               static_cast<long>((left % 1s).count())};
        ppoll(polled.data(), polled.size(), &timeout, nullptr);
    }

    reactor::TimerQueue timers_;
    int wake_fd_;
    std::uint64_t sleeps_ = 0;
    std::mutex mutex_;
    std::vector<std::function<void()>> mailbox_;  // guarded by mutex_
};

// --- One end of a connection, remembering everything ------------------------------------------------------------

std::vector<std::byte> bytes_of(std::string_view text) {
    const auto* data = reinterpret_cast<const std::byte*>(text.data());
    return {data, data + text.size()};
}

std::string text_of(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

struct End_ final : ConnectionHandler {
    std::span<const std::byte> on_route(const LocalPort& port) override {
        ++routes;
        local_port = port;
        if (when_route) when_route();
        return request;
    }
    std::optional<ReceiveRing> on_reply(std::span<const std::byte> bytes) override {
        ++replies;
        reply.assign(bytes.begin(), bytes.end());
        if (when_reply) when_reply();
        return ring;
    }
    void on_established() override {
        ++established;
        if (ended) ++wrong_calls;
        if (when_established) when_established();
    }
    void on_received(std::span<const std::byte> message) override {
        if (ended || !established) ++wrong_calls;
        ++received_count;
        if (when_received) return when_received(message);
        received.emplace_back(message.begin(), message.end());
    }
    void on_rdma_done(std::uint64_t context) override {
        if (ended) ++wrong_calls;
        rdma_done.push_back(context);
    }
    void on_ended(const End& end) override {
        if (ended) ++wrong_calls;
        ended = end.reason;
        errno_value = end.errno_value;
        cm_reason = end.cm_reason;
        text = end.text;
        private_data.assign(end.private_data.begin(), end.private_data.end());
        ended_at = now();
    }
    void on_gone() override {
        if (!ended || gone) ++wrong_calls;
        gone = true;
        gone_at = now();
        connection = nullptr;
    }

    Connection* connection = nullptr;
    std::vector<std::byte> request = bytes_of("a request");
    std::optional<ReceiveRing> ring = ReceiveRing{64, 8448};
    std::function<void()> when_route, when_reply, when_established;
    std::function<void(std::span<const std::byte>)> when_received;

    int routes = 0, replies = 0, established = 0, wrong_calls = 0, received_count = 0;
    LocalPort local_port;
    std::vector<std::byte> reply, private_data;
    std::deque<std::vector<std::byte>> received;
    std::vector<std::uint64_t> rdma_done;
    std::optional<EndReason> ended;
    int errno_value = 0, cm_reason = 0;
    std::string text;
    bool gone = false;
    Instant ended_at, gone_at;
};

const ConnectionLimits limits{.sends_max = 64, .message_bytes_max = 8448};

Address ip(const char* text, std::uint16_t port) {
    IpAddress address;
    if (std::strchr(text, ':')) {
        auto& v6 = reinterpret_cast<sockaddr_in6&>(address.destination);
        v6.sin6_family = AF_INET6;
        v6.sin6_port = htons(port);
        inet_pton(AF_INET6, text, &v6.sin6_addr);
    } else {
        auto& v4 = reinterpret_cast<sockaddr_in&>(address.destination);
        v4.sin_family = AF_INET;
        v4.sin_port = htons(port);
        inet_pton(AF_INET, text, &v4.sin_addr);
    }
    return address;
}

std::uint16_t next_port = 7000;

// A fabric, and the two ends of a connection of it with itself.
struct Pair final : ListenHandler {
    explicit Pair(const char* listen_address = address_v4) : address(ip(listen_address, next_port++)) {
        auto made = make_verbs_fabric(loop);
        expect(made.has_value(), made ? "" : made.error().context);
        fabric = *std::move(made);
        auto listening = fabric->listen(address, *this);
        expect(listening.has_value(), listening ? "" : listening.error().context);
        listener = *std::move(listening);
    }
    ~Pair() { finish(); }
    Pair(const Pair&) = delete;
    Pair& operator=(const Pair&) = delete;

    void on_request(std::unique_ptr<ConnectRequest> incoming) override {
        ++requests;
        request_data = text_of(incoming->private_data());
        request_port = incoming->local_port();
        request_peer = incoming->peer();
        if (when_request) return when_request(std::move(incoming));
        accept(std::move(incoming));
    }
    void accept(std::unique_ptr<ConnectRequest> incoming) {
        passive.connection = &incoming->accept(limits_used, *passive.ring, bytes_of("a reply"), passive);
    }
    void start() { start_to(address); }
    void start_to(const Address& destination) {
        auto started = fabric->connect(destination, limits_used, active);
        expect(started.has_value(), started ? "" : started.error().context);
        active.connection = *started;
    }
    void connect() {
        start();
        expect(until([&] { return (active.established && passive.established) || active.ended; }), "no connection");
        expect(!active.ended, "connecting failed: " + active.text);
        expect(!passive.ended, "accepting failed: " + passive.text);
    }
    bool until(const std::function<bool()>& is_true, Duration time_max = 10s) {
        return loop.until(*fabric, is_true, time_max);
    }
    void expect_gone(End_& end, Duration time_max = 10s, int line = __builtin_LINE()) {
        expect(until([&] { return end.gone; }, time_max), "on_gone did not come", line);
        expect_equal(end.wrong_calls, 0, "handler calls that should not have come", line);
    }
    // New ends for another connection; the old ones must be gone.
    void renew() {
        finish_ends();
        active.~End_();
        passive.~End_();
        new (&active) End_;
        new (&passive) End_;
    }
    void finish_ends() {
        for (End_* end : {&active, &passive})
            if (end->connection) end->connection->disconnect();
        until([&] { return !active.connection && !passive.connection; }, 20s);
    }
    void finish() {
        if (!fabric) return;
        held.reset();
        finish_ends();
        listener.reset();
        fabric.reset();
    }

    Loop loop;
    ConnectionLimits limits_used = limits;
    Address address;
    std::unique_ptr<Fabric> fabric;
    std::unique_ptr<Listener> listener;
    std::function<void(std::unique_ptr<ConnectRequest>)> when_request;
    std::unique_ptr<ConnectRequest> held;
    int requests = 0;
    std::string request_data, request_peer;
    LocalPort request_port;
    End_ active, passive;
};

std::vector<std::byte> pattern(std::size_t size, unsigned seed) {
    std::vector<std::byte> bytes(size);
    std::uint32_t state = seed * 2654435761u + 1;
    for (auto& byte : bytes) {
        state = state * 1664525u + 1013904223u;
        byte = static_cast<std::byte>(state >> 24);
    }
    return bytes;
}

struct Memory {
    explicit Memory(std::size_t size_)
        : size(size_), base(static_cast<std::byte*>(
                           mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
        expect(base != MAP_FAILED, "mmap");
    }
    ~Memory() { munmap(base, size); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    [[nodiscard]] std::span<std::byte> span(std::size_t offset, std::size_t bytes) const {
        return {base + offset, bytes};
    }
    [[nodiscard]] std::span<std::byte> all() const { return {base, size}; }
    std::size_t size;
    std::byte* base;
};

// --- The machine ------------------------------------------------------------------------------------------------

bool wait_until(const std::function<bool()>& is_true, Duration time_max = 10s) {
    for (const Instant end = now() + time_max; now() < end; usleep(20000))
        if (is_true()) return true;
    return is_true();
}

std::optional<LocalPort> our_port() {
    for (const auto& port : verbs_local_ports())
        if (port.device == device_name) return port;
    return std::nullopt;
}

bool port_is_active() {
    const auto port = our_port();
    return port && port->active;
}

void add_device() {
    const char* type = std::getenv("PROBE_LINK_TYPE");  // siw instead of rxe: iWARP
    shell(fmt::format("rdma link add {} type {} netdev eth7", device_name, type ? type : "rxe"));
    expect(wait_until(port_is_active), "the port did not become active");
}

void make_device() {
    shell("modprobe -a veth rdma_rxe ib_uverbs rdma_ucm");
    shell("ip link add eth7 address 02:00:00:00:00:07 type veth peer name eth7p");
    shell("ip link set eth7p mtu 4200 up; ip link set eth7 mtu 4200 up");
    shell(fmt::format("ip addr add {}/24 dev eth7; ip -6 addr add {}/64 dev eth7 nodad", address_v4, address_v6));
    add_device();
}

struct Usage {
    unsigned queue_pairs, completion_queues, memory_regions, cm_ids, domains, contexts, descriptors;
    bool operator==(const Usage&) const = default;
    [[nodiscard]] std::string text() const {
        return fmt::format("{} QPs, {} CQs, {} MRs, {} CM ids, {} PDs, {} contexts, {} descriptors", queue_pairs,
                           completion_queues, memory_regions, cm_ids, domains, contexts, descriptors);
    }
};

Usage usage() {
    // By name: the kernel shows the thread that made a thing as its "pid", and ours are many; some have names of their
    // own.
    std::string name(16, '\0');
    prctl(PR_GET_NAME, name.data());
    name.resize(std::strlen(name.c_str()));
    const auto count = [&](const char* kind) {
        return lines_of(fmt::format("rdma res show {} 2>/dev/null | grep -E 'comm ({}|srpfs-)'", kind, name));
    };
    Usage used{count("qp"), count("cq"), count("mr"), count("cm_id"), count("pd"), count("ctx"), 0};
    for ([[maybe_unused]] const auto& fd : std::filesystem::directory_iterator("/proc/self/fd")) ++used.descriptors;
    return used;
}

// --- Tests ------------------------------------------------------------------------------------------------------

void says_that_there_is_no_device() {
    Loop loop;
    const auto made = make_verbs_fabric(loop);
    expect(!made.has_value(), "a fabric without a device");
    fmt::print("# {}\n", made.error().context);
    expect(made.error().errno_value() == ENODEV || made.error().errno_value() == ENOENT, "errno");
    expect(verbs_local_ports().empty(), "there are ports");
}

void lists_the_local_port() {
    const auto port = our_port();
    expect(port.has_value(), "no such port");
    expect_equal(port->port, 1u, "port number");
    expect(port->active, "not active");
    expect(port->link_layer == LinkLayer::ethernet, "link layer");
    expect_equal(port->guid, 0x000000fffe000007u,
                 "GUID, from the MAC address");  // EUI-64 with the universal bit flipped
    expect(port->node_guid != 0, "no node GUID");
}

void connects(const char* listen_address) {
    Pair pair(listen_address);
    pair.active.request = bytes_of(std::string(56, 'q'));
    pair.connect();
    expect_equal(pair.active.routes, 1, "on_route");
    expect_equal(pair.active.local_port.device, device_name, "device of the route");
    expect_equal(pair.active.local_port.port, 1u, "port of the route");
    expect_equal(pair.request_port.device, device_name, "device of the request");
    expect_contains(pair.request_peer, std::strchr(listen_address, ':') ? "[fd07::1]:" : "10.7.7.1:");
    expect_equal(pair.request_data.substr(0, 56), std::string(56, 'q'), "private data of the request");
    expect_equal(text_of(pair.active.reply).substr(0, 7), "a reply", "private data of the reply");
    expect_equal(pair.passive.routes + pair.passive.replies, 0, "on_route and on_reply on the accepting side");

    const Instant started = now();
    pair.active.connection->disconnect();
    pair.active.connection->disconnect();
    expect(!pair.active.ended, "on_ended inside disconnect()");
    pair.expect_gone(pair.active);
    pair.expect_gone(pair.passive);
    expect_reason(pair.active.ended, EndReason::closed, pair.active.text);
    expect_reason(pair.passive.ended, EndReason::peer_disconnected, pair.passive.text);
    expect(now() - started < 1500ms, "the peer's answer to the disconnect was not used");
}

void sends_from_a_given_source_address() {
    Pair pair;
    auto address = std::get<IpAddress>(pair.address);
    address.source = std::get<IpAddress>(ip(address_v4, 0)).destination;
    pair.start_to(address);
    expect(pair.until([&] { return pair.active.established == 1; }), "no connection: " + pair.active.text);
}

void takes_an_ack_timeout() {
    std::vector<std::string> warnings;
    log::observe([&](log::Level level, std::string_view line) {
        if (level == log::Level::warning) warnings.emplace_back(line);
    });
    {
        Pair pair;
        pair.limits_used.ack_timeout = 14;
        pair.limits_used.retry_count = 2;
        pair.connect();
        expect(pair.active.connection->send(bytes_of("hello"), {}), "send");
        expect(pair.until([&] { return pair.passive.received_count == 1; }), "not received");
    }
    log::observe(nullptr);
    expect(warnings.empty(), warnings.empty() ? "" : warnings.front());
}

void carries_messages_of_all_sizes() {
    Pair pair;
    pair.connect();
    unsigned seed = 0;
    for (const std::size_t size : {0u,   1u,   2u,    7u,    63u,   64u,   65u,   100u,  127u,  128u, 129u,
                                   255u, 256u, 1000u, 1024u, 4095u, 4096u, 4097u, 8192u, 8260u, 8448u}) {
        for (const std::size_t head : {std::size_t{0}, size / 3, size}) {
            const auto message = pattern(size, ++seed);
            const std::span<const std::byte> bytes = message;
            for (auto [from, to] : {std::pair{&pair.active, &pair.passive}, std::pair{&pair.passive, &pair.active}}) {
                expect(from->connection->send(bytes.first(head), bytes.subspan(head)), "send");
                expect(pair.until([&, to = to] { return !to->received.empty() || to->ended; }), "not received");
                expect(!to->ended, to->text);
                expect(to->received.front() == message, fmt::format("other bytes than sent, {} of them", size));
                to->received.pop_front();
            }
        }
    }
    const std::vector<std::byte> long_one(8449);
    expect(!pair.active.connection->send(long_one, {}), "a message longer than the limit was taken");
}

void keeps_messages_in_order_under_load() {
    Pair pair;
    pair.connect();
    // The receiver gives a credit back for every message, as SRP does: never more under way than receives.
    constexpr unsigned total = 20000, window = 60;
    unsigned sent = 0, wrong = 0;
    pair.passive.when_received = [&](std::span<const std::byte> message) {
        std::uint32_t number = 0;
        std::memcpy(&number, message.data(), sizeof number);
        if (number + 1 != static_cast<unsigned>(pair.passive.received_count)) ++wrong;
        if (!pair.passive.connection->send(message.first(4), {})) ++wrong;
    };
    const Instant started = now();
    const bool done = pair.until(
        [&] {
            while (sent < total && sent - static_cast<unsigned>(pair.active.received_count) < window) {
                std::array<std::byte, 400> message{};
                std::memcpy(message.data(), &sent, sizeof sent);
                if (!pair.active.connection->send(message, {})) break;
                ++sent;
            }
            pair.active.received.clear();
            return pair.active.received_count == int{total} || pair.active.ended || pair.passive.ended;
        },
        120s);
    expect(!pair.active.ended, pair.active.text);
    expect(done, fmt::format("{} of {} answers", pair.active.received_count, total));
    expect_equal(wrong, 0u, "messages out of order or not taken");
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now() - started).count();
    fmt::print("# {} messages and answers in {} ms, {} sleeps\n", total, ms, pair.loop.sleeps());
}

void takes_no_more_than_the_send_queue_holds() {
    Pair pair;
    pair.passive.ring = ReceiveRing{256, 64};
    pair.connect();
    const std::vector<std::byte> message(8);
    unsigned taken = 0;
    while (taken < 1000 && pair.active.connection->send(message, {})) ++taken;
    expect(taken >= limits.sends_max && taken < 2 * limits.sends_max, fmt::format("{} messages taken", taken));
    expect(pair.until([&] { return pair.passive.received_count == static_cast<int>(taken); }), "not all arrived");
    // And again, as often as one likes.
    for (int round = 0; round < 50; ++round) {
        const int before = pair.passive.received_count;
        int more = 0;
        while (more < 50 && pair.active.connection->send(message, {})) ++more;
        expect(more >= 40, fmt::format("only {} taken in round {}", more, round));
        expect(pair.until([&] { return pair.passive.received_count == before + more; }), "not all arrived");
    }
    expect(!pair.active.ended && !pair.passive.ended, pair.active.text + pair.passive.text);
}

struct Regions {
    explicit Regions(Fabric& fabric_, std::size_t size)
        : fabric(fabric_), readable(size), writable(size), target(size), target_source(size) {
        read_region = *fabric.register_memory(readable.all(), RemoteAccess::read);
        write_region = *fabric.register_memory(writable.all(), RemoteAccess::write);
        target_region = *fabric.register_memory(target.all(), RemoteAccess::write);
        source_region = *fabric.register_memory(target_source.all(), RemoteAccess::read);
    }
    ~Regions() {
        for (const auto region : {read_region, write_region, target_region, source_region})
            fabric.unregister_memory(region);
    }
    Regions(const Regions&) = delete;
    Regions& operator=(const Regions&) = delete;
    Fabric& fabric;
    Memory readable, writable, target, target_source;
    RegionId read_region{}, write_region{}, target_region{}, source_region{};
};

void reads_and_writes_remote_memory() {
    Pair pair;
    constexpr std::size_t size = 8 << 20;
    Regions regions(*pair.fabric, size);
    pair.connect();
    std::uint64_t context = 0;
    for (const std::size_t bytes :
         {std::size_t{1}, std::size_t{511}, std::size_t{512}, std::size_t{4096}, std::size_t{4097}, std::size_t{65536},
          std::size_t{1} << 20, (std::size_t{4} << 20) + 3}) {
        const std::size_t offset = bytes < 100000 ? 4093 : 0;
        const auto data = pattern(bytes, static_cast<unsigned>(bytes));

        std::ranges::copy(data, regions.readable.span(offset, bytes).begin());
        const auto source = pair.active.connection->describe(regions.read_region, regions.readable.span(offset, bytes));
        expect(source && source->length == bytes, "describe");
        expect(pair.passive.connection->rdma_read(regions.target_region, regions.target.span(0, bytes), *source,
                                                  ++context),
               "rdma_read");
        expect(pair.until([&] { return pair.passive.rdma_done.size() == context || pair.passive.ended; }), "not read");
        expect(!pair.passive.ended, pair.passive.text);
        expect_equal(pair.passive.rdma_done.back(), context, "context");
        expect(std::ranges::equal(regions.target.span(0, bytes), data), fmt::format("other bytes read, {}", bytes));

        // Written, then told: when the message is there, the data are.
        std::ranges::copy(data, regions.target_source.span(0, bytes).begin());
        const auto sink = pair.active.connection->describe(regions.write_region, regions.writable.span(offset, bytes));
        expect(sink.has_value(), "describe");
        bool was_there = false;
        pair.active.when_received = [&](std::span<const std::byte>) {
            was_there = std::ranges::equal(regions.writable.span(offset, bytes), data);
        };
        const int before = pair.active.received_count;
        expect(pair.passive.connection->rdma_write(regions.source_region, regions.target_source.span(0, bytes), *sink,
                                                   ++context),
               "rdma_write");
        expect(pair.passive.connection->send(bytes_of("done"), {}), "send");
        expect(pair.until([&] { return pair.active.received_count > before || pair.active.ended; }), "not told");
        expect(was_there, fmt::format("{} bytes were not there when the message was", bytes));
        expect(pair.until([&] { return pair.passive.rdma_done.size() == context; }), "write not completed");
    }
    pair.finish_ends();
    expect_equal(pair.active.wrong_calls + pair.passive.wrong_calls, 0, "wrong calls");
}

void many_operations_at_once() {
    Pair pair;
    Regions regions(*pair.fabric, 1 << 20);
    pair.connect();
    std::ranges::copy(pattern(1 << 20, 5), regions.readable.base);
    unsigned posted = 0, refused = 0;
    constexpr unsigned total = 2000;
    const bool done = pair.until(
        [&] {
            while (posted < total) {
                const std::size_t offset = std::size_t{posted % 256} * 4096;
                const auto source =
                    pair.active.connection->describe(regions.read_region, regions.readable.span(offset, 4096));
                if (!pair.passive.connection->rdma_read(regions.target_region, regions.target.span(offset, 4096),
                                                        *source, posted)) {
                    ++refused;
                    break;
                }
                ++posted;
            }
            return pair.passive.rdma_done.size() == total || pair.passive.ended || pair.active.ended;
        },
        60s);
    expect(done && !pair.passive.ended, fmt::format("{} done; {}", pair.passive.rdma_done.size(), pair.passive.text));
    expect(refused > 0, "the queue never was full");
    for (unsigned i = 0; i < total; ++i) expect_equal(pair.passive.rdma_done[i], i, "order of completions");
    expect(std::ranges::equal(regions.readable.all(), regions.target.all()), "other bytes");
    pair.finish_ends();
}

void describes_only_what_is_inside() {
    Pair pair;
    Regions regions(*pair.fabric, 65536);
    pair.connect();
    const auto& connection = *pair.active.connection;
    const auto read = regions.read_region;
    std::byte* const base = regions.readable.base;
    expect(connection.describe(read, {base, 65536}).has_value(), "the whole");
    expect(connection.describe(read, {base + 65535, 1}).has_value(), "the last byte");
    expect(!connection.describe(read, {base + 65535, 2}).has_value(), "one more than the last byte");
    expect(!connection.describe(read, {base - 1, 2}).has_value(), "one less than the first byte");
    expect(!connection.describe(read, {base, 65537}).has_value(), "more than the whole");
    expect(!connection.describe(read, regions.writable.span(0, 1)).has_value(), "another region's");
    expect(!connection.describe(RegionId{4711}, {base, 1}).has_value(), "no such region");
    const auto described = connection.describe(read, {base + 100, 50});
    expect_equal(described->address, reinterpret_cast<std::uintptr_t>(base + 100), "address");
    expect_equal(described->length, 50u, "length");
    pair.finish_ends();
}

// What the hardware refuses ends both sides.
void refuses_foreign_access(const std::function<bool(Pair&, Regions&)>& do_wrong) {
    Pair pair;
    Regions regions(*pair.fabric, 65536);
    std::ranges::copy(pattern(65536, 1), regions.writable.base);
    std::ranges::copy(pattern(65536, 2), regions.readable.base);
    pair.connect();
    expect(do_wrong(pair, regions), "not posted");
    pair.expect_gone(pair.passive);
    pair.expect_gone(pair.active);
    expect_reason(pair.passive.ended, EndReason::transport_error, pair.passive.text);
    fmt::print("# {}\n# other side: {}\n", pair.passive.text, pair.active.text);
    expect_contains(pair.passive.text, "RDMA ");
    expect(std::ranges::equal(regions.writable.all(), pattern(65536, 1)), "memory was written");
    expect(std::ranges::equal(regions.readable.all(), pattern(65536, 2)), "memory was written");
}

void refuses_reading_what_may_only_be_written() {
    refuses_foreign_access([](Pair& pair, Regions& regions) {
        const auto there = pair.active.connection->describe(regions.write_region, regions.writable.span(0, 512));
        return pair.passive.connection->rdma_read(regions.target_region, regions.target.span(0, 512), *there, 1);
    });
}

void refuses_writing_what_may_only_be_read() {
    refuses_foreign_access([](Pair& pair, Regions& regions) {
        const auto there = pair.active.connection->describe(regions.read_region, regions.readable.span(0, 512));
        return pair.passive.connection->rdma_write(regions.source_region, regions.target_source.span(0, 512), *there,
                                                   1);
    });
}

void refuses_access_beyond_a_region() {
    refuses_foreign_access([](Pair& pair, Regions& regions) {
        auto there = *pair.active.connection->describe(regions.write_region, regions.writable.span(65536 - 512, 512));
        there.length = 1024;
        return pair.passive.connection->rdma_write(regions.source_region, regions.target_source.span(0, 1024), there,
                                                   1);
    });
}

void local_mistakes_end_the_connection() {
    Pair pair;
    Regions regions(*pair.fabric, 65536);
    pair.connect();
    const auto there = *pair.active.connection->describe(regions.write_region, regions.writable.span(0, 512));
    expect(!pair.active.connection->rdma_write(regions.read_region, regions.readable.span(0, 512), there, 1),
           "the connecting side may not");
    expect(!pair.active.ended, "and that is no reason to end");
    expect(
        !pair.passive.connection->rdma_write(regions.source_region, {regions.target_source.base + 65536, 1}, there, 1),
        "outside its region");
    pair.expect_gone(pair.passive);
    expect_reason(pair.passive.ended, EndReason::local_error, pair.passive.text);
}

void passes_rejections_on() {
    Pair pair;
    pair.when_request = [](std::unique_ptr<ConnectRequest> request) { request->reject(bytes_of("because")); };
    pair.start();
    pair.expect_gone(pair.active);
    expect_reason(pair.active.ended, EndReason::rejected, pair.active.text);
    expect_equal(pair.active.cm_reason, 28, "reason");
    expect_equal(text_of(pair.active.private_data).substr(0, 7), "because", "private data");
    expect_equal(pair.active.errno_value, ECONNREFUSED, "errno");
    fmt::print("# {}\n", pair.active.text);

    pair.renew();
    pair.when_request = [](std::unique_ptr<ConnectRequest> request) { request.reset(); };
    pair.start();
    pair.expect_gone(pair.active);
    expect_reason(pair.active.ended, EndReason::rejected, pair.active.text);
    expect_equal(pair.active.cm_reason, 28, "reason of a dropped request");
}

void says_that_nobody_listens() {
    Pair pair;
    pair.start_to(ip(address_v4, 6999));
    pair.expect_gone(pair.active);
    expect_reason(pair.active.ended, EndReason::rejected, pair.active.text);
    expect_equal(pair.active.cm_reason, 8, "reason");
    fmt::print("# {}\n", pair.active.text);
    expect_contains(pair.active.text, "nobody listens");
}

void says_that_an_address_is_not_there() {
    Pair pair;
    const Instant started = now();
    pair.start_to(ip("10.7.7.77", 7000));
    pair.expect_gone(pair.active, 20s);
    expect_reason(pair.active.ended, EndReason::address_unresolved, pair.active.text);
    fmt::print("# {} (after {} ms)\n", pair.active.text,
               std::chrono::duration_cast<std::chrono::milliseconds>(now() - started).count());

    pair.renew();
    const auto elsewhere = pair.fabric->connect(ip("192.0.2.1", 7000), limits, pair.active);
    if (elsewhere) {
        pair.active.connection = *elsewhere;
        pair.expect_gone(pair.active, 20s);
        fmt::print("# {}\n", pair.active.text);
        expect_reason(pair.active.ended, EndReason::address_unresolved, pair.active.text);
    } else {
        fmt::print("# {}\n", elsewhere.error().context);
        expect_contains(elsewhere.error().context, "192.0.2.1:7000");
    }
    expect(!pair.fabric->connect(LoopbackAddress{"demo"}, limits, pair.active).has_value(), "a loopback address");
    expect(!pair.fabric->listen(ip("192.0.2.1", 7000), pair).has_value(), "listening on another's address");
}

// No subnet administrator on Ethernet: the attempt ends at once, in one way or another.
void cannot_use_native_infiniband_on_ethernet() {
    Pair pair;
    IbAddress address;
    address.destination_gid = our_port()->gid;
    address.source_gid = our_port()->gid;
    address.service_id = 0x1234;
    const auto started = pair.fabric->connect(address, limits, pair.active);
    if (!started) {
        fmt::print("# {}\n", started.error().context);
        return;
    }
    pair.active.connection = *started;
    pair.expect_gone(pair.active);
    fmt::print("# {}: {}\n", to_string(*pair.active.ended), pair.active.text);
}

void ends_when_a_handler_refuses() {
    Pair pair;
    pair.active.request.clear();
    pair.start();
    pair.expect_gone(pair.active);
    expect_reason(pair.active.ended, EndReason::refused_locally, pair.active.text);
    expect_equal(pair.requests, 0, "requests sent");

    pair.renew();
    pair.active.request.resize(57);
    pair.start();
    pair.expect_gone(pair.active);
    expect_reason(pair.active.ended, EndReason::local_error, pair.active.text);
    expect_equal(pair.active.errno_value, EMSGSIZE, "errno");
    expect_equal(pair.requests, 0, "requests sent");

    pair.renew();
    pair.active.ring.reset();
    pair.start();
    pair.expect_gone(pair.active);
    expect_reason(pair.active.ended, EndReason::refused_locally, pair.active.text);
    expect_equal(pair.active.established, 0, "on_established");
    expect(pair.until([&] { return pair.passive.gone; }), "the accepting side waits for ever");
    fmt::print("# accepting side: {}: {}\n", to_string(*pair.passive.ended), pair.passive.text);
}

void disconnects_in_every_phase() {
    struct Phase {
        const char* name;
        std::function<void(Pair&)> prepare;  // arranges for disconnect() to be called
        bool is_established_first = false;
    };
    const auto disconnect = [](Pair& pair) { return [&pair] { pair.active.connection->disconnect(); }; };
    const Phase phases[] = {
        {"at once", [](Pair& pair) { pair.loop.post([&pair] { pair.active.connection->disconnect(); }); }},
        {"when the route is known", [&](Pair& pair) { pair.active.when_route = disconnect(pair); }},
        {"when the request has arrived",
         [](Pair& pair) {
             pair.when_request = [&pair](std::unique_ptr<ConnectRequest> request) {
                 pair.held = std::move(request);
                 pair.active.connection->disconnect();
             };
         }},
        {"when the request was accepted",
         [](Pair& pair) {
             pair.when_request = [&pair](std::unique_ptr<ConnectRequest> request) {
                 pair.accept(std::move(request));
                 pair.active.connection->disconnect();
             };
         }},
        {"when the reply is there", [&](Pair& pair) { pair.active.when_reply = disconnect(pair); }},
        {"right after the reply",
         [](Pair& pair) {
             pair.active.when_reply = [&pair] { pair.loop.post([&pair] { pair.active.connection->disconnect(); }); };
         }},
        {"when established", [&](Pair& pair) { pair.active.when_established = disconnect(pair); }, true},
        {"when a message arrives",
         [](Pair& pair) {
             pair.active.when_received = [&pair](std::span<const std::byte>) { pair.active.connection->disconnect(); };
             pair.passive.when_established = [&pair] {
                 for (int i = 0; i < 5; ++i) expect(pair.passive.connection->send(bytes_of("hello"), {}), "send");
             };
         },
         true},
    };
    Pair pair;
    for (const auto& phase : phases) {
        pair.renew();
        pair.when_request = nullptr;
        phase.prepare(pair);
        pair.start();
        const std::string name = std::string("disconnected ") + phase.name + ": ";
        expect(pair.until([&] { return pair.active.gone; }), name + "on_gone did not come");
        expect_reason(pair.active.ended, EndReason::closed, name + pair.active.text);
        expect_equal(pair.active.wrong_calls, 0, name + "wrong calls");
        expect_equal(pair.active.established, phase.is_established_first ? 1 : 0, name + "on_established");
        pair.held.reset();
        if (pair.passive.connection) {
            expect(pair.until([&] { return pair.passive.gone; }), name + "the accepting side waits for ever");
            expect_equal(pair.passive.wrong_calls, 0, name + "wrong calls on the accepting side");
        }
    }
    // The same from the accepting side.
    pair.renew();
    pair.when_request = [&](std::unique_ptr<ConnectRequest> request) {
        pair.accept(std::move(request));
        pair.passive.connection->disconnect();
    };
    pair.start();
    pair.expect_gone(pair.passive);
    expect_reason(pair.passive.ended, EndReason::closed, pair.passive.text);
    pair.expect_gone(pair.active);
    fmt::print("# accepted and disconnected at once: {}: {}\n", to_string(*pair.active.ended), pair.active.text);

    pair.renew();
    pair.when_request = nullptr;
    pair.passive.when_established = [&] { pair.passive.connection->disconnect(); };
    pair.start();
    pair.expect_gone(pair.passive);
    pair.expect_gone(pair.active);
    expect_reason(pair.passive.ended, EndReason::closed, pair.passive.text);
    expect_reason(pair.active.ended, EndReason::peer_disconnected, pair.active.text);
}

void delivers_what_was_sent_before_a_disconnect() {
    Pair pair;
    for (int round = 0; round < 20; ++round) {
        pair.renew();
        pair.connect();
        for (int i = 0; i < 10; ++i) expect(pair.passive.connection->send(bytes_of("the last words"), {}), "send");
        pair.passive.connection->disconnect();
        pair.expect_gone(pair.active);
        expect_reason(pair.active.ended, EndReason::peer_disconnected, pair.active.text);
        expect_equal(pair.active.received_count, 10, "messages");
    }
}

void accepts_later() {
    Pair pair;
    pair.when_request = [&](std::unique_ptr<ConnectRequest> request) { pair.held = std::move(request); };
    pair.start();
    expect(pair.until([&] { return pair.held != nullptr; }), "no request");
    pair.loop.for_a_while(*pair.fabric, 500ms);
    expect(!pair.active.ended && !pair.active.replies, "the initiator did not wait");
    pair.accept(std::move(pair.held));
    expect(pair.until([&] { return pair.active.established && pair.passive.established; }), "no connection");

    // The initiator has given up meanwhile: the accepted connection ends, in whatever way.
    pair.renew();
    pair.start();
    expect(pair.until([&] { return pair.held != nullptr; }), "no request");
    pair.active.connection->disconnect();
    pair.expect_gone(pair.active);
    pair.loop.for_a_while(*pair.fabric, 200ms);
    pair.accept(std::move(pair.held));
    pair.expect_gone(pair.passive, 30s);
    fmt::print("# accepted after the initiator gave up: {}: {}\n", to_string(*pair.passive.ended), pair.passive.text);
}

void several_connections_share_the_fabric() {
    Pair pair;
    std::deque<End_> actives(8), passives(8);
    std::size_t accepted = 0;
    pair.when_request = [&](std::unique_ptr<ConnectRequest> request) {
        End_& end = passives[accepted++];
        end.connection = &request->accept(limits, *end.ring, {}, end);
    };
    struct Finish {
        ~Finish() { finish(); }
        std::function<void()> finish;
    } all_ends{[&] {
        for (auto* ends : {&actives, &passives})
            for (auto& end : *ends)
                if (end.connection) end.connection->disconnect();
        pair.until([&] {
            const auto is_over = [](const End_& end) { return !end.connection; };
            return std::ranges::all_of(actives, is_over) && std::ranges::all_of(passives, is_over);
        });
    }};
    for (auto& end : actives) end.connection = *pair.fabric->connect(pair.address, limits, end);
    const auto all = [&](auto holds) {
        return std::ranges::all_of(actives, holds) && std::ranges::all_of(passives, holds);
    };
    expect(pair.until([&] { return all([](const End_& end) { return end.established > 0; }); }), "not all established");
    for (int round = 0; round < 50; ++round)
        for (auto& end : actives) expect(end.connection->send(bytes_of("hello"), {}), "send");
    expect(pair.until(
               [&] { return std::ranges::all_of(passives, [](const End_& end) { return end.received_count == 50; }); }),
           "not all received");
    const auto before = usage();
    expect(before.queue_pairs == 16, before.text());
    for (auto& end : actives) end.connection->disconnect();
    expect(pair.until([&] { return all([](const End_& end) { return end.gone && end.wrong_calls == 0; }); }),
           "not all gone");
}

void leaks_nothing() {
    Pair pair;
    Regions regions(*pair.fabric, 1 << 20);
    const auto cycle = [&](int number) {
        pair.renew();
        pair.connect();
        expect(pair.active.connection->send(bytes_of("hello"), {}), "send");
        expect(pair.until([&] { return pair.passive.received_count == 1; }), "not received");
        (number % 2 == 0 ? pair.active : pair.passive).connection->disconnect();
        pair.expect_gone(pair.active);
        pair.expect_gone(pair.passive);
    };
    for (int i = 0; i < 3; ++i) cycle(i);
    pair.loop.for_a_while(*pair.fabric, 300ms);
    const Usage before = usage();
    const Instant started = now();
    for (int i = 0; i < 200; ++i) cycle(i);
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now() - started).count();
    Usage after = usage();
    wait_until([&] { return (after = usage()) == before; });
    fmt::print("# 200 times in {} ms; before: {}\n# after: {}\n", ms, before.text(), after.text());
    expect(after == before, "not what there was before");
    expect_equal(after.queue_pairs, 0u, "queue pairs");
}

void gives_everything_back() {
    const Usage before = usage();
    {
        Pair pair;
        pair.connect();
        expect(usage().queue_pairs == 2, "two queue pairs");
    }
    const Usage after = usage();
    fmt::print("# before: {}\n# after: {}\n", before.text(), after.text());
    expect(after == before, "not what there was before");
}

// What follows runs in another process with less rights than ours: see in_a_child().
void drop_capabilities() {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    expect(syscall(SYS_capset, &header, data) == 0, "capset");
}

void child_with_little_memory() {
    const rlimit limit{2 << 20, 2 << 20};
    expect(setrlimit(RLIMIT_MEMLOCK, &limit) == 0, "setrlimit");
    drop_capabilities();
    Pair pair;
    Memory memory(16 << 20);
    expect(pair.fabric->register_memory(memory.all(), RemoteAccess::read).has_value(), "register_memory");
    pair.start();
    pair.expect_gone(pair.active);
    fmt::print("# {}\n", pair.active.text);
    expect_reason(pair.active.ended, EndReason::local_error, pair.active.text);
    expect_equal(pair.active.errno_value, ENOMEM, "errno");
    expect_contains(pair.active.text, "RLIMIT_MEMLOCK) is 2 MiB and 16 MiB are needed");
}

void child_without_devices() {
    expect(setuid(65534) == 0, "setuid");
    Loop loop;
    auto fabric = make_verbs_fabric(loop);
    expect(fabric.has_value(), fabric ? "" : fabric.error().context);
    End_ end;
    const auto started = (*fabric)->connect(ip(address_v4, 6999), limits, end);
    expect(started.has_value(), started ? "" : started.error().context);
    expect(loop.until(**fabric, [&] { return end.gone; }), "no end");
    fmt::print("# {}\n", end.text);
    expect_reason(end.ended, EndReason::local_error, end.text);
    expect_equal(end.errno_value, EACCES, "errno");
    expect_contains(end.text, "no permission to use /dev/infiniband/uverbs");
}

void child_without_connection_manager() {
    expect(setuid(65534) == 0, "setuid");
    Loop loop;
    const auto fabric = make_verbs_fabric(loop);
    expect(!fabric.has_value(), "a fabric without permission");
    fmt::print("# {}\n", fabric.error().context);
    expect_equal(fabric.error().errno_value(), EACCES, "errno");
    expect_contains(fabric.error().context, "no permission to use /dev/infiniband/rdma_cm");
}

struct Child {
    const char* name;
    void (*run)();
};
const Child children[] = {
    {"--with-little-memory", child_with_little_memory},
    {"--without-devices", child_without_devices},
    {"--without-connection-manager", child_without_connection_manager},
};

// This program anew, so that nothing is open already.
void in_a_child(const char* name) {
    std::fflush(stdout);
    const pid_t child = fork();
    expect(child >= 0, "fork");
    if (child == 0) {
        execl("/proc/self/exe", "srpfs-fabric-probe", name, nullptr);
        _exit(127);
    }
    int status = 0;
    waitpid(child, &status, 0);
    expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "see above");
}

int run_child(const Child& child) {
    try {
        child.run();
    } catch (const std::exception& failure) {
        fmt::print("# {}\n", failure.what());
        return 1;
    }
    return 0;
}

void explains_the_limit_on_locked_memory() { in_a_child("--with-little-memory"); }

void explains_missing_permissions() {
    struct Restore {
        ~Restore() { std::system("chmod 666 /dev/infiniband/*"); }
    } restore;
    shell("chmod 600 /dev/infiniband/uverbs*; chmod 666 /dev/infiniband/rdma_cm");
    in_a_child("--without-devices");
    shell("chmod 600 /dev/infiniband/rdma_cm");
    in_a_child("--without-connection-manager");
}

void link_is(const char* state) { shell(fmt::format("ip link set eth7 {}", state)); }

struct PortWatcher final : PortListener {
    explicit PortWatcher(Fabric& fabric_) : fabric(fabric_) { fabric.watch_ports(*this); }
    ~PortWatcher() { fabric.unwatch_ports(*this); }
    PortWatcher(const PortWatcher&) = delete;
    PortWatcher& operator=(const PortWatcher&) = delete;
    void on_port_change(const LocalPort& port, PortChange change) override { told.emplace_back(port, change); }
    [[nodiscard]] int count(PortChange wanted) const {
        return static_cast<int>(std::count_if(told.begin(), told.end(), [&](const auto& one) {
            return one.second == wanted && one.first.device == device_name;
        }));
    }
    Fabric& fabric;
    std::vector<std::pair<LocalPort, PortChange>> told;
};

// What is sent while the port is down ends a connection on this device.
void send_into_the_void(Pair& pair) {
    for (End_* end : {&pair.active, &pair.passive})
        if (end->connection && !end->connection->send(bytes_of("into the void"), {})) fmt::print("# not sent\n");
    pair.fabric->flush();
}

void an_idle_connection_survives_a_port_that_goes_down() {
    Pair pair;
    pair.connect();
    PortWatcher watcher(*pair.fabric);
    struct Up {
        ~Up() { std::system("bash -c 'ip link set eth7 up'"); }
    } up;
    // The kernel tells of one change more than once, and now and then late.
    const auto is_told = [&](PortChange change) {
        return !watcher.told.empty() && watcher.told.back().second == change &&
               watcher.told.back().first.device == device_name;
    };
    for (int round = 1; round <= 3; ++round) {
        link_is("down");
        const Instant down = now();
        expect(pair.until([&] { return is_told(PortChange::down); }), "nobody told that the port is down");
        fmt::print("# told {} ms after ip(8) had ended\n",
                   std::chrono::duration_cast<std::chrono::milliseconds>(now() - down).count());
        pair.loop.for_a_while(*pair.fabric, 300ms);
        link_is("up");
        expect(pair.until([&] { return is_told(PortChange::active) && watcher.told.back().first.active; }),
               "nobody told that the port is up");
        const auto& port = watcher.told.back().first;
        expect_equal(port.port, 1u, "port");
        expect_equal(port.guid, our_port()->guid, "GUID");
        expect(pair.active.connection && pair.active.connection->send(bytes_of("still here"), {}), "send");
        expect(pair.until([&] { return pair.passive.received_count == round || pair.passive.ended; }), "not received");
        expect(!pair.active.ended, pair.active.text);
        expect(!pair.passive.ended, pair.passive.text);
    }
    expect_equal(watcher.count(PortChange::removed), 0, "removals");
    pair.finish_ends();
}

// Longer than a connection manager that had sent a message would survive on this device.
void survives_a_link_that_goes_down() {
    Pair pair;
    pair.connect();
    const unsigned ids = usage().cm_ids;
    link_is("down");
    struct Up {
        ~Up() { std::system("bash -c 'ip link set eth7 up'"); }
    } up;
    send_into_the_void(pair);
    pair.expect_gone(pair.active);
    pair.expect_gone(pair.passive);
    fmt::print("# {}\n", pair.active.text);
    expect_reason(pair.active.ended, EndReason::transport_error, pair.active.text);
    expect_reason(pair.passive.ended, EndReason::transport_error, pair.passive.text);
    expect_contains(pair.active.text, "not active");
    expect_equal(usage().queue_pairs, 0u, "queue pairs while down");
    expect_equal(usage().cm_ids, ids, "CM ids while down: those that would send are kept");

    // Attempts while down end at once, with a reason.
    for (int i = 0; i < 3; ++i) {
        pair.renew();
        const Instant started = now();
        const auto attempt = pair.fabric->connect(pair.address, limits, pair.active);
        if (attempt) {
            pair.active.connection = *attempt;
            pair.expect_gone(pair.active);
        }
        const std::string text = attempt ? pair.active.text : attempt.error().context;
        if (i == 0) fmt::print("# while down: {}\n", text);
        expect(now() - started < 3s, "an attempt while down took long");
        expect_equal(pair.requests, 1, "requests");
    }
    pair.loop.for_a_while(*pair.fabric, 3s);

    link_is("up");
    expect(wait_until(port_is_active), "not active again");
    pair.renew();
    pair.connect();
    expect(pair.active.connection->send(bytes_of("again"), {}), "send");
    expect(pair.until([&] { return pair.passive.received_count == 1; }), "not received");
    expect(wait_until([&] { return usage().cm_ids == ids; }), "the ids of before are still there: " + usage().text());
    pair.finish_ends();
}

// In the middle of everything, with I/O under way, several times.
void survives_links_that_flap() {
    Pair pair;
    for (int round = 0; round < 5; ++round) {
        pair.renew();
        pair.connect();
        for (int i = 0; i < 30; ++i) {
            expect(pair.active.connection->send(bytes_of("before the fall"), {}), "send");
            expect(pair.passive.connection->send(bytes_of("before the fall"), {}), "send");
        }
        link_is("down");
        send_into_the_void(pair);
        if (round % 2 == 1 && pair.active.connection) pair.active.connection->disconnect();
        pair.expect_gone(pair.active);
        pair.expect_gone(pair.passive);
        link_is("up");
        expect(wait_until(port_is_active), "not active again");
    }
    pair.renew();
    pair.connect();
    pair.finish_ends();
    const bool freed = wait_until([] { return usage().cm_ids <= 1; });
    expect(freed, "ids are left: " + usage().text());
}

void survives_the_removal_of_its_device() {
    Pair pair("0.0.0.0");  // a listener that belongs to no device
    Memory memory(1 << 20);
    const auto region = *pair.fabric->register_memory(memory.all(), RemoteAccess::read);
    const auto destination = std::get<IpAddress>(pair.address);
    const Address there = ip(address_v4, ntohs(reinterpret_cast<const sockaddr_in&>(destination.destination).sin_port));
    pair.start_to(there);
    expect(pair.until([&] { return pair.active.established && pair.passive.established; }), "no connection");

    PortWatcher watcher(*pair.fabric);
    const Instant started = now();
    std::fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        execlp("rdma", "rdma", "link", "del", device_name, nullptr);
        _exit(127);
    }
    pair.expect_gone(pair.active, 30s);
    pair.expect_gone(pair.passive, 30s);
    int status = -1;
    while (waitpid(child, &status, WNOHANG) == 0) {
        expect(now() - started < 20s, "rdma link del hangs");
        pair.loop.for_a_while(*pair.fabric, 20ms);
    }
    expect_equal(status, 0, "status of rdma link del");
    fmt::print("# {} (removed within {} ms)\n", pair.active.text,
               std::chrono::duration_cast<std::chrono::milliseconds>(now() - started).count());
    // The end that is told first takes its leave of the other.
    expect_reason(pair.active.ended, EndReason::device_removed, pair.active.text);
    expect(*pair.passive.ended == EndReason::device_removed || *pair.passive.ended == EndReason::peer_disconnected,
           pair.passive.text);
    expect(!our_port(), "the port is still there");

    expect_equal(watcher.count(PortChange::removed), 1, "removals told");
    add_device();
    expect(pair.until([&] { return watcher.count(PortChange::active) > 0; }), "nobody told that the device is back");
    expect_equal(watcher.told.back().first.guid, our_port()->guid, "GUID of the new device");
    pair.renew();
    pair.start_to(there);
    expect(pair.until([&] { return (pair.active.established && pair.passive.established) || pair.active.ended; }),
           "no connection to the new device");
    expect(!pair.active.ended, pair.active.text);
    expect(pair.active.connection->describe(region, memory.all()).has_value(), "memory is not known to the new device");
    pair.finish_ends();
    pair.fabric->unregister_memory(region);
}

struct Test {
    const char* name;
    std::function<void()> run;
};

const Test tests[] = {
    {"lists the local port", lists_the_local_port},
    {"connects over IPv4", [] { connects(address_v4); }},
    {"connects over IPv6", [] { connects(address_v6); }},
    {"sends from a given source address", sends_from_a_given_source_address},
    {"takes an ACK timeout", takes_an_ack_timeout},
    {"carries messages of all sizes", carries_messages_of_all_sizes},
    {"keeps messages in order under load", keeps_messages_in_order_under_load},
    {"takes no more than the send queue holds", takes_no_more_than_the_send_queue_holds},
    {"reads and writes remote memory", reads_and_writes_remote_memory},
    {"many operations at once", many_operations_at_once},
    {"describes only what is inside", describes_only_what_is_inside},
    {"refuses reading what may only be written", refuses_reading_what_may_only_be_written},
    {"refuses writing what may only be read", refuses_writing_what_may_only_be_read},
    {"refuses access beyond a region", refuses_access_beyond_a_region},
    {"local mistakes end the connection", local_mistakes_end_the_connection},
    {"passes rejections on", passes_rejections_on},
    {"says that nobody listens", says_that_nobody_listens},
    {"says that an address is not there", says_that_an_address_is_not_there},
    {"cannot use native InfiniBand on Ethernet", cannot_use_native_infiniband_on_ethernet},
    {"ends when a handler refuses", ends_when_a_handler_refuses},
    {"disconnects in every phase", disconnects_in_every_phase},
    {"delivers what was sent before a disconnect", delivers_what_was_sent_before_a_disconnect},
    {"accepts later", accepts_later},
    {"several connections share the fabric", several_connections_share_the_fabric},
    {"leaks nothing in 200 connections", leaks_nothing},
    {"gives everything back", gives_everything_back},
    {"explains the limit on locked memory", explains_the_limit_on_locked_memory},
    {"explains missing permissions", explains_missing_permissions},
    {"an idle connection survives a port that goes down", an_idle_connection_survives_a_port_that_goes_down},
    {"survives a link that goes down", survives_a_link_that_goes_down},
    {"survives links that flap", survives_links_that_flap},
    {"survives the removal of its device", survives_the_removal_of_its_device},
};

}  // namespace

int main(int count, char** arguments) {
    log::configure(log::Destination::standard_error,
                   std::getenv("PROBE_DEBUG") ? log::Level::debug : log::Level::warning);
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    for (const auto& child : children)
        if (count == 2 && std::string(arguments[1]) == child.name) return run_child(child);
    unsigned passed = 0, failed = 0;
    const auto run = [&](const Test& test) {
        const std::vector<std::string> wanted(arguments + 1, arguments + count);
        const std::string name = test.name;
        if (!wanted.empty() &&
            std::ranges::none_of(wanted, [&](const auto& word) { return name.find(word) != name.npos; }))
            return;
        const Instant started = now();
        try {
            test.run();
            ++passed;
            fmt::print("ok {} ({} ms)\n", name,
                       std::chrono::duration_cast<std::chrono::milliseconds>(now() - started).count());
        } catch (const std::exception& failure) {
            ++failed;
            fmt::print("not ok {}: {}\n", name, failure.what());
        }
    };
    try {
        if (verbs_local_ports().empty()) run({"says that there is no device", says_that_there_is_no_device});
        if (!our_port()) make_device();
    } catch (const std::exception& failure) {
        fmt::print("not ok set-up: {}\n", failure.what());
        return 1;
    }
    for (const auto& test : tests) run(test);
    fmt::print("fabric-probe: {} passed, {} failed\n", passed, failed);
    // For whatever runs in this guest next. As another program, because librdmacm keeps a device open until the process
    // ends, and the kernel does not remove an rxe device before that.
    const std::string clean_up =
        fmt::format("rdma link del {}; ip link del eth7; exit {}", device_name, failed == 0 ? 0 : 1);
    std::fflush(stdout);
    execlp("bash", "bash", "-c", clean_up.c_str(), nullptr);
    return 1;
}
