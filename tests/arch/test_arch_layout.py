"""The tree has the shape that the import contracts and the tools rely on."""

import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
IMPORT_LINTER = PYPROJECT["tool"]["importlinter"]
CONTRACTS = {contract["name"]: contract for contract in IMPORT_LINTER["contracts"]}
STAIRCASE = {
    module.strip()
    for layer in CONTRACTS["One staircase: daemon, rpc, services, policy, core"]["layers"]
    for module in layer.split("|")
}
FLOORS = STAIRCASE - {"autotuned.__main__", "autotuned.daemon"}
WINGS = set(CONTRACTS["Wings do not see each other"]["modules"])
PARTS_OF_THE_DAEMON = set(CONTRACTS["Wings are seen by daemon alone"]["forbidden_modules"]) - WINGS


def modules_of(package: str) -> set[str]:
    """Direct modules and packages that have code: a folder of data with a docstring imports nothing."""
    found = set()
    for path in (ROOT / package).iterdir():
        if path.suffix == ".py" and path.name != "__init__.py":
            found.add(f"{package}.{path.stem}")
        elif (path / "__init__.py").is_file() and not is_data(path):
            found.add(f"{package}.{path.name}")
    return found


def is_data(package: Path) -> bool:
    return [path.name for path in package.rglob("*.py")] == ["__init__.py"] and any(
        path.is_file() and path.suffix not in {".py", ".pyc"} for path in package.iterdir()
    )


def test_every_part_of_the_daemon_has_a_place_in_the_contracts():
    unplaced = modules_of("autotuned") - STAIRCASE - WINGS - PARTS_OF_THE_DAEMON
    assert not unplaced, (
        "name these in pyproject.toml: a floor in the staircase, a wing in the three contracts on wings, "
        f"or a part of the daemon beside autotuned.config: {sorted(unplaced)}"
    )


def test_every_wing_is_in_every_contract_on_wings():
    assert set(CONTRACTS["Wings see core alone"]["source_modules"]) == WINGS
    assert set(CONTRACTS["Wings are seen by daemon alone"]["forbidden_modules"]) >= WINGS


def test_every_floor_is_kept_from_the_wings_and_the_other_way_round():
    may_be_seen = {"autotuned.core", "autotuned.log"}
    assert set(CONTRACTS["Wings are seen by daemon alone"]["source_modules"]) == FLOORS
    assert set(CONTRACTS["Wings see core alone"]["forbidden_modules"]) >= FLOORS - may_be_seen


def test_everything_inside_knows_nothing_of_the_wire():
    inside = WINGS | FLOORS - {"autotuned.rpc"}
    contract = CONTRACTS["Only rpc and the composition root see the wire"]
    assert set(contract["source_modules"]) == inside
    assert set(contract["forbidden_modules"]) == {"grpc", "google", "autotune"}


def test_every_package_that_is_shipped_is_under_contract():
    shipped = {
        Path(path).name for path in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    }
    assert set(IMPORT_LINTER["root_packages"]) == shipped
    clients = set(CONTRACTS["Clients see the wire, never the daemon"]["source_modules"])
    assert clients == shipped - {"autotuned"}


@pytest.mark.parametrize("folder", ["packaging", "proto", "tests"])
def test_a_folder_that_would_shadow_a_package_is_none(folder):
    assert list((ROOT / folder).rglob("__init__.py")) == []


def test_test_files_have_unique_names():
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
