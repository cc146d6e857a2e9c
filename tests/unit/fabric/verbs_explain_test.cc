// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "explain.h"

#include <srpfs/fabric/verbs.h>
#include <srpfs/reactor/reactor.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <infiniband/verbs.h>

#include <array>

namespace srpfs::fabric::verbs {
namespace {

using testing::HasSubstr;
using testing::Not;

const Environment healthy{true, true, true, true, true};

TEST(CmUnavailable, NamesTheFirstThingThatIsMissing) {
    Environment environment = healthy;
    environment.may_use_cm_node = false;
    EXPECT_EQ(cm_unavailable(EACCES, environment).errno_value(), EACCES);
    EXPECT_THAT(cm_unavailable(EACCES, environment).context, HasSubstr("/dev/infiniband/rdma_cm"));

    environment.has_cm_node = false;
    EXPECT_EQ(cm_unavailable(ENOENT, environment).errno_value(), ENOENT);
    EXPECT_THAT(cm_unavailable(ENOENT, environment).context, HasSubstr("modprobe rdma_ucm"));

    environment.has_device = false;
    EXPECT_EQ(cm_unavailable(EINVAL, environment).errno_value(), ENODEV);
    EXPECT_THAT(cm_unavailable(EINVAL, environment).context, HasSubstr("no RDMA device"));
}

TEST(CmUnavailable, TellsAMissingUserSpaceDriverFromAMissingDevice) {
    Environment environment = healthy;
    environment.has_user_device = false;
    EXPECT_EQ(cm_unavailable(ENODEV, environment).errno_value(), ENODEV);
    EXPECT_THAT(cm_unavailable(ENODEV, environment).context, HasSubstr("ibverbs-providers"));
}

TEST(CmUnavailable, OtherwiseGivesTheSystemsOwnWords) {
    const Error error = cm_unavailable(EMFILE, healthy);
    EXPECT_EQ(error.errno_value(), EMFILE);
    EXPECT_THAT(error.context, HasSubstr("Too many open files"));
}

TEST(DeviceNotOpened, SaysPermissionOnlyWhenItIsMissing) {
    Environment environment = healthy;
    EXPECT_THAT(device_not_opened("mlx5_0", ENOENT, environment).context, Not(HasSubstr("permission")));
    environment.may_use_devices = false;
    EXPECT_THAT(device_not_opened("mlx5_0", ENOENT, environment).context, HasSubstr("no permission"));
    EXPECT_EQ(device_not_opened("mlx5_0", ENOENT, environment).errno_value(), EACCES);
}

TEST(MemoryNotRegistered, SaysLimitAndNeedAndRemedy) {
    const Error error = memory_not_registered("mlx5_0", ENOMEM, {16 << 20, 48 << 20, 8 << 20});
    EXPECT_EQ(error.errno_value(), ENOMEM);
    EXPECT_THAT(error.context, HasSubstr("16 MiB of memory with mlx5_0"));
    EXPECT_THAT(error.context, HasSubstr("RLIMIT_MEMLOCK) is 8 MiB"));
    EXPECT_THAT(error.context, HasSubstr("48 MiB are needed"));
    EXPECT_THAT(error.context, HasSubstr("LimitMEMLOCK="));
}

TEST(MemoryNotRegistered, DoesNotBlameALimitThatIsNotThere) {
    EXPECT_THAT(memory_not_registered("mlx5_0", ENOMEM, {1, 1, UINT64_MAX}).context, Not(HasSubstr("RLIMIT_MEMLOCK")));
    EXPECT_THAT(memory_not_registered("mlx5_0", EFAULT, {1, 1, 8 << 20}).context, Not(HasSubstr("RLIMIT_MEMLOCK")));
}

TEST(BytesText, KeepsNumbersReadable) {
    EXPECT_EQ(bytes_text(0), "0 bytes");
    EXPECT_EQ(bytes_text(1023), "1023 bytes");
    EXPECT_EQ(bytes_text(1024), "1 KiB");
    EXPECT_EQ(bytes_text(1536), "1.5 KiB");
    EXPECT_EQ(bytes_text(std::uint64_t{64} << 20), "64 MiB");
    EXPECT_EQ(bytes_text(std::uint64_t{3} << 40), "3 TiB");
    EXPECT_EQ(bytes_text(std::uint64_t{5} << 50), "5120 TiB");
}

TEST(AddressError, TellsTheCausesApart) {
    EXPECT_EQ(address_error("t", -ENODEV, healthy).reason, EndReason::address_unresolved);
    EXPECT_THAT(address_error("t", -ENODEV, healthy).text, HasSubstr("belongs to no RDMA device"));
    EXPECT_THAT(address_error("t", -ENETUNREACH, healthy).text, HasSubstr("no route"));
    EXPECT_THAT(address_error("t", -ETIMEDOUT, healthy).text, HasSubstr("no answer to ARP"));
    EXPECT_EQ(address_error("t", -ETIMEDOUT, healthy).errno_value, ETIMEDOUT);

    Environment environment = healthy;
    environment.may_use_devices = false;
    EXPECT_EQ(address_error("t", -1, environment).reason, EndReason::local_error);
    EXPECT_EQ(address_error("t", -1, environment).errno_value, EACCES);
    EXPECT_THAT(address_error("t", -1, environment).text, HasSubstr("uverbs"));
}

TEST(Unreachable, HasTheErrnoOfTheConnectionManager) {
    EXPECT_EQ(unreachable("t", -ETIMEDOUT).errno_value, ETIMEDOUT);
    EXPECT_EQ(unreachable("t", -EHOSTUNREACH).errno_value, EHOSTUNREACH);
    EXPECT_EQ(unreachable("t", 0).reason, EndReason::unreachable);
    EXPECT_EQ(route_error("t", -ETIMEDOUT).reason, EndReason::route_unresolved);
    EXPECT_EQ(route_error("t", 3).errno_value, EHOSTUNREACH);
}

TEST(Rejected, PassesReasonAndPrivateDataOn) {
    const std::array<std::byte, 3> data{std::byte{0xc2}, std::byte{1}, std::byte{2}};
    const End end = rejected("10.9.9.1:5555", 28, data);
    EXPECT_EQ(end.reason, EndReason::rejected);
    EXPECT_EQ(end.cm_reason, 28);
    EXPECT_EQ(end.errno_value, ECONNREFUSED);
    EXPECT_EQ(end.private_data.data(), data.data());
    EXPECT_EQ(end.private_data.size(), 3u);

    EXPECT_THAT(rejected("t", 8, {}).text, HasSubstr("nobody listens"));
    EXPECT_THAT(rejected("t", 3, {}).text, HasSubstr("no resources"));
    EXPECT_EQ(rejected("t", 10, {}).errno_value, ECONNRESET);
    EXPECT_EQ(rejected("t", -ECONNREFUSED, data).cm_reason, 28);  // iWARP
}

TEST(CompletionError, NamesOperationStatusAndVendorError) {
    const End end = completion_error("10.9.9.1:5555", Operation::rdma_read, IBV_WC_REM_ACCESS_ERR, 0x88);
    EXPECT_EQ(end.reason, EndReason::transport_error);
    EXPECT_EQ(end.errno_value, EACCES);
    EXPECT_THAT(end.text, HasSubstr("10.9.9.1:5555: RDMA read failed: remote access error (10, vendor error 0x88)"));
    EXPECT_EQ(completion_error("t", Operation::send, IBV_WC_RETRY_EXC_ERR, 0).errno_value, ETIMEDOUT);
    EXPECT_EQ(completion_error("t", Operation::receive, IBV_WC_WR_FLUSH_ERR, 0).errno_value, ECONNRESET);
    EXPECT_EQ(completion_error("t", Operation::send, IBV_WC_GENERAL_ERR, 0).errno_value, EIO);
}

TEST(VerbsFabric, OnAMachineWithoutRdmaSaysSo) {
    if (observe_environment().has_user_device) GTEST_SKIP() << "this machine has an RDMA device";
    reactor::Reactor reactor("test");

    const auto fabric = make_verbs_fabric(reactor);

    ASSERT_FALSE(fabric.has_value());
    EXPECT_THAT(fabric.error().errno_value(), testing::AnyOf(ENODEV, ENOENT, EACCES));
    EXPECT_GT(fabric.error().context.size(), 30u);
    EXPECT_EQ(verbs_local_ports().empty(), !observe_environment().has_device);
}

}  // namespace
}  // namespace srpfs::fabric::verbs
