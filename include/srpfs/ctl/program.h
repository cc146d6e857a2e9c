// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// srpctl: its verbs, put together.

#pragma once

#include <srpfs/base/result.h>

namespace srpfs::ctl {

// srpctl(8), EXIT STATUS.
namespace exit_code {
inline constexpr int ok = 0;
inline constexpr int usage = 1;
inline constexpr int other = 2;
inline constexpr int no_mount = 3;
inline constexpr int not_found = 4;
inline constexpr int login_failed = 5;
inline constexpr int not_permitted = 6;
inline constexpr int refused_value = 7;
inline constexpr int no_answer = 8;
inline constexpr int busy = 9;
inline constexpr int not_connected = 10;
inline constexpr int wrong = 12;
inline constexpr int differs = 13;
inline constexpr int exists = 15;
inline constexpr int interrupted = 130;
}  // namespace exit_code

// Of what srpfs, or the kernel, has answered.
int exit_code_of(const Error& error);

int run(int argc, char** argv);

}  // namespace srpfs::ctl
