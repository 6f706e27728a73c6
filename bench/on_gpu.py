"""All measurements on a GPU machine: tests, sanitizer, accuracy, timings, host, first call.

Runs from a bare checkout with PYTHONPATH set to it; needs no network and no installation.
Each section runs in a process of its own, and so do the tests of each file.
Exit codes: 0 all went well, 1 a test, the sanitizer, a bound or a section failed,
2 a bad argument or no GPU, 3 nothing failed but time did not suffice, 130 interrupted.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import command, environment, report, section
from bench.section import Task

FORMAT = 1  # of the JSON document; raised when a reader would have to change
TASKS = (
    Task("kernels", "bench.kernels", 30, 15),
    Task("tests", "bench.suite", 170, 40),
    Task("sanitizer", "bench.sanitize", 80, 18),
    Task("accuracy", "bench.accuracy", 35, 8),
    Task("timings", "bench.timings", 160, 20),
    Task("host", "bench.host_cost", 15, 6),
    Task("first-call", "bench.first_call", 20, 7),
)
SECONDS = {True: 90.0, False: 445.0}  # of all sections, by `quick`
PROBE_SECONDS = 90.0  # the first contact with a GPU may take long
REMOVED = ("CUPY_TF32", "NVIDIA_TF32_OVERRIDE", "GPUGRAD_DEVICE", "CUDA_LAUNCH_BLOCKING")


def main(argv: Sequence[str] | None = None) -> int:
    """Run all sections and give the exit code."""
    parser = command.parser("bench.on_gpu", __doc__, quick="2 minutes instead of 8", folder=True)
    names = ",".join(task.name for task in TASKS)
    parser.add_argument("--skip", type=tasks_named, default=(), help=f"some of {names}")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="gpugrad-") as folder:
        variables = process_environment(Path(folder), os.environ)
        found = probe(Path(folder), variables)
        if found["missing"] is not None:
            print(f"bench.on_gpu: there is nothing to measure: {found['missing']}", file=sys.stderr)
            return 2
        document = start(found, quick=arguments.quick, commit=arguments.commit)
        document["skipped"] = list(arguments.skip)
        try:
            arguments.output.mkdir(parents=True, exist_ok=True)
            path = arguments.output / file_name(document)
            section.write_json(path, document)
        except OSError as error:
            print(f"bench.on_gpu: --output: {error}", file=sys.stderr)
            return 2
        tasks = [task for task in TASKS if task.name not in arguments.skip]

        def run(task: Task, seconds: float) -> dict[str, Any]:
            print(f"{task.name} ...", file=sys.stderr, flush=True)
            return section.run(
                task,
                seconds=seconds,
                quick=arguments.quick,
                folder=Path(folder),
                environment=variables,
            )

        try:
            run_all(tasks, document, path, SECONDS[arguments.quick], run)
        except KeyboardInterrupt:
            print(f"bench.on_gpu: interrupted; what there is is in {path}", file=sys.stderr)
            return 130
    print(report.render(document))
    print(f"\n{path}")
    return int(document["exit_code"])


def run_all(
    tasks: Sequence[Task],
    document: dict[str, Any],
    path: Path,
    seconds: float,
    run: Callable[[Task, float], dict[str, Any]],
) -> None:
    """Run tasks one after the other within a time, and write the document after each."""
    end = time.monotonic() + seconds
    for index, task in enumerate(tasks):
        quick = document["quick"]
        weights = [one.quick_weight if quick else one.weight for one in tasks[index:]]
        record = run(task, section.allowance(end - time.monotonic(), weights))
        document["sections"].append(record)
        document["complete"] = index + 1 == len(tasks)
        document["exit_code"] = exit_code(document["sections"])
        section.write_json(path, document)


def exit_code(sections: Sequence[Mapping[str, Any]]) -> int:
    """Return 1 if a section failed, 3 if one was not run to its end, else 0."""
    statuses = {one["status"] for one in sections}
    return 1 if "failed" in statuses else 3 if "over" in statuses else 0


def tasks_named(text: str) -> tuple[str, ...]:
    """Read names of tasks, separated by commas."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    known = [task.name for task in TASKS]
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
    return names


def process_environment(folder: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the sections' environment: caches of their own, IEEE products, this tree's modules."""
    variables = {name: value for name, value in inherited.items() if name not in REMOVED}
    caches = {
        "GPUGRAD_CACHE_DIR": "kernels",
        "CUPY_CACHE_DIR": "cupy",
        "TORCHINDUCTOR_CACHE_DIR": "inductor",
        "TRITON_CACHE_DIR": "triton",
    }
    variables |= {name: str(folder / "caches" / part) for name, part in caches.items()}
    return variables | {
        "PYTHONPATH": section.module_path(inherited),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # the graphs are small, its workers are not
    }


def probe(folder: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    """Describe the machine from a process of its own, which alone makes a CUDA context."""
    task = Task("environment", "bench.environment", 1)
    record = section.run(
        task, seconds=PROBE_SECONDS, quick=False, folder=folder, environment=variables
    )
    if record["status"] != "ok":
        return {"missing": f"the machine cannot be examined ({record['summary']})"}
    data: dict[str, Any] = record["data"]
    return data


def start(found: Mapping[str, Any], *, quick: bool, commit: str | None) -> dict[str, Any]:
    """Begin the document of a run."""
    return {
        **command.head("gpu", FORMAT, quick=quick, commit=commit),
        "environment": {name: value for name, value in found.items() if name != "missing"},
        "sections": [],
        "complete": False,
        "exit_code": None,
    }


def file_name(document: Mapping[str, Any]) -> str:
    """Name a run's file by device, date and commit."""
    source = document["source"]
    commit = source["commit"][:12] if source["commit"] else f"sources{source['sources'][:8]}"
    parts = [
        document["environment"]["device"]["name"],
        document["date"][:10],
        commit + ("-changed" if source["dirty"] else ""),
        *(["quick"] if document["quick"] else []),
    ]
    return environment.slug(*parts) + ".json"


if __name__ == "__main__":
    sys.exit(main())
