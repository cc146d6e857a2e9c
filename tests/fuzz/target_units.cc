// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Everything a target sends, each parser over the same bytes.
#include "fuzz.h"

#include <srpfs/srp/srp.h>

#include <tuple>

using namespace srpfs::srp;

namespace srpfs::fuzz {
namespace {

auto fields(const Response& r) {
    return std::tuple(r.credit_delta, r.tag, r.status, r.task_code, r.response_valid, r.data_in_under, r.data_in_over,
                      r.data_out_under, r.data_out_over, r.data_in_residual, r.data_out_residual,
                      Bytes(r.sense.begin(), r.sense.end()));
}
auto fields(const AsyncEvent& e) {
    return std::tuple(e.credit_delta, e.tag, e.lun, Bytes(e.sense.begin(), e.sense.end()));
}
auto fields(const CreditRequest& r) { return std::tuple(r.credit_delta, r.tag); }
auto fields(const TargetLogout& l) { return std::tuple(l.reason, l.tag); }
auto fields(const LoginResponse& r) {
    return std::tuple(r.credits, r.tag, r.it_iu_bytes_max, r.ti_iu_bytes_max, r.buffer_formats, r.multi_channel,
                      r.immediate_data);
}
auto fields(const LoginReject& r) { return std::tuple(r.reason, r.tag, r.buffer_formats); }

template <typename Unit>
void writes_again_to_the_same(Input input, Parsed<Unit> (*parse)(Input)) {
    const auto unit = parse(input);
    if (!unit) return;
    const Bytes bytes = written(input.size() + 64, [&](auto buffer) { return encode(*unit, buffer); });
    const auto again = parse(bytes);
    PROPERTY(again);
    PROPERTY(fields(*again) == fields(*unit));
}

}  // namespace
}  // namespace srpfs::fuzz

SRPFS_FUZZ_TARGET(target_units) {
    PROPERTY(is_inside(parse_response(input)->sense, input));
    PROPERTY(is_inside(parse_async_event(input)->sense, input));
    PROPERTY(!parse_response(input)->task_code || parse_response(input)->response_valid);
    PROPERTY(is_printable_line(describe(parse_login_reject(input)->reason)));
    PROPERTY(is_printable_line(describe_logout_reason(parse_target_logout(input)->reason)));
    writes_again_to_the_same(input, parse_response);
    writes_again_to_the_same(input, parse_async_event);
    writes_again_to_the_same(input, parse_credit_request);
    writes_again_to_the_same(input, parse_target_logout);
    writes_again_to_the_same(input, parse_login_response);
    writes_again_to_the_same(input, parse_login_reject);
}
