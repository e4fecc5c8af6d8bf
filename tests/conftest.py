"""What all tests share: the option and the marker for the heavy ones."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--soak", action="store_true", help="run the heavy tests too, and the others at full length"
    )
    parser.addoption(
        "--fuzz", type=float, default=0, help="how many seconds each test of tests/fuzz goes on"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "soak: heavy; runs only with --soak (make soak)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--soak"):
        return
    skip = pytest.mark.skip(reason="heavy; make soak runs it")
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def soak(request: pytest.FixtureRequest) -> bool:
    """Whether a test that has two lengths should run the long one."""
    return bool(request.config.getoption("--soak"))
