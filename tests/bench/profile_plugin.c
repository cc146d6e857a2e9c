// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A plugin for QEMU's -plugin option, for tests/bench/profile: how many instructions the guest carries out where, between
// one mark and the next. A mark is a no-operation that says "SRPF" (profile_mark.c). At each, a file gets a line "mark", then
// one line for each piece of code that has run since the one before: its address in the guest, and instructions carried
// out.
//
//   -plugin libprofile.so,counts=PATH
//
// Debian has no header for plugins; what is declared here is version 1 of the interface, as QEMU 7.2's manual has it (TCG
// Plugins). One processor only: counters are added to without a lock.

#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { inline_add_u64 = 0, callback_without_registers = 0 };

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int operation, void *counter, uint64_t value);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int flags, void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);

#define EXPORTED __attribute__((visibility("default")))
EXPORTED int qemu_plugin_version = 1;

struct piece {
    struct piece *next;
    uint64_t address, instructions;
};

static struct piece *pieces;
static FILE *told;

static const unsigned char mark[] = {0x0f, 0x1f, 0x80, 'S', 'R', 'P', 'F'};

static void at_mark(unsigned processor, void *unused) {
    (void)processor, (void)unused;
    fputs("mark\n", told);
    for (struct piece *piece = pieces; piece; piece = piece->next) {
        if (piece->instructions == 0) continue;
        fprintf(told, "%" PRIx64 " %" PRIu64 "\n", piece->address, piece->instructions);
        piece->instructions = 0;
    }
    fflush(told);
}

static void on_translated(plugin_id id, struct qemu_plugin_tb *block) {
    (void)id;
    struct piece *piece = calloc(1, sizeof *piece);
    if (!piece) abort();
    piece->next = pieces;
    piece->address = qemu_plugin_tb_vaddr(block);
    pieces = piece;
    const size_t instructions = qemu_plugin_tb_n_insns(block);
    qemu_plugin_register_vcpu_tb_exec_inline(block, inline_add_u64, &piece->instructions, instructions);
    for (size_t i = 0; i < instructions; ++i) {
        struct qemu_plugin_insn *one = qemu_plugin_tb_get_insn(block, i);
        if (qemu_plugin_insn_size(one) == sizeof mark && memcmp(qemu_plugin_insn_data(one), mark, sizeof mark) == 0)
            qemu_plugin_register_vcpu_insn_exec_cb(one, at_mark, callback_without_registers, NULL);
    }
}

EXPORTED int qemu_plugin_install(plugin_id id, const void *about, int count, char **words) {
    (void)about;
    for (int i = 0; i < count; ++i)
        if (strncmp(words[i], "counts=", 7) == 0) told = fopen(words[i] + 7, "w");
    if (!told) {
        fputs("profile: counts=PATH is wanted, a file that can be written\n", stderr);
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translated);
    return 0;
}
