"""The image files, read as text: there is no Docker where the tests run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "docker").glob("Dockerfile.*"))


def instructions(path: Path) -> list[tuple[str, str]]:
    """Instruction and argument of each line, continued lines joined, comments left out."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def test_there_is_one_for_each_kind_of_machine() -> None:
    assert [path.name for path in FILES] == ["Dockerfile.cpu", "Dockerfile.cuda"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_image_is_pinned_staged_and_has_no_rights(path: Path) -> None:
    found = instructions(path)
    stages = [i for i, (word, _) in enumerate(found) if word == "FROM"]
    assert len(stages) == 2, "one stage builds, the other runs"
    for i in stages:
        image, _, tag = found[i][1].split()[0].partition(":")
        assert image
        assert re.match(r"\d+\.\d+\.\d+", tag), f"{found[i][1]} is not pinned to a version"
    final = found[stages[-1] :]
    users = [argument for word, argument in final if word == "USER"]
    assert users, "the last stage sets no user, so it would run as root"
    assert users[-1].split(":")[0] not in ("root", "0")
    after_user = final[[word for word, _ in final].index("USER") :]
    assert not any(word in ("RUN", "COPY") for word, _ in after_user), "what is installed belongs to root"
    assert json.loads(dict(final)["ENTRYPOINT"]) == ["msdm-engine"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_is_fetched_by_address_and_all_that_is_copied_exists(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    for word, argument in instructions(path):
        assert word not in ("ADD", "MAINTAINER")
        if word == "COPY" and not argument.startswith("--from"):
            *sources, _ = argument.split()
            for source in sources:
                assert source != "."
                assert (ROOT / source).exists(), f"{source} is not in the repository"
        if word == "RUN":
            assert "sudo" not in argument
            assert "apt-get install" not in argument or "--no-install-recommends" in argument
            assert "apt-get install" not in argument or "rm -rf /var/lib/apt/lists" in argument
            assert "pip install" not in argument or "--no-cache-dir" in argument


def test_what_images_copy_is_sent_to_the_builder() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    for path in FILES:
        for word, argument in instructions(path):
            if word == "COPY" and not argument.startswith("--from"):
                for source in argument.split()[:-1]:
                    assert f"!{source}" in ignored


def test_the_documented_commands_name_files_that_exist() -> None:
    text = (ROOT / "docs" / "docker.md").read_text()
    for name in re.findall(r"-f (docker/\S+)", text):
        assert (ROOT / name).is_file()
