// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "pieces.h"

#include <srpfs/srp/login_string.h>

#include <gtest/gtest.h>

#include <sstream>

namespace srpfs::srp {
namespace {

const std::string ib_target =
    "id_ext=0002c903000e8acd,ioc_guid=0002c903000e8acd,dgid=fe800000000000000002c903000e8acd,pkey=ffff,"
    "service_id=0002c903000e8acd";
const std::string ip_target = "id_ext=1,ioc_guid=2,dest=10.0.0.7:5555";

LoginParameters parsed(const std::string& text) {
    auto result = parse_login_string(text);
    EXPECT_TRUE(result) << text << ": " << (result ? "" : result.error().context);
    return result ? *result : LoginParameters{};
}

// The parameters of a valid target plus these items.
LoginParameters with(const std::string& items) { return parsed(ip_target + "," + items); }

std::string refusal(const std::string& text) {
    const auto result = parse_login_string(text);
    EXPECT_FALSE(result) << text;
    if (result) return {};
    EXPECT_EQ(result.error().errno_value(), EINVAL);
    return result.error().context;
}

std::string refusal_with(const std::string& items) { return refusal(ip_target + "," + items); }

// ---- whole strings ----

TEST(LoginString, TakesTheLineThatIbsrpdmPrints) {
    const LoginParameters parameters = parsed(ib_target + "\n");

    EXPECT_EQ(parameters.id_ext, 0x0002c903000e8acdu);
    EXPECT_EQ(parameters.ioc_guid, 0x0002c903000e8acdu);
    ASSERT_TRUE(parameters.ib);
    EXPECT_FALSE(parameters.dest);
    EXPECT_EQ(parameters.ib->dgid[0], std::byte{0xfe});
    EXPECT_EQ(parameters.ib->dgid[15], std::byte{0xcd});
    EXPECT_EQ(parameters.ib->pkey, 0xffff);
    EXPECT_EQ(parameters.ib->service_id, 0x0002c903000e8acdu);
}

TEST(LoginString, HasTheKernelsDefaults) {
    const LoginParameters parameters = parsed(ip_target);

    EXPECT_EQ(parameters.initiator_ext, 0u);
    EXPECT_EQ(parameters.io_class, IoClass::rev16a);
    EXPECT_EQ(parameters.max_sect, 1024u);
    EXPECT_EQ(parameters.queue_size, 62u);
    EXPECT_EQ(parameters.max_cmd_per_lun, 62u);
    EXPECT_EQ(parameters.target_can_queue, 0u);
    EXPECT_EQ(parameters.cmd_sg_entries, 12u);
    EXPECT_FALSE(parameters.allow_ext_sg);
    EXPECT_EQ(parameters.sg_tablesize, 12u);
    EXPECT_EQ(parameters.comp_vector, 0u);
    EXPECT_EQ(parameters.tl_retry_count, 7u);
    EXPECT_EQ(parameters.ack_timeout, std::nullopt);
    EXPECT_EQ(parameters.max_it_iu_size, 0u);
    EXPECT_EQ(parameters.ch_count, 0u);
    EXPECT_TRUE(parameters.use_imm_data);
    EXPECT_EQ(parameters.max_imm_data, 8192u);
    EXPECT_FALSE(parameters.src);
}

TEST(LoginString, SkipsEmptyItemsAndTrimsBlanks) {
    EXPECT_EQ(parsed(",," + ip_target + ",\n,"), parsed(ip_target));
    EXPECT_EQ(parsed("  id_ext=1 ,\tioc_guid=2\r\ndest=10.0.0.7:5555 \r\n"), parsed(ip_target));
    EXPECT_EQ(parsed("id_ext = 1, ioc_guid = 2, dest = 10.0.0.7:5555"), parsed(ip_target));
    EXPECT_EQ(parsed("dest=10.0.0.7:5555\nioc_guid=2\nid_ext=1"), parsed(ip_target));
}

TEST(LoginString, LetsTheLastOfTwoEqualKeysWin) {
    EXPECT_EQ(with("queue_size=5,queue_size=6").queue_size, 6u);
    EXPECT_EQ(with("id_ext=77").id_ext, 0x77u);
    EXPECT_EQ(with("dest=10.0.0.8:1").dest->host, "10.0.0.8");
    EXPECT_TRUE(contains(refusal_with("queue_size=x,queue_size=6"), "queue_size"))
        << "the first is checked all the same";
}

TEST(LoginString, NamesWhatIsMissing) {
    EXPECT_TRUE(contains(refusal(""), "id_ext, ioc_guid, dest"));
    EXPECT_TRUE(contains(refusal("\n"), "id_ext, ioc_guid, dest"));
    EXPECT_TRUE(contains(refusal("id_ext=1,dest=1.2.3.4:5"), ": ioc_guid missing"));
    EXPECT_TRUE(contains(refusal("ioc_guid=1,dest=1.2.3.4:5"), ": id_ext missing"));
    EXPECT_TRUE(contains(refusal("id_ext=1,ioc_guid=1"), ": dest (or dgid, pkey and service_id) missing"));
    EXPECT_TRUE(contains(refusal("id_ext=1,ioc_guid=1,pkey=ffff"), ": dgid, service_id missing"));
    EXPECT_TRUE(contains(refusal("id_ext=1,ioc_guid=1,service_id=1"), ": dgid, pkey missing"));
}

TEST(LoginString, GoesOverRdmaCmWhenDestIsGivenEvenBesideADgid) {
    const LoginParameters parameters = parsed(ib_target + ",dest=10.0.0.7:5555");

    EXPECT_TRUE(parameters.dest);
    EXPECT_FALSE(parameters.ib);
}

TEST(LoginString, NamesAnUnknownKeyAndWhereItIs) {
    const std::string text = refusal("id_ext=1, max_sects=5,ioc_guid=1");

    EXPECT_TRUE(contains(text, "\"max_sects\"")) << text;
    EXPECT_TRUE(contains(text, "item 2")) << text;
    EXPECT_TRUE(contains(text, "character 11")) << text;
    EXPECT_TRUE(contains(text, "add_target")) << text;
}

TEST(LoginString, TakesKeysInLowerCaseOnly) { EXPECT_TRUE(contains(refusal_with("Queue_Size=5"), "\"Queue_Size\"")); }

TEST(LoginString, AsksForTheValueOfAKeyWithoutOne) {
    const std::string without_equals = refusal_with("queue_size");
    const std::string empty = refusal_with("queue_size=");

    EXPECT_TRUE(contains(without_equals, "queue_size has no value")) << without_equals;
    EXPECT_TRUE(contains(without_equals, "1..2147483647")) << without_equals;
    EXPECT_TRUE(contains(empty, "queue_size=\"\"")) << empty;
    EXPECT_TRUE(contains(refusal_with("=5"), "\"\" is not a key"));
}

TEST(LoginString, ShowsHostileTextOnOneShortPrintableLine) {
    using namespace std::string_literals;
    const std::string control = refusal_with("queue_size=\x1b[2J\0\xff"s);
    const std::string huge = refusal_with("queue_size=" + std::string(100'000, '9'));

    for (const std::string& text : {control, huge}) {
        EXPECT_LT(text.size(), 400u);
        for (const char c : text) EXPECT_TRUE(c >= 0x20 && c <= 0x7e) << text;
    }
    EXPECT_TRUE(contains(control, "\\x1b[2J\\x00\\xff")) << control;
}

TEST(LoginString, ShowsOtherCharactersThanAsciiAsTheyAre) {
    EXPECT_TRUE(contains(refusal_with("gr\xc3\xbcn=1"), "\"gr\xc3\xbcn\" is not a key"));
    EXPECT_TRUE(contains(refusal_with("queue_size=\xc3"), "\\xc3"));
    EXPECT_TRUE(contains(refusal_with("queue_size=" + std::string(79, '9') + "\xc3\xbc" + "9"), "9...\""));
}

// ---- every key and its range ----

struct Range {
    const char* key;
    const char* range;              // as error sentences print it
    std::vector<const char*> good;  // the ends of the range among them
    std::vector<const char*> bad;   // one less, one more, and what is no number
};

const Range ranges[] = {
    {"id_ext",
     "0..ffffffffffffffff",
     {"0", "ffffffffffffffff", "0xFFFFFFFFFFFFFFFF", "0000000000000001"},
     {"10000000000000000", "fffffffffffffffff", "-1", "+1", "g", "0x", "1 2", "0x0x1", ""}},
    {"ioc_guid", "0..ffffffffffffffff", {"0", "ffffffffffffffff", "0x1"}, {"10000000000000000", "-1", "xyz", "1:2"}},
    {"initiator_ext", "0..ffffffffffffffff", {"0", "ffffffffffffffff", "0x1"}, {"10000000000000000", "-1", "xyz"}},
    {"service_id", "0..ffffffffffffffff", {"0", "ffffffffffffffff", "0x1"}, {"10000000000000000", "-1", "xyz"}},
    {"pkey", "0..ffff", {"0", "ffff", "0xffff", "7fff"}, {"10000", "0x10000", "-1", "g"}},
    {"io_class",
     "ff00 or 0100",
     {"ff00", "0100", "100", "0x100", "FF00"},
     {"feff", "ff01", "00ff", "0101", "0", "1ff00", "x"}},
    {"dgid",
     "any",
     {"fe800000000000000002c903000e8acd", "FE800000000000000002C903000E8ACD"},
     {"fe800000000000000002c903000e8ac", "fe800000000000000002c903000e8acd0", "0xe800000000000000002c903000e8ac",
      "fe80:0000:0000:0000:0002:c903:000e:8acd", "ge800000000000000002c903000e8acd", "fe800000000000000002c903000e8ac-",
      ""}},
    {"max_sect",
     "1..2147483647",
     {"1", "2147483647", "0x400"},
     {"0", "2147483648", "-1", "1k", "99999999999999999999"}},
    {"queue_size", "1..2147483647", {"1", "2147483647", "0x3e"}, {"0", "2147483648", "-1", "a", "1.5", "0x80000000"}},
    {"max_cmd_per_lun", "1..2147483647", {"1", "2147483647"}, {"0", "2147483648", "-1", "a"}},
    {"target_can_queue", "1..2147483647", {"1", "2147483647"}, {"0", "2147483648", "-1", "a"}},
    {"cmd_sg_entries", "1..255", {"1", "255", "0xff"}, {"0", "256", "-1", "a"}},
    {"allow_ext_sg", "0..2147483647", {"0", "1", "2147483647"}, {"-1", "2147483648", "yes"}},
    {"sg_tablesize", "1..2048", {"1", "2048"}, {"0", "2049", "-1", "a"}},
    {"comp_vector", "0..2147483647", {"0", "2147483647"}, {"-1", "2147483648", "a"}},
    {"tl_retry_count", "2..7", {"2", "7"}, {"1", "8", "-1", "a", "0"}},
    {"ack_timeout", "1..31", {"1", "14", "31"}, {"0", "32", "-1", "a", ""}},
    {"max_it_iu_size", "0..2147483647", {"0", "2147483647"}, {"-1", "2147483648", "a"}},
    {"ch_count", "1..2147483647", {"1", "2147483647"}, {"0", "-1", "2147483648", "a"}},
    {"use_imm_data", "0..1", {"0", "1"}, {"2", "-1", "y", "true"}},
    {"max_imm_data", "0..65536", {"0", "65536"}, {"65537", "-1", "8k"}},
    {"dest",
     "port 1..65535",
     {"1.2.3.4:1", "1.2.3.4:65535", "[::1]:5555", "[fe80::1%eth0]:5555", "[fe80::1%2]:1", "demo", "d-1_x"},
     {"1.2.3.4:0",
      "1.2.3.4:65536",
      "1.2.3.4",
      "1.2.3.4:",
      "1.2.3.4:x",
      "1.2.3.4:0x10",
      "1.2.3:5",
      "256.2.3.4:5",
      "1.2.3.4:5:6",
      "01.2.3.4x:5",
      "[::1]",
      "[::1]:",
      "[::1]5555",
      "[::1",
      "::1:5555",
      "[1.2.3.4]:5",
      "[fe80::1%]:5",
      "[fe80::1%eth/0]:5",
      "[fe80::1%0123456789abcdef]:5",
      "[::1%eth0%1]:5",
      "demo:1",
      "host.example:5555",
      "host.example",
      "1demo",
      "-demo",
      "[]:5",
      ":5",
      ""}},
    {"src",
     "port 0..65535",
     {"1.2.3.4", "1.2.3.4:0", "1.2.3.4:65535", "[::1]", "[fe80::1%eth0]:0"},
     {"1.2.3.4:65536", "1.2.3.4:", "demo", "::1", "[::1]x", "1.2.3", ""}},
};

TEST(LoginString, TakesEveryValueInTheRangeOfItsKey) {
    for (const Range& one : ranges)
        for (const char* value : one.good) {
            const std::string item = std::string(one.key) + "=" + value;
            EXPECT_TRUE(parse_login_string(ip_target + "," + item)) << item;
        }
}

TEST(LoginString, RefusesEveryOtherValueNamingKeyValueAndRange) {
    for (const Range& one : ranges)
        for (const char* value : one.bad) {
            const std::string text = refusal_with(std::string(one.key) + "=" + value);
            EXPECT_TRUE(contains(text, std::string(one.key) + "=\"" + value + "\"")) << text;
            EXPECT_TRUE(contains(text, std::string("range ") + one.range)) << text;
            EXPECT_TRUE(contains(text, "item 4 (character 40)")) << text;
        }
}

TEST(LoginString, IsTestedInEveryKeyOfItsGrammar) {
    std::istringstream grammar(login_grammar());
    std::size_t keys = 0;
    for (std::string line; std::getline(grammar, line); ++keys) {
        const std::string key = line.substr(0, line.find('='));
        const auto* range =
            std::find_if(std::begin(ranges), std::end(ranges), [&](const Range& one) { return key == one.key; });
        ASSERT_NE(range, std::end(ranges)) << line;
        EXPECT_TRUE(contains(line, std::string("range: ") + range->range)) << line;
        EXPECT_TRUE(contains(line, "default: ")) << line;
        EXPECT_NE(line.back(), ' ');
    }
    EXPECT_EQ(keys, std::size(ranges));
}

TEST(LoginString, PutsEachValueIntoItsField) {
    const LoginParameters parameters = with(
        "initiator_ext=0x11,io_class=ff00,max_sect=2048,queue_size=127,max_cmd_per_lun=16,target_can_queue=200,"
        "cmd_sg_entries=255,allow_ext_sg=1,sg_tablesize=2048,comp_vector=3,tl_retry_count=2,max_it_iu_size=4148,"
        "ack_timeout=14,ch_count=4,use_imm_data=0,max_imm_data=4096,src=10.0.0.1:7");

    EXPECT_EQ(parameters.initiator_ext, 0x11u);
    EXPECT_EQ(parameters.io_class, IoClass::rev10);
    EXPECT_EQ(parameters.max_sect, 2048u);
    EXPECT_EQ(parameters.queue_size, 127u);
    EXPECT_EQ(parameters.max_cmd_per_lun, 16u);
    EXPECT_EQ(parameters.target_can_queue, 200u);
    EXPECT_EQ(parameters.cmd_sg_entries, 255u);
    EXPECT_TRUE(parameters.allow_ext_sg);
    EXPECT_EQ(parameters.sg_tablesize, 2048u);
    EXPECT_EQ(parameters.comp_vector, 3u);
    EXPECT_EQ(parameters.tl_retry_count, 2u);
    EXPECT_EQ(parameters.ack_timeout, 14);
    EXPECT_EQ(parameters.max_it_iu_size, 4148u);
    EXPECT_EQ(parameters.ch_count, 4u);
    EXPECT_FALSE(parameters.use_imm_data);
    EXPECT_EQ(parameters.max_imm_data, 4096u);
    EXPECT_EQ(parameters.src, (IpDestination{"10.0.0.1", 7}));
}

TEST(LoginString, ReadsIdentifiersAsHexAndCountsAsDecimal) {
    EXPECT_EQ(with("initiator_ext=10").initiator_ext, 0x10u);
    EXPECT_EQ(with("queue_size=10").queue_size, 10u);
    EXPECT_EQ(with("queue_size=010").queue_size, 10u) << "not octal";
    EXPECT_EQ(with("queue_size=0X10").queue_size, 16u);
}

TEST(LoginString, LetsQueueSizeSetTheDepthOfAUnitUnlessThatIsGiven) {
    EXPECT_EQ(with("queue_size=10").max_cmd_per_lun, 10u);
    EXPECT_EQ(with("queue_size=10,max_cmd_per_lun=5").max_cmd_per_lun, 5u);
    EXPECT_EQ(with("max_cmd_per_lun=5,queue_size=10").max_cmd_per_lun, 5u);
    EXPECT_EQ(with("max_cmd_per_lun=5").queue_size, 62u);
}

TEST(LoginString, SplitsAddressesIntoHostAndPort) {
    EXPECT_EQ(with("dest=192.168.1.2:5555").dest, (IpDestination{"192.168.1.2", 5555}));
    EXPECT_EQ(with("dest=[fe80::1%eth0]:5555").dest, (IpDestination{"fe80::1%eth0", 5555}));
    EXPECT_EQ(with("dest=demo").dest, (IpDestination{"demo", 0}));
    EXPECT_EQ(with("src=[2001:db8::2]").src, (IpDestination{"2001:db8::2", 0}));
}

// The demonstration target's own string (decisions 37).
TEST(LoginString, TakesTheNameOfALoopbackNetwork) {
    const LoginParameters parameters = parsed("id_ext=1,ioc_guid=1,dest=demo");

    EXPECT_EQ(parameters.dest, (IpDestination{"demo", 0}));
}

TEST(LoginString, RefusesANulInsideAnAddress) {
    using namespace std::string_literals;
    EXPECT_TRUE(contains(refusal_with("dest=10.0.0.7\0x:5"s), "dest"));
    EXPECT_TRUE(contains(refusal_with("dest=[::1\0%eth0]:5"s), "dest"));
}

// ---- back to text ----

TEST(LoginString, IsPrintedInTheFormItIsUsuallyWritten) {
    EXPECT_EQ(to_login_string(parsed(ib_target)), ib_target);
    EXPECT_EQ(to_login_string(parsed(ip_target)),
              "id_ext=0000000000000001,ioc_guid=0000000000000002,dest=10.0.0.7:5555");
    EXPECT_EQ(to_login_string(with("dest=[fe80::1%eth0]:5,src=[fe80::2]")),
              "id_ext=0000000000000001,ioc_guid=0000000000000002,dest=[fe80::1%eth0]:5,src=[fe80::2]");
    EXPECT_EQ(to_login_string(with("dest=demo,queue_size=5")),
              "id_ext=0000000000000001,ioc_guid=0000000000000002,dest=demo,queue_size=5");
}

TEST(LoginString, ParsesItsOwnTextToTheSameParameters) {
    for (const Range& one : ranges)
        for (const char* value : one.good)
            for (const std::string& target : {ip_target, ib_target}) {
                const LoginParameters original = parsed(target + "," + one.key + "=" + value);
                const std::string text = to_login_string(original);
                SCOPED_TRACE(text);
                EXPECT_EQ(parsed(text), original);
                EXPECT_EQ(to_login_string(parsed(text)), text);
            }
}

TEST(LoginString, PrintsADepthThatEqualsTheDefaultButNotTheQueueSize) {
    const LoginParameters original = with("queue_size=10,max_cmd_per_lun=62");

    EXPECT_EQ(parsed(to_login_string(original)), original);
}

// ---- derived values ----

TEST(PortIds, PutTheExtensionFirstInRevision16aAndLastInRevision10) {
    LoginParameters parameters = parsed("id_ext=1,ioc_guid=2,initiator_ext=3,dest=demo");

    EXPECT_EQ(target_port_id(parameters), port_id(1, 2));
    EXPECT_EQ(initiator_port_id(parameters, 0x505400fffe4a0b7b, 0x77), port_id(3, 0x505400fffe4a0b7b));
    parameters.io_class = IoClass::rev10;
    EXPECT_EQ(target_port_id(parameters), port_id(2, 1));
    EXPECT_EQ(initiator_port_id(parameters, 0x505400fffe4a0b7b, 0x77), port_id(0x505400fffe4a0b7b, 3));
}

// srp-wire 2.5.
TEST(PortId, TopspinAndCiscoTargetsGetTheNodeGuid) {
    for (const std::uint64_t ioc_guid : {0x0005ad0000001234ull, 0x001b0d0000001234ull}) {
        LoginParameters parameters;
        parameters.ioc_guid = ioc_guid;
        parameters.initiator_ext = 3;
        parameters.ib = IbDestination{};
        EXPECT_EQ(initiator_port_id(parameters, 0x505400fffe4a0b7b, 0x77), port_id(0, 0x77));
        parameters.ib.reset();
        EXPECT_EQ(initiator_port_id(parameters, 0x505400fffe4a0b7b, 0x77), port_id(3, 0x505400fffe4a0b7b));
    }
}

// The numbers of srp-wire 6.
TEST(RequestedUnitLength, IsWhatTheKernelAsksFor) {
    EXPECT_EQ(requested_it_iu_bytes(parsed(ip_target)), 8260u);
    EXPECT_EQ(requested_it_iu_bytes(with("use_imm_data=0")), 276u);
    EXPECT_EQ(requested_it_iu_bytes(with("use_imm_data=0,cmd_sg_entries=255")), 4164u);
}

TEST(RequestedUnitLength, IsTheLargerOfDescriptorsAndImmediateData) {
    EXPECT_EQ(requested_it_iu_bytes(with("max_imm_data=207")), 276u);
    EXPECT_EQ(requested_it_iu_bytes(with("max_imm_data=208")), 276u);
    EXPECT_EQ(requested_it_iu_bytes(with("max_imm_data=209")), 277u);
}

TEST(RequestedUnitLength, IsCapped) {
    EXPECT_EQ(requested_it_iu_bytes(with("max_it_iu_size=2116")), 2116u);
    EXPECT_EQ(requested_it_iu_bytes(with("max_it_iu_size=8261")), 8260u);
    EXPECT_EQ(requested_it_iu_bytes(with("max_it_iu_size=0")), 8260u);
}

}  // namespace
}  // namespace srpfs::srp
