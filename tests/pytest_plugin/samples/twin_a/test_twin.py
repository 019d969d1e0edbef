import rerun as rr


def test_same():
    rr.log("twin", rr.TextLog("a"))


class TestOne:
    def test_same(self):
        rr.log("twin", rr.TextLog("a one"))


class TestTwo:
    def test_same(self):
        rr.log("twin", rr.TextLog("a two"))
