"""How long properties are tried: the same examples in CI, new ones and more with --soak."""

import os

import pytest
from hypothesis import HealthCheck, Phase, settings


def pytest_configure(config: pytest.Config) -> None:
    soak = bool(config.getoption("--soak"))
    settings.register_profile(
        "engine",
        max_examples=3000 if soak else 60,
        derandomize=not soak,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        # Of a mutant it is enough to know that it fails; making the example small takes minutes.
        phases=[Phase.generate] if "PENSTOCK_UNSHRUNK" in os.environ else list(Phase),
    )
