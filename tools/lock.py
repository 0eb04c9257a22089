"""Write the lock files: every package at one version, with the hashes of its files. Standard library only.

Resolves the dependencies and groups of pyproject.toml with the running interpreter's pip, then asks for the
same versions on the other supported Pythons and machines, so that their wheels' hashes are in the lock too.
No file's address is written, only name, version and hashes.

    python tools/lock.py            # keeps locked versions where they still fit
    python tools/lock.py --upgrade  # takes the newest versions that fit
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
APP_LOCK = ROOT / "requirements.lock"
DEV_LOCK = ROOT / "requirements-dev.lock"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
MACHINES = ("x86_64", "aarch64")
GLIBC_TAGS = ("manylinux2014", "manylinux_2_17", "manylinux_2_24", "manylinux_2_27", "manylinux_2_28")

SOURCE_ONLY = {"llama-cpp-python"}

Versions = dict[str, str]
Hashes = dict[str, set[str]]


def normal(name: str) -> str:
    """A package's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pip_report(*arguments: str) -> list[tuple[str, str, str]]:
    """(name, version, sha256) of each package that pip would install; exits with pip's words if it cannot."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        done = subprocess.run(
            [*command, "--report", str(report), *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            sys.exit("\n".join(errors) or done.stderr)
        items = json.loads(report.read_text())["install"]
    found = []
    for item in items:
        sha256 = item["download_info"]["archive_info"]["hashes"]["sha256"]
        found.append((normal(item["metadata"]["name"]), item["metadata"]["version"], sha256))
    return found


def resolve(requirements: list[str], constraints: Versions, *options: str) -> tuple[Versions, Hashes]:
    """One version and one hash for each package that the requirements lead to."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(f"{name}=={version}\n" for name, version in constraints.items())
        file.flush()
        found = pip_report(*options, "--constraint", file.name, *requirements)
    return {name: version for name, version, _ in found}, {name: {sha} for name, _, sha in found}


def add_other_hashes(versions: Versions, hashes: Hashes) -> None:
    """Add the wheels that other Pythons and machines would take (source archives serve all of them)."""
    for python in PYTHONS:
        for machine in MACHINES:
            platforms = [f"--platform={tag}_{machine}" for tag in GLIBC_TAGS]
            options = ["--no-deps", "--only-binary=:all:", "--target=unused", f"--python-version={python}"]
            wanted = [f"{name}=={version}" for name, version in versions.items() if name not in SOURCE_ONLY]
            for name, _, sha256 in pip_report(*options, *platforms, *wanted):
                hashes[name].add(sha256)


def read_lock(path: Path) -> Versions:
    """The versions in a lock file; none if there is no such file."""
    if not path.exists():
        return {}
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", path.read_text(), flags=re.MULTILINE))


def write_lock(path: Path, title: str, versions: Versions, hashes: Hashes) -> None:
    lines = [f"# {title} Written by `make lock`; install with: pip install --require-hashes --no-deps -r\n"]
    for name in sorted(versions):
        entry = [f"{name}=={versions[name]}", *(f"    --hash=sha256:{sha}" for sha in sorted(hashes[name]))]
        lines.append(" \\\n".join(entry) + "\n")
    path.write_text("".join(lines))
    print(f"{path.name}: {len(versions)} packages")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write requirements.lock and requirements-dev.lock.")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")
    upgrade = parser.parse_args().upgrade

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    app = [*project["project"]["dependencies"], *groups["build"]]
    kept = {} if upgrade else read_lock(APP_LOCK) | read_lock(DEV_LOCK)

    versions, hashes = resolve([*app, *groups["dev"]], kept)
    app_names = set(resolve(app, versions)[0])
    for group in ("bundled-model", "test-models"):
        more_versions, more_hashes = resolve(groups[group], kept, "--no-deps")
        versions |= more_versions
        hashes |= more_hashes
        if group == "bundled-model":
            app_names |= set(more_versions)
    add_other_hashes(versions, hashes)

    app_versions = {name: version for name, version in versions.items() if name in app_names}
    dev_versions = {name: version for name, version in versions.items() if name not in app_names}
    write_lock(APP_LOCK, "What Samovar runs with.", app_versions, hashes)
    write_lock(DEV_LOCK, "What its tests and checks need besides.", dev_versions, hashes)


if __name__ == "__main__":
    main()
