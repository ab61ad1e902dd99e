"""Gives damaged and hostile image files to the decoders for as long as asked.

    python tests/fuzz_pictures.py --seconds 600 [--seed 0] [--kind signatures]

A child process decodes one file after the other, in the graph as signatures do, or with Pillow as
Python code does. This process makes the files and watches the child. If the child dies, takes
longer than `LONGEST` for a file or more memory than `LARGEST`, this is a find, and its file is
kept.
"""

import argparse
import pathlib
import random
import resource
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib

LONGEST, LARGEST = 30, 6_000  # seconds, megabytes
SHAPE = (84, 84, 3)
KINDS = ("signatures", "pillow")
INTERESTING = [0, 1, 2, 0x7F, 0x80, 0xFF]


def damaged(encoded, generator):
    """Returns a file with typical damage: bytes changed, cut, doubled or added, and odd numbers."""
    found = bytearray(encoded)
    for _ in range(generator.choice([1, 1, 2, 4, 16])):
        if not found:
            break
        # Most damage is near the beginning, where the headers are.
        end = generator.choice([32, 64, 256, len(found)])
        at = generator.randrange(min(end, len(found)))
        way = generator.randrange(7)
        if way == 0:
            found[at] ^= 1 << generator.randrange(8)
        elif way == 1:
            found[at] = generator.choice(INTERESTING)
        elif way == 2:
            size, mark = generator.choice([(2, "H"), (4, "I")])
            value = generator.choice([0, 1, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), 65535, 30000])
            found[at : at + size] = struct.pack(
                generator.choice("<>") + mark, value % 2 ** (8 * size)
            )
        elif way == 3:
            del found[at : at + generator.randrange(1, 64)]
        elif way == 4:
            found[at:at] = found[at : at + generator.randrange(1, 256)]
        elif way == 5:
            found = found[: generator.randrange(len(found)) + 1]
        else:
            found[at:at] = generator.randbytes(generator.randrange(1, 32))
    return bytes(found)


def mended(encoded, generator):
    """Corrects the checksums of a PNG, so that decoders read further than the checksums."""
    if not encoded.startswith(b"\x89PNG") or generator.random() < 0.3:
        return encoded
    found, at = bytearray(encoded), 8
    while at + 12 <= len(found):
        (size,) = struct.unpack(">I", found[at : at + 4])
        if at + 12 + size > len(found):
            break
        found[at + 8 + size : at + 12 + size] = struct.pack(
            ">I", zlib.crc32(found[at + 4 : at + 8 + size])
        )
        at += 12 + size
    return bytes(found)


def files(seed):
    """Yields damaged files without end, made from the odd pictures that are not large."""
    import odd_pictures

    generator = random.Random(seed)
    seeds = [p.encoded for p in odd_pictures.PICTURES if 0 < len(p.encoded) < 100_000]
    while True:
        encoded = damaged(generator.choice(seeds), generator)
        if generator.random() < 0.1:  # the beginning of one file and the rest of another
            other = generator.choice(seeds)
            encoded = encoded[: generator.randrange(len(encoded) + 1)] + other
        yield mended(encoded, generator)


def serve(kind):
    """Runs in the child: reads files (length first) from its input and prints a result for each."""
    if kind == "signatures":
        import tensorflow as tf

        from tf_metalstm.serving.pictures import picture_decoder

        decode = picture_decoder(SHAPE)

        def read(encoded):
            try:
                decode(tf.constant([encoded]), tf.constant("images"))
            except tf.errors.InvalidArgumentError as error:
                return "refused" if "assertion failed: [images[0]: " in error.message else "strange"
            return "read"
    else:
        from tf_metalstm.data.sources import pixels

        def read(encoded):
            try:
                pixels.pixels(encoded, SHAPE, "odd")
            except pixels.CorruptImageError:
                return "refused"
            return "read"

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while header := sys.stdin.buffer.read(4):
        encoded = sys.stdin.buffer.read(struct.unpack("<I", header)[0])
        said = read(encoded)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000
        sys.stdout.write(f"{said} {memory}\n")
        sys.stdout.flush()


class Child:
    """A process that decodes files. It is started again when it has died."""

    def __init__(self, kind):
        command = [sys.executable, __file__, "--serve", kind]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self.process.stdout.readline() == b"ready\n"

    def read(self, encoded):
        """Returns the result of a file, and the highest memory so far."""
        try:
            self.process.stdin.write(struct.pack("<I", len(encoded)) + encoded)
            self.process.stdin.flush()
        except BrokenPipeError:
            return "died", 0
        watch = threading.Timer(LONGEST, self.process.kill)
        watch.start()
        said = self.process.stdout.readline().split()
        watch.cancel()
        return (said[0].decode(), int(said[1])) if said else ("died", 0)

    def end(self):
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()


def fuzz(kind, seconds, seed, folder):
    """Returns the numbers of files that were read and refused, and the finds: (text, file)."""
    finds, counts, child = [], {"read": 0, "refused": 0}, Child(kind)
    end, most = time.monotonic() + seconds, 0
    for number, encoded in enumerate(files(seed)):
        if time.monotonic() > end:
            break
        began = time.monotonic()
        said, memory = child.read(encoded)
        if said in counts:
            counts[said] += 1
        took = time.monotonic() - began
        what = "slow" if took >= LONGEST else said if said not in counts else None
        what = "large" if what is None and memory > LARGEST >= most else what
        most = max(most, memory)
        if what:
            path = pathlib.Path(folder, f"{kind}_{what}_{seed}_{number}")
            path.write_bytes(encoded)
            finds.append((what, path))
        if said == "died":
            child.end()
            child = Child(kind)
    child.end()
    return counts, most, finds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--serve", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return 0
    failed = 0
    for kind in options.kind or KINDS:
        counts, most, finds = fuzz(kind, options.seconds, options.seed, tempfile.mkdtemp())
        print(f"{kind}: {counts}, at most {most} MB")
        for what, path in finds:
            print(f"{kind}: {what}: {path}")
        failed += len(finds)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
