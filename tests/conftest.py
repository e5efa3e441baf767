"""Rules for the whole suite: where torch is required, no test may go without it."""

import importlib
import os
import re

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no failure: property tests are bounded by their number of examples alone.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Workers share the cores: without this, torch starts a thread for each core in every one of them.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

NEEDED = re.compile(r"\b(torch|transformers)\b")


def _is_for_want_of_torch(report: pytest.TestReport | pytest.CollectReport) -> bool:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return bool(NEEDED.search(reason))


class RequiredTorch:
    """Fail the session if a test or a module was skipped because torch is absent."""

    def __init__(self) -> None:
        """Start with nothing skipped."""
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test skipped for want of torch."""
        if report.skipped and _is_for_want_of_torch(report):
            self.skipped.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module skipped for want of torch."""
        if report.skipped and _is_for_want_of_torch(report):
            self.skipped.append(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn such skips into a failed run."""
        if self.skipped:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name what was skipped."""
        for nodeid in self.skipped:
            terminalreporter.line(f"FAILED {nodeid}: torch is required (SPIKETRAIN_REQUIRE_TORCH)")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start long tests first where workers share them, so that none is left with one in the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: -_length(item))


def _length(item: pytest.Item) -> float:
    """0 of a quick test, 1 of a slow one, its limit in seconds of one that has its own."""
    own_limit = item.get_closest_marker("timeout")
    if own_limit is not None and own_limit.args:
        return float(own_limit.args[0])
    return float(item.get_closest_marker("slow") is not None)


def pytest_configure(config: pytest.Config) -> None:
    """Watch skips if the environment says that torch is required; build before workers start."""
    if config.getoption("numprocesses", None):
        # An editable install builds what changed when it is imported: once, not in every worker.
        importlib.import_module("spiketrain")
    if os.environ.get("SPIKETRAIN_REQUIRE_TORCH"):
        config.pluginmanager.register(RequiredTorch(), "required-torch")
