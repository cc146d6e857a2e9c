// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The kernel's half of FUSE over io_uring, under the names of liburing's functions, so that ring.cc runs as it is: on
// queues in memory, whose entries get requests as the descriptor would. Of liburing what its header has inline is
// counted; what would make a system call is played here.

#include "hot_path.h"

#include "ring_entry.h"

#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include <liburing.h>
#include <sys/uio.h>

namespace srpfs::cost {
namespace {

constexpr std::size_t command_offset = 48;  // of an SQE of 128 bytes

struct Entry {
    fs::EntryHeader* header = nullptr;
    std::size_t payload_bytes = 0;
};

// One ring at a time.
struct Queues {
    unsigned submission_head = 0, submission_tail = 0, submission_flags = 0;
    unsigned completion_head = 0, completion_tail = 0;
    std::vector<io_uring_sqe> submissions;  // two places for each
    std::vector<io_uring_cqe> completions;
    std::vector<Entry> entries;  // by user data
    std::vector<unsigned> idle;  // entries that wait for a request, in a circle
    std::size_t idle_first = 0, idle_count = 0;
    bool is_open = false;
};
Queues queues;

void wrong(const char* what) {
    std::fprintf(stderr, "the ring was used wrongly: %s\n", what);
    std::exit(1);
}

void add_idle(unsigned index) { queues.idle[(queues.idle_first + queues.idle_count++) % queues.idle.size()] = index; }

void register_entry(const io_uring_sqe& submission) {
    const auto index = static_cast<unsigned>(submission.user_data);
    const auto* const parts = reinterpret_cast<const iovec*>(submission.addr);
    if (submission.len != 2 || parts[0].iov_len != sizeof(fs::EntryHeader))
        wrong("an entry without header and payload");
    if (index >= queues.entries.size()) {
        queues.entries.resize(index + 1);
        queues.idle.resize(index + 1);
    }
    queues.entries[index] = {static_cast<fs::EntryHeader*>(parts[0].iov_base), parts[1].iov_len};
    add_idle(index);
}

void commit(const io_uring_sqe& submission) {
    const auto index = static_cast<unsigned>(submission.user_data);
    const fs::EntryHeader& header = *queues.entries.at(index).header;
    fs::EntryCommandArguments arguments;
    std::memcpy(&arguments, reinterpret_cast<const std::byte*>(&submission) + command_offset, sizeof arguments);
    fuse_out_header out{};
    std::memcpy(&out, header.in_out, sizeof out);
    if (arguments.commit_id != out.unique) wrong("another request is answered than was in the entry");
    take_answer(out, sizeof out + header.state.payload_bytes);
    add_idle(index);
}

void put_request(unsigned index) {
    Entry& entry = queues.entries[index];
    const RequestHead head = next_request();
    std::memcpy(entry.header->in_out, &head.header, sizeof head.header);
    if (head.is_read())
        std::memcpy(entry.header->op_in, &head.read, sizeof head.read);
    else
        std::memcpy(entry.header->op_in, &head.write, sizeof head.write);
    entry.header->state.commit_id = head.header.unique;
    entry.header->state.payload_bytes = head.is_read() ? 0 : head.write.size;
    if (entry.header->state.payload_bytes > entry.payload_bytes) wrong("a payload that is too small");
    io_uring_cqe& completion = queues.completions[queues.completion_tail & (queues.completions.size() - 1)];
    completion.user_data = index;
    completion.res = 0;
    completion.flags = 0;
    ++queues.completion_tail;
}

int enter(io_uring& ring) {
    unsigned submitted = 0;
    for (; queues.submission_head != ring.sq.sqe_tail; ++queues.submission_head, ++submitted) {
        const io_uring_sqe& submission = ring.sq.sqes[(queues.submission_head & ring.sq.ring_mask) << 1];
        if (submission.opcode != IORING_OP_URING_CMD) continue;  // a poll, of what never becomes readable
        switch (static_cast<fs::EntryCommand>(submission.cmd_op)) {
            case fs::EntryCommand::register_entry: register_entry(submission); break;
            case fs::EntryCommand::commit_and_fetch: commit(submission); break;
        }
    }
    while (kernel.now.way == Way::ring && kernel.waiting > 0 && queues.idle_count > 0) {
        const unsigned index = queues.idle[queues.idle_first];
        queues.idle_first = (queues.idle_first + 1) % queues.idle.size();
        --queues.idle_count;
        put_request(index);
    }
    queues.submission_flags = 0;
    return static_cast<int>(submitted);
}

}  // namespace

void tell_ring() {
    if (queues.is_open) queues.submission_flags = IORING_SQ_TASKRUN;
}

std::string ring_missing() { return {}; }

}  // namespace srpfs::cost

extern "C" {

int __wrap_io_uring_queue_init_params(unsigned entries, io_uring* ring, io_uring_params* parameters);
void __wrap_io_uring_queue_exit(io_uring* ring);
int __wrap_io_uring_submit_and_get_events(io_uring* ring);
int __wrap_io_uring_register(unsigned fd, unsigned opcode, const void* argument, unsigned count);
int __wrap_io_uring_register_ring_fd(io_uring* ring);
int __wrap_io_uring_register_files(io_uring* ring, const int* files, unsigned count);

int __wrap_io_uring_queue_init_params(unsigned entries, io_uring* ring, io_uring_params* parameters) {
    using srpfs::cost::queues;
    if ((parameters->flags & IORING_SETUP_SQE128) == 0) return -EINVAL;
    queues = {};
    queues.is_open = true;
    const unsigned places = std::bit_ceil(entries);
    queues.submissions.resize(2 * places);
    queues.completions.resize(std::bit_ceil(parameters->cq_entries));
    *ring = {};
    ring->flags = parameters->flags;
    ring->ring_fd = ring->enter_ring_fd = -1;
    ring->sq.khead = &queues.submission_head;
    ring->sq.ktail = &queues.submission_tail;
    ring->sq.kflags = &queues.submission_flags;
    ring->sq.sqes = queues.submissions.data();
    ring->sq.ring_entries = places;
    ring->sq.ring_mask = places - 1;
    ring->cq.khead = &queues.completion_head;
    ring->cq.ktail = &queues.completion_tail;
    ring->cq.cqes = queues.completions.data();
    ring->cq.ring_entries = static_cast<unsigned>(queues.completions.size());
    ring->cq.ring_mask = ring->cq.ring_entries - 1;
    ring->sq.kring_mask = &ring->sq.ring_mask;
    ring->sq.kring_entries = &ring->sq.ring_entries;
    ring->cq.kring_mask = &ring->cq.ring_mask;
    ring->cq.kring_entries = &ring->cq.ring_entries;
    return 0;
}

void __wrap_io_uring_queue_exit(io_uring*) { srpfs::cost::queues = {}; }

int __wrap_io_uring_submit_and_get_events(io_uring* ring) { return srpfs::cost::enter(*ring); }

int __wrap_io_uring_register(unsigned, unsigned, const void*, unsigned) { return 0; }
int __wrap_io_uring_register_ring_fd(io_uring*) { return 0; }
int __wrap_io_uring_register_files(io_uring*, const int*, unsigned) { return 0; }

}  // extern "C"
