// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Logs in to a target on an RDMA network, asks it a fixed series of questions, one after the other, and prints what it
// answers, in the form of tests/wire/captured:
//
//     srpfs-ask ADDRESS:PORT GUID [INITIATOR-EXT]      GUID: both halves of the target port identifier
//
// The series writes one block of 512 bytes to LUN 0 and resets that LUN. Exit status 0: everything was answered;
// 3: the login was rejected (and the rejection printed).

#include "program.h"

#include <srpfs/base/bytes.h>
#include <srpfs/srp/login_string.h>
#include <srpfs/srp/srp.h>

#include <array>
#include <cstring>
#include <deque>

namespace srpfs::guest {
namespace {

using namespace fabric;

constexpr std::size_t memory_bytes = 65536;
alignas(4096) std::array<std::byte, memory_bytes> memory;

// Ticks of 1 s: how long the target may take for the whole series.
constexpr auto time_max = std::chrono::seconds(30);

struct Question {
    std::string what;
    bool recorded = true;
    std::vector<std::byte> head, payload;
};

class Asker final : public ConnectionHandler {
public:
    Asker(reactor::Reactor& reactor, const srp::LoginParameters& parameters)
        : reactor_(reactor), parameters_(parameters), deadline_(reactor.timers(), [this] { give_up(); }) {}

    int run(Fabric& fabric, const Address& address) {
        auto region = fabric.register_memory(memory, RemoteAccess::write);
        if (!region) return fail(region.error().context);
        region_ = *region;
        ConnectionLimits limits;
        limits.message_bytes_max = srp::immediate_data_offset + 512;
        auto connection = fabric.connect(address, limits, *this);
        if (!connection) return fail(connection.error().context);
        connection_ = *connection;
        deadline_.arm_after(time_max);
        FabricSource source(fabric);
        reactor_.add_source(source);
        reactor_.run();
        fabric.unregister_memory(region_);
        return status_;
    }

    std::span<const std::byte> on_route(const LocalPort& port) override {
        srp::LoginRequest login;
        login.it_iu_bytes_max = srp::immediate_data_offset + 8192;
        login.immediate_data = true;
        login.immediate_data_offset = srp::immediate_data_offset;
        login.initiator_port = srp::initiator_port_id(parameters_, port.guid, port.node_guid);
        login.target_port = srp::target_port_id(parameters_);
        login_bytes_.resize(srp::login_request_rdma_bytes);
        srp::encode(login, srp::LoginForm::rdma_cm, login_bytes_);
        return login_bytes_;
    }
    std::optional<ReceiveRing> on_reply(std::span<const std::byte> private_data) override {
        print_bytes("login-response", private_data.first(std::min(private_data.size(), srp::login_response_bytes)));
        const auto response = srp::parse_login_response(private_data);
        if (!response) return std::nullopt;
        immediate_data_ = response->immediate_data;
        return ReceiveRing{16, std::max<unsigned>(response->ti_iu_bytes_max, 256)};
    }
    void on_established() override {
        prepare();
        next();
    }
    void on_received(std::span<const std::byte> message) override {
        if (questions_.front().recorded) {
            print_line("#", questions_.front().what);
            print_bytes("response", message);
        }
        questions_.pop_front();
        next();
    }
    void on_ended(const End& end) override {
        if (end.reason == EndReason::closed && questions_.empty()) return;
        status_ = 1;
        if (end.reason == EndReason::rejected && !end.private_data.empty()) {
            print_bytes("login-reject",
                        end.private_data.first(std::min(end.private_data.size(), srp::login_reject_bytes)));
            status_ = 3;
        }
        fmt::print(stderr, "srpfs-ask: {}: {}\n", to_string(end.reason), end.text);
    }
    void on_gone() override { reactor_.stop(); }

private:
    int fail(const std::string& why) {
        fmt::print(stderr, "srpfs-ask: {}\n", why);
        return 1;
    }

    void give_up() {
        fmt::print(stderr, "srpfs-ask: no answer to {}\n", questions_.empty() ? "the login" : questions_.front().what);
        status_ = 1;
        connection_->disconnect();
    }

    void next() {
        if (questions_.empty()) return connection_->disconnect();
        if (!connection_->send(questions_.front().head, questions_.front().payload)) {
            fail("cannot send");
            status_ = 1;
            connection_->disconnect();
        }
    }

    void command(const std::string& what, unsigned lun, const scsi::Cdb& cdb, std::uint32_t data_in_bytes,
                 bool recorded = true) {
        srp::CommandHead head{
            .tag = ++tag_, .lun = scsi::Lun::from_number(static_cast<std::uint16_t>(lun)), .cdb = cdb};
        if (data_in_bytes > 0) {
            head.direction = srp::DataDirection::from_target;
            const auto buffer = connection_->describe(region_, std::span<const std::byte>(memory).first(data_in_bytes));
            head.descriptor = srp::Descriptor{buffer->address, buffer->key, buffer->length};
        }
        add(what, head, {}, recorded);
    }
    void add(const std::string& what, const srp::CommandHead& head, std::vector<std::byte> payload, bool recorded) {
        Question question{what, recorded, std::vector<std::byte>(128), std::move(payload)};
        question.head.resize(srp::encode(head, question.head));
        questions_.push_back(std::move(question));
    }
    void manage(const std::string& what, srp::TaskFunction function, srp::Tag managed) {
        srp::TaskManagement request{.tag = ++tag_, .lun = {}, .function = function, .managed_tag = managed};
        Question question{what, true, std::vector<std::byte>(64), {}};
        question.head.resize(srp::encode(request, question.head));
        questions_.push_back(std::move(question));
    }

    void prepare() {
        constexpr auto no_fua = scsi::ForceUnitAccess::no;
        // Whether a unit attention is waiting depends on what was before.
        for (unsigned lun = 0; lun < 2; ++lun) {
            command("", lun, scsi::test_unit_ready(), 0, false);
            command("", lun, scsi::test_unit_ready(), 0, false);
        }
        command("TEST UNIT READY: good", 0, scsi::test_unit_ready(), 0);
        command("INQUIRY with room for 36 bytes: good", 0, scsi::inquiry(36), 36);
        command("INQUIRY with room for 4096 bytes: good, residual", 0, scsi::inquiry(4096), 4096);
        command("READ(10) of 8 blocks: good", 0, scsi::read(0, 8, no_fua), 4096);
        command("READ(10) of 8 blocks into 8192 bytes: residual", 0, scsi::read(0, 8, no_fua), 8192);
        command("READ(16) far beyond the end: LBA out of range", 0, scsi::read(1ULL << 40, 8, no_fua), 4096);
        scsi::Cdb vendor_specific = scsi::test_unit_ready();
        vendor_specific.bytes[0] = std::byte{0xd7};
        command("operation code D7h: invalid command operation code", 0, vendor_specific, 0);
        command("INQUIRY of a LUN that is not there: peripheral qualifier 3", 99, scsi::inquiry(36), 36);
        command("TEST UNIT READY of a LUN that is not there: logical unit not supported", 99, scsi::test_unit_ready(),
                0);
        command("READ(10) of a LUN that is not there: logical unit not supported", 99, scsi::read(0, 8, no_fua), 4096);
        if (immediate_data_) {
            srp::CommandHead head{.tag = ++tag_,
                                  .lun = scsi::Lun::from_number(0),
                                  .cdb = scsi::write(1, 1, no_fua),
                                  .direction = srp::DataDirection::to_target,
                                  .immediate_bytes = 512};
            add("WRITE(10) of one block with immediate data: good", head, std::vector<std::byte>(512, std::byte{0x5a}),
                true);
        }
        manage("ABORT TASK of a tag that is not there", srp::TaskFunction::abort_task, 0xdead);
        manage("CLEAR ACA", srp::TaskFunction::clear_aca, 0);
        manage("LOGICAL UNIT RESET", srp::TaskFunction::lun_reset, 0);
        command("TEST UNIT READY after it: unit attention", 0, scsi::test_unit_ready(), 0);
        command("TEST UNIT READY after that: good", 0, scsi::test_unit_ready(), 0);
    }

    reactor::Reactor& reactor_;
    srp::LoginParameters parameters_;
    reactor::Timer deadline_;
    Connection* connection_ = nullptr;
    RegionId region_{};
    std::vector<std::byte> login_bytes_;
    bool immediate_data_ = false;
    std::deque<Question> questions_;
    srp::Tag tag_ = 0x100;
    int status_ = 0;
};

int run(const std::string& address_text, const char* guid, const char* initiator_ext) {
    const auto address = parse_address(address_text);
    if (!address) {
        fmt::print(stderr, "srpfs-ask: '{}' is not ADDRESS:PORT\n", address_text);
        return 2;
    }
    srp::LoginParameters parameters;
    parameters.id_ext = parameters.ioc_guid = std::strtoull(guid, nullptr, 16);
    parameters.initiator_ext = std::strtoull(initiator_ext, nullptr, 16);
    reactor::Reactor reactor("ask");
    auto verbs = make_verbs_fabric(reactor);
    if (!verbs) {
        fmt::print(stderr, "srpfs-ask: {}\n", verbs.error().context);
        return 1;
    }
    Asker asker(reactor, parameters);
    return asker.run(**verbs, *address);
}

}  // namespace
}  // namespace srpfs::guest

int main(int argc, char** argv) {
    if (argc < 3 || argc > 4) {
        fmt::print(stderr, "usage: srpfs-ask ADDRESS:PORT GUID [INITIATOR-EXT]\n");
        return 2;
    }
    srpfs::log::configure(srpfs::log::Destination::standard_error, srpfs::log::Level::info);
    return srpfs::guest::run(argv[1], argv[2], argc == 4 ? argv[3] : "aa");
}
