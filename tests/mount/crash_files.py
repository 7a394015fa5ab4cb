"""Changes files at random, and tells what it is about to do and what came of it.

Called with a number of its own, a seed, and the most bytes of a write. The lines in $LOCAL/doneNUMBER are for crash_files.rs.
"""
import errno
import os
import random
import sys

NUMBER, SEED, LARGEST = (int(argument) for argument in sys.argv[1:4])
RANDOM = random.Random(SEED * 1000 + NUMBER)
LOG = os.open("%s/done%d" % (os.environ["LOCAL"], NUMBER), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
WRITES = 0

# What a file has, as far as that is certain; None where it is not.
FILES = {"w%df%d" % (NUMBER, file): b"" for file in range(3)}


def tell(*words):
    os.write(LOG, (" ".join(map(str, words)) + "\n").encode())


def attempt(call, *words):
    """What `call` returns; None for a failure. Without a mount it is the end, and nothing more is told."""
    tell("try", *words)
    try:
        result = call()
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            sys.exit()
        tell("failed", error.errno)
        return None
    tell("ok", result if isinstance(result, int) else 0)
    return True if result is None else result


def fresh(length):
    """Bytes that are nowhere else: each line says which write it is of, and which of its lines."""
    global WRITES
    WRITES += 1
    lines = b"".join(b"%02d%05d%08d\n" % (NUMBER, WRITES, line) for line in range(length // 16 + 1))
    return WRITES, lines[:length]


def length_of_a_write():
    return RANDOM.choice([RANDOM.randrange(1, 5000), RANDOM.randrange(1, 100000), RANDOM.randrange(1, LARGEST)])


def change(name, flags, mode):
    """Opens, changes and closes a file. True if all of it succeeded."""
    known = FILES.get(name)
    fd = attempt(lambda: os.open(name, flags | os.O_CREAT, 0o644), "open", name, mode)
    if fd is None:
        FILES[name] = None
        return False
    content = bytearray(b"" if mode == "new" else known)
    good = True
    for step in range(RANDOM.randrange(1, 4)):
        number, data = fresh(length_of_a_write())
        at = RANDOM.randrange(len(content) + 1) if mode == "change" else len(content)
        write = (lambda: os.pwrite(fd, data, at)) if mode == "change" else (lambda: os.write(fd, data))
        written = attempt(write, "write", name, number, at, len(data))
        if written is None:
            good = False
            break
        content[at:at + written] = data[:written]
        if mode == "change" and RANDOM.random() < 0.15:
            size = RANDOM.randrange(len(content) + 1000)
            if attempt(lambda: os.ftruncate(fd, size), "cut", name, size) is None:
                good = False
                break
            content = content[:size] + bytes(size - len(content[:size]))
        if RANDOM.random() < 0.3:
            attempt(lambda: os.fsync(fd), "sync", name)
    FILES[name] = bytes(content) if good else None
    closed = attempt(lambda: os.close(fd), "close", name)
    return good and closed is not None


def read(name):
    """A read gives an error, or what was written."""
    try:
        with open(name, "rb") as file:
            found = file.read()
    except OSError:
        return
    wanted = FILES[name]
    # Python has nothing to say of EAGAIN but None.
    if found is not None and found != wanted:
        at = next((i for i, pair in enumerate(zip(found, wanted)) if pair[0] != pair[1]), min(len(found), len(wanted)))
        tell("wrong", name, "at", at, "of", len(wanted), "with", len(found), found[at:at + 16], wanted[at:at + 16])


for turn in range(1, 1 + int(sys.argv[4])):
    if os.path.exists(os.environ["LOCAL"] + "/stop"):
        break
    name = RANDOM.choice(sorted(FILES))
    choice = RANDOM.random()
    if FILES[name] is None or choice < 0.3:
        change(name, os.O_WRONLY | os.O_TRUNC, "new")
    elif choice < 0.5:
        change(name, os.O_WRONLY | os.O_APPEND, "append")
    elif choice < 0.7:
        change(name, os.O_RDWR, "change")
    elif choice < 0.85:
        beside = "w%dt%d" % (NUMBER, turn)
        if change(beside, os.O_WRONLY | os.O_EXCL * RANDOM.randrange(2), "new"):
            moved = attempt(lambda: os.rename(beside, name), "move", beside, name)
            FILES[name] = None if moved is None else FILES[beside]
        del FILES[beside]
    elif FILES[name]:
        gone = attempt(lambda: os.unlink(name), "remove", name)
        FILES[name] = None if gone is None else b""
    if FILES[name]:
        read(name)
tell("end")
