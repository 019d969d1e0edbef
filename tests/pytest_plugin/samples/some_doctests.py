def logs():
    """
    >>> import rerun as rr
    >>> rr.log("doctest", rr.TextLog("works"))
    """


def breaks():
    """
    >>> 1 + 1
    3
    """
