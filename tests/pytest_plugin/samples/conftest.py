import pytest


class YamlFile(pytest.File):
    def collect(self):
        yield YamlItem.from_parent(self, name="works")
        yield YamlItem.from_parent(self, name="breaks")


class YamlItem(pytest.Item):
    """An item like those of plugins that read tests from files: it has no Python function."""

    def runtest(self):
        import rerun as rr

        rr.log("yaml", rr.TextLog(self.name))
        if self.name == "breaks":
            raise ValueError("this line of the file is wrong")

    def repr_failure(self, excinfo):
        return f"yaml says: {excinfo.value}"

    def reportinfo(self):
        return self.path, 0, f"yaml: {self.name}"


def pytest_collect_file(parent, file_path):
    if file_path.suffix == ".yaml":
        return YamlFile.from_parent(parent, path=file_path)
