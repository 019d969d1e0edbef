"""Adds recordings to the reports of two other plugins, pytest-html and allure, if these plugins are active."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_NAME = "mpr recording"


def attach(item: pytest.Item, path: Path) -> None:
    """Attach the finished recording `path` of the test `item` to the report of allure.

    Call this within the teardown of the test, so that allure attaches the file to this test.
    """
    if item.config.getoption("allure_report_dir", None) and item.config.pluginmanager.hasplugin("allure_listener"):
        import allure

        allure.attach.file(str(path), name=_NAME, extension="rrd")  # type: ignore[no-untyped-call]  # allure's


def add_link(item: pytest.Item, report: pytest.TestReport, path: Path) -> None:
    """Add a link to the recording `path` of the test `item` to the report of pytest-html.

    `report` is pytest's report of the test's teardown, which carries the link.
    """
    target = item.config.getoption("htmlpath", None)
    if target and item.config.pluginmanager.hasplugin("html"):
        import pytest_html

        folder = os.path.abspath(os.path.dirname(os.path.expandvars(target)))
        extras = [*getattr(report, "extras", ()), pytest_html.extras.url(os.path.relpath(path, folder), name=_NAME)]
        report.extras = extras  # type: ignore[attr-defined]  # as pytest-html wants it
