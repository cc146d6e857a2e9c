// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/srp/login_string.h>

#include <srpfs/base/utf8.h>

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <span>
#include <vector>

#include <arpa/inet.h>

namespace srpfs::srp {
namespace {

// ---- values ----

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

std::string_view trimmed(std::string_view text) {
    while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
    while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
    return text;
}

bool has_hex_prefix(std::string_view text) { return text.starts_with("0x") || text.starts_with("0X"); }

std::optional<std::uint64_t> number(std::string_view text, int base, std::uint64_t low, std::uint64_t high) {
    if (has_hex_prefix(text)) {
        text.remove_prefix(2);
        base = 16;
    }
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    if (value < low || value > high) return std::nullopt;
    return value;
}

template <typename T>
bool set_hex(std::optional<T>& field, std::string_view text) {
    const auto value = number(text, 16, 0, std::numeric_limits<T>::max());
    if (value) field = static_cast<T>(*value);
    return value.has_value();
}

constexpr unsigned int_max = INT32_MAX;  // the kernel's options are ints

bool set_int(unsigned& field, std::string_view text, unsigned low, unsigned high) {
    const auto value = number(text, 10, low, high);
    if (value) field = static_cast<unsigned>(*value);
    return value.has_value();
}

std::optional<std::array<std::byte, 16>> gid_of(std::string_view text) {
    if (text.size() != 32) return std::nullopt;
    std::array<std::byte, 16> gid{};
    for (std::size_t index = 0; index < gid.size(); ++index) {
        unsigned value = 0;
        const char* first = text.data() + 2 * index;
        const auto [end, error] = std::from_chars(first, first + 2, value, 16);
        if (error != std::errc{} || end != first + 2) return std::nullopt;
        gid[index] = static_cast<std::byte>(value);
    }
    return gid;
}

bool is_alphanumeric(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }

bool is_letter(char c) { return is_alphanumeric(c) && !(c >= '0' && c <= '9'); }

// Of a loopback network. No dots, so that a host name is not taken for one.
bool is_network_name(std::string_view text) {
    if (text.empty() || text.size() > 64 || !is_letter(text.front())) return false;
    return std::all_of(text.begin(), text.end(), [](char c) { return is_alphanumeric(c) || c == '-' || c == '_'; });
}

bool is_ipv4(std::string_view text) {
    in_addr ignored{};
    return inet_pton(AF_INET, std::string(text).c_str(), &ignored) == 1;
}

// With an optional %scope: an interface name or number.
bool is_ipv6(std::string_view text) {
    const std::size_t percent = text.find('%');
    if (percent != std::string_view::npos) {
        const std::string_view scope = text.substr(percent + 1);
        const auto fits_name = [](char c) { return is_alphanumeric(c) || c == '.' || c == '-' || c == '_'; };
        if (scope.empty() || scope.size() > 15 || !std::all_of(scope.begin(), scope.end(), fits_name)) return false;
        text = text.substr(0, percent);
    }
    in6_addr ignored{};
    return inet_pton(AF_INET6, std::string(text).c_str(), &ignored) == 1;
}

enum class Port { required, optional };

// "a.b.c.d:port" or "[v6%scope]:port".
std::optional<IpDestination> ip_destination(std::string_view text, Port port) {
    if (text.find('\0') != std::string_view::npos) return std::nullopt;  // inet_pton would stop there
    IpDestination destination;
    std::string_view after_host;
    if (text.starts_with('[')) {
        const std::size_t closing = text.find(']');
        if (closing == std::string_view::npos) return std::nullopt;
        destination.host = text.substr(1, closing - 1);
        after_host = text.substr(closing + 1);
        if (!is_ipv6(destination.host)) return std::nullopt;
    } else {
        const std::size_t colon = std::min(text.find(':'), text.size());
        destination.host = text.substr(0, colon);
        after_host = text.substr(colon);
        if (!is_ipv4(destination.host)) return std::nullopt;
    }
    if (after_host.empty() && port == Port::optional) return destination;
    if (!after_host.starts_with(':')) return std::nullopt;
    unsigned value = 0;
    const std::string_view digits = after_host.substr(1);
    if (has_hex_prefix(digits) || !set_int(value, digits, port == Port::required ? 1 : 0, 65535)) return std::nullopt;
    destination.port = static_cast<std::uint16_t>(value);
    return destination;
}

// ---- keys ----

// What the items said so far.
struct Draft {
    LoginParameters parameters;
    std::optional<std::uint64_t> id_ext, ioc_guid, service_id, initiator_ext;
    std::optional<std::uint16_t> pkey, io_class;
    std::optional<std::array<std::byte, 16>> dgid;
    std::optional<unsigned> max_cmd_per_lun;
};

struct Key {
    std::string_view name, syntax, range, otherwise, effect;
    bool (*set)(Draft&, std::string_view);  // false: not a value of this key
};

constexpr std::string_view hex_number = "hexadecimal number, 0x optional";
constexpr std::string_view int_number = "decimal number, or hexadecimal with 0x";

const Key keys[] = {
    {"id_ext", hex_number, "0..ffffffffffffffff", "mandatory", "identifier extension of the target port",
     [](Draft& d, std::string_view v) { return set_hex(d.id_ext, v); }},
    {"ioc_guid", hex_number, "0..ffffffffffffffff", "mandatory", "I/O controller GUID of the target port",
     [](Draft& d, std::string_view v) { return set_hex(d.ioc_guid, v); }},
    {"dgid", "exactly 32 hexadecimal digits", "any", "mandatory without dest", "destination GID (InfiniBand)",
     [](Draft& d, std::string_view v) {
         const auto gid = gid_of(v);
         if (gid) d.dgid = gid;
         return gid.has_value();
     }},
    {"pkey", hex_number, "0..ffff", "mandatory without dest", "partition key (InfiniBand)",
     [](Draft& d, std::string_view v) { return set_hex(d.pkey, v); }},
    {"service_id", hex_number, "0..ffffffffffffffff", "mandatory without dest", "service id of the target (InfiniBand)",
     [](Draft& d, std::string_view v) { return set_hex(d.service_id, v); }},
    {"dest", "a.b.c.d:port, [v6]:port, [v6%interface]:port or the name of a loopback network", "port 1..65535",
     "mandatory without dgid", "log in over RDMA/CM to this address, even if dgid is given as well",
     [](Draft& d, std::string_view v) {
         std::optional<IpDestination> destination = ip_destination(v, Port::required);
         if (is_network_name(v)) destination = IpDestination{std::string(v), 0};
         if (destination) d.parameters.dest = destination;
         return destination.has_value();
     }},
    {"src", "a.b.c.d, [v6] or [v6%interface], each with an optional :port", "port 0..65535", "chosen by routing",
     "source address (with dest)",
     [](Draft& d, std::string_view v) {
         auto source = ip_destination(v, Port::optional);
         if (source) d.parameters.src = source;
         return source.has_value();
     }},
    {"max_sect", int_number, "1..2147483647", "1024", "512-byte sectors per command",
     [](Draft& d, std::string_view v) { return set_int(d.parameters.max_sect, v, 1, int_max); }},
    {"queue_size", int_number, "1..2147483647", "62", "outstanding commands per channel",
     [](Draft& d, std::string_view v) { return set_int(d.parameters.queue_size, v, 1, int_max); }},
    {"max_cmd_per_lun", int_number, "1..2147483647", "queue_size", "outstanding commands per logical unit",
     [](Draft& d, std::string_view v) {
         unsigned value = 0;
         if (!set_int(value, v, 1, int_max)) return false;
         d.max_cmd_per_lun = value;
         return true;
     }},
    {"target_can_queue", int_number, "1..2147483647", "no limit", "outstanding commands per target",
     [](Draft& d, std::string_view v) { return set_int(d.parameters.target_can_queue, v, 1, int_max); }},
    {"io_class", hex_number, "ff00 or 0100", "0100", "layout of the port identifiers: ff00 for SRP revision 10",
     [](Draft& d, std::string_view v) {
         std::optional<std::uint16_t> value;
         if (!set_hex(value, v) || (*value != 0xff00 && *value != 0x0100)) return false;
         d.io_class = value;
         return true;
     }},
    {"initiator_ext", hex_number, "0..ffffffffffffffff", "0",
     "identifier extension of the initiator port: one per login to the same target port",
     [](Draft& d, std::string_view v) { return set_hex(d.initiator_ext, v); }},
    {"cmd_sg_entries", int_number, "1..255", "12", "memory descriptors inside a command, for the requested unit length",
     [](Draft& d, std::string_view v) { return set_int(d.parameters.cmd_sg_entries, v, 1, 255); }},
    {"allow_ext_sg", int_number, "0..2147483647, 0 is off", "0",
     "accepted and shown; srpfs never needs an external descriptor list",
     [](Draft& d, std::string_view v) {
         unsigned value = 0;
         if (!set_int(value, v, 0, int_max)) return false;
         d.parameters.allow_ext_sg = value != 0;
         return true;
     }},
    {"sg_tablesize", int_number, "1..2048", "12", "accepted and shown; srpfs sends one descriptor per command",
     [](Draft& d, std::string_view v) { return set_int(d.parameters.sg_tablesize, v, 1, 2048); }},
    {"comp_vector", int_number, "0..2147483647", "the one after those of the login before",
     "completion vector of the first channel",
     [](Draft& d, std::string_view v) { return set_int(d.parameters.comp_vector, v, 0, int_max); }},
    {"tl_retry_count", int_number, "2..7", "7", "transport retries before a connection counts as lost",
     [](Draft& d, std::string_view v) { return set_int(d.parameters.tl_retry_count, v, 2, 7); }},
    {"ack_timeout", int_number, "1..31", "the ack_timeout of the mount, else the fabric's",
     "time for an acknowledgement, 4.096 us x 2^ack_timeout, before the device sends again",
     [](Draft& d, std::string_view v) {
         unsigned value = 0;
         if (!set_int(value, v, 1, 31)) return false;
         d.parameters.ack_timeout = static_cast<std::uint8_t>(value);
         return true;
     }},
    {"max_it_iu_size", int_number, "0..2147483647, 0 is no cap", "0",
     "cap of the requested information unit length, in bytes",
     [](Draft& d, std::string_view v) { return set_int(d.parameters.max_it_iu_size, v, 0, int_max); }},
    {"ch_count", int_number, "1..2147483647", "automatic", "channels (connections) to the target",
     [](Draft& d, std::string_view v) { return set_int(d.parameters.ch_count, v, 1, int_max); }},
    {"use_imm_data", "0 or 1", "0..1", "1", "send the data of small writes inside the command",
     [](Draft& d, std::string_view v) {
         unsigned value = 0;
         if (!set_int(value, v, 0, 1)) return false;
         d.parameters.use_imm_data = value != 0;
         return true;
     }},
    {"max_imm_data", int_number, "0..65536", "8192", "largest write sent inside the command, in bytes",
     [](Draft& d, std::string_view v) { return set_int(d.parameters.max_imm_data, v, 0, 65536); }},
};

const Key* find_key(std::string_view name) {
    const auto* key = std::find_if(std::begin(keys), std::end(keys), [&](const Key& one) { return one.name == name; });
    return key == std::end(keys) ? nullptr : key;
}

// ---- errors ----

std::string quoted(std::string_view text) { return fmt::format("\"{}\"", excerpt(text)); }

struct Item {
    std::string_view text;
    std::size_t number = 0;  // 1-based, empty ones not counted
    std::size_t offset = 0;  // of its first character in the login string
};

Error refuse(const Item& item, std::string_view what) {
    return {EINVAL, fmt::format("Login string, item {} (character {}): {}.", item.number, item.offset + 1, what)};
}

std::vector<Item> items_of(std::string_view text) {
    std::vector<Item> items;
    for (std::size_t start = 0; start <= text.size();) {
        const std::size_t end = std::min(text.find_first_of(",\n", start), text.size());
        const std::string_view item = trimmed(text.substr(start, end - start));
        if (!item.empty())
            items.push_back({item, items.size() + 1, static_cast<std::size_t>(item.data() - text.data())});
        start = end + 1;
    }
    return items;
}

Result<void> apply(Draft& draft, const Item& item) {
    const std::size_t equals = item.text.find('=');
    const std::string_view name = trimmed(item.text.substr(0, equals));
    const Key* key = find_key(name);
    if (!key)
        return refuse(item,
                      fmt::format("{} is not a key; read the add_target file for the list of keys", quoted(name)));
    if (equals == std::string_view::npos)
        return refuse(item,
                      fmt::format("{} has no value: expected {}={}, range {}", name, name, key->syntax, key->range));
    const std::string_view value = trimmed(item.text.substr(equals + 1));
    if (!key->set(draft, value))
        return refuse(item, fmt::format("{}={} is not valid: expected {}, range {}", name, quoted(value), key->syntax,
                                        key->range));
    return {};
}

Result<LoginParameters> complete(Draft&& draft) {
    LoginParameters parameters = std::move(draft.parameters);
    std::vector<std::string_view> missing;
    if (!draft.id_ext) missing.push_back("id_ext");
    if (!draft.ioc_guid) missing.push_back("ioc_guid");
    if (!parameters.dest) {
        const bool means_infiniband = draft.dgid || draft.pkey || draft.service_id;
        if (!means_infiniband) missing.push_back("dest (or dgid, pkey and service_id)");
        if (means_infiniband && !draft.dgid) missing.push_back("dgid");
        if (means_infiniband && !draft.pkey) missing.push_back("pkey");
        if (means_infiniband && !draft.service_id) missing.push_back("service_id");
    }
    if (!missing.empty())
        return Error(EINVAL, fmt::format("Login string: {} missing; a login needs id_ext, ioc_guid and either dest, or "
                                         "dgid, pkey and service_id.",
                                         fmt::join(missing, ", ")));

    parameters.id_ext = *draft.id_ext;
    parameters.ioc_guid = *draft.ioc_guid;
    parameters.initiator_ext = draft.initiator_ext.value_or(0);
    if (!parameters.dest) parameters.ib = IbDestination{*draft.dgid, *draft.pkey, *draft.service_id};
    if (draft.io_class) parameters.io_class = static_cast<IoClass>(*draft.io_class);
    parameters.max_cmd_per_lun = draft.max_cmd_per_lun.value_or(parameters.queue_size);
    return parameters;
}

// ---- back to text ----

std::string to_text(const IpDestination& destination) {
    const bool is_v6 = destination.host.find(':') != std::string::npos;
    std::string text = is_v6 ? fmt::format("[{}]", destination.host) : destination.host;
    if (destination.port != 0) text += fmt::format(":{}", destination.port);
    return text;
}

std::string hex(std::span<const std::byte> bytes) {
    std::string text;
    for (const std::byte one : bytes) text += fmt::format("{:02x}", std::to_integer<unsigned>(one));
    return text;
}

PortId port_id(IoClass io_class, std::uint64_t extension, std::uint64_t guid) {
    PortId id{};
    ByteWriter out(id);
    switch (io_class) {
        case IoClass::rev10: out.u64(guid).u64(extension); break;
        case IoClass::rev16a: out.u64(extension).u64(guid); break;
    }
    return id;
}

}  // namespace

Result<LoginParameters> parse_login_string(std::string_view text) {
    Draft draft;
    for (const Item& item : items_of(text))
        if (auto applied = apply(draft, item); !applied) return applied.error();
    return complete(std::move(draft));
}

std::string to_login_string(const LoginParameters& parameters) {
    const LoginParameters defaults;
    std::string text = fmt::format("id_ext={:016x},ioc_guid={:016x}", parameters.id_ext, parameters.ioc_guid);
    if (parameters.dest) {
        text += ",dest=" + to_text(*parameters.dest);
    } else if (parameters.ib) {
        text += fmt::format(",dgid={},pkey={:04x},service_id={:016x}", hex(parameters.ib->dgid), parameters.ib->pkey,
                            parameters.ib->service_id);
    }
    if (parameters.src) text += ",src=" + to_text(*parameters.src);
    if (parameters.initiator_ext != 0) text += fmt::format(",initiator_ext={:016x}", parameters.initiator_ext);
    if (parameters.io_class != defaults.io_class)
        text += fmt::format(",io_class={:04x}", static_cast<unsigned>(parameters.io_class));
    const auto number_unless = [&](std::string_view key, unsigned value, unsigned otherwise) {
        if (value != otherwise) text += fmt::format(",{}={}", key, value);
    };
    number_unless("max_sect", parameters.max_sect, defaults.max_sect);
    number_unless("queue_size", parameters.queue_size, defaults.queue_size);
    number_unless("max_cmd_per_lun", parameters.max_cmd_per_lun, parameters.queue_size);
    number_unless("target_can_queue", parameters.target_can_queue, defaults.target_can_queue);
    number_unless("cmd_sg_entries", parameters.cmd_sg_entries, defaults.cmd_sg_entries);
    number_unless("allow_ext_sg", parameters.allow_ext_sg, defaults.allow_ext_sg);
    number_unless("sg_tablesize", parameters.sg_tablesize, defaults.sg_tablesize);
    number_unless("comp_vector", parameters.comp_vector, defaults.comp_vector);
    number_unless("tl_retry_count", parameters.tl_retry_count, defaults.tl_retry_count);
    if (parameters.ack_timeout) text += fmt::format(",ack_timeout={}", *parameters.ack_timeout);
    number_unless("max_it_iu_size", parameters.max_it_iu_size, defaults.max_it_iu_size);
    number_unless("ch_count", parameters.ch_count, defaults.ch_count);
    number_unless("use_imm_data", parameters.use_imm_data, defaults.use_imm_data);
    number_unless("max_imm_data", parameters.max_imm_data, defaults.max_imm_data);
    return text;
}

std::string login_grammar() {
    std::string text;
    for (const Key& key : keys)
        text += fmt::format("{}=<{}>  range: {}  default: {}  {}\n", key.name, key.syntax, key.range, key.otherwise,
                            key.effect);
    return text;
}

PortId initiator_port_id(const LoginParameters& parameters, std::uint64_t port_guid, std::uint64_t node_guid) {
    constexpr std::uint64_t topspin = 0x0005ad, cisco = 0x001b0d;  // OUIs
    const std::uint64_t vendor = parameters.ioc_guid >> 40;
    if (parameters.ib && (vendor == topspin || vendor == cisco)) return port_id(IoClass::rev16a, 0, node_guid);
    return port_id(parameters.io_class, parameters.initiator_ext, port_guid);
}

PortId target_port_id(const LoginParameters& parameters) {
    return port_id(parameters.io_class, parameters.id_ext, parameters.ioc_guid);
}

std::uint32_t requested_it_iu_bytes(const LoginParameters& parameters) {
    constexpr std::uint32_t table_bytes = descriptor_bytes + 4;  // table descriptor, total length
    std::uint32_t bytes = static_cast<std::uint32_t>(command_bytes) + 16 + table_bytes +
                          static_cast<std::uint32_t>(descriptor_bytes) * parameters.cmd_sg_entries;
    if (parameters.use_imm_data) bytes = std::max(bytes, immediate_data_offset + parameters.max_imm_data);
    if (parameters.max_it_iu_size != 0) bytes = std::min(bytes, parameters.max_it_iu_size);
    return bytes;
}

}  // namespace srpfs::srp
