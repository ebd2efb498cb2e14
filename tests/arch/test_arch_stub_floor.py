"""Generated stubs refuse an older runtime: what pip may install is never older than what made them."""

import re
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONSTRAINTS = (ROOT / "constraints.txt").read_text().splitlines()
CONSTRAINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.+!-]*")
GRPC_VERSION = re.compile(r"^GRPC_GENERATED_VERSION = '([0-9.]+)'", re.MULTILINE)
PROTOBUF_VERSION = re.compile(
    r"ValidateProtobufRuntimeVersion\(\s*[\w.]+,\s*(\d+),\s*(\d+),\s*(\d+),", re.MULTILINE
)

BUILD_REQUIRES = [Requirement(line) for line in PYPROJECT["build-system"]["requires"]]
DEPENDENCIES = [Requirement(line) for line in PYPROJECT["project"]["dependencies"]]
EXTRAS = [
    Requirement(line) for extra in PYPROJECT["project"]["optional-dependencies"].values() for line in extra
]
DEVELOPMENT = [Requirement(line) for group in PYPROJECT["dependency-groups"].values() for line in group]
DECLARED = BUILD_REQUIRES + DEPENDENCIES + EXTRAS + DEVELOPMENT
PINS = {
    canonicalize_name(name): version
    for name, version in (line.split("==") for line in CONSTRAINTS if CONSTRAINT.fullmatch(line))
}


def named(requirements: list[Requirement], name: str) -> Requirement:
    (found,) = [requirement for requirement in requirements if requirement.name == name]
    return found


def floor(requirement: Requirement) -> Version:
    (lowest,) = [Version(s.version) for s in requirement.specifier if s.operator in {">=", "=="}]
    return lowest


def generated(pattern: str) -> list[str]:
    """The text of the stubs; building the package made them."""
    texts = [path.read_text() for path in files("autotune.v1").iterdir() if path.name.endswith(pattern)]
    assert texts, "run: make proto"
    return texts


@pytest.mark.parametrize("requirements", [BUILD_REQUIRES, DEVELOPMENT], ids=["build", "development"])
def test_one_exact_generator_makes_the_stubs(requirements):
    generator = named(requirements, "grpcio-tools")
    assert [specifier.operator for specifier in generator.specifier] == ["=="]
    assert str(generator.specifier) == str(named(BUILD_REQUIRES, "grpcio-tools").specifier)


def test_grpcio_is_as_new_as_the_generator():
    assert floor(named(DEPENDENCIES, "grpcio")) == floor(named(BUILD_REQUIRES, "grpcio-tools"))


@pytest.mark.parametrize("name", ["grpcio-health-checking", "grpcio-reflection", "grpcio-status"])
def test_its_companions_come_from_the_same_release(name):
    assert floor(named(DEPENDENCIES, name)) == floor(named(DEPENDENCIES, "grpcio"))


def test_grpcio_is_as_new_as_the_stubs_demand():
    demanded = {Version(GRPC_VERSION.search(text)[1]) for text in generated("_pb2_grpc.py")}
    assert demanded == {floor(named(DEPENDENCIES, "grpcio"))}


def test_protobuf_is_as_new_as_the_stubs_demand_and_of_the_same_major_version():
    texts = generated("_pb2.py")
    demanded = {Version(".".join(PROTOBUF_VERSION.search(text).groups())) for text in texts}
    protobuf = named(DEPENDENCIES, "protobuf")
    assert demanded == {floor(protobuf)}
    assert not protobuf.specifier.contains(f"{floor(protobuf).major + 1}.0.0")


def test_constraints_are_names_and_versions_alone():
    assert [line for line in CONSTRAINTS if not CONSTRAINT.fullmatch(line)] == []
    assert len(PINS) == len(CONSTRAINTS)


@pytest.mark.parametrize("requirement", DECLARED, ids=str)
def test_every_declared_dependency_is_pinned_within_its_range(requirement):
    pinned = PINS.get(canonicalize_name(requirement.name))
    assert pinned is not None, f"add {requirement.name} to constraints.txt"
    assert requirement.specifier.contains(pinned, prereleases=True)


def test_this_python_is_one_that_the_package_supports():
    running = ".".join(map(str, sys.version_info[:3]))
    assert Requirement(f"python{PYPROJECT['project']['requires-python']}").specifier.contains(running)
