// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/cli/cli.h>

int main(int argc, char** argv) { return srpfs::cli::run(argc, argv); }
