"""Adds recordings to the reports of two other plugins, pytest-html and allure, if these plugins are active.

Covers: a link in the report of pytest-html, and an attached file in the report of allure.
Does not cover: mpr's own page of a run (`report/html_page.py`).
"""

from __future__ import annotations

import os

import pytest

_NAME = "mpr recording"


def attach(item: pytest.Item, path: str) -> None:
    """Attach the recording of the test `item` to the report of allure, if allure is active.

    `path` is the path of the finished recording. Call this function during the teardown of the test, because allure
    then adds the file to this test.
    """
    if item.config.getoption("allure_report_dir", None) and item.config.pluginmanager.hasplugin("allure_listener"):
        import allure

        allure.attach.file(path, name=_NAME, extension="rrd")  # type: ignore[no-untyped-call]  # allure's


def add_link(item: pytest.Item, report: pytest.TestReport, path: str) -> None:
    """Add a link to the recording at `path` to the report of pytest-html, if pytest-html is active.

    `item` is the test, and `report` pytest's report of its teardown, from which pytest-html reads the link. The link is
    relative to the folder of pytest-html's page.
    """
    target = item.config.getoption("htmlpath", None)
    if target and item.config.pluginmanager.hasplugin("html"):
        import pytest_html

        folder = os.path.abspath(os.path.dirname(os.path.expandvars(target)))
        extras = [*getattr(report, "extras", ()), pytest_html.extras.url(os.path.relpath(path, folder), name=_NAME)]
        report.extras = extras  # type: ignore[attr-defined]  # as pytest-html wants it
