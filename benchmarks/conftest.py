"""The end of a run: what was measured is written down and drawn; every target is listed, and who is
ahead of us."""

from __future__ import annotations

import pytest

from benchmarks import findings, machine, record, report, targets


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.testscollected and not session.config.option.collectonly:
        record.RUN.machine = machine.facts()
        record.RUN.targets = targets.outcomes(full=record.FULL)
        record.write(record.RUN, record.LATEST)
        report.write(record.RUN)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    outcomes = record.RUN.targets
    if not outcomes:
        return
    terminalreporter.section("targets")
    for outcome in outcomes:
        found = "" if outcome.value is None else f"{outcome.value:,.2f} {outcome.unit}, "
        terminalreporter.line(f"{outcome.verdict:12} {outcome.what}: {found}{outcome.asked}")
    missed = sum(outcome.verdict == "MISSED" for outcome in outcomes)
    reached = sum(outcome.verdict == "reached" for outcome in outcomes)
    terminalreporter.line(
        f"{reached} reached, {missed} MISSED, {len(outcomes) - reached - missed} not measured"
    )
    terminalreporter.section("who keeps the same promise and is ahead of us")
    for each in findings.ahead(record.RUN):
        terminalreporter.line(str(each))
    terminalreporter.line(f"drawn into {report.REPORT}")
