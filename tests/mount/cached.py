# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""LUN files that are read by the kernel's page cache (`lun=PATTERN:cached`): what is there is not read again, and it is never older than a write
that was answered, nor than the first open(2). A file below the embedded target's unit stands for what other hosts write."""

import errno
import mmap
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import time

from harness import BOTH, LOGIN, NOBODY, PATIENCE, PORT, TARGET, Background, Skip, check, equal, errno_of, eventually, fails_with, in_a_request, needs, opened, pattern, promised, read_bytes, run, succeeds, test, value, write_once
from luns import fio
from pages import BLOCK, MIB, as_new_as_written, by_sendfile, ends_whatever_is_read, go_on, punches, race, two_paths, users_of_pages, who_punches_a_hole
from power import Power
from raw import ask
from reactors import SHARE
from trouble import KILL_SECONDS, BlackHole, Stuck

CACHED = "lun=*:cached"


class Backed:
    """A mount with a cached unit in a file, and whoever else may write that file."""

    def __init__(self, t, options=CACHED):
        self.image = t.path("image")
        self.image.write_bytes(bytes(MIB))
        self.mount = t.mount(f"demo:file:{self.image}", options)
        self.lun = self.mount.lun(0)
        self.cache = self.mount.target / "lun0.attr" / "cache"
        self.turn = 0

    def change(self):
        """By another host, in a manner of speaking."""
        self.turn += 1
        data = pattern(BLOCK, self.turn)
        with open(self.image, "r+b") as file:
            file.write(data)
        return data


def reads(mount):
    return mount.lun_stats(0)["reads"]


@test(intakes=BOTH)
def what_was_read_is_not_read_again(t):
    mount = t.mount("demo:ram:8M", CACHED)
    data = pattern(8 * MIB, 1)
    mount.lun(0).write_bytes(data)
    with opened(mount.lun(0), os.O_RDONLY) as handle:
        check(os.pread(handle, 8 * MIB, 0) == data, "data at first")

        def again():
            before = reads(mount)
            check(os.pread(handle, 8 * MIB, 0) == data, "data again")
            check(read_bytes(mount.lun(0)) == data, "data of another who opens it")
            check(by_sendfile(handle, 0, 8 * MIB) == data, "data by sendfile")
            with mmap.mmap(handle, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ) as memory:
                check(memory[:] == data, "data by a shared mapping")
            return reads(mount) - before

        # The kernel may need the memory for something else now and then.
        eventually(lambda: again() == 0, "no reads of the unit", seconds=20)
        # A write by whoever, and the page is read again; the others are not.
        with opened(mount.lun(0)) as writer:
            os.pwrite(writer, b"x", 3 * MIB)
            equal(os.pread(handle, 1, 3 * MIB), b"x", "what was written")
    before = reads(mount)
    check(read_bytes(mount.lun(0))[:BLOCK] == data[:BLOCK], "data of who opens it after all others have closed it")
    check(reads(mount) > before, "the unit is not read although nobody had the file open")


def ahead(mount):
    """In bytes."""
    device = os.stat(mount.path).st_dev
    return int(pathlib.Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb").read_text()) * 1024


@test(intakes=BOTH)
def the_kernel_reads_ahead_of_who_reads_a_cached_file(t):
    size = 16 * MIB
    for option, wanted, most in (("", MIB, 64), (",readahead=0", 0, size // BLOCK), (",readahead=4M", 4 * MIB, 64)):
        mount = t.mount(f"demo:ram:{size}", CACHED + option)
        equal(ahead(mount), wanted, f"how far is read ahead{option}")
        with opened(mount.lun(0), os.O_RDONLY) as handle:
            before = reads(mount)
            for place in range(size // BLOCK):
                os.pread(handle, BLOCK, place * BLOCK)
            count = reads(mount) - before
        check(count <= most if wanted else count == most, f"{count} reads of the unit{option}")
        mount.umount()


@test
def nothing_is_changed_about_reading_ahead_while_nothing_is_cached(t):
    mount = t.mount("demo:ram:1M", "readahead=4M")
    before = ahead(mount)
    check(before < 4 * MIB, f"{before} bytes are read ahead")
    write_once(mount.target / "lun0.attr" / "cache", "cached")
    equal(ahead(mount), 4 * MIB, "bytes read ahead")


@test
def a_direct_file_is_read_each_time(t):
    for rule in ("", "lun=*:direct", "lun=*:cached,lun=lun0:direct"):
        mount = t.mount("demo:ram:1M", rule)
        equal(mount.attribute(0, "cache"), "direct", "cache")
        with opened(mount.lun(0), os.O_RDONLY) as handle:
            for _ in range(3):
                before = reads(mount)
                os.pread(handle, BLOCK, 0)
                equal(reads(mount), before + 1, "reads of the unit")
        mount.umount()


@test(intakes=BOTH)
def cached_pages_are_as_new_as_what_was_written_by_another_path(t):
    as_new_as_written(t.mount("demo:ram:8M+ram:8M", "raw_commands=all,reactors=2," + CACHED))


WAYS = ("read", "mapping", "read", "sendfile")


@test(intakes=BOTH)
def cached_readers_never_see_the_past(t):
    race(t, t.mount("demo:ram:1M", CACHED), 3, WAYS)


@test(intakes=BOTH)
def cached_readers_never_see_the_past_with_several_reactors(t):
    race(t, t.mount("demo:ram:1M++ram:1M", "reactors=4," + CACHED, env=SHARE), 3, WAYS)


@test
def cached_readers_never_see_the_past_while_pages_are_reclaimed(t):
    """Pages that go by themselves are filled again while somebody writes."""
    mount = t.mount("demo:ram:1M", CACHED)
    over = threading.Event()

    def reclaim():
        with opened(mount.lun(0), os.O_RDONLY) as handle:
            while not over.wait(0.002):
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)

    thread = threading.Thread(target=reclaim)
    thread.start()
    try:
        race(t, mount, 3, WAYS)
    finally:
        over.set()
        thread.join(PATIENCE)


@test(seconds=120)
def cached_readers_never_see_the_past_while_connections_break(t):
    """Commands are lost with a connection: writes fail, and may have been done or not; reads are sent again."""
    mount = t.mount("demo:ram:1M", "reconnect_delay=1,reactors=2," + CACHED)
    losses = [0]

    def relogin():
        losses[0] += 1
        write_once((mount.target, mount.target.parent / (mount.target.name + "-0000000000000002"))[losses[0] % 2] / "reset", "host")

    race(t, mount, 4, WAYS, relogin)
    check(losses[0] > 3, f"only {losses[0]} connections were broken")


@test(intakes=BOTH)
def cached_pages_of_a_dead_path_are_as_new_as_what_was_written_by_another(t):
    hole = BlackHole(t, CACHED + ",tur_interval=1,tur_timeout=1")
    one, other = hole.mount.lun(0), hole.second / "lun0"
    places = (0, 4 * MIB)  # the second one is too far away to be read ahead
    old, new = pattern(BLOCK, 1), pattern(BLOCK, 2)
    with opened(one) as alive, opened(other, os.O_RDONLY) as dead:
        for place in places:
            os.pwrite(alive, old, place)
        equal(os.pread(dead, BLOCK, 0) == old, True, "what was written is read")
        before = reads(hole.mount)
        os.pread(dead, BLOCK, 0)
        equal(reads(hole.mount), before, "reads of the unit for a page that is there")
        hole.open()
        filling = Background(os.pread, dead, BLOCK, places[1])
        eventually(lambda: hole.mount.requests() >= 1, "a fill")
        # What is being filled may have been read already: its change waits until the silence of that path is noticed, and no longer.
        for place, seconds in zip(places, (KILL_SECONDS, 1 + 1 + KILL_SECONDS)):
            with promised(seconds, "writing by the path that works"):
                equal(os.pwrite(alive, new, place), BLOCK, "bytes written")
            equal(os.pread(alive, BLOCK, place) == new, True, "the path that works has what was written")
        page = Background(os.pread, dead, BLOCK, places[0])
        eventually(lambda: hole.mount.requests() >= 2, "another fill")
        check(filling.is_running(), "a page was filled by a path that nothing comes from")
        hole.file.unlink()
        for reader in (filling, page):
            equal(reader.wait("a read by the path that is back") == new, True, "what was written is read by the path that is back")


@test
def what_others_have_written_is_seen_by_the_first_who_opens(t):
    backed = Backed(t)
    data = backed.change()
    with opened(backed.lun, os.O_RDONLY) as first:
        equal(os.pread(first, BLOCK, 0) == data, True, "the first one sees what there is")
        backed.change()
        with opened(backed.lun, os.O_RDONLY) as second:
            for handle in (first, second):
                equal(os.pread(handle, BLOCK, 0) == data, True, "the others share his pages")
    for turn in range(200):
        data = backed.change()
        with opened(backed.lun, os.O_RDONLY) as first:
            equal(os.pread(first, BLOCK, 0) == data, True, f"the first one sees what there is, turn {turn}")


@test
def a_duplicate_that_is_closed_costs_pages_and_nothing_else(t):
    backed = Backed(t)
    with opened(backed.lun, os.O_RDONLY) as first:
        os.pread(first, BLOCK, 0)
        os.close(os.dup(first))
        data = backed.change()
        with opened(backed.lun, os.O_RDONLY) as second:
            for handle in (first, second):
                equal(os.pread(handle, BLOCK, 0) == data, True, "the next one reads anew")


@test
def who_may_write_or_wants_o_direct_reads_the_unit(t):
    backed = Backed(t)
    memory = mmap.mmap(-1, BLOCK)
    with opened(backed.lun, os.O_RDONLY) as cached, opened(backed.lun) as writer, opened(backed.lun, os.O_RDONLY | os.O_DIRECT) as direct:
        old = backed.change()
        equal(os.pread(cached, BLOCK, 0) == old, True, "by the cache")
        for _ in range(3):
            new = backed.change()
            equal(os.pread(cached, BLOCK, 0) == old, True, "by the cache still")
            equal(os.pread(writer, BLOCK, 0) == new, True, "by the handle that may write")
            os.preadv(direct, [memory], 0)
            equal(memory[:] == new, True, "with O_DIRECT")
        fails_with(errno.ENODEV, "a shared mapping to write", lambda: mmap.mmap(writer, BLOCK))


@test
def the_mode_is_changed_by_a_file(t):
    backed = Backed(t, "")
    equal(value(backed.cache), "direct", "cache")
    with opened(backed.lun, os.O_RDONLY) as early:
        write_once(backed.cache, "cached")
        equal(value(backed.cache), "cached", "cache")
        with opened(backed.lun, os.O_RDONLY) as late:
            old = os.pread(late, BLOCK, 0)
            new = backed.change()
            equal(os.pread(early, BLOCK, 0) == new, True, "who had it open before reads the unit")
            equal(os.pread(late, BLOCK, 0), old, "who has opened it since reads by the cache")
            # Whatever is written drops the pages.
            write_once(backed.cache, "cached\n")
            equal(os.pread(late, BLOCK, 0) == new, True, "after the same word again")
            backed.change()
            write_once(backed.cache, "direct")
            newest = backed.change()
            with opened(backed.lun, os.O_RDONLY) as last:
                equal(os.pread(last, BLOCK, 0) == newest, True, "who opens it now reads the unit")
    for wrong in ("Cached", "on", "direct cached", "1"):
        fails_with(errno.EINVAL, wrong, lambda word=wrong: write_once(backed.cache, word))
        check(repr(wrong) in value(backed.cache.parent / "last_error"), "last_error does not name it")
    equal(value(backed.cache), "direct", "cache after all that")


@test
def a_login_and_a_reset_drop_pages(t):
    backed = Backed(t)
    with opened(backed.lun, os.O_RDONLY) as handle:
        for file in (backed.lun.parent / "reset", backed.lun.parent / "lun0.attr" / "reset"):
            os.pread(handle, BLOCK, 0)
            data = backed.change()
            check(os.pread(handle, BLOCK, 0) != data, "the pages are not used")
            write_once(file, "1")
            eventually(lambda: os.pread(handle, BLOCK, 0) == data, f"the new data after {file}")  # pylint: disable=cell-var-from-loop


@test(intakes=BOTH)
def pages_are_counted(t):
    mount = t.mount("demo:ram:1M", CACHED)
    with opened(mount.lun(0), os.O_RDONLY) as handle, opened(mount.lun(0)) as direct:
        os.pread(handle, MIB, 0)
        before = mount.stats()["pages"]
        check(before["fills"] == before["fills_cached"] >= 1, f"fills: {before}")
        os.pwrite(direct, bytes(BLOCK), 0)
        after = mount.stats()["pages"]
        change = {name: after[name] - before[name] for name in after if name != "latency"}
        equal(change, {"fills": 0, "fills_cached": 0, "drops": 1, "drop_ranges": 1, "drop_bytes": BLOCK, "waits": 1, "waits_given_up": 0}, "of a write")
        for what in ("drop", "wait"):
            equal(after["latency"][what]["count"] - before["latency"][what]["count"], 1, what)
    by_metrics = (mount.path / "metrics").read_text()
    check(f"srpfs_page_fills_cached_total {after['fills_cached']}" in by_metrics.splitlines(), "metrics differ")


# Nobody but the test asks the unit anything.
QUIET = CACHED + ",tur_interval=off,rescan_interval=off"


@test
def a_unit_attention_drops_pages(t):
    """RESERVATIONS RELEASED, which is told to who is registered: another one had the unit."""
    backed = Backed(t, QUIET)
    one, other = two_paths(backed.mount)
    ours, theirs = (lun.parent / "lun0.attr" / "reservations" for lun in (one, other))
    with opened(one, os.O_RDONLY) as handle, opened(one) as direct:
        write_once(ours, "register 0xa")
        write_once(theirs, "register 0xb")
        write_once(theirs, "reserve write-exclusive-registrants-only")
        os.pread(handle, BLOCK, 0)
        data = backed.change()
        write_once(theirs, "release")
        check(os.pread(handle, BLOCK, 0) != data, "the pages are not used")
        os.pread(direct, BLOCK, BLOCK)
        eventually(lambda: os.pread(handle, BLOCK, 0) == data, "the new data")
    check("registered 0x000000000000000a" in ours.read_text(), "the registration is gone")


@test
def a_registration_that_is_lost_drops_pages(t):
    """The attention is met by the look that finds it."""
    backed = Backed(t, QUIET)
    one, other = two_paths(backed.mount)
    ours, theirs = (lun.parent / "lun0.attr" / "reservations" for lun in (one, other))
    with opened(one, os.O_RDONLY) as handle:
        write_once(ours, "register 0xa")
        write_once(theirs, "register 0xb")
        os.pread(handle, BLOCK, 0)
        data = backed.change()
        write_once(theirs, "preempt 0xa write-exclusive")
        check(os.pread(handle, BLOCK, 0) != data, "the pages are not used")
        write_once(one.parent / "lun0.attr" / "rescan", "1")
        eventually(lambda: os.pread(handle, BLOCK, 0) == data, "the new data")
    check("is gone" in backed.mount.attribute(0, "last_error"), "last_error does not tell of the registration")


@test
def another_size_drops_pages(t):
    backed = Backed(t, QUIET)
    with opened(backed.lun, os.O_RDONLY) as handle:
        for size in (2 * MIB, MIB, 3 * MIB):
            os.pread(handle, BLOCK, 0)
            data = backed.change()
            os.truncate(backed.image, size)
            check(os.pread(handle, BLOCK, 0) != data, "the pages are not used")
            write_once(backed.lun.parent / "lun0.attr" / "rescan", "1")
            # Who asks for the size has the kernel drop them.
            eventually(lambda: os.pread(handle, BLOCK, 0) == data, f"the new data with {size} bytes")  # pylint: disable=cell-var-from-loop
            equal(os.fstat(handle).st_size, size, "size")
            check(os.pread(handle, size, 0)[BLOCK:] == bytes(size - BLOCK), "what is behind it")


@test
def a_size_that_nobody_has_told_is_found_by_who_meets_the_end(t):
    """The unit says of its new size to another path, and refuses what this one asks for."""
    backed = Backed(t, QUIET)
    one, other = two_paths(backed.mount)
    with opened(one) as handle:
        for size in (MIB // 2, MIB // 4):
            before = one.stat().st_size
            os.truncate(backed.image, size)
            write_once(other.parent / "lun0.attr" / "rescan", "1")
            eventually(lambda: other.stat().st_size == size, "the size by the path that has asked")  # pylint: disable=cell-var-from-loop
            equal(one.stat().st_size, before, "the size by the path that nobody has told")
            fails_with(errno.EIO, "beyond the end", lambda at=before: os.pread(handle, BLOCK, at - BLOCK))
            eventually(lambda: one.stat().st_size == size, "the size by the path that has met the end")  # pylint: disable=cell-var-from-loop
            equal(os.pread(handle, BLOCK, before - BLOCK), b"", "what is beyond the end now")
            fails_with(errno.ENOSPC, "beyond the end now", lambda at=before: os.pwrite(handle, bytes(BLOCK), at - BLOCK))
            equal(os.pread(handle, BLOCK, 0), bytes(BLOCK), "what is there")
    equal(backed.mount.stats()["events"]["lun_changed"], 4, "events")


@test
def pages_of_a_unit_that_is_offline_are_dropped(t):
    backed = Backed(t, QUIET)
    rescan = backed.lun.parent / "lun0.attr" / "rescan"
    with opened(backed.lun, os.O_RDONLY) as handle:
        os.pread(handle, BLOCK, 0)
        os.truncate(backed.image, 0)
        equal(os.pread(handle, BLOCK, 0), bytes(BLOCK), "by the cache")
        write_once(rescan, "1")
        eventually(lambda: errno_of(lambda: os.pread(handle, BLOCK, 0)) == errno.EIO, "the end of the pages")
        equal(backed.mount.attribute(0, "state"), "offline", "state")
        os.truncate(backed.image, MIB)
        data = backed.change()
        write_once(rescan, "1")
        equal(os.pread(handle, BLOCK, 0), data, "the new data")


@test
def pages_of_a_target_that_fails_fast_are_dropped(t):
    power = Power(t, "demo:ram:1M", "fast_io_fail_tmo=2,reconnect_delay=1," + QUIET)
    with opened(power.mount.lun(0), os.O_RDONLY) as handle:
        os.pread(handle, BLOCK, 0)
        power.cut()
        state = power.mount.target / "state"
        eventually(lambda: value(state) == "blocked" or errno_of(lambda: os.pread(handle, BLOCK, 0)), "the loss of the connection")
        eventually(lambda: errno_of(lambda: os.pread(handle, BLOCK, 0)) == errno.EIO, "the end of the pages")
        equal(value(state), "fail-fast", "state")
        power.back()
        equal(os.pread(handle, BLOCK, 0), bytes(BLOCK), "what is read when it is back")


@test
def a_reset_that_fails_drops_pages_as_well(t):
    """By itself: nothing else tells of it."""
    power = Power(t, "demo:ram:1M", QUIET)
    mount = power.mount
    with opened(mount.lun(0), os.O_RDONLY) as handle:
        os.pread(handle, BLOCK, 0)
        power.cut()
        eventually(lambda: value(mount.target / "state") == "blocked", "the loss of the connection")
        equal(os.pread(handle, BLOCK, 0), bytes(BLOCK), "by the cache")
        fails_with(errno.ENOTCONN, "reset of what nobody can reach", lambda: write_once(mount.target / "lun0.attr" / "reset", "lun"))

        def who_waits():
            reader = Background(os.pread, handle, BLOCK, 0)
            eventually(lambda: not reader.is_running() or mount.requests() >= 1, "pages or none")
            return reader if reader.is_running() else None

        reader = eventually(who_waits, "the end of the pages")
        power.back()
        equal(reader.wait("the reader"), bytes(BLOCK), "what is read when it is back")


@test
def a_raw_command_is_answered_when_pages_are_gone(t):
    """The kernel cannot drop a page that somebody has locked who waits for a place among its asynchronous requests. srpfs waits for that, but
    a second at most (PageFills::patience): that it has waited is what is seen here."""
    places = 64
    stuck = Stuck(t, f"demo:ram:1M+ram:{2 * places}M", QUIET + f",raw_commands=all,max_background={places}")
    mount = stuck.mount
    with opened(mount.lun(0), os.O_RDONLY) as handle, opened(mount.lun(1), os.O_RDONLY) as other:
        os.pread(handle, 16 * BLOCK, 0)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        stuck.hold("lun1")
        many = Background(lambda: [os.posix_fadvise(other, at * MIB, MIB, os.POSIX_FADV_WILLNEED) for at in range(2 * places)])
        eventually(lambda: mount.requests() >= places, "all places are taken", seconds=10)
        one = Background(os.pread, handle, BLOCK, 0)
        wchan = pathlib.Path(f"/proc/self/task/{eventually(lambda: one.task, 'the thread runs')}/wchan")
        eventually(lambda: "fuse" in wchan.read_text(), "who has the page, and no place")
        begin = time.monotonic()
        equal(ask(mount.target / "lun0.attr" / "cdb", "2a 00 00 00 00 00 00 00 01 00 out=" + "78" * 512).status, "GOOD", "WRITE(10)")
        took = time.monotonic() - begin
        check(took >= 0.9, f"answered after {took:.3f} s, while the page was there")
        stuck.go_on()
        many.wait("who had the places")
        equal(one.wait("who has waited for one")[:512], b"x" * 512, "what is read")


@test
def a_file_that_is_gone_shows_nothing(t):
    backed = Backed(t)
    with opened(backed.lun, os.O_RDONLY) as old:
        mapping = mmap.mmap(old, BLOCK, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        os.pread(old, BLOCK, 0)
        number = os.stat(backed.lun).st_ino
        write_once(backed.lun.parent / "delete", "1")
        eventually(lambda: errno_of(lambda: os.pread(old, BLOCK, 0)) in (errno.ENODEV, errno.EIO), "the end of the pages")
        # One of the same name is another file, and its pages are not for whoever has the old one.
        write_once(backed.mount.path / "add_target", LOGIN)
        check(os.stat(backed.lun).st_ino != number, "the new file has the number of one that is open")
        with opened(backed.lun, os.O_RDONLY) as new, opened(backed.lun, os.O_RDWR) as direct:
            data = os.pread(new, BLOCK, 0)
            for turn in range(3):
                by_sendfile(direct, turn * BLOCK, BLOCK)
                for offset in range(0, 3 * BLOCK, BLOCK):
                    check(errno_of(lambda at=offset: os.pread(old, BLOCK, at)) in (errno.ENODEV, errno.EIO), "the old one shows something")
            backed.change()
            equal(os.pread(new, BLOCK, 0), data, "the new one is cached")
        mapping.close()


@test
def two_mounts_of_one_target_see_each_other_at_open(t):
    image = t.path("image")
    image.write_bytes(bytes(MIB))
    mounts = [t.mount(f"demo:file:{image}", CACHED) for _ in range(2)]
    for turn in range(20):
        ours, theirs = mounts[turn % 2], mounts[1 - turn % 2]
        data = pattern(MIB, turn)
        ours.lun(0).write_bytes(data)
        for mount in (theirs, ours):
            check(read_bytes(mount.lun(0)) == data, f"what was written by the other mount, turn {turn}")


@test(intakes=BOTH)
def a_write_that_fails_leaves_what_the_unit_has(t):
    stuck = Stuck(t, options=CACHED)
    mount = stuck.mount
    one, other = two_paths(mount)
    before, after = pattern(16 * BLOCK, 1), pattern(16 * BLOCK, 2)
    one.write_bytes(before)
    with opened(one, os.O_RDONLY) as reader:
        check(os.pread(reader, len(before), 0) == before, "before")
        stuck.hold()
        script = "import os, sys\nhandle = os.open(sys.argv[1], os.O_RDWR)\nprint('open', flush=True)\nos.pwrite(handle, sys.stdin.buffer.read(), 0)"
        with subprocess.Popen(["python3", "-c", script, str(other)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
            equal(writer.stdout.readline(), b"open\n", "the writer")
            writer.stdin.write(after)
            writer.stdin.close()
            in_a_request(writer.pid)
            with promised(KILL_SECONDS, "the end of a killed writer"):
                writer.kill()
                writer.wait(PATIENCE)
        # Nobody knows whether it has been done, or will be.
        stuck.go_on()
        eventually(lambda: mount.requests() == 0, "nothing is pending any more")
        with opened(one, os.O_RDONLY | os.O_DIRECT) as direct:
            memory = mmap.mmap(-1, len(before))
            def same():
                os.preadv(direct, [memory], 0)
                return memory[:] == os.pread(reader, len(before), 0)
            eventually(same, "what the unit has")
            time.sleep(0.1)
            check(same(), "what the unit has, later")


@test(intakes=BOTH)
def whoever_waits_for_cached_pages_of_a_stuck_target_can_be_killed(t):
    stuck = Stuck(t, options=CACHED)
    mount = stuck.mount
    one, other = two_paths(mount)
    one.write_bytes(pattern(65536, 1))
    readers, writer = users_of_pages((one, "sendfile"), (one, "mapping")), who_punches_a_hole(other)
    stuck.hold()
    go_on(*readers)
    eventually(lambda: mount.requests() >= 1, "a fill")
    punches(mount, writer)
    for process in (writer, *readers):
        with promised(KILL_SECONDS, "the end of a killed user of pages"):
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE)
    stuck.go_on()
    with opened(one, os.O_RDONLY) as reader:
        # Who has asked for it was killed, so it may come after the first reads.
        eventually(lambda: os.pread(reader, BLOCK, 0) == bytes(BLOCK), "the hole")
    eventually(lambda: mount.requests() == 0, "nothing is pending any more")


@test(exit_codes=(0, 2, -9))
def the_mount_ends_although_cached_pages_are_being_read(t):
    ends_whatever_is_read(t, options=CACHED)


@test(intakes=BOTH)
def fio_verifies_by_the_cache_what_it_has_written(t):
    mount = t.mount("demo:ram:16M", CACHED)
    for engine in ("psync", "mmap"):
        for seed, options in enumerate((("--bs=4k", "--size=2m"), ("--bs=1m", "--size=16m"), ("--bs=20k", "--size=5m")), 1):
            # Somebody else has all pages when it begins.
            with opened(mount.lun(0), os.O_RDONLY) as handle:
                by_sendfile(handle, 0, 16 * MIB)
                fio(t, mount, "--ioengine=psync", "--rw=write", f"--randseed={seed}", "--do_verify=0", *options)
                fio(t, mount, f"--ioengine={engine}", "--rw=read", f"--randseed={seed}", "--readonly", *options)
                fio(t, mount, f"--ioengine={engine}", "--rw=randread", f"--randseed={seed}", "--readonly", *options)


@test(intakes=BOTH)
def deep_queues_of_writes_do_not_stop_readers_by_the_cache(t):
    """A page may be locked by who waits for a place among the kernel's asynchronous requests, which are the writes that wait for this page."""
    needs("fio")
    mount = t.mount_in_foreground("demo:ram:4M", ("-f", f"-o{CACHED}"))
    one, other = two_paths(mount)
    over = threading.Event()
    rounds = [0]

    def read():
        with opened(one, os.O_RDONLY) as handle:
            while not over.is_set():
                os.pread(handle, 4 * MIB, 0)
                rounds[0] += 1

    thread = threading.Thread(target=read)
    thread.start()
    try:
        succeeds("fio", "--name=write", f"--filename={other}", "--ioengine=libaio", "--direct=1", "--rw=randwrite", "--bs=4k", "--size=4m", "--iodepth=256",
                 "--time_based", "--runtime=3", cwd=t.dir)
    finally:
        over.set()
        thread.join(PATIENCE)
    check(rounds[0] > 3, f"only {rounds[0]} rounds of the reader")
    check("has not dropped pages" not in mount.log_file.read_text(), "writes have waited in vain")


@test
def who_cannot_set_how_far_is_read_ahead_is_told(t):
    needs("fusermount3")
    if not os.stat(shutil.which("fusermount3")).st_mode & 0o4000:
        raise Skip("fusermount3 is not set-user-id")
    nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    folder = t.user_directory()
    for option, wanted in (("", "1024K"), (",readahead=2M", "2048K")):
        own = folder / f"mnt{len(option)}"
        own.mkdir()
        os.chown(own, NOBODY, NOBODY)
        log = t.path(f"log{len(option)}")
        with open(log, "wb") as out, subprocess.Popen([t.path("srpfs"), "-f", "-o", CACHED + option, "demo:ram:1M", own], stdin=subprocess.DEVNULL, stdout=out,
                                                      stderr=out, **nobody) as process:
            eventually(lambda: process.poll() is not None or "readahead=" in log.read_text(), "a line")  # pylint: disable=cell-var-from-loop
            lun = own / PORT / TARGET / "lun0"
            equal(run("head", "-c", "4096", lun, **nobody).stdout, "\0" * 4096, "what its owner reads")
            equal(run("fusermount3", "-u", own, **nobody).returncode, 0, "exit code of fusermount3")
            process.wait(PATIENCE)
        lines = [line for line in log.read_text().splitlines() if f"readahead={wanted} of cached files cannot be set" in line]
        equal(len(lines), 1, f"lines about it in {log.read_text()}")
