# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What the rows of the tool matrix stand on: units whose bytes can be seen behind srpfs's back, tools whose exit status and words
are checked, loop devices, and the table of docs/tools.md.

A row is a test of tests/mount/harness.py that knows which tool it is about. Its function gets the context and a unit, is called for
a unit of 512-byte blocks and one of 4096, and gives nothing when every byte was right, or the reason why that cannot be
expected of any such file, which it has shown.
"""

import contextlib
import dataclasses
import os
import pathlib
import re
import subprocess

import harness
from harness import Skip, equal, needs, pattern, read_bytes, remember_connection, run, shorten

MIB = 1 << 20
OLD = b"\xaa"                                 # what was on the unit before
SECONDS = 240                                 # of a tool, at most
WRONG = "wrong bytes"
SECONDS_OF_PEERS = 60                         # the same with another server than srpfs
DOCUMENT = harness.TOP / "docs/tools.md"
PEERS = {"nbdfuse": ("nbdfuse", "nbdkit"), "qsd": ("qemu-storage-daemon",)}  # and the programs they need
ENOSPC, EPERM, EROFS = "No space left on device", "Operation not permitted", "Read-only file system"

rows: list["Row"] = []


@dataclasses.dataclass
class Row:
    """One line of the table."""
    name: str                 # of its test
    tool: str
    command: str              # as a reader would type it
    quick: bool               # belongs to what every change has to pass
    of_peers: bool            # says something about other servers of files as well


def row(tool, command, *, size=4 * MIB, quick=True, programs=(), kernel=(), options="", peers=True, seconds=harness.TEST_SECONDS):
    """Registers a row. `size` is that of the units in bytes; `programs` and `kernel` (see kernel_needs) have to be there, or the
    row is skipped; `options` go behind the units' in the source of the mount (",ro")."""
    def register(function):
        def both_units(t):
            needs(*programs)
            kernel_needs(*kernel)
            found = {}
            with contextlib.closing(units(t, size, options)) as all_units:
                for unit in all_units:
                    found[unit.block] = function(t, unit) or "exact"
            texts = set(found.values())
            return texts.pop() if len(texts) == 1 else "; ".join(f"{block}-byte blocks: {text}" for block, text in found.items())
        both_units.__name__ = function.__name__
        rows.append(Row(function.__name__, tool, command, quick, peers))
        harness.test(both_units, seconds=seconds)
        return function
    return register


# ---- units ----

class Unit:
    """A unit as a file, and the file it is made of, which only the server uses."""

    def __init__(self, number, lun, backing, size, block, directory):
        self.number, self.lun, self.backing, self.size, self.block, self.directory = number, lun, backing, size, block, directory

    def path(self, name):
        return self.directory / f"{name}{self.number}"

    def fill(self):
        """As it was before any tool: OLD everywhere."""
        with open(self.lun, "r+b", buffering=0) as file:
            for place in range(0, self.size, MIB):
                equal(os.pwrite(file.fileno(), OLD * min(MIB, self.size - place), place), min(MIB, self.size - place), "bytes written")

    def holds(self, data, what, at=0):
        """Exactly these bytes, and OLD elsewhere: through the file, and behind its back."""
        wanted = bytearray(OLD * self.size)
        wanted[at:at + len(data)] = data
        self.is_exactly(wanted, what)

    def is_exactly(self, wanted, what):
        same(read_bytes(self.lun), wanted, f"{what}: {self.block}-byte unit")
        equal(os.stat(self.lun).st_size, self.size, f"{what}: size of the file")
        self.backing_is(wanted, what)

    def flush(self):
        handle = os.open(self.lun, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def backing_is(self, wanted, what):
        self.flush()
        same(read_bytes(self.backing), wanted, f"{what}: {self.block}-byte unit, behind srpfs's back")

    def is_its_backing(self, what):
        """What the file shows is what the server has; for contents that nobody can foretell."""
        self.flush()
        with open(self.lun, "rb", buffering=0) as shown_file, open(self.backing, "rb", buffering=0) as kept:
            for place in range(0, self.size + 1, MIB):
                one, other = (os.pread(file.fileno(), MIB, place) for file in (shown_file, kept))
                same(other, one, f"{what}: {self.block}-byte unit, behind srpfs's back, from {place}")


def same(got, wanted, what):
    if got == wanted:
        return
    if len(got) != len(wanted):
        raise AssertionError(f"{WRONG} after {what}: {len(got)} bytes instead of {len(wanted)}")
    first = next(place for place in range(0, len(got), 512) if got[place:place + 512] != wanted[place:place + 512])
    first += next(place for place in range(512) if got[first + place] != wanted[first + place])
    count = sum(got[place:place + 512] != wanted[place:place + 512] for place in range(0, len(got), 512))
    raise AssertionError(f"{WRONG} after {what}: the first at {first}, {count} sectors of {len(got) // 512}; "
                         f"{got[first:first + 8].hex()} instead of {wanted[first:first + 8].hex()}")


def backing_file(path, size):
    with open(path, "wb") as file:
        for place in range(0, size, MIB):
            file.write(OLD * min(MIB, size - place))
    return path


def units(t, size, options=""):
    """Mounts, and gives the units one after the other."""
    os.chdir(t.dir)  # fio leaves files where it is
    if getattr(t, "peer", None):
        yield peer_unit(t, t.peer, size)
        return
    if getattr(t, "maker", None):
        yield from made_units(t, size, options)
        return
    backings = [backing_file(t.path(f"backing{number}"), size) for number in (0, 1)]
    mount = t.mount(f"demo:file:{backings[0]},wce{options}+file:{backings[1]},bs=4096,thin,wce{options}")
    for number, block in ((0, 512), (1, 4096)):
        yield Unit(number, mount.lun(number), backings[number], size, block, t.dir)
    # A ring that has used the file lets go of it some time after its process has ended.
    harness.eventually(lambda: run("umount", mount.path).returncode == 0, "umount")


def made_units(t, size, options):
    """Units of another target than the embedded one, which a program makes: `MAKER make BYTES OPTIONS` makes them, full of OLD, mounts srpfs
    and prints a line for each: block size, LUN file, and the file behind it. `MAKER remove` ends all that."""
    try:
        lines = tool(f"{t.maker} make {size} '{options}'", says=None).splitlines()
        for number, line in enumerate(lines):
            block, lun, backing = line.split()
            yield Unit(number, pathlib.Path(lun), pathlib.Path(backing), size, int(block), t.dir)
    finally:
        tool(f"{t.maker} remove", says=None)


def peer_unit(t, peer, size):
    """The same as another server of files shows it."""
    needs(*PEERS[peer])
    backing = backing_file(t.path("backing0"), size)
    point = t.path("peer")
    if peer == "qsd":
        # A file it would make shorter; a device keeps its size, as a unit does. Ended by the harness.
        device = tool(f"losetup --find --show {backing}").strip()
        point.touch()
        command = ["qemu-storage-daemon", "--blockdev", f"driver=raw,node-name=disk,file.driver=host_device,file.filename={device},discard=unmap",
                   "--export", f"type=fuse,id=export,node-name=disk,mountpoint={point},writable=on"]
        lun = point
    else:
        point.mkdir()
        command = ["nbdfuse", point, "--socket-activation", "nbdkit", "-f", "file", backing]
        lun = point / "nbd"
    with open(t.path("peer.log"), "wb") as log:
        subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # pylint: disable=consider-using-with
    harness.eventually(lambda: os.path.ismount(point) and lun.exists() and lun.stat().st_size == size, f"{peer} shows its file")
    # For cleaning up: umount -l hides a connection that processes may still hang in.
    remember_connection(t.dir, os.minor(os.stat(lun).st_dev))
    return Unit(0, lun, backing, size, 512, t.dir)


# ---- tools ----

def tool(command, status=0, says="", seconds=None, **more):
    """Runs a shell command. It has to end with this status, and to say on its standard error what fits this expression, nothing
    unless given (None: anything). Gives its standard output."""
    done = run("set -o pipefail; " + command, seconds=seconds or SECONDS, **more)
    if done.returncode != status:
        raise AssertionError(f"`{command}` exits with {done.returncode} instead of {status}: {shorten((done.stderr + done.stdout).strip())}")
    if says is not None and not re.fullmatch(says, done.stderr.strip(), re.S):
        raise AssertionError(f"`{command}` says {shorten(done.stderr.strip())}" + (f", which does not fit {says!r}" if says else ""))
    return done.stdout


def image(path, size, pieces):
    """A sparse file: holes but for these pieces of (place, length)."""
    with open(path, "wb") as file:
        for place, length in pieces:
            file.seek(place)
            file.write(pattern(length, place + 1))
        file.truncate(size)
    return path


def images(unit, sector=1):
    """Those that tell exact copies from others: name, path, content. Sizes are multiples of `sector`."""
    end = 3 * MIB + (0 if sector > 1 else 1001)
    for name, pieces in (("an image with a hole at its end", ((0, 100000), (MIB, 300001))),
                         ("an image with holes in the middle", ((0, 4096), (2 * MIB + 4096, end - 2 * MIB - 4096))),
                         ("an image with holes everywhere", ((123 * 4096, 100000), (MIB, 4096), (2 * MIB + 12345 // sector * sector, 70000))),
                         ("an image without holes", ((0, end),))):
        path = image(unit.path("image"), end, pieces)
        yield name, path, path.read_bytes()


def copies_exactly(unit, command, sector=1, only=range(4)):
    """The command, with {image} and {lun}, makes the unit's beginning the image, and touches nothing else. `only`: some of the images,
    by number."""
    worst(lambda n=name, p=path, c=content: copies_one(unit, command, n, p, c)
          for index, (name, path, content) in enumerate(images(unit, sector)) if index in only)


def each_copies_exactly(unit, command, options, sector=1):
    """The command with each of the {options}, the images in turn."""
    worst(lambda w=words, o=(turn % 3, (turn + 1) % 3): copies_exactly(unit, command.replace("{options}", w), sector, o)
          for turn, words in enumerate(options))


def copies_one(unit, command, name, path, content):
    unit.fill()
    tool(command.format(image=path, lun=unit.lun, directory=path.parent, name=path.name))
    unit.holds(content, f"`{shown(command)}` of {name}")


def worst(actions):
    """Does all of them, whatever they find. What is wrong without a word is worse than what a tool tells."""
    found = []
    for action in actions:
        try:
            action()
        except AssertionError as error:
            found.append(error)
    if found:
        raise next((error for error in found if str(error).startswith(WRONG)), found[0])


def shown(command):
    return command.replace("{image}", "IMAGE").replace("{lun}", "LUN")


# ---- what the kernel has ----

def kernel_needs(*features):
    """File systems by name; `loop`, `dm` or `md`."""
    for feature in features:
        if not kernel_has(feature):
            raise Skip(f"this kernel has no {feature}")


def kernel_has(feature):
    module = {"dm": "dm_mod", "md": "md_mod"}.get(feature, feature)
    def there():
        if feature == "loop":
            return os.path.exists("/dev/loop-control")
        if feature == "dm":
            return "device-mapper" in pathlib.Path("/proc/misc").read_text()
        if feature == "md":
            return os.path.exists("/proc/mdstat")
        return feature in pathlib.Path("/proc/filesystems").read_text().split()
    if not there():
        with contextlib.suppress(OSError, AssertionError):
            run("modprobe", "-q", module)
    return there()


@contextlib.contextmanager
def loop(file, options=""):
    """A loop device over the file; gone afterwards, and the file flushed."""
    done = run(f"losetup --find --show {options} '{file}'")
    if done.returncode != 0:
        raise AssertionError(f"`losetup {options} LUN`: {done.stderr.strip()}")
    device = done.stdout.strip()
    try:
        yield device
    finally:
        done = run("losetup", "-d", device)
    equal(done.stderr, "", "what losetup -d says")
    harness.eventually(lambda: run("losetup", device).returncode != 0 or str(file) not in run("losetup", device).stdout, "the loop device is gone")


@contextlib.contextmanager
def mounted(t, device, kind, options=""):
    point = t.mountpoint()
    tool(f"mount -t {kind} -o '{options or 'rw'}' {device} {point}")
    try:
        yield point
    except BaseException:
        run("umount", "-l", point)
        raise
    tool(f"umount {point}")


# ---- the table ----

BEGIN, END = "<!-- made by `{command}` -->", "<!-- end of what was made -->"
HEAD = "| tool | command | embedded target | LIO |\n| --- | --- | --- | --- |\n"
COMMAND = "tests/tools/run --write"
EMBEDDED, LIO = 0, 1                          # columns: whose units
NOT_RUN = "not run"


def beginning_of(one: Row) -> str:
    """Of the row's line."""
    command = one.command.replace("|", "\\|")  # also within `code` a bar ends a cell
    return f"| {one.tool} | `{command}` | "


def section(command):
    """(before, lines, after) of a part of the document that was made."""
    before, begin, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN.format(command=command) + "\n")
    made, end, after = rest.partition(END + "\n")
    if not begin or not end:
        raise AssertionError(f"{DOCUMENT.name} has no part that {command} makes")
    return before + begin, made, end + after


def in_document(command=COMMAND) -> dict[str, list[str]]:
    """What a table says of each row, by the beginnings of their lines: of the columns, in order."""
    _, made, _ = section(command)
    found = {}
    for line in made.splitlines()[2:]:
        if line.startswith("| "):
            tool_cell, command, *cells = line[2:-2].split(" | ")
            found[f"| {tool_cell} | {command} | "] = cells
    return found


def told(text: str, cells: list[str], column: int) -> str:
    """For this column, beside what the first one says."""
    if column == EMBEDDED or text != cells[EMBEDDED]:
        return text
    return "exact" if is_exact(text) else "the same"


def is_exact(text: str) -> bool:
    """And in every case: some lines say in which one nothing can be done."""
    return text.startswith("exact") and "impossible" not in text


def stale_lines(verdicts: dict[str, tuple[str, str]], column: int) -> list[str]:
    """What is wrong with the document, after rows have been found to be what `verdicts` says."""
    lines = in_document()
    wrong = [f"{one.tool} (`{one.command}`) has no line" for one in rows if beginning_of(one) not in lines]
    wrong += [f"{beginning} is no row any more" for beginning in lines if beginning not in {beginning_of(one) for one in rows}]
    for one in rows:
        verdict, text = verdicts.get(one.name, ("", ""))
        line = lines.get(beginning_of(one))
        if verdict == "ok" and line and line[column] != told(text, line, column):
            wrong.append(f"{one.tool} (`{one.command}`) was found to be: {text}")
    return wrong


def write_table(verdicts, column):
    """Cells of rows that were not run stay as they are, which is how a row that only another machine can run has one."""
    before, _, after = section(COMMAND)
    lines = in_document()
    made, table = "", []
    for one in rows:
        cells = lines.get(beginning_of(one), [f"{NOT_RUN}: nobody has"] * 2)
        verdict, text = verdicts.get(one.name, ("", ""))
        if verdict == "ok":
            cells[column] = told(text, cells, column)
        elif verdict == "skip" and cells[column].startswith(NOT_RUN):
            cells[column] = f"{NOT_RUN}: {text}"
        made += beginning_of(one) + " | ".join(cells) + " |\n"
        table.append(cells)
    DOCUMENT.write_text(before + HEAD + made + "\n" + summary(table) + after, encoding="utf-8")


def summary(table: list[list[str]]) -> str:
    def count(condition):
        return sum(condition(cells) for cells in table)
    exact = count(lambda cells: any(is_exact(cell) for cell in cells))
    partly = count(lambda cells: cells[EMBEDDED].startswith("exact") and not any(is_exact(cell) for cell in cells))
    refused = count(lambda cells: any(cell.startswith("refused") for cell in cells))
    unknown = count(lambda cells: all(cell.startswith(NOT_RUN) for cell in cells))
    return (f"Of {len(table)} rows {exact} are exact, {partly} in the cases that its line says, {refused} srpfs refuses, and "
            f"{len(table) - exact - partly - refused - unknown} are what no file that stands for a device can do; the tool says so in all of them but `dd conv=sparse`"
            + (f"; {unknown} have been run nowhere" if unknown else "") + ".\n")


def write_peers(found: dict[str, dict[str, str]]):
    """found: of each server, of each row's name, the words for the table; rows that are not in it keep theirs. srpfs's are those of the
    table above."""
    before, _, after = section(PEERS_COMMAND)
    lines, others = in_document(COMMAND), in_document(PEERS_COMMAND)
    columns = {"srpfs": {one.name: lines[beginning_of(one)][EMBEDDED] for one in rows if beginning_of(one) in lines}}
    for place, name in enumerate(found, start=1):
        columns[name] = {one.name: others[beginning_of(one)][place] for one in rows if beginning_of(one) in others} | found[name]
    table = [one for one in rows if one.of_peers and all(one.name in column for column in columns.values())]
    made = "| tool | command | " + " | ".join(columns) + " |\n| --- | --- |" + " --- |" * len(columns) + "\n"
    for one in table:
        cells = [re.sub(r"impossible\b[^;]*", "impossible", column[one.name]) for column in columns.values()]
        made += beginning_of(one) + " | ".join(cells) + " |\n"
    made += "\nOf these rows "
    made += ", ".join(f"{sum(column[one.name].startswith('exact') for one in table)} are exact with {name}" for name, column in columns.items())
    made += f", of {len(table)}; " + "; ".join(f"{sum('wrong bytes' in column[one.name] for one in table)} wrong with {name} without a word from the tool"
                                              for name, column in columns.items()) + ".\n"
    DOCUMENT.write_text(before + made + after, encoding="utf-8")


PEERS_COMMAND = "tests/bench/peers --exact"


def words_for(verdict: str, text: str) -> str:
    """Of a peer's row: what a reader wants to know."""
    if verdict == "ok":
        return text
    if verdict == "skip":
        return f"not run: {text}"
    if text.startswith(WRONG):
        return "**wrong bytes, and the tool says nothing**"
    if "verify: bad" in text:
        return "**wrong bytes, as fio's verification finds**"
    if "not over after" in text:
        return "hangs"
    text = re.sub(r"/\S*/", "", text).split("\\n")[0].split(" (unit.py")[0].split(", which does not fit")[0]
    text = re.sub(r"^.*? exits with (\d+) instead of \d+: ", r"fails with \1: ", re.sub(r"^.*? says ", "says something else: ", text))
    return text[:150].replace("|", "/").replace("`", "'")
