"""The page tells what the code does."""

import pytest

from workers.engine.admit.hf_config import ARCHITECTURES
from workers.engine.formats.hf.coverage import PAGE, renewed, table
from workers.engine.formats.hf.library import library


def test_the_table_of_model_types_is_current() -> None:
    assert PAGE.read_text() == renewed(PAGE.read_text()), "run `make openapi` and review the difference"
    assert "| bert | BertModel, " in table()


@pytest.mark.parametrize("architecture", [name for names in ARCHITECTURES.values() for name in names])
def test_the_library_has_every_class(architecture: str) -> None:
    kind = getattr(library(), architecture)
    assert architecture in ARCHITECTURES[kind.config_class.model_type]
