"""Attacks by what a file is called: the bytes are those of an ordinary one."""

from tests.acceptance.hostile import pt2
from tests.acceptance.hostile.vector import Corpus
from tests.workers.engine.hostile import packed

CORPUS = Corpus("name", "models", "")
for _name, _filename in (
    ("traversal", "../../../../tmp/rankfold-evil.pt2"),
    ("absolute", "/etc/cron.d/evil.pt2"),
    ("backslashes", "..\\..\\evil.pt2"),
    ("null", "evil\0.pt2"),
    ("line_feed", "evil\nX-Evil: 1.pt2"),
    ("markup", "<script>alert(1)</script>.pt2"),
    ("template", "{{ 7 * 7 }}${7*7}.pt2"),
    ("long", "x" * 1000 + ".pt2"),
):
    CORPUS.add(_name, lambda _: packed(pt2.good()), filename=_filename)
for _name, _filename in (("shell", "model.pt2; touch evil"), ("python", "model.py"), ("pickle", "model.pt")):
    CORPUS.add(_name, lambda _: packed(pt2.good()), "unsupported_format", filename=_filename)
CORPUS.add("nothing_but_dots", lambda _: packed(pt2.good()), "filename_missing", filename="...")
