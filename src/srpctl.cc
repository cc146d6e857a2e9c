// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/program.h>

int main(int argc, char** argv) { return srpfs::ctl::run(argc, argv); }
