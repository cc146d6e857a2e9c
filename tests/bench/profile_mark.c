// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Run in the guest: tells profile_plugin.c that a measurement begins or ends here.

int main(void) { __asm__ volatile(".byte 0x0f, 0x1f, 0x80, 'S', 'R', 'P', 'F'"); }
