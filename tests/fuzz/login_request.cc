// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "fuzz.h"

#include <srpfs/srp/srp.h>

using namespace srpfs::srp;

SRPFS_FUZZ_TARGET(login_request) {
    for (const LoginForm form : {LoginForm::ib_cm, LoginForm::rdma_cm}) {
        const auto login = parse_login_request(input, form);
        if (!login) continue;
        const Bytes again = written(64, [&](auto buffer) { return encode(*login, form, buffer); });
        PROPERTY(again.size() <= input.size());
        PROPERTY(parse_login_request(again, form));
        PROPERTY(*parse_login_request(again, form) == *login);
    }
}
