"""Speed and peak memory of launch.prepare on generated examples.

    python -m profiling.prepare --examples=1000000

Writes JSON lines of plausible examples (about 1.5 kB each: a profile, ten events, a description, a reason; a third in Chinese) to a
temporary folder, runs launch.prepare on them as its own process, and prints examples per second and the peak
resident memory of all its processes together (Linux). On two shared cores: 1,000,000 examples (1.82 GB) in 149 s, 6,700 a second end to
end (tokenizer and report included), 312 MB.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import resource
import subprocess
import sys
import tempfile
import time

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_integer("examples", 1_000_000, "Examples to generate.", lower_bound=1)
flags.DEFINE_string("folder", "", "Where the temporary files go; empty takes the system's temporary folder.")

_EN = ["warm", "light", "linen", "cotton", "running", "quiet", "kettle", "lamp", "jacket", "sturdy", "daily", "travel", "soft", "bright",
       "compact", "steel", "garden", "coffee", "winter"]  # fmt: skip
_ZH = ["轻盈", "透气", "纯棉", "修身", "百搭", "保暖", "防水", "舒适", "简约", "时尚", "耐用", "便携", "静音", "复古", "柔软", "清爽，", "冬季",
       "旅行", "咖啡", "台灯"]  # fmt: skip


def write_examples(path: pathlib.Path, count: int, seed: int = 0) -> int:
    """Writes `count` examples, the same for the same seed; returns the bytes written."""
    rng = random.Random(seed)
    pick, number = rng.choices, rng.randrange
    shops = {"en": [" ".join(pick(_EN, k=4)) for _ in range(20_000)], "zh": ["".join(pick(_ZH, k=4)) for _ in range(10_000)]}
    with open(path, "w", encoding="utf-8") as file:
        for i in range(count):
            chinese = i % 3 == 0
            words, joint, titles = (_ZH, "", shops["zh"]) if chinese else (_EN, " ", shops["en"])
            events = [
                {
                    "item": f"i{(n := number(len(titles)))}",
                    "title": titles[n],
                    "attributes": {"kind": [words[n % 19]]},
                    "time": 1_600_000_000 + n,
                }
                for _ in range(10)
            ]
            item = {
                "id": f"c{(n := number(len(titles)))}",
                "title": titles[n],
                "attributes": {"brand": f"b{n % 97}", "price": n % 500},
            }
            item["description"] = joint.join(pick(words, k=30))
            reason = f"{titles[n]} {joint.join(pick(words, k=24))} {i}"
            user = {
                "id": f"u{number(max(count // 4, 1))}",
                "profile": joint.join(pick(words, k=12)),
                "attributes": {"age": 18 + n % 60},
            }
            example = {"user": user, "history": events, "item": item, "control": {}, "reason": reason}
            file.write(json.dumps(example, ensure_ascii=False) + "\n")
    return path.stat().st_size


def watch(process: subprocess.Popen) -> int:
    """Waits for a process that leads its own session; returns the peak of the memory of it and its workers together, in bytes."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(_resident, _members(process.pid))))
        time.sleep(0.5)
    return peak


def _members(leader: int) -> list[int]:
    members = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(folder.name)) == leader:
                members.append(int(folder.name))
        except ProcessLookupError:
            continue
    return members


def _resident(pid: int) -> int:
    try:
        return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (FileNotFoundError, ProcessLookupError):
        return 0


def measure(count: int, folder: str) -> dict:
    """Generates, prepares, and returns the figures."""
    with tempfile.TemporaryDirectory(dir=folder or None) as temporary:
        source, output = pathlib.Path(temporary, "examples.jsonl"), pathlib.Path(temporary, "dataset")
        start = time.monotonic()
        size = write_examples(source, count)
        print(f"wrote {count:,} examples, {size / 1e9:.2f} GB, in {time.monotonic() - start:.0f} s", flush=True)
        command = [sys.executable, "-m", "launch.prepare", "--layout=examples", f"--source={source}", f"--output={output}"]
        start = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        peak = watch(process)
        seconds = time.monotonic() - start
        if process.returncode:
            raise SystemExit(process.returncode)
        written = sum(f.stat().st_size for f in output.rglob("*") if f.is_file())
    print(process.stdout.read().rsplit("\n", 2)[0])
    figures = {
        "examples": count,
        "source_gb": round(size / 1e9, 3),
        "dataset_gb": round(written / 1e9, 3),
        "cores": os.cpu_count(),
    }
    return figures | {
        "seconds": round(seconds, 1),
        "examples_per_second": round(count / seconds),
        "peak_rss_mb": round(peak / (1 << 20)),
    }


def main(argv: list[str]) -> None:
    """Prints the figures as one JSON object on the last line."""
    del argv
    print(json.dumps(measure(FLAGS.examples, FLAGS.folder)))


if __name__ == "__main__":
    app.run(main)
