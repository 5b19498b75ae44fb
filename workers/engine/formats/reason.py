"""What a library said went wrong, fit to be told to a user."""

import re

_PATH = re.compile(r"(?:[A-Za-z]:)?(?:[\\/][\w.+@-]+){2,}")


def reason(error: BaseException) -> str:
    """The first paragraph of a message on one line, short, without any path of the server."""
    paragraph = str(error).strip().partition("\n\n")[0] or type(error).__name__
    return _PATH.sub("…", " ".join(paragraph.split()))[:400]
