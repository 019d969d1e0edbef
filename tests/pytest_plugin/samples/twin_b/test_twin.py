import rerun as rr


def test_same():
    rr.log("twin", rr.TextLog("b"))


class TestOne:
    def test_same(self):
        rr.log("twin", rr.TextLog("b one"))


class TestTwo:
    def test_same(self):
        rr.log("twin", rr.TextLog("b two"))
